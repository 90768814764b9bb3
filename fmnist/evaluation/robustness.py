"""The robustness of a network: its scores on corrupted test images, as a run folder keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import TypeAdapter, ValidationError

from fmnist.plotting.frame import percent
from fmnist.plotting.terminal import printable
from fmnist.runs.files import sha256
from fmnist.runs.run import Run
from fmnist.runs.untrusted import MAX_CHARACTERS

Condition = tuple[str, int]
"""Name and strength of a corruption."""
Share = Annotated[float, Ge(0), Le(1)]
Table = tuple[list[str], list[list[str]]]
"""Headings, and rows, whose first column is of words."""
MEAN = "mean"


@dataclass(frozen=True)
class Scores:
    """What is measured on one set of images.

    Args:
        accuracy: from 0 to 1.
        calibration_error: expected calibration error of the probabilities; None if a logit isn't finite.
        confidence: mean probability of the predicted class; None if a logit isn't finite.
    """

    accuracy: Share
    calibration_error: Share | None
    confidence: Share | None

    @classmethod
    def mean(cls, scores: Sequence["Scores"]) -> "Scores":
        """Return the mean of each score; None where one is None."""
        errors = [each.calibration_error for each in scores if each.calibration_error is not None]
        confidences = [each.confidence for each in scores if each.confidence is not None]
        return cls(
            fmean(each.accuracy for each in scores),
            fmean(errors) if len(errors) == len(scores) else None,
            fmean(confidences) if len(confidences) == len(scores) else None,
        )


@dataclass(frozen=True)
class Robustness:
    """The scores of one network.

    Args:
        name: the run folder or checkpoint, as it is shown.
        checkpoint: SHA-256 of the checkpoint file.
        calibrated: whether the probabilities are calibrated ones.
        images: number of test images.
        seed: of the corruptions.
        complete: whether these are all corruptions and strengths; otherwise the means aren't comparable with others.
        clean: on the images as they are.
        corrupted: under each corruption and strength: of each corruption the same strengths.
    """

    name: str
    checkpoint: str
    calibrated: bool
    images: int
    seed: int
    complete: bool
    clean: Scores
    corrupted: Mapping[Condition, Scores]

    @property
    def corruptions(self) -> list[str]:
        """The names of the corruptions."""
        return list(dict.fromkeys(name for name, _ in self.corrupted))

    @property
    def strengths(self) -> list[int]:
        """The strengths of each corruption."""
        return list(dict.fromkeys(strength for _, strength in self.corrupted))

    def mean(self, corruption: str | None = None, strength: int | None = None) -> Scores:
        """Return the mean over the corrupted images: over all of them, or those of a corruption or a strength."""
        chosen = [
            scores
            for (name, level), scores in self.corrupted.items()
            if corruption in (None, name) and strength in (None, level)
        ]
        return Scores.mean(chosen)

    def table(self) -> Table:
        """Return the accuracies in %: a row for each corruption and their mean, a column for each strength.

        The last columns are means over the strengths: of the accuracy, of the expected calibration error, and of the
        confidence.
        """
        headings = ["corruption", "clean", *map(str, self.strengths), MEAN, "ECE", "confidence"]

        def row(name: str, corruption: str | None) -> list[str]:
            means = self.mean(corruption)
            levels = [self.mean(corruption, strength).accuracy for strength in self.strengths]
            values = (self.clean.accuracy, *levels, means.accuracy, means.calibration_error, means.confidence)
            return [name, *map(number, values)]

        return headings, [*(row(name, name) for name in self.corruptions), row(MEAN, None)]

    def sentence(self) -> str:
        """Return the result in words."""
        mean, clean = self.mean(), self.clean
        kind = "mean corruption accuracy" if self.complete else "mean accuracy under the chosen corruptions"
        calibrated = "calibrated" if self.calibrated else "not calibrated"
        return (
            f"{kind} {percent(mean.accuracy, 2)} ({len(self.corruptions)} x {len(self.strengths)}), "
            f"clean {percent(clean.accuracy, 2)}; "
            f"expected calibration error {percent(mean.calibration_error)}, clean {percent(clean.calibration_error)}; "
            f"mean confidence {percent(mean.confidence)}, clean {percent(clean.confidence)} ({calibrated})"
        )

    def subject(self) -> str:
        """Return what was measured on."""
        return f"{self.images:,} test images, corruptions of seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Return the scores of the network, as plain values."""
        return {
            "run": self.name,
            "checkpoint": self.checkpoint,
            "calibrated": self.calibrated,
            "clean": asdict(self.clean),
            MEAN: asdict(self.mean()),
            "corruptions": {
                name: {
                    MEAN: asdict(self.mean(name)),
                    **{str(strength): asdict(self.corrupted[name, strength]) for strength in self.strengths},
                }
                for name in self.corruptions
            },
        }


def number(share: float | None) -> str:
    """Return a share of 1 in percent, without the sign."""
    return percent(share).removesuffix("%")


Level = Literal["mean", "1", "2", "3", "4", "5"]


@dataclass(frozen=True)
class _Network:
    """The scores of a network in robustness.json; what else the file holds is left out."""

    run: str
    checkpoint: str
    calibrated: bool
    clean: Scores
    corruptions: Annotated[dict[Annotated[str, MaxLen(40)], dict[Level, Scores]], MinLen(1)]

    def corrupted(self) -> dict[Condition, Scores]:
        """Return the scores by corruption and strength."""
        return {
            (name, int(level)): scores
            for name, levels in self.corruptions.items()
            for level, scores in levels.items()
            if level != MEAN
        }


@dataclass(frozen=True)
class _File:
    """robustness.json."""

    images: Annotated[int, Ge(1)]
    seed: int
    all_corruptions: bool
    runs: list[_Network]


def read_robustness(run: Run, checkpoint: Path) -> Robustness:
    """Return the robustness of a checkpoint, as the run folder keeps it.

    Raises:
        OSError: if it wasn't measured, or the file can't be read.
        ValueError: if the file is damaged, or of another checkpoint, as after more training.
    """
    file = run.robustness_file
    if file.stat().st_size > MAX_CHARACTERS:
        raise ValueError(f"{file} is larger than {MAX_CHARACTERS:,} bytes")
    try:
        content = TypeAdapter(_File).validate_json(file.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = printable(".".join(map(str, first["loc"])))[:100]
        raise ValueError(f"{file} is damaged: {place}: {first['msg']}") from error
    digest = sha256(checkpoint)
    for found in content.runs:
        if found.checkpoint == digest:
            corrupted = found.corrupted()
            measured = Robustness(
                *(found.run, digest, found.calibrated, content.images, content.seed, content.all_corruptions),
                *(found.clean, corrupted),
            )
            if not corrupted or len(corrupted) != len(found.corruptions) * len(measured.strengths):
                raise ValueError(f"{file} is damaged: not all corruptions have the same strengths")
            return measured
    raise ValueError(f"{file} is of another checkpoint than {checkpoint.name} is now")
