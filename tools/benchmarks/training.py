"""Part of an epoch: the tutorials' own loop, Lightning as scripts/train.py runs it and alone, a plain PyTorch loop."""

import itertools
import time
from collections.abc import Callable, Iterator

import pandas as pd
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from fmnist.config.build import Training
from fmnist.config.trainer import hardware_precision
from tools.baseline import Timed, train_tutorial, tutorial_loader
from tools.benchmarks.comparison import Comparison, Options, interleave
from tools.trainings import open_training

NETWORKS = tuple(
    f"experiment={name}" for name in ("three_convolutions", "intro_adam", "intro_dropout", "intro_wide", "intro_lenet")
)
TUTORIAL = "tutorials' loop, 32-true"
# Without validation, which would be that of a whole epoch.
ONE_EPOCH = ("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=2")

Loop = Callable[[Training, int], Timed]
"""Trains for a number of batches."""


def compare(options: Options) -> Iterator[Comparison]:
    """Yield the images per second of each network; every loop trains on the same number of images."""
    for network in options.networks or NETWORKS:
        ways = {TUTORIAL: rate(tutorial_loop, options, network, "32-true")}
        baselines = {}
        for precision in precisions():
            here, plain = f"Lightning here, {precision}", f"plain PyTorch loop, {precision}"
            alone = f"Lightning alone, {precision}"
            ways[here] = rate(lightning_loop, options, network, precision)
            ways[alone] = rate(bare_lightning_loop, options, network, precision)
            ways[plain] = rate(plain_loop, options, network, precision)
            baselines[here] = {"tutorials' loop": TUTORIAL, "plain PyTorch loop": plain}
            baselines[alone] = {"plain PyTorch loop": plain}
        values = interleave(ways, options.repetitions)
        yield Comparison(f"training, {network or 'the default'}", "images/s", values, baselines)


def precisions() -> list[str]:
    """Return 32-true, and bf16-mixed where the processor computes in it."""
    return list(dict.fromkeys(["32-true", hardware_precision("cpu")]))


def rate(loop: Loop, options: Options, network: str, precision: str) -> Callable[[], float]:
    """Return a function that measures the images per second of a loop."""

    def measure() -> float:
        overrides = options.overrides_of(network, *ONE_EPOCH, f"trainer.precision={precision}")
        with open_training(*overrides) as training:
            images, seconds = loop(training, count_batches(training, options.images))
        return images / seconds

    return measure


def count_batches(training: Training, images: int) -> int:
    """Return the number of full batches in so many training images.

    Raises:
        ValueError: if there is none.
    """
    datamodule = training.datamodule
    available = len(datamodule.splits["train"][1])
    if batches := min(available, images) // datamodule.batch_size:
        return batches
    raise ValueError(
        f"--images {images}: must be at least one batch, {datamodule.batch_size} of {available} training images"
    )


def lightning_loop(training: Training, batches: int) -> Timed:
    """Train as scripts/train.py does, and take the seconds from the run's metrics.csv."""
    training.trainer.limit_train_batches = batches
    training.trainer.fit(training.classifier, training.datamodule)
    seconds = pd.read_csv(training.run.history_file)["seconds"].iloc[-1]
    return Timed(batches * training.datamodule.batch_size, float(seconds))


def bare_lightning_loop(training: Training, batches: int) -> Timed:
    """Train as the plain PyTorch loop does, by Lightning without callbacks, metrics and logging: its least work."""
    bare = BareModule(training, batches)
    trainer = Trainer(
        barebones=True,
        accelerator="cpu",
        precision=training.trainer.precision,
        max_epochs=1,
        limit_train_batches=batches,
    )
    trainer.fit(bare, training.datamodule.train_dataloader())
    return Timed(batches * training.datamodule.batch_size, bare.seconds)


class BareModule(LightningModule):
    """Network, loss, optimizer, schedule and batches of a training, and the seconds of its steps."""

    def __init__(self, training: Training, batches: int) -> None:
        super().__init__()
        self.classifier, self.datamodule, self.batches = training.classifier, training.datamodule, batches
        self.seconds = 0.0

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        images, labels = self.datamodule.prepared(batch, training=True)
        loss: Tensor = self.classifier.loss(self.classifier.network(images), labels)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.classifier.optimizer(self.classifier.network.parameters())
        schedule = LambdaLR(optimizer, lambda step: self.classifier.schedule(step, self.batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        self.seconds = -time.perf_counter()

    def on_train_end(self) -> None:
        self.seconds += time.perf_counter()


def tutorial_loop(training: Training, batches: int) -> Timed:
    """Train the same network with the same loss, optimizer and batch size as the tutorials do."""
    classifier, datamodule = training.classifier, training.datamodule
    assert datamodule.root is not None
    loader = tutorial_loader(datamodule.root, datamodule.batch_size, datamodule.augment)
    return train_tutorial(classifier.network, classifier.loss, classifier.optimizer, loader, batches)


def plain_loop(training: Training, batches: int) -> Timed:
    """Train with the same network, optimizer, schedule, batches and precision as Lightning, without it."""
    classifier, datamodule = training.classifier, training.datamodule
    optimizer = classifier.optimizer(classifier.network.parameters())
    schedule = LambdaLR(optimizer, lambda step: classifier.schedule(step, batches))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=training.trainer.precision == "bf16-mixed")
    loader = datamodule.train_dataloader()
    classifier.network.train()
    start, count = time.perf_counter(), 0
    for batch in itertools.islice(loader, batches):
        images, labels = datamodule.prepared(batch, training=True)
        with autocast:
            loss = classifier.loss(classifier.network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        count += len(labels)
    return Timed(count, time.perf_counter() - start)
