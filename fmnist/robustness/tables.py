"""The robustness of several networks in one table, and as text for the terminal."""

from collections.abc import Sequence

from fmnist.evaluation.robustness import Robustness, Table, number
from fmnist.plotting.terminal import WIDTH, as_text, grid, widths, wrapped


def networks_table(networks: Sequence[Robustness]) -> Table:
    """Return a column for each network: its accuracy under each corruption, as the mean over the strengths."""

    def row(name: str, values: Sequence[float | None]) -> list[str]:
        return [name, *map(number, values)]

    means = [network.mean() for network in networks]
    return ["accuracy (%)", *(str(place + 1) for place in range(len(networks)))], [
        row("clean", [network.clean.accuracy for network in networks]),
        *(row(name, [network.mean(name).accuracy for network in networks]) for name in networks[0].corruptions),
        row("mean of corruptions", [scores.accuracy for scores in means]),
        row("ECE, clean", [network.clean.calibration_error for network in networks]),
        row("ECE, mean of corruptions", [scores.calibration_error for scores in means]),
        row("confidence, clean", [network.clean.confidence for network in networks]),
        row("confidence, mean of corruptions", [scores.confidence for scores in means]),
    ]


def terminal_text(networks: Sequence[Robustness]) -> str:
    """Return the table of the only network, or one with a column for each of several, and a sentence on each."""
    only = networks[0] if len(networks) == 1 else None
    headings, rows = only.table() if only else networks_table(networks)
    table = grid(headings, rows, words=headings[:1])
    text = as_text(table, max(WIDTH, widths(table).maximum))
    sentences = (f"{each.name}: {each.sentence()}" for each in networks)
    lines = [wrapped(text if only else f"{place}: {text}") for place, text in enumerate(sentences, 1)]
    unit = "accuracy in %, of " if only else ""
    return "\n".join([f"{unit}{networks[0].subject()}:", text, *lines])
