"""Floating-point operations per second: of training steps, against those of a large matrix product."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from tools.benchmarks.comparison import Comparison, Options, interleave
from tools.benchmarks.training import lightning_loop, precisions, rate
from tools.trainings import open_training

NETWORKS = ("experiment=three_convolutions", "experiment=deep")
SIZES = (1024, 2048, 4096)
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def compare(options: Options) -> Iterator[Comparison]:
    """Yield the GFLOP/s of each network's training, and their share of what a matrix product reaches."""
    for network in options.networks or NETWORKS:
        with open_training(*options.overrides_of(network)) as training:
            classifier, dataset = training.classifier, training.datamodule.dataset
            flops = flops_per_image(classifier.network, classifier.loss, dataset.image_shape)
        ways: dict[str, Callable[[], float]] = {}
        for precision in precisions():
            ways[f"matrix product, {precision}"] = partial(product_gflops, DTYPES[precision])
            images_per_second = rate(lightning_loop, options, network, precision)
            ways[f"training, {precision}"] = partial(training_gflops, images_per_second, flops)
        baselines = {f"training, {name}": {"matrix product": f"matrix product, {name}"} for name in precisions()}
        title = f"arithmetic, {network or 'the default'}, {flops / 1e9:.4f} GFLOP for each image"
        yield Comparison(title, "GFLOP/s", interleave(ways, options.repetitions), baselines)


def training_gflops(images_per_second: Callable[[], float], flops: float) -> float:
    """Return the GFLOP/s of a training with so many operations for each image."""
    return images_per_second() * flops / 1e9


def flops_per_image(network: nn.Module, loss: nn.Module, image_shape: Sequence[int], batch_size: int = 8) -> float:
    """Return the operations of a training step, forward and backward, by the batch size.

    Convolutions and linear layers count, a multiplication and an addition as two.
    """
    images, labels = torch.zeros(batch_size, *image_shape), torch.zeros(batch_size, dtype=torch.long)
    network.train()
    with FlopCounterMode(display=False) as counter:
        loss(network(images), labels).backward()
    network.zero_grad()
    return int(counter.get_total_flops()) / batch_size


def product_gflops(dtype: torch.dtype) -> float:
    """Return the GFLOP/s of the product of two square matrices, of the size where it is fastest."""
    rates = []
    for size in SIZES:
        variables = {name: torch.randn(size, size).to(dtype) for name in ("left", "right")}
        timer = Timer(
            "torch.mm(left, right)", globals={"torch": torch, **variables}, num_threads=torch.get_num_threads()
        )
        rates.append(2 * size**3 / timer.blocked_autorange(min_run_time=0.05).median / 1e9)
    return max(rates)
