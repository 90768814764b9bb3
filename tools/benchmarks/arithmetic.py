"""How much of the processor's arithmetic a training step uses, and where its time goes."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fmnist.data.info import IMAGE_SHAPE
from tools.benchmarks.bench import Bench, title, whole_batches
from tools.benchmarks.clocks import StepClock
from tools.benchmarks.training import ONE_EPOCH
from tools.benchmarks.turns import Measurement, ratio, summary, take_turns

STEPS, WARM_UP = 60, 10  # in one repetition, and before they count
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def compare(bench: Bench) -> dict[str, Any]:
    """The floating-point operations of each network's step, how many it does in a second, and what a matrix product
    of the same precision does; the seconds of a step's parts."""
    counted: dict[str, int] = {}
    measurements: list[Measurement] = [product(precision, bench.matrix_sizes) for precision in bench.precisions]
    rows = [(words, precision) for words in bench.arithmetic_networks for precision in bench.precisions]
    for words in bench.arithmetic_networks:
        with bench.open_session([*words, *ONE_EPOCH]) as session:
            counted[title(words)] = step_flops(
                session.classifier.network, session.classifier.loss, session.datamodule.batch_size
            )
    measurements += [steps(bench, words, precision) for words, precision in rows]
    values = take_turns("arithmetic", measurements, bench.repetitions)
    return {
        "products": {precision: summary(values[f"product {precision}"]) for precision in bench.precisions},
        "networks": [
            row(title(words), precision, counted[title(words)], values, values[f"product {precision}"])
            for words, precision in rows
        ],
    }


def row(
    name: str, precision: str, flops: int, values: dict[str, list[float]], products: Sequence[float]
) -> dict[str, Any]:
    """What is told of a network in a precision; `products` is the matrix product's FLOP/s in each turn."""
    mark = f"{name} {precision} "
    parts = {key.removeprefix(mark): seconds for key, seconds in values.items() if key.startswith(mark)}
    step = [sum(turn) for turn in zip(*parts.values(), strict=True)]
    rates = [flops / seconds for seconds in step]
    passes = [flops / sum(turn) for turn in zip(parts["forward"], parts["backward"], strict=True)]
    return {
        "network": name,
        "precision": precision,
        "flops": flops,
        "step_seconds": summary(step),
        "flops_per_second": summary(rates),
        "of_product": ratio(rates, products),
        "of_product_in_passes": ratio(passes, products),
        "shares": {part: ratio(seconds, step) for part, seconds in parts.items()},
    }


def step_flops(network: nn.Module, loss: nn.Module, batch_size: int) -> int:
    """Floating-point operations of one batch, forward and backward; those of convolutions and linear layers alone,
    a multiplication and an addition being two."""
    images, labels = torch.zeros(batch_size, *IMAGE_SHAPE), torch.zeros(batch_size, dtype=torch.long)
    network.train()
    with FlopCounterMode(display=False) as counter:
        loss(network(images), labels).backward()
    network.zero_grad()
    return int(counter.get_total_flops())


def product(precision: str, sizes: Sequence[int]) -> Measurement:
    """FLOP/s of the product of two square matrices, of the size that does it best."""

    def measure() -> dict[str, float]:
        return {f"product {precision}": max(product_rate(size, DTYPES[precision]) for size in sizes)}

    return measure


@torch.inference_mode()
def product_rate(size: int, dtype: torch.dtype) -> float:
    """FLOP/s of the product of two (size, size) matrices, the second time, as the first prepares."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds = time.perf_counter() - start
    return 2 * size**3 / seconds


def steps(bench: Bench, words: Sequence[str], precision: str) -> Measurement:
    """Seconds of each part of the Trainer's step."""

    def measure() -> dict[str, float]:
        clock = StepClock(WARM_UP)
        with bench.open_session([*words, *ONE_EPOCH, f"trainer.precision={precision}"], clock) as session:
            available = whole_batches(session, None)
            clock.skip = min(WARM_UP, available // 2)
            session.trainer.limit_train_batches = min(STEPS + WARM_UP, available)
            session.trainer.fit(session.classifier, session.datamodule)
        return {f"{title(words)} {precision} {part}": seconds for part, seconds in clock.per_step().items()}

    return measure
