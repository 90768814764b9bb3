"""Measuring a network on validation and test images, and predicting."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmnist.evaluation.measure import measure
from fmnist.training.train import Training
from tools.benchmarks.bench import Bench
from tools.benchmarks.training import ONE_EPOCH
from tools.benchmarks.turns import contest, quantities, take_turns
from tools.benchmarks.usual import usual_loader

PREDICTED, AT_ONCE = 10_000, 256  # images of the throughput, and how many of them pass through the network together
LATENCIES = 20  # images predicted one by one in a repetition
SPLITS = ("val", "test")


def compare(bench: Bench) -> dict[str, Any]:
    """Seconds of both splits by the project's own code, beside the usual loop over the test images."""
    with bench.open_session([*ONE_EPOCH, "trainer.limit_train_batches=1", "trainer.precision=auto"]) as session:
        session.trainer.fit(session.classifier, session.datamodule)
        predict = bench.open_network(session.run.last_checkpoint)
        splits = session.datamodule.splits
        images = sum(len(splits[split][1]) for split in SPLITS)
        ours = f"ours, validation and test, {session.trainer.precision}"
        usual = "usual loop, test, 32-true"
        contests = contest(
            "evaluation",
            {usual: lambda: usual_rate(session), ours: lambda: images / evaluation_seconds(session)},
            bench.repetitions,
            {ours: {"usual": usual}},
        )
        pixels = splits["test"][0]
        pixels = pixels[torch.arange(PREDICTED) % len(pixels)]
        predictions = take_turns(
            "prediction",
            [lambda: {"one": latency(predict, pixels)}, lambda: {"many": throughput(predict, pixels)}],
            bench.repetitions,
        )
    return {
        "contests": {"evaluation": contests},
        "quantities": {
            **quantities(
                "s",
                {
                    f"validation and test, {images:,} images": [
                        images / rate for rate in contests["ways"][ours]["values"]
                    ]
                },
            ),
            **quantities("ms", {"prediction of one image": predictions["one"]}),
            **quantities("images/s", {f"prediction of {PREDICTED:,} images": predictions["many"]}),
        },
    }


def evaluation_seconds(session: Training) -> float:
    """Of both splits, as at the end of a training."""
    start = time.perf_counter()
    for split in SPLITS:
        measure(session.evaluation_trainer(), session.classifier, session.datamodule, split)
    return time.perf_counter() - start


@torch.no_grad()
def usual_rate(session: Training) -> float:
    """Images per second of the tutorials' loop: image by image from a DataLoader, float32, accuracy alone."""
    network, datamodule = session.classifier.network.eval(), session.datamodule
    loader: Any = usual_loader(datamodule.root, datamodule.batch_size, train=False)
    start, correct, images_seen = time.perf_counter(), 0, 0
    for images, labels in loader:
        correct += int((network(images).argmax(1) == labels).sum())
        images_seen += len(labels)
    return images_seen / (time.perf_counter() - start)


def latency(predict: Callable[[Tensor], Tensor], pixels: Tensor) -> float:
    """Milliseconds for one image, from its pixels to its probabilities."""
    start = time.perf_counter()
    for image in pixels[:LATENCIES].split(1):
        predict(image)
    return 1000 * (time.perf_counter() - start) / LATENCIES


def throughput(predict: Callable[[Tensor], Tensor], pixels: Tensor) -> float:
    """Images per second in batches."""
    start = time.perf_counter()
    for batch in pixels.split(AT_ONCE):
        predict(batch)
    return len(pixels) / (time.perf_counter() - start)
