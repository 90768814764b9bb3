"""The scores as tables of texts, in percent, and as sentences."""

from collections.abc import Sequence

from fmnist.plotting.frame import percent
from fmnist.plotting.terminal import WIDTH, as_text, grid, widths
from fmnist.robustness.measure import Network, Robustness, Scores

Table = tuple[list[str], list[list[str]]]
"""Headings, and rows, whose first column is of words."""


def number(share: float) -> str:
    """Return a share of 1 in percent, without the sign."""
    return percent(share).removesuffix("%")


def strength_table(result: Robustness, network: Network) -> Table:
    """Return the accuracy of one network: a row for each corruption and their mean, a column for each strength.

    The last columns are means over the strengths: of the accuracy, of the expected calibration error, and of the
    confidence.
    """
    headings = ["corruption", "clean", *map(str, result.strengths), "mean", "ECE", "confidence"]

    def row(name: str, corruption: str | None) -> list[str]:
        accuracies = [network.clean.accuracy, *(network.mean(corruption, s).accuracy for s in result.strengths)]
        return [name, *map(number, accuracies), *scores_texts(network.mean(corruption))]

    return headings, [*(row(name, name) for name in result.corruptions), row("mean", None)]


def networks_table(result: Robustness) -> Table:
    """Return a column for each network: its accuracy under each corruption, as the mean over the strengths."""
    networks = result.networks

    def row(name: str, values: Sequence[float]) -> list[str]:
        return [name, *map(number, values)]

    means = [network.mean() for network in networks]
    return ["accuracy (%)", *(str(place + 1) for place in range(len(networks)))], [
        row("clean", [network.clean.accuracy for network in networks]),
        *(row(name, [network.mean(name).accuracy for network in networks]) for name in result.corruptions),
        row("mean of corruptions", [scores.accuracy for scores in means]),
        row("ECE, clean", [network.clean.calibration_error for network in networks]),
        row("ECE, mean of corruptions", [scores.calibration_error for scores in means]),
        row("confidence, clean", [network.clean.confidence for network in networks]),
        row("confidence, mean of corruptions", [scores.confidence for scores in means]),
    ]


def scores_texts(scores: Scores) -> list[str]:
    """Return accuracy, expected calibration error and confidence."""
    return [number(value) for value in (scores.accuracy, scores.calibration_error, scores.confidence)]


def sentence(result: Robustness, network: Network) -> str:
    """Return the result of one network as a sentence."""
    mean, clean = network.mean(), network.clean
    kinds, strengths = len(result.corruptions), len(result.strengths)
    kind = "mean corruption accuracy" if result.complete else "mean accuracy under the chosen corruptions"
    calibrated = "calibrated" if network.calibrator else "not calibrated"
    return (
        f"{kind} {percent(mean.accuracy, 2)} ({kinds} x {strengths}), clean {percent(clean.accuracy, 2)}; "
        f"expected calibration error {percent(mean.calibration_error)}, clean {percent(clean.calibration_error)}; "
        f"mean confidence {percent(mean.confidence)}, clean {percent(clean.confidence)} ({calibrated})"
    )


def subject(result: Robustness) -> str:
    """Return what was measured on."""
    return f"{result.count:,} test images, corruptions of seed {result.seed}"


def terminal_text(result: Robustness) -> str:
    """Return the table of the only network, or one with a column for each of several, and a sentence on each."""
    only = result.networks[0] if len(result.networks) == 1 else None
    headings, rows = strength_table(result, only) if only else networks_table(result)
    table = grid(headings, rows, words=headings[:1])
    text = as_text(table, max(WIDTH, widths(table).maximum))
    named = enumerate(result.networks, 1)
    lines = [f"{'' if only else f'{place}: '}{each.name}: {sentence(result, each)}" for place, each in named]
    unit = "accuracy in %, of " if only else ""
    return "\n".join([f"{unit}{subject(result)}:", text, *lines])
