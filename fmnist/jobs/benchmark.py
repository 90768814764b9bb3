"""Measure how fast the parts are, in turns with what they replace."""

import contextlib
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from hydra import compose
from omegaconf import DictConfig
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from fmnist import logs, record
from fmnist.arguments import check_arguments
from fmnist.build import build_session, plain_config
from fmnist.data.augment import Augmentation, normalise
from fmnist.data.batches import Batches
from fmnist.data.sources import ensure_files
from fmnist.reporting.tables import rate_table
from fmnist.runs import Run, new_run, write_json
from fmnist.training import Session, set_up

log = logging.getLogger(__name__)

PER_IMAGE_BATCHES = 24  # of the per-image loader in one repetition: enough for a rate

Measurement = Callable[[], float]
"""Images per second of one repetition."""
Pair = tuple[Measurement, Measurement]
"""Ours, and what it replaces."""


def settings(
    what: Sequence[Literal["input", "training"]],
    repetitions: Annotated[int, Ge(1)],
    data_root: str,
    batch_size: Annotated[int, Ge(1)],
    overrides: Sequence[str],
    outputs: str,
) -> None:
    """The keys of conf/benchmark.yaml, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (what every job gets)
    """Shows a table of rates and ratios, and writes it as JSON.

    Raises:
        ValueError: if the config asks for something that can't be.
    """
    logs.to_terminal()
    check_arguments("", settings, plain_config(cfg))
    comparisons = {"input": compare_input, "training": compare_training}
    run = new_run(Path(cfg.outputs), "benchmark")
    try:
        ensure_files(Path(cfg.data_root))
        rates: dict[str, Any] = {}
        for what in cfg.what:
            with comparisons[what](cfg) as pairs:
                rates |= {name: take_turns(name, pair, cfg.repetitions) for name, pair in pairs.items()}
    except BaseException:
        run.discard()
        raise
    file = run.folder / "benchmark.json"
    write_json(file, record.environment() | {"images_per_second": rates})
    log.info("images per second, medians of %d:\n%s\n%s", cfg.repetitions, rate_table(rates), file)


def take_turns(name: str, pair: Pair, repetitions: int) -> dict[str, Any]:
    """Both measured in turns after one warm-up, so that a machine whose speed drifts is fair to both."""
    log.info("measuring %s", name)
    ours, theirs = zip(*[[measure() for measure in pair] for _ in range(repetitions + 1)][1:], strict=True)
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return {"ours": median(ours), "theirs": median(theirs), "ratio": median(ratios), "ratios": ratios}


@contextlib.contextmanager
def compare_input(cfg: DictConfig) -> Iterator[dict[str, Pair]]:
    """Batches as the network gets them: ours by index, theirs image by image with torchvision's transforms."""
    dataset = FashionMNIST(cfg.data_root)
    ours = Batches(dataset.data[:, None], dataset.targets, cfg.batch_size, shuffle_seed=0)
    flip_shift = Augmentation(flip=0.5, shift=2)
    crop_flip = [transforms.RandomCrop(28, padding=2), transforms.RandomHorizontalFlip()]

    def batches(augment: Callable[[torch.Tensor], torch.Tensor]) -> Measurement:
        return lambda: rate(len(normalise(augment(images))) for images, _ in ours)

    def images(augment: Sequence[Callable[..., Any]]) -> Measurement:
        transform = transforms.Compose([*augment, transforms.ToTensor()])
        loader = DataLoader(FashionMNIST(cfg.data_root, transform=transform), cfg.batch_size, shuffle=True)
        return lambda: rate(len(batch) for batch, _ in itertools.islice(loader, PER_IMAGE_BATCHES))

    yield {
        "input, plain": (batches(lambda images: images), images([])),
        "input, flip and shift": (batches(flip_shift), images(crop_flip)),
    }


@contextlib.contextmanager
def compare_training(cfg: DictConfig) -> Iterator[dict[str, Pair]]:
    """An epoch with its validation, on the CPU: ours by scripts/train.py's Trainer, theirs by hand over tensors."""
    words = [f"data.root={cfg.data_root}", "trainer=cpu", "trainer.max_epochs=1", "pictures=none", *cfg.overrides]
    train = compose("train", words)
    with tempfile.TemporaryDirectory() as folder:

        def session() -> Session:
            made = build_session(train, Run(Path(folder)))
            set_up(made)
            return made

        def ours() -> float:
            made = session()
            made.trainer.fit(made.classifier, made.datamodule)
            return made.history.images / made.history.seconds

        def theirs() -> float:
            return epoch_by_hand(session())

        yield {" ".join(["training", *cfg.overrides]): (ours, theirs)}


def epoch_by_hand(session: Session) -> float:
    """The same network, optimizer, schedule, batches and precision without the Trainer: images per second."""
    network, loss_function, datamodule = session.classifier.network, session.classifier.loss, session.datamodule
    batches = Batches(*datamodule.splits["train"], datamodule.batch_size, datamodule.seed)
    optimizer = session.classifier.optimizer(network.parameters())
    schedule = LambdaLR(optimizer, lambda step: session.classifier.schedule(step, len(batches)))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=session.trainer.precision == "bf16-mixed")
    start, images_seen = time.perf_counter(), 0
    network.train()
    for images, labels in batches:
        with autocast:
            loss = loss_function(network(normalise(datamodule.augment(images))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        images_seen += len(labels)
    network.eval()
    correct = 0
    with torch.inference_mode(), autocast:
        for images, labels in Batches(*datamodule.splits["val"], datamodule.eval_batch_size):
            correct += int((network(normalise(images)).argmax(1) == labels).sum())
    return images_seen / (time.perf_counter() - start)


def rate(counts: Iterator[int]) -> float:
    """What is counted, per second."""
    start = time.perf_counter()
    return sum(counts) / (time.perf_counter() - start)
