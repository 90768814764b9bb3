"""Show the data as pictures, in files and in TensorBoard."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le
from hydra.types import RunMode
from matplotlib.figure import Figure
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fmnist.config import logs
from fmnist.config.build import build_datamodule
from fmnist.config.keys import MAX_SEED
from fmnist.config.validation import check_arguments
from fmnist.data.augment import Augmentation
from fmnist.data.info import CLASSES
from fmnist.data.loader import BatchLoader
from fmnist.plotting.charts import class_counts_chart
from fmnist.plotting.style import to_array
from fmnist.plotting.tiles import pixel_values, tiles
from fmnist.runs.run import Run, claim_run, new_run

log = logging.getLogger(__name__)

AUGMENTED, DRAWS = 8, 3  # images of the batch that are augmented, and how often each

Splits = Mapping[str, tuple[Tensor, Tensor]]
"""Images (N, 1, H, W), uint8, and labels (N) of train, val and test."""


def settings(
    seed: Annotated[int, Ge(0), Le(MAX_SEED)],
    images: Annotated[int, Ge(1), Le(256)],
    index: Annotated[int, Ge(0)],
    outputs: str,
) -> None:
    """The keys of conf/show_data.yaml that belong to no group, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Says how many images there are and draws some.

    Raises:
        ValueError: if the config asks for something that can't be. Then there is no new folder.
    """
    logs.to_terminal()
    check_arguments("", settings, {str(key): value for key, value in cfg.items() if not isinstance(value, DictConfig)})
    datamodule = build_datamodule(cfg)
    datamodule.prepare_data()
    datamodule.setup()
    splits = datamodule.splits
    training_images = len(splits["train"][0])
    if cfg.index >= training_images:
        raise ValueError(f"index={cfg.index}: it should be less than {training_images}, the number of training images")
    show_sizes(splits)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    run = claim_run(Path(hydra.runtime.output_dir)) if in_sweep else new_run(Path(cfg.outputs), "show_data")
    try:
        write(run, pictures(splits, datamodule.augment, cfg.seed, cfg.images, cfg.index))
    except BaseException:
        run.discard()
        raise
    log.info("all of them: tensorboard --logdir %s", run.folder)


def show_sizes(splits: Splits) -> None:
    """Logs the number of images of each split, their shape and the classes."""
    for split, (images, _) in splits.items():
        log.info("%-5s %6s images", split, f"{len(images):,}")
    shape = " x ".join(map(str, splits["train"][0].shape[1:]))
    log.info("each %s (channels, height, width), 0 to 255", shape)
    log.info("%d classes: %s", len(CLASSES), ", ".join(CLASSES))


def write(run: Run, named: Iterator[tuple[str, str, Figure]]) -> None:
    """Writes each picture as a PNG file and as an image of a TensorBoard events file.

    Args:
        run: where they go.
        named: name, what is seen, and the picture.
    """
    with SummaryWriter(run.folder) as writer:
        for name, seen, figure in named:
            file = run.folder / f"{name}.png"
            pixels = to_array(figure)
            Image.fromarray(pixels).save(file)
            writer.add_image(name, pixels, dataformats="HWC")
            log.info("%s: %s", file, seen)


def pictures(
    splits: Splits, augment: Augmentation, seed: int, count: int, index: int
) -> Iterator[tuple[str, str, Figure]]:
    """Name, what is seen, and the picture.

    Args:
        splits: all images.
        augment: what happens to training images.
        seed: of the batch, and of the augmentation.
        count: images in the batch.
        index: of the training image whose pixels are written out.
    """
    images, labels = splits["train"]
    batch, batch_labels = next(iter(BatchLoader(images, labels, count, shuffle_seed=seed)))
    seen = f"{len(batch)} training images, the first batch of seed {seed}"
    yield "batch", seen, tiles(batch[:, 0], named(batch_labels), suptitle=seen)

    seen = f"training image {index} with the values of its pixels: {CLASSES[labels[index]]}"
    yield "pixels", seen, pixel_values(images[index, 0], seen)

    counts = {split: targets.bincount(minlength=len(CLASSES)) for split, (_, targets) in splits.items()}
    yield "class_counts", "images of each class in each split", class_counts_chart(counts, CLASSES)

    seen = "the mean of each class's training images"
    yield "class_means", seen, tiles(class_means(images, labels), CLASSES, columns=5, suptitle=seen)

    yield "augmented", *augmented(batch[:AUGMENTED], batch_labels[:AUGMENTED], augment, seed)


def class_means(images: Tensor, labels: Tensor) -> Tensor:
    """The mean image of each class (K, H, W), NaN for a class without images.

    Args:
        images: (N, 1, H, W).
        labels: (N).
    """
    return torch.stack([images[labels == label, 0].float().mean(dim=0) for label in range(len(CLASSES))])


def augmented(images: Tensor, labels: Tensor, augment: Augmentation, seed: int) -> tuple[str, Figure]:
    """What is seen, and a row of images above rows of what training makes of them.

    Args:
        images: (N, 1, H, W), uint8.
        labels: (N).
        augment: as in training.
        seed: of its random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    flipped = torch.randint(2, labels.shape, generator=generator).bool() if augment.alternate else None
    rows, titles = [images], [f"original\n{name}" for name in named(labels)]
    for _ in range(DRAWS):
        changed = augment(images, generator, flipped).float()
        mixed, mixed_labels = augment.mixed(changed, labels, len(CLASSES), generator)
        rows.append(mixed.round().to(torch.uint8))
        titles += [f"augmented\n{name}" for name in named(mixed_labels)]
        flipped = None if flipped is None else ~flipped
    seen = f"images, and {DRAWS} augmentations of each ({changes(augment) or 'none: training leaves them as they are'})"
    return seen, tiles(torch.cat(rows)[:, 0], titles, columns=len(images), suptitle=seen)


def named(labels: Tensor) -> list[str]:
    """The names of labels (N), or of shares of the classes (N, K): "70% Bag" above "30% Coat"."""
    if labels.ndim == 1:
        return [CLASSES[label] for label in labels.tolist()]
    pairs = [sorted(zip(shares, CLASSES, strict=True), reverse=True)[:2] for shares in labels.tolist()]
    return [
        f"{share:.0%} {name}\n{rest:.0%} {other}" if f"{rest:.0%}" != "0%" else name
        for (share, name), (rest, other) in pairs
    ]


def changes(augment: Augmentation) -> str:
    """What an augmentation does, as it is typed."""
    used = [name for name in ("flip", "alternate", "shift", "erase", "mixup", "cutmix") if getattr(augment, name)]
    if augment.mixup or augment.cutmix:
        used.append("mix")
    if augment.until < 1:
        used.append("until")
    return ", ".join(f"{name}={json.dumps(getattr(augment, name))}" for name in used)
