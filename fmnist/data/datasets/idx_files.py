"""Four IDX files of the user's own."""

import functools
import logging
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from fmnist.data import idx
from fmnist.data.datasets.base import Contents, ImageDataset, Levels, check_labels, idx_split, statistics
from fmnist.data.idx import DataUnavailableError
from fmnist.data.info import DatasetInfo

log = logging.getLogger(__name__)

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""The files of each split. They may have other dimensions and types of labels than their names say."""


class IdxFiles(ImageDataset):
    """The files of the format that MNIST introduced, plain or .gz, in a folder or in its FashionMNIST/raw/.

    Args:
        root: the folder.
        classes: names of the classes in the order of the labels; None numbers them.
        mean, std: what the images are normalised with, scaled to 0..1, by channel; None takes those of the training
            images.
    """

    def __init__(
        self,
        root: Annotated[str, MinLen(1)],
        classes: Annotated[list[str], MinLen(2)] | None = None,
        mean: Levels | None = None,
        std: Levels | None = None,
    ) -> None:
        super().__init__(root)
        self.classes = classes
        self.mean, self.std = mean, std

    @functools.cached_property
    def info(self) -> DatasetInfo:
        assert self.root is not None
        splits = self.contents.splits
        images, _ = splits["train"]
        most = 1 + max(int(labels.max()) for _, labels in splits.values())
        classes = check_labels(f"data.root={self.root}", self.classes or list(map(str, range(most))), splits)
        mean, std = statistics(images, self.mean, self.std)
        channels, height, width = images.shape[1:]
        return DatasetInfo(self.root.absolute().name, classes, (channels, height, width), mean, std)

    def read(self) -> Contents:
        assert self.root is not None
        files = find_files(self.root)
        splits = {split: idx_split(files[images], files[labels]) for split, (images, labels) in NAMES.items()}
        log.info("%s: the files in %s are used unverified", self.root.absolute().name, self.root)
        return Contents(splits, {name: file.sha256 for name, file in files.items()})


def find_files(root: Path) -> dict[str, idx.DataFile]:
    """Return the four files of a folder by name.

    Raises:
        DataUnavailableError: if one is missing or can't be read.
    """
    raw = root / "FashionMNIST" / "raw"
    found = {name: idx.find(name, raw, root) for pair in NAMES.values() for name in pair}
    if missing := [name for name, paths in found.items() if not paths]:
        raise DataUnavailableError(
            f"data.root={root} has no {', no '.join(missing)} (plain or .gz, there or in {raw}): put them there, or "
            "give another folder by data.root=<folder>"
        )
    return {name: idx.read(paths[0]) for name, paths in found.items()}
