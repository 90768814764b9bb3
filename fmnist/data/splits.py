"""Which images a training learns from, is validated on and is tested on."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from fmnist.data.datasets.base import Split

Share = Annotated[float, Gt(0), Lt(1)]


def complete(
    given: Mapping[str, Split], val_size: int | float, test_size: int | float | None, seed: int
) -> dict[str, Split]:
    """Return the training, validation and test images of a dataset.

    Args:
        given: the splits that the dataset has itself, among them "train".
        val_size: number or fraction of training images to validate on, where it has no "val"; 0 trains on all.
        test_size: number or fraction of images to test on, where it has no "test".
        seed: of the choice.

    Raises:
        ValueError: if there are too few images.
    """
    train, none = given["train"], (given["train"][0][:0], given["train"][1][:0])
    test = given.get("test")
    if test is None:
        train, test = take(train, "test_size", test_size or 0, seed)
    val = given.get("val", none)
    if not val_size:
        images, labels = (torch.cat(parts) if len(val[1]) else parts[0] for parts in zip(train, val, strict=True))
        train, val = (images, labels), none
    elif "val" not in given:
        train, val = take(train, "val_size", val_size, seed)
    return {"train": train, "val": val, "test": test}


def take(split: Split, key: str, size: int | float, seed: int) -> tuple[Split, Split]:
    """Return the images that stay in a split, and those that are taken out of it, stratified by class.

    Args:
        split: images and labels.
        key: of the size, in the data node of the config.
        size: number of images to take, or their fraction: then each class has to give one, and keep one.
        seed: of the choice.

    Raises:
        ValueError: if there are too few images.
    """
    images, labels = split
    count = size if isinstance(size, int) else max(1, round(size * len(labels)))
    if not count:
        raise ValueError(f"data.{key}: is required, as the dataset has no {key.partition('_')[0]} images of its own")
    if count >= len(labels):
        raise ValueError(f"data.{key}={size}: must be less than {len(labels)}, the training images")
    kept, taken = stratified_split(labels, count, seed)
    if isinstance(size, float):
        counts, remaining = labels.bincount(), labels[kept].bincount(minlength=int(labels.max()) + 1)
        if (short := ((remaining == 0) | (remaining == counts)) & (counts > 0)).any():
            label = int(short.nonzero()[0])
            raise ValueError(
                f"data.{key}={size}: class {label} has {int(counts[label])} images, too few to be split: more images "
                "of it, or a larger fraction"
            )
    return (images[kept], labels[kept]), (images[taken], labels[taken])


def stratified_split(labels: Tensor, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the sorted indices of the training and the validation images, with the same fraction of each class.

    If `val_size` doesn't divide evenly, the classes with the largest remainders give one image more.
    """
    classes, counts = labels.unique(return_counts=True)
    exact = counts * val_size / len(labels)
    sizes = exact.floor().long()
    sizes[(exact - sizes).argsort(descending=True, stable=True)[: val_size - int(sizes.sum())]] += 1
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, size in zip(classes, sizes.tolist(), strict=True):
        members = (labels == label).nonzero().flatten()
        chosen[members[torch.randperm(len(members), generator=generator)[:size]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()
