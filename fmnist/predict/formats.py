"""Predictions as lines of text, one after the other: there may be any number of them."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

RANKS = ("1st", "2nd", "3rd", *(f"{rank}th" for rank in range(4, 11)))
CELL = 20  # characters: a class, its percentage and two spaces


@dataclass(frozen=True)
class Prediction:
    """What an image file was taken for: probabilities by class, the largest first."""

    file: str
    inverted: bool
    probabilities: Mapping[str, float]


def as_table(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """A line for each file, its name last, so that no name is cut and none moves the columns."""
    header = "".join(f"{rank:<{CELL}}" for rank in RANKS[:top]) + "inverted  file"
    yield header
    yield "─" * len(header)
    for prediction in predictions:
        classes = "".join(f"{name:<11}{100 * value:6.1f}%  " for name, value in prediction.probabilities.items())
        yield f"{classes}{'yes' if prediction.inverted else '':<10}{printable(prediction.file)}"


def as_json(predictions: Iterable[Prediction], top: int) -> Iterator[str]:  # noqa: ARG001 (what every format gets)
    """One array with an object for each file on a line of its own; in ASCII, whatever the names are."""
    yield "["
    for index, prediction in enumerate(predictions):
        classes = [{"class": name, "probability": round(p, 6)} for name, p in prediction.probabilities.items()]
        content = {"file": prediction.file, "inverted": prediction.inverted, "top": classes}
        yield f"{',' if index else ' '}{json.dumps(content)}"
    yield "]"


def as_csv(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """file, inverted, class_1, probability_1, class_2, ..."""
    yield ",".join(["file", "inverted", *(f"class_{rank + 1},probability_{rank + 1}" for rank in range(top))])
    for prediction in predictions:
        text = io.StringIO()
        cells = [cell for name, p in prediction.probabilities.items() for cell in (name, f"{p:.6f}")]
        csv.writer(text, lineterminator="").writerow([printable(prediction.file), prediction.inverted, *cells])
        yield text.getvalue()


FORMATS = {"table": as_table, "json": as_json, "csv": as_csv}


def printable(name: str) -> str:
    """A file's name on one line, which no terminal takes for orders."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
