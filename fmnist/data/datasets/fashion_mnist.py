"""Fashion-MNIST: photos of clothes."""

from typing import Annotated, Any

from annotated_types import MinLen

from fmnist.data.datasets.base import Contents, ImageDataset, idx_split
from fmnist.data.datasets.idx_files import IdxFiles
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


def node_of_older_version(node: dict[str, Any]) -> dict[str, Any]:
    """Return the present form of a config's node `data` in which the data module itself was the target."""
    others = {key: value for key, value in node.items() if key not in ("_target_", "verify")}
    if node.get("verify", True):
        return {"_target_": f"{__name__}.{FashionMNIST.__name__}", **others}
    facts = {name: list(getattr(FASHION_MNIST, name)) for name in ("classes", "mean", "std")}
    return {"_target_": f"{IdxFiles.__module__}.{IdxFiles.__name__}", **facts, **others}
