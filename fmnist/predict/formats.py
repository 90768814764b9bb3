"""Predictions as text, written one by one: there may be any number of them."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from torch import Tensor

from fmnist.plotting.terminal import printable

Marks = dict[str, list[str] | bool]


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of an image file.

    Args:
        pixels: the network's input, uint8, (C, H, W).
        inverted: whether light and dark were exchanged.
        probabilities: by class, the largest first.
        marks: in the order of the columns: `set`, the classes of the prediction set; `unsure`, whether the probability
            is too small; `unfamiliar`, whether the image is unlike the training images.
    """

    file: str
    pixels: Tensor
    inverted: bool
    probabilities: Mapping[str, float]
    marks: Marks = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The most likely class."""
        return next(iter(self.probabilities))

    @property
    def confidence(self) -> float:
        """The probability of the most likely class."""
        return next(iter(self.probabilities.values()))


Writer = Callable[[TextIO, Iterable[Prediction], int, Sequence[str], Sequence[str]], None]
"""Takes an open file, the predictions, the number of classes in each of them, the names of the marks, and of all K
classes."""


def write_table(
    stream: TextIO, predictions: Iterable[Prediction], top: int, marks: Sequence[str], classes: Sequence[str]
) -> None:
    """Write a header and a row per file, whose name and marks are last, so that long names are not cut.

    Of a prediction set the row has the size, and leaves out the other classes.
    """
    width = max(map(len, classes))
    header = "".join(f"{ordinal(rank):<{width + 9}}" for rank in range(1, top + 1))
    header += ("set  " if "set" in marks else "") + "file"
    print(header, "─" * len(header), sep="\n", file=stream)
    for prediction in predictions:
        held = prediction.marks.get("set")
        cells = [
            f"{name:<{width}}{100 * value:6.1f}%" if not isinstance(held, Sequence) or name in held else ""
            for name, value in prediction.probabilities.items()
        ]
        row = "".join(f"{cell:<{width + 9}}" for cell in cells)
        row += f"{len(held):<5}" if isinstance(held, Sequence) else ""
        flags = [name for name, value in {"inverted": prediction.inverted, **prediction.marks}.items() if value is True]
        print(f"{row}{printable(prediction.file)}", *([f" ({', '.join(flags)})"] if flags else []), file=stream)


def write_json(stream: TextIO, predictions: Iterable[Prediction], *_: object) -> None:
    """Write an array in ASCII with one line per file."""
    print("[", file=stream)
    for index, prediction in enumerate(predictions):
        classes = [{"class": name, "probability": round(p, 6)} for name, p in prediction.probabilities.items()]
        content = {"file": prediction.file, "inverted": prediction.inverted, "top": classes, **prediction.marks}
        print("," if index else " ", json.dumps(content), sep="", file=stream)
    print("]", file=stream)


def write_csv(stream: TextIO, predictions: Iterable[Prediction], top: int, marks: Sequence[str], *_: object) -> None:
    """Write file, inverted, class_1, probability_1, class_2, ..., and the marks; the classes of a set as Coat|Shirt."""
    writer = csv.writer(stream, lineterminator="\n")
    ranks = [(f"class_{rank}", f"probability_{rank}") for rank in range(1, top + 1)]
    writer.writerow(["file", "inverted", *(name for names in ranks for name in names), *marks])
    for prediction in predictions:
        cells = [cell for name, p in prediction.probabilities.items() for cell in (name, f"{p:.6f}")]
        values = [value if isinstance(value, bool) else "|".join(value) for value in prediction.marks.values()]
        writer.writerow([printable(prediction.file), prediction.inverted, *cells, *values])


FORMATS: dict[str, Writer] = {"table": write_table, "json": write_json, "csv": write_csv}


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, ..."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
