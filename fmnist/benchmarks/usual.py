"""The usual way: image by image through torchvision's transforms."""

from pathlib import Path

from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from fmnist.classes import IMAGE_SHAPE
from fmnist.data.augment import Augmentation


def usual_loader(
    root: Path, batch_size: int, augment: Augmentation | None = None, *, train: bool = True
) -> DataLoader[object]:
    """Batches of float32 images (N, C, H, W) in 0..1 and labels (N), as the tutorials have them.

    Args:
        root: the folder of the data.
        batch_size: images in a batch.
        augment: of which the shift and the flip are done, by RandomCrop and RandomHorizontalFlip.
        train: the shuffled training images, or the test images in their order.
    """
    changes: list[object] = []
    if augment is not None and augment.shift:
        changes.append(transforms.RandomCrop(IMAGE_SHAPE[1:], padding=augment.shift))
    if augment is not None and augment.flip:
        changes.append(transforms.RandomHorizontalFlip(augment.flip))
    transform = transforms.Compose([*changes, transforms.ToTensor()])
    return DataLoader(FashionMNIST(str(root), train=train, transform=transform), batch_size, shuffle=train)
