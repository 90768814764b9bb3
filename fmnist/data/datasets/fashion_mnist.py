"""Fashion-MNIST: photos of clothes."""

from typing import Annotated

from annotated_types import MinLen

from fmnist.data.datasets.base import Contents, ImageDataset, idx_split
from fmnist.data.info import FASHION_MNIST
from fmnist.data.sources import load_files


class FashionMNIST(ImageDataset):
    """The published images, verified by their checksums; missing files are put into `root`."""

    info = FASHION_MNIST

    def __init__(self, root: Annotated[str, MinLen(1)]) -> None:
        super().__init__(root)

    def read(self) -> Contents:
        assert self.root is not None
        files = load_files(self.root)
        splits = {
            split: idx_split(files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"])
            for split, part in (("train", "train"), ("test", "t10k"))
        }
        return Contents(splits, {name: file.sha256 for name, file in files.items()})
