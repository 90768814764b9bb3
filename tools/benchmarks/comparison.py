"""Several ways to do the same thing, measured interleaved, and the table of their medians."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Options:
    """The arguments of tools/benchmark.py."""

    repetitions: int
    images: int
    """Images of each training in one repetition; a few fewer where batches don't divide them."""
    data: Path
    networks: tuple[str, ...]
    """Overrides of scripts/train.py, separated by spaces; empty for the defaults of each benchmark."""
    overrides: tuple[str, ...]
    """Further overrides of every training."""

    def overrides_of(self, network: str = "", *more: str) -> list[str]:
        """Return the overrides of a training on the CPU."""
        return ["trainer=cpu", f"data.root={self.data.absolute()}", *self.overrides, *network.split(), *more]


@dataclass(frozen=True)
class Comparison:
    """Measured values, and by which of them others are divided."""

    title: str
    unit: str
    values: pd.DataFrame
    """A column for each way, a row for each repetition."""
    baselines: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For a way: the columns that its values are divided by, by the names of the ratios."""

    def ratios(self, way: str) -> dict[str, pd.Series]:
        """Return the ratios of each repetition, which vary less than the speed of a machine does."""
        return {name: self.values[way] / self.values[other] for name, other in self.baselines.get(way, {}).items()}

    def table(self) -> str:
        """Return the medians with the lowest and highest value, as text."""
        rows = {
            way: {self.unit: spread(self.values[way])}
            | {f"/ {name}": spread(values, "{:.2f}") for name, values in self.ratios(way).items()}
            for way in self.values
        }
        frame = pd.DataFrame.from_dict(rows, orient="index").fillna("")
        return f"{self.title}\n{frame.to_string()}"

    def to_dict(self) -> dict[str, Any]:
        """Return all values and ratios, for JSON."""
        ratios = {way: {name: list(values) for name, values in self.ratios(way).items()} for way in self.baselines}
        return {"title": self.title, "unit": self.unit, "values": self.values.to_dict("list"), "ratios": ratios}


def interleave(ways: Mapping[str, Callable[[], float]], repetitions: int, *, warm_up: bool = True) -> pd.DataFrame:
    """Measure all ways one after the other in each repetition, so that a machine whose speed drifts is fair to all.

    `torch.utils.benchmark.Timer` is for statements of milliseconds: it runs each one twice before it measures, and one
    statement to its end before the next.

    Args:
        ways: functions that measure once and return the value.
        repetitions: rows of the result.
        warm_up: whether one more repetition comes first, which doesn't count.
    """
    rows = [{way: measure() for way, measure in ways.items()} for _ in range(repetitions + warm_up)]
    return pd.DataFrame(rows[warm_up:])


def spread(values: Iterable[float], form: str | None = None) -> str:
    """Return `median (lowest..highest)`, or one value alone."""
    series = pd.Series(values)
    form = form or digits(series.median())
    median, lowest, highest = (form.format(value) for value in (series.median(), series.min(), series.max()))
    return median if len(series) == 1 else f"{median} ({lowest}..{highest})"


def digits(value: float) -> str:
    """Return a format with three significant digits or so."""
    return "{:,.0f}" if value >= 100 else "{:.1f}" if value >= 10 else "{:z.2f}"
