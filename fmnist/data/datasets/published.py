"""Published datasets that torchvision downloads: the relatives of MNIST, and CIFAR-10."""

import contextlib
import functools
import hashlib
import logging
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import MinLen

from fmnist.data import idx
from fmnist.data.datasets.base import Contents, ImageDataset, check_labels, digest, idx_split, statistics
from fmnist.data.downloads import torchvision_download
from fmnist.data.idx import DamagedFileError, DataFile, DataUnavailableError
from fmnist.data.info import DatasetInfo
from fmnist.data.sources import UserFolder, locked
from fmnist.runs.files import atomic_path

log = logging.getLogger(__name__)

DIGITS = tuple("0123456789")
SPLITS = ("train", "test")


class TorchvisionIdx(ImageDataset):
    """IDX files in `root/<torchvision's name>/raw/` or `root`, plain or .gz; missing ones are downloaded.

    A .gz file with the checksum that torchvision knows is verified; others are used if they are complete.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """The name in texts."""
    classes: tuple[str, ...] = DIGITS
    published: ClassVar[tuple[tuple[float], tuple[float]] | None] = None
    """Mean and standard deviation of the training images; None where nobody has published them."""
    margin: ClassVar[int] = 0

    def __init__(self, root: Annotated[str, MinLen(1)]) -> None:
        super().__init__(root)

    @property
    @abstractmethod
    def files(self) -> Mapping[str, tuple[str, str]]:
        """The files with the images and the labels of each split."""

    @property
    def checksums(self) -> Mapping[str, str]:
        """MD5 of .gz files by name, as the publisher gives them."""
        return {}

    def downloads(self) -> list[dict[str, object]]:
        """Return the arguments of torchvision's class, for each of the downloads that it takes."""
        return [{}]

    @functools.cached_property
    def info(self) -> DatasetInfo:
        mean, std = self.published or statistics(self.contents.splits["train"][0])
        return DatasetInfo(self.title, self.classes, (1, 28, 28), mean, std, margin=self.margin)

    def read(self) -> Contents:
        assert self.root is not None
        folder = UserFolder("data.root", self.root.absolute(), f"{self.name}/raw", self.title)
        names = [name for pair in self.files.values() for name in pair]
        files, missing = self._find(folder, names)
        if missing:
            with locked(folder, missing):
                files, missing = self._find(folder, names)  # another process may have filled it
                if missing:
                    self._download(folder, names)
                    files, missing = self._find(folder, names)
        verified = sum(file.path.name in self.checksums for file in files.values())
        log.info("%s: %d files in %s, %d of them verified", self.title, len(files), folder, verified)
        splits = {split: self._split(files[images], files[labels]) for split, (images, labels) in self.files.items()}
        check_labels(str(folder), self.classes, splits)
        if (shape := tuple(splits["train"][0].shape[1:])) != (1, 28, 28):
            raise DamagedFileError(f"{folder}: {self.title} has images of 1x28x28, not {'x'.join(map(str, shape))}")
        return Contents(splits, {name: file.sha256 for name, file in files.items()})

    def _split(self, images: DataFile, labels: DataFile) -> tuple[torch.Tensor, torch.Tensor]:
        return idx_split(images, labels)

    def _find(self, folder: UserFolder, names: list[str]) -> tuple[dict[str, DataFile], list[str]]:
        """Return the files that are there, verified ones first, and the names of the missing ones.

        Raises:
            DamagedFileError: if a file is there, but damaged. It stays as it is.
        """
        files = {}
        for name in names:
            paths = idx.find(name, folder.raw, folder.root)
            for path in sorted(paths, key=lambda path: path.name not in self.checksums):
                if path.name in self.checksums and _md5(path) != self.checksums[path.name]:
                    raise DamagedFileError(f"{path} doesn't have the publisher's MD5 checksum: move it away")
                files[name] = idx.read(path)
                break
        return files, [name for name in names if name not in files]

    def _download(self, folder: UserFolder, names: list[str]) -> None:
        """Download the files and put them into the user's folder, as .gz where there is a checksum of that."""
        for options in self.downloads():
            with _download(folder, names, self.name, **options) as place:
                for name in names:
                    packed = place / f"{name}.gz"
                    path = packed if packed.name in self.checksums and packed.is_file() else place / name
                    if path.is_file():
                        _copy(path, folder.raw / path.name)


@contextlib.contextmanager
def _download(folder: UserFolder, names: Sequence[str], dataset: str, **options: object) -> Iterator[Path]:
    """Yield a temporary folder with downloaded files.

    Raises:
        DataUnavailableError: with all that may help, if they can't be downloaded.
    """
    try:
        with torchvision_download(dataset, **options) as place:
            yield place
    except DataUnavailableError as error:
        raise DataUnavailableError(
            f"{folder.title}: {folder} has no {', no '.join(names)}, which can't be downloaded ({error}): connect to "
            f"the internet, or put the files into {folder.raw}"
        ) from error


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _complete(folder: UserFolder, names: Sequence[str]) -> bool:
    return all((folder.raw / name).is_file() for name in names)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


class MNIST(TorchvisionIdx):
    """Handwritten digits.

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998
    """

    name = "MNIST"
    title = "MNIST"
    published: ClassVar[tuple[tuple[float], tuple[float]] | None] = ((0.1307,), (0.3081,))
    margin = 4

    @property
    def files(self) -> Mapping[str, tuple[str, str]]:
        parts = dict(zip(SPLITS, ("train", "t10k"), strict=True))
        return {split: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for split, part in parts.items()}

    @property
    def checksums(self) -> Mapping[str, str]:
        from torchvision import datasets

        return {name.rpartition("/")[2]: md5 for name, md5 in getattr(datasets, self.name).resources}


class KMNIST(MNIST):
    """Handwritten Japanese characters in cursive style.

    Source: Clanuwat et al., Deep Learning for Classical Japanese Literature, https://arxiv.org/abs/1812.01718
    """

    name = "KMNIST"
    title = "Kuzushiji-MNIST"
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    published = None
    margin = 0


class QMNIST(TorchvisionIdx):
    """MNIST with the 60,000 test images from which its 10,000 were taken.

    Source: Yadav and Bottou, Cold Case: The Lost MNIST Digits, https://arxiv.org/abs/1905.10498
    """

    name = "QMNIST"
    title = "QMNIST"
    margin = 4

    @property
    def files(self) -> Mapping[str, tuple[str, str]]:
        return {split: (f"qmnist-{split}-images-idx3-ubyte", f"qmnist-{split}-labels-idx2-int") for split in SPLITS}

    @property
    def checksums(self) -> Mapping[str, str]:
        from torchvision.datasets import QMNIST as TORCHVISION

        return {url.rpartition("/")[2]: md5 for split in SPLITS for url, md5 in TORCHVISION.resources[split]}

    def downloads(self) -> list[dict[str, object]]:
        return [{"what": split} for split in SPLITS]


class EMNIST(TorchvisionIdx):
    """Handwritten digits and letters, turned upright: the files hold them transposed.

    Args:
        split: which of the six ways to group and balance them.

    Source: Cohen et al., EMNIST, https://arxiv.org/abs/1702.05373
    """

    name = "EMNIST"
    margin = 2

    def __init__(
        self,
        root: Annotated[str, MinLen(1)],
        split: Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"] = "balanced",
    ) -> None:
        super().__init__(root)
        self.split = split
        self.title = f"EMNIST {split}"  # type: ignore[misc]

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        from torchvision.datasets import EMNIST as TORCHVISION

        return tuple(name for name in TORCHVISION.classes_split_dict[self.split] if name != "N/A")

    @property
    def files(self) -> Mapping[str, tuple[str, str]]:
        return {
            split: (f"emnist-{self.split}-{split}-images-idx3-ubyte", f"emnist-{self.split}-{split}-labels-idx1-ubyte")
            for split in SPLITS
        }

    def downloads(self) -> list[dict[str, object]]:
        return [{"split": self.split}]

    def _split(self, images: DataFile, labels: DataFile) -> tuple[torch.Tensor, torch.Tensor]:
        transposed, numbers = idx_split(images, labels)
        first = 1 if self.split == "letters" else 0  # its labels begin with 1
        if numbers.min() < first:
            raise DamagedFileError(f"{labels.path} must hold labels from {first} on")
        return transposed.transpose(2, 3).contiguous(), numbers - first


class CIFAR10(ImageDataset):
    """Photos of animals and vehicles, in colour.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html
    """

    info = DatasetInfo(
        name="CIFAR-10",
        classes=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        image_shape=(3, 32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        fit="crop",
    )

    def __init__(self, root: Annotated[str, MinLen(1)]) -> None:
        super().__init__(root)

    def read(self) -> Contents:
        from torchvision.datasets import CIFAR10 as TORCHVISION

        assert self.root is not None
        folder = UserFolder("data.root", self.root.absolute(), TORCHVISION.base_folder, self.info.name)
        names = [*(name for name, _ in (*TORCHVISION.train_list, *TORCHVISION.test_list)), TORCHVISION.meta["filename"]]
        if not _complete(folder, names):
            with locked(folder, names):
                if not _complete(folder, names):  # another process may have filled it
                    with _download(folder, names, "CIFAR10") as place:
                        for path in (place / TORCHVISION.base_folder).iterdir():
                            _copy(path, folder.raw / path.name)
        splits = {}
        for split in SPLITS:
            try:  # it checks the MD5 of each file before it unpickles any
                images = TORCHVISION(str(folder.root), train=split == "train")
            except RuntimeError as error:
                raise DamagedFileError(
                    f"{folder.raw}: a file doesn't have the publisher's MD5 checksum: move the folder away"
                ) from error
            pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
            splits[split] = pixels, torch.tensor(images.targets)
        log.info("%s: verified files in %s", self.info.name, folder)
        return Contents(splits, {split: digest(pair) for split, pair in splits.items()})
