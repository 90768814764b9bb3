"""Which images a training learns from, is validated on and is tested on."""

import csv
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from fmnist.data.datasets.base import Split

Share = Annotated[float, Gt(0), Lt(1)]
MAX_BYTES = 2**26  # of a list of images


def complete(
    given: Mapping[str, Split],
    val_size: int | float,
    test_size: int | float | None,
    seed: int,
    excluded: Tensor | None = None,
) -> dict[str, Split]:
    """Return the training, validation and test images of a dataset.

    Args:
        given: the splits that the dataset has itself, among them "train".
        val_size: number or fraction of training images to validate on, where it has no "val"; 0 trains on all.
        test_size: number or fraction of images to test on, where it has no "test".
        seed: of the choice.
        excluded: indices among the dataset's own training images, which are not trained on. The validation and test
            images are the same with it and without.

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
    if excluded is not None:
        kept = ~torch.isin(positions(given, val_size, test_size, seed)["train"], excluded)
        train = leave_out(train, kept)
    return {"train": train, "val": val, "test": test}


def positions(
    given: Mapping[str, Split], val_size: int | float, test_size: int | float | None, seed: int
) -> dict[str, Tensor]:
    """Return where the images of each split come from, for arguments as for `complete`.

    The dataset's own training images are numbered from 0 on, then its validation images, then its test images.
    """
    numbered, first = {}, 0
    for name in ("train", "val", "test"):
        if name in given:
            labels = given[name][1]
            numbered[name] = torch.arange(first, first + len(labels)), labels
            first += len(labels)
    return {name: numbers for name, (numbers, _) in complete(numbered, val_size, test_size, seed).items()}


def leave_out(split: Split, kept: Tensor) -> Split:
    """Return the images of a split that are kept (N), a mask.

    Raises:
        ValueError: if a class would be left without images.
    """
    images, labels = split
    counts, remaining = labels.bincount(), labels[kept].bincount(minlength=int(labels.max()) + 1)
    if (emptied := (counts > 0) & (remaining == 0)).any():
        label = int(emptied.nonzero()[0])
        raise ValueError(f"data.exclude: lists all {int(counts[label])} training images of class {label}")
    return images[kept], labels[kept]


def read_excluded(file: Path, count: int) -> tuple[Tensor, str]:
    """Return the indices of the training images that a CSV file lists, and the SHA-256 of the file.

    Args:
        file: with the columns split and index; others, and rows of other splits than train, are ignored.
        count: number of the dataset's own training images.

    Raises:
        ValueError: if there is no such file, a column is missing, or an index is none of a training image.
    """
    key = f"data.exclude={file}"
    if not file.is_file():
        raise ValueError(f"{key}: there is no such file")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{key}: is larger than {MAX_BYTES:,} bytes")
    content = file.read_bytes()
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        if missing := [name for name in ("split", "index") if name not in (rows.fieldnames or ())]:
            raise ValueError(f"{key}: the column {missing[0]} is missing")
        listed = [(rows.line_num, str(row["split"]), str(row["index"])) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{key}: is no CSV file: {error}") from error
    indices = []
    for line, split, index in listed:
        if split not in ("train", "val", "test"):
            raise ValueError(f"{key}: line {line}: split {split[:20]!r}: must be train, val or test")
        if split == "train":
            if not (index.isascii() and index.isdigit() and len(index) < 20 and int(index) < count):
                raise ValueError(f"{key}: line {line}: index {index[:20]!r}: must be an integer from 0 to {count - 1}")
            indices.append(int(index))
    return torch.tensor(indices, dtype=torch.long), hashlib.sha256(content).hexdigest()


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
