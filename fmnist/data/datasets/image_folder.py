"""Image files of the user's own, in a folder for each class."""

import functools
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge, Le, MaxLen, MinLen
from filelock import FileLock
from rich.progress import track
from torch import Tensor

from fmnist.data.datasets.base import Contents, ImageDataset, Levels, Split, check_labels, digest, statistics
from fmnist.data.idx import DataUnavailableError
from fmnist.data.image_files import SUFFIXES, pillow_warnings_ignored, read_picture, resized
from fmnist.data.info import DatasetInfo, ImageShape
from fmnist.plotting.terminal import progress_console, shows_progress
from fmnist.runs.files import atomic_path

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
NAMED = 5  # files or folders that a message names
Side = Annotated[int, Ge(4), Le(2048)]


class ImageFile(NamedTuple):
    """An image file of a split."""

    split: str
    label: int
    path: str
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds."""


class ImageFolder(ImageDataset):
    """Image files in `root/<class>/`, or in `root/train/<class>/`, `root/test/<class>/` and `root/val/<class>/`.

    Each file is decoded once, into a cache beside `root` that is used as long as names, sizes and times of the files
    stay the same. The images of a split are sorted by the names of their files.

    Args:
        root: the folder. Files in subfolders of a class's folder belong to the class, too.
        image_size: height and width of the images in pixels, or one number for both.
        channels: 3 for colour, 1 for gray.
        resize: what is done with pictures of another aspect ratio: "crop" cuts off what is too long, "pad" adds black,
            "stretch" changes the ratio.
        skip_unreadable: leave out files that can't be read, instead of ending.
        mean, std: what the images are normalised with, scaled to 0..1, by channel; None takes those of the training
            images.
    """

    def __init__(
        self,
        root: Annotated[str, MinLen(1)],
        image_size: Side | Annotated[list[Side], MinLen(2), MaxLen(2)] = 64,
        channels: Literal[1, 3] = 3,
        resize: Literal["crop", "pad", "stretch"] = "crop",
        skip_unreadable: bool = False,
        mean: Levels | None = None,
        std: Levels | None = None,
    ) -> None:
        super().__init__(root)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_shape: ImageShape = (channels, height, width)
        self.resize: Literal["crop", "pad", "stretch"] = resize
        self.skip_unreadable = skip_unreadable
        self.mean, self.std = mean, std

    @functools.cached_property
    def files(self) -> tuple[list[str], list[ImageFile]]:
        """The names of the classes, and all files."""
        assert self.root is not None
        return find_files(self.root)

    @functools.cached_property
    def info(self) -> DatasetInfo:
        assert self.root is not None
        mean, std = statistics(self.contents.splits["train"][0], self.mean, self.std)
        name = self.root.absolute().name
        return DatasetInfo(name, tuple(self.files[0]), self.image_shape, mean, std, self.resize)

    def read(self) -> Contents:
        assert self.root is not None
        classes, files = self.files
        self._check_memory(len(files))
        shape = "x".join(map(str, self.image_shape))
        root = self.root.absolute()
        cache = root.with_name(f"{root.name}_{shape}_{self.resize}.cache")
        lock = cache.with_name(f".{cache.name}.lock")
        key = {"classes": classes, "files": [list(file) for file in files], "skip_unreadable": self.skip_unreadable}
        try:
            with FileLock(lock):
                if (splits := load_cache(cache, key)) is None:
                    splits = self._decode(files)
                    with atomic_path(cache) as temporary:
                        torch.save({"key": key, "splits": splits}, temporary)
        except OSError as error:
            log.warning("%s can't be written (%s): each start decodes the images again", cache, error.strerror)
            splits = load_cache(cache, key) or self._decode(files)
        counts = ", ".join(f"{len(labels):,} {split}" for split, (_, labels) in splits.items())
        log.info("%s: %d classes; images of %s: %s", self.root, len(classes), shape, counts)
        check_labels(f"data.root={self.root}", classes, splits)
        return Contents(splits, {split: digest(pair) for split, pair in splits.items()})

    def _check_memory(self, count: int) -> None:
        """Refuse images that need more than the memory of the machine, of which splitting takes twice their size."""
        if not hasattr(os, "sysconf"):  # Windows
            return
        needed = 2 * count * torch.Size(self.image_shape).numel()
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            shape = "x".join(map(str, self.image_shape))
            raise DataUnavailableError(
                f"data.root={self.root}: {count:,} images of {shape} need {needed / 2**30:,.1f} GiB while they are "
                f"split, and this machine has {there / 2**30:,.1f}: give a smaller data.image_size"
            )

    def _decode(self, files: Sequence[ImageFile]) -> dict[str, Split]:
        """Return the images of all files that can be read.

        Raises:
            DataUnavailableError: if some can't be read and aren't to be skipped.
        """
        assert self.root is not None
        images = torch.empty(len(files), *self.image_shape, dtype=torch.uint8)

        def decode(number: int) -> str | None:
            """Read one file; return what is wrong with it."""
            try:
                picture = read_picture(self.root / files[number].path, max(self.image_shape))  # type: ignore[operator]
            except ValueError as error:
                return f"{files[number].path} ({error})"
            images[number] = torch.from_numpy(resized(picture, self.image_shape, self.resize))
            return None

        with pillow_warnings_ignored(), ThreadPoolExecutor(os.cpu_count()) as pool:
            problems = list(progress(pool.map(decode, range(len(files))), len(files)))
        unreadable = [problem for problem in problems if problem is not None]
        if unreadable:
            named = "; ".join([*unreadable[:NAMED], *(["..."] if len(unreadable) > NAMED else [])])
            found = f"data.root={self.root}: {len(unreadable):,} of {len(files):,} files can't be read: {named}"
            if not self.skip_unreadable:
                raise DataUnavailableError(f"{found}; data.skip_unreadable=true leaves them out")
            log.warning("%s; they are left out", found)
        return split_images(files, images, [number for number, problem in enumerate(problems) if problem is None])


def find_files(root: Path) -> tuple[list[str], list[ImageFile]]:
    """Return the names of the classes, sorted, and the image files of all splits, sorted by their names.

    Raises:
        DataUnavailableError: if the folders aren't those of classes, or a class has no images.
    """
    where = f"data.root={root}"
    folders = _folders(root, where)
    if "train" in folders:
        if others := sorted(folders.keys() - set(SPLITS)):
            raise DataUnavailableError(f"{where} has train/, so {others[0]}/ must be one of {', '.join(SPLITS)}")
        splits = {split: _folders(folders[split], f"{where}: {split}/") for split in SPLITS if split in folders}
    else:
        splits = {"train": folders}
    classes = sorted(splits["train"])
    if len(classes) < 2:
        raise DataUnavailableError(
            f"{where}: must have at least two folders of images, one for each class, but has {len(classes)}"
        )
    lower: dict[str, str] = {}
    for name in classes:
        if (other := lower.setdefault(name.casefold(), name)) != name:
            raise DataUnavailableError(f"{where}: the classes {other} and {name} differ in case only: rename one")
    files = []
    for split, found in splits.items():
        if different := sorted(found.keys() ^ set(classes)):
            raise DataUnavailableError(
                f"{where}: {different[0]} must be a folder of train/ and of {split}/, or of none"
            )
        for label, name in enumerate(classes):
            members = list(_files(root, found[name], split, label))
            if not members:
                place = found[name].relative_to(root)
                raise DataUnavailableError(f"{where}: {place} has no images: put some there, or remove the folder")
            files += members
    return classes, sorted(files, key=lambda file: (Path(file.path).name, file.path))


def split_images(files: Sequence[ImageFile], images: Tensor, kept: Sequence[int]) -> dict[str, Split]:
    """Return the images (N, C, H, W) and labels by split, of the files that are kept."""
    members: dict[str, list[int]] = {}
    for number in kept:
        members.setdefault(files[number].split, []).append(number)
    if len(members) == 1 and len(kept) == len(files):  # no copy
        return {files[0].split: (images, torch.tensor([file.label for file in files]))}
    return {
        split: (images[numbers], torch.tensor([files[number].label for number in numbers]))
        for split in SPLITS
        if (numbers := members.get(split))
    }


def load_cache(file: Path, key: Mapping[str, Any]) -> dict[str, Split] | None:
    """Return the splits in a cache; None if there is none for these files, or it can't be read."""
    if not file.is_file():
        return None
    try:
        content = torch.load(file, weights_only=True, mmap=True)
        return dict(content["splits"]) if content["key"] == key else None
    except Exception:  # torch raises almost anything for a damaged file; a new one replaces it
        return None


def progress(items: Iterator[str | None], count: int) -> Iterable[str | None]:
    """Yield the items, with a progress bar on a terminal."""
    disable = not shows_progress(sys.stderr)
    return track(items, "reading images", count, console=progress_console(), transient=True, disable=disable)


def _folders(folder: Path, where: str) -> dict[str, Path]:
    """Return the visible folders in a folder, by name."""
    try:
        return {path.name: path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))}
    except OSError as error:
        raise DataUnavailableError(f"{where} can't be read: {error.strerror}") from error


def _files(root: Path, folder: Path, split: str, label: int) -> Iterator[ImageFile]:
    """Yield the image files of a class."""
    for place, _, names in os.walk(folder):
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                path = Path(place, name)
                status = path.stat()
                yield ImageFile(split, label, str(path.relative_to(root)), status.st_size, status.st_mtime_ns)
