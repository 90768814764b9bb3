"""From rows to tables in Markdown. Trainings on different machines are never in one mean."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from fmnist.compare.formatting import NOTHING, counted, number
from fmnist.compare.statistics import Sample, pooled_sd, sample
from tools.benchmarks.tables import digits
from tools.results.recipes import Recipe, train_words
from tools.results.rows import Row

NOT_YET = "not measured yet"
Key = TypeVar("Key")


def result_tables(catalogue: Mapping[str, Recipe], rows: Sequence[Row]) -> dict[str, str]:
    """The tables of the trainings by the names of their markers."""
    return {
        "recipes": recipes_table(catalogue, rows),
        "recipes short": short_table(catalogue, rows),
        "test time": views_table(catalogue, rows),
        **{
            f"ablations {name}": ablations_table(name, recipe, rows)
            for name, recipe in catalogue.items()
            if recipe.variants
        },
    }


def recipes_table(catalogue: Mapping[str, Recipe], rows: Iterable[Row]) -> str:
    """Each recipe's tests: a line for each machine, precision and size that it was measured in."""
    lines = []
    for name, recipe, group in measured(catalogue, rows):
        lines.append([code(name), *(_numbers(group) if group else [NOT_YET, *[""] * 5]), command(name, recipe)])
    headings = ["recipe", "parameters", "epochs", "seconds", "tutorial epochs", "test accuracy", "measured on"]
    return markdown([*headings, "command"], lines, {"recipe", "measured on", "command"})


def _numbers(group: Sequence[Row]) -> list[str]:
    first = group[0]
    return [f"{first.parameters:,}", f"{first.epochs:,}", *_times(group), _score(group), hardware(first)]


def _times(group: Sequence[Row]) -> tuple[str, str]:
    """Seconds and tutorial epochs, the medians."""
    return figures(median(row.seconds for row in group)), figures(median(row.tutorial_epochs for row in group))


def _score(group: Sequence[Row]) -> str:
    return accuracy([row.accuracy for row in group])


def short_table(catalogue: Mapping[str, Recipe], rows: Iterable[Row]) -> str:
    """The same in fewer columns, for a page that has more to say."""
    lines = []
    for name, recipe, group in measured(catalogue, rows):
        cells = [code(name), NOT_YET, ""]
        if group:
            size = f"{group[0].parameters:,} parameters, {counted(group[0].epochs, 'epoch')}"
            seconds, units = _times(group)
            time = f"{seconds} s, or {units} tutorial epochs; {hardware(group[0])}"
            cells = [f"{code(name)}: {size}", _score(group), time]
        lines.append([*cells, command(name, recipe)])
    headings = ["recipe", "test accuracy", "training", "command"]
    return markdown(headings, lines, headings)


def views_table(catalogue: Mapping[str, Recipe], rows: Sequence[Row]) -> str:
    """The recipes' networks in several views and together, beside what one of them is worth that sees an image once."""
    lines = []
    for name, _, plain in measured(catalogue, rows):
        machine = plain[0].machine if plain else ""
        others = [row for row in rows if row.recipe == name and not row.plain and row.machine == machine]
        lines += [at_test_time(plain, group) for group in ([plain, *apart(others, _how)] if others else [])]
    headings = ["recipe", "networks", "views", "test accuracy", "gain, points", "command"]
    return markdown(headings, lines, {"recipe", "views", "command"}) if lines else NOT_YET


def _how(row: Row) -> tuple[int, str]:
    return row.runs, row.views


def at_test_time(plain: Sequence[Row], group: Sequence[Row]) -> list[str]:
    """A line of that table. Several networks together are compared with the mean of them.

    Args:
        plain: of each network.
        group: the same in another way.
    """
    row = group[0]
    words = [f"'run=outputs/results/{row.recipe}/test_seed_{'0' if row.runs == 1 else '*'}/*'"]
    words += [f"views={row.views}"] * (row.views != "none")
    if row.runs == 1:
        score, gain = _score(group), "" if row.plain else points(*paired(group, plain))
    else:
        score = f"{number('accuracy', row.accuracy)} %"
        gain = number("accuracy", row.accuracy - sample([one.accuracy for one in plain]).mean, signed=True)
    command_line = code(f"python scripts/evaluate.py {' '.join(words)}")
    return [code(row.recipe), str(row.runs), row.views, score, gain, command_line]


def ablations_table(name: str, recipe: Recipe, rows: Iterable[Row]) -> str:
    """A recipe and its variants on validation images: what the recipe gains over each of them."""
    own = [row for row in rows if (row.recipe, row.split) == (name, "val")]
    lines = []
    for group in apart(own, lambda row: (row.machine, row.precision)):
        by_variant = {variant: [row for row in group if row.variant == variant] for variant in ("", *recipe.variants)}
        known = {variant: sample([row.accuracy for row in members]) for variant, members in by_variant.items()}
        sd = pooled_sd(known.values())
        for variant, members in by_variant.items():
            if members:
                gain = points(*difference(known[""], known[variant], sd)) if variant else ""
                lines.append([*_heading(name, recipe, variant), *_measured(members, gain)])
    missing = {variant: words for variant, words in recipe.variants.items() if variant not in {r.variant for r in own}}
    lines += [[*_heading(name, recipe, variant), NOT_YET, *[""] * 4] for variant in missing]
    headings = ["change", "that is", "validation accuracy", "the recipe's gain, points", "seconds", "tutorial epochs"]
    return markdown([*headings, "measured on"], lines, {"change", "that is", "measured on"})


def _heading(name: str, recipe: Recipe, variant: str) -> list[str]:
    return [variant.replace("_", " "), code(" ".join(recipe.variants[variant]))] if variant else [code(name), ""]


def _measured(group: Sequence[Row], gain: str) -> list[str]:
    return [_score(group), gain, *_times(group), hardware(group[0])]


def measured(catalogue: Mapping[str, Recipe], rows: Iterable[Row]) -> Iterable[tuple[str, Recipe, Sequence[Row]]]:
    """Each recipe with the rows of its tests that can be one mean; once with none where there are none."""
    rows = list(rows)
    for name, recipe in catalogue.items():
        tests = [row for row in rows if (row.recipe, row.variant, row.split) == (name, "", "test") and row.plain]
        groups = apart(tests, lambda row: (row.machine, row.precision, row.parameters, row.epochs))
        yield from ((name, recipe, group) for group in groups or [[]])


def apart(rows: Iterable[Row], key: Callable[[Row], Key]) -> list[list[Row]]:
    """The rows in groups of an equal key, which stand in the order of their first ones."""
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return [*groups.values()]


def paired(ours: Iterable[Row], theirs: Iterable[Row]) -> tuple[float, float]:
    """Ours less theirs in accuracy, of the networks that both have, and the standard error of its mean."""
    other = {row.seed: row.accuracy for row in theirs}
    known = sample([row.accuracy - other[row.seed] for row in ours if row.seed in other])
    return known.mean, known.error


def difference(ours: Sample, theirs: Sample, sd: float) -> tuple[float, float]:
    """Ours less theirs, and its standard error. Trainings that differ don't get closer by an equal seed: no pairs here.

    Args:
        ours: the accuracy over seeds.
        theirs: the same of others.
        sd: of one seed, of both.
    """
    error = sd * math.sqrt(1 / ours.n + 1 / theirs.n) if ours.n and theirs.n else math.nan
    return ours.mean - theirs.mean, error


def points(gain: float, error: float) -> str:
    """In percentage points, with its standard error."""
    if math.isnan(gain):
        return NOTHING
    spread = "" if math.isnan(error) else f" ± {number('accuracy', error)}"
    return number("accuracy", gain, signed=True) + spread


def accuracy(values: Sequence[float]) -> str:
    """Mean and standard deviation in percent, and how many there are."""
    known = sample(values)
    spread = "" if math.isnan(known.sd) else f" ± {number('accuracy', known.sd)}"
    return f"{number('accuracy', known.mean)} %{spread} ({counted(known.n, 'seed')})"


def command(name: str, recipe: Recipe) -> str:
    """What a person types to train it once."""
    return code(f"python scripts/train.py {' '.join(train_words(name, recipe))}")


def hardware(row: Row) -> str:
    return f"{row.machine}, {row.precision}"


def figures(value: float) -> str:
    """Three figures or so."""
    return digits(value).format(value)


def code(text: str) -> str:
    return f"`{text}`"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]], words: Iterable[str]) -> str:
    """A table.

    Args:
        headings: of the columns.
        rows: a text for each column.
        words: the headings of columns that are flush left; all others hold numbers.
    """
    left = {*words}
    lines = [headings, ["---" if heading in left else "---:" for heading in headings], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
