"""Evaluating a network on a split, and predicting."""

import time
from collections.abc import Iterator

import pandas as pd
import torch
from torch.utils.benchmark import Timer

from fmnist.config.build import Training
from fmnist.evaluation.measure import measure
from fmnist.predict.classify import Predictor
from tools.baseline import tutorial_loader
from tools.benchmarks.comparison import Comparison, Options, interleave
from tools.trainings import open_training

PREDICTED, BATCH_SIZE = 10_000, 256
SPLITS = ("val", "test")


def compare(options: Options) -> Iterator[Comparison]:
    """Yield the images per second of an evaluation, and the milliseconds of predictions."""
    with open_training(*options.overrides_of("trainer.max_epochs=1 trainer.limit_train_batches=1")) as training:
        training.trainer.fit(training.classifier, training.datamodule)
        baseline, here = "tutorials' loop, test, 32-true", f"here, validation and test, {training.trainer.precision}"
        ways = {baseline: lambda: tutorial_rate(training), here: lambda: evaluation_rate(training)}
        values = interleave(ways, options.repetitions)
        yield Comparison("evaluation", "images/s", values, {here: {"tutorials' loop": baseline}})
        yield Comparison("prediction", "ms", predictions(training, options.repetitions))


def evaluation_rate(training: Training) -> float:
    """Return the images per second over both splits, as at the end of a training."""
    start = time.perf_counter()
    for split in SPLITS:
        measure(training.evaluation_trainer(), training.classifier, training.datamodule, split)
    images = sum(len(training.datamodule.splits[split][1]) for split in SPLITS)
    return images / (time.perf_counter() - start)


@torch.no_grad()
def tutorial_rate(training: Training) -> float:
    """Return the images per second of the tutorials' loop: image by image from a DataLoader, accuracy alone."""
    network, datamodule = training.classifier.network.eval(), training.datamodule
    assert datamodule.root is not None
    loader = tutorial_loader(datamodule.root, datamodule.batch_size, train=False)
    start, correct, count = time.perf_counter(), 0, 0
    for images, labels in loader:
        correct += int((network(images).argmax(1) == labels).sum())
        count += len(labels)
    return count / (time.perf_counter() - start)


def predictions(training: Training, repetitions: int) -> pd.DataFrame:
    """Return the milliseconds from pixels to probabilities, of one image and of many."""
    predict = Predictor(training.run.last_checkpoint, "cpu")
    pixels = training.datamodule.splits["test"][0]
    pixels = pixels[torch.arange(PREDICTED) % len(pixels)]
    statements = {
        "one image": "predict(pixels[:1])",
        f"{PREDICTED:,} images": f"[predict(batch) for batch in pixels.split({BATCH_SIZE})]",
    }
    timers = {
        name: Timer(statement, globals={"predict": predict, "pixels": pixels}, num_threads=torch.get_num_threads())
        for name, statement in statements.items()
    }
    return pd.DataFrame(
        [{name: 1000 * timer.blocked_autorange().median for name, timer in timers.items()} for _ in range(repetitions)]
    )
