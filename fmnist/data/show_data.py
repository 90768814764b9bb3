"""Show the dataset as pictures in files."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le
from hydra.types import RunMode
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor

from fmnist.config import logs
from fmnist.config.build import build_datamodule
from fmnist.config.keys import MAX_SEED
from fmnist.config.settings import read_settings
from fmnist.data.augment import Augmentation
from fmnist.data.info import DatasetInfo
from fmnist.data.loader import BatchLoader
from fmnist.plotting.charts import class_counts_chart
from fmnist.plotting.style import save_png
from fmnist.plotting.terminal import wrapped
from fmnist.plotting.tiles import pixel_values, tiles
from fmnist.runs.run import Run, claim_run, new_run
from fmnist.training.metric_names import MANY_CLASSES

log = logging.getLogger(__name__)

MOST_PIXELS = 32  # in a row or column of those whose values are written out
AUGMENTED, DRAWS = 8, 3  # images of the batch that are augmented, and how often each


@dataclass
class Settings:
    """The keys of conf/show_data.yaml, and what they may be."""

    seed: Annotated[int, Ge(0), Le(MAX_SEED)]
    images: Annotated[int, Ge(1), Le(256)]
    index: Annotated[int, Ge(0)]
    outputs: str


def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Print the number of images and draw some of them.

    Raises:
        ValueError: if the config asks for something that isn't there. Then there is no new folder.
    """
    logs.to_terminal()
    given = read_settings(Settings, cfg)
    datamodule = build_datamodule(cfg)
    datamodule.prepare_data()
    datamodule.setup()
    splits, dataset = datamodule.splits, datamodule.dataset
    training_images = len(splits["train"][0])
    if given.index >= training_images:
        raise ValueError(f"index={given.index}: must be less than {training_images}, the number of training images")
    for split, (images, _) in splits.items():
        log.info("%-5s %6s images", split, f"{len(images):,}")
    log.info("each %s (channels, height, width), 0 to 255", " x ".join(map(str, dataset.image_shape)))
    more = "" if len(dataset.classes) <= MANY_CLASSES else ", ..."
    classes = f"{len(dataset.classes)} classes: {', '.join(dataset.classes[:MANY_CLASSES])}{more}"
    log.info("%s", wrapped(classes))
    in_sweep = hydra.mode == RunMode.MULTIRUN
    run = claim_run(Path(hydra.runtime.output_dir)) if in_sweep else new_run(Path(given.outputs), "show_data")
    log.info("pictures in %s:", run.folder)
    try:
        write(run, pictures(splits, dataset, datamodule.augment, given.seed, given.images, given.index))
    except BaseException:
        run.discard()
        raise


def write(run: Run, drawn: Iterable[tuple[str, str, Figure]]) -> None:
    """Write each picture (name, description, figure) as a PNG file."""
    for name, description, figure in drawn:
        file = run.folder / f"{name}.png"
        save_png(figure, file)
        log.info("  %s: %s", file.name, description)


def pictures(
    splits: Mapping[str, tuple[Tensor, Tensor]],
    dataset: DatasetInfo,
    augment: Augmentation,
    seed: int,
    count: int,
    index: int,
) -> Iterator[tuple[str, str, Figure]]:
    """Draw one picture after the other: name, description and figure.

    Args:
        seed: of the batch, and of the augmentation.
        count: images in the batch.
        index: of the training image whose pixel values are written out.
    """
    classes = dataset.classes
    images, labels = splits["train"]
    batch, batch_labels = next(iter(BatchLoader(images, labels, count, shuffle_seed=seed)))
    description = f"{len(batch)} training images, the first batch of seed {seed}"
    yield "batch", description, tiles(batch, names(batch_labels, classes), suptitle=description)

    height, width = images.shape[2:]
    limits = ["in the middle"] * (max(height, width) > MOST_PIXELS) + ["green"] * (len(images[index]) == 3)
    part = f" ({', '.join(limits)})" if limits else ""
    top, left = max(0, height - MOST_PIXELS) // 2, max(0, width - MOST_PIXELS) // 2
    shown = images[index, len(images[index]) // 2, top : top + MOST_PIXELS, left : left + MOST_PIXELS]
    description = f"training image {index} with the values of its pixels{part}: {classes[labels[index]]}"
    yield "pixels", description, pixel_values(shown, description)

    counts = {split: targets.bincount(minlength=len(classes)) for split, (_, targets) in splits.items()}
    yield "class_counts", "images of each class in each split", class_counts_chart(counts, classes)

    description = "the mean of each class's training images"
    means = class_means(images, labels, min(len(classes), MANY_CLASSES))
    yield "class_means", description, tiles(means, classes[: len(means)], columns=5, suptitle=description)

    yield "augmented", *augmented(batch[:AUGMENTED], batch_labels[:AUGMENTED], augment, seed, classes)


def class_means(images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the mean image of each class (K, C, H, W), NaN for a class without images."""
    return torch.stack([images[labels == label].float().mean(dim=0) for label in range(num_classes)])


def augmented(
    images: Tensor, labels: Tensor, augment: Augmentation, seed: int, classes: Sequence[str]
) -> tuple[str, Figure]:
    """Return a description, and a row of images (N, C, H, W), uint8, above rows of them as training augments them."""
    generator = torch.Generator().manual_seed(seed)
    flipped = torch.randint(2, labels.shape, generator=generator).bool() if augment.alternate else None
    rows, titles = [images], [f"original\n{name}" for name in names(labels, classes)]
    for _ in range(DRAWS):
        moved = augment(images, generator, flipped).float()
        mixed, mixed_labels = augment.mixed(moved, labels, len(classes), generator)
        rows.append(mixed.round().to(torch.uint8))
        titles += [f"augmented\n{name}" for name in names(mixed_labels, classes)]
        flipped = None if flipped is None else ~flipped
    values = [(key.name, getattr(augment, key.name), key.default) for key in fields(augment) if key.init]
    used = ", ".join(f"{name}={json.dumps(value)}" for name, value, default in values if value != default)
    description = f"images and {DRAWS} augmentations ({used or 'none: training leaves them unchanged'})"
    return description, tiles(torch.cat(rows), titles, columns=len(images), suptitle=description)


def names(labels: Tensor, classes: Sequence[str]) -> list[str]:
    """Return the names of labels (N), or of soft labels (N, K): "70% Bag" above "30% Coat"."""
    if labels.ndim == 1:
        return [classes[label] for label in labels.tolist()]
    pairs = [sorted(zip(shares, classes, strict=True), reverse=True)[:2] for shares in labels.tolist()]
    return [
        f"{share:.0%} {name}\n{rest:.0%} {other}" if rest >= 0.005 else name for (share, name), (rest, other) in pairs
    ]
