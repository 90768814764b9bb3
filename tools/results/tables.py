"""The tables of docs/ and README.md, from the rows. Trainings on different machines are never in one mean."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from fmnist.config.validation import did_you_mean
from tools.benchmarks.comparison import digits
from tools.results.catalogue import Recipe, train_overrides
from tools.results.store import is_plain

NOT_YET = "not measured yet"
TEXT = {"recipe", "measured on", "command", "training", "tta", "change", "that is"}
"""Columns that are flush left; all others hold numbers."""


def make_tables(catalogue: Mapping[str, Recipe], rows: pd.DataFrame) -> dict[str, str]:
    """Return the tables by the names of their markers."""
    rows = rows.assign(tutorial_epochs=rows.seconds / rows.tutorial_epoch_seconds)
    tables = {
        "recipes": recipes_table(catalogue, rows),
        "recipes short": short_table(catalogue, rows),
        "test time": tta_table(catalogue, rows),
    }
    with_variants = {name: recipe for name, recipe in catalogue.items() if recipe.variants}
    return tables | {f"ablations {name}": ablations_table(name, recipe, rows) for name, recipe in with_variants.items()}


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Return a page with each table between its markers, `<!-- name -->` and `<!-- /name -->`; all else stays.

    Raises:
        ValueError: if a marker is alone, or names no table.
    """
    for name in re.findall(r"<!-- /(.+?) -->", text):
        if name not in tables:
            raise ValueError(f"<!-- /{name} -->: there is no such table{did_you_mean(name, tables)}")
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(begin) != text.count(end):
            raise ValueError(f"{begin} and {end} must come in pairs")
        between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = between.sub(lambda _, filled=f"{begin}\n\n{table}\n\n{end}": filled, text)  # type: ignore[misc]
    return text


def recipes_table(catalogue: Mapping[str, Recipe], rows: pd.DataFrame) -> str:
    """Return the tests of each recipe: a line for each machine, precision and size."""
    headings = ["recipe", "parameters", "epochs", "seconds", "tutorial epochs", "test accuracy", "measured on"]
    lines = []
    for name, group in tests(catalogue, rows):
        cells = [NOT_YET, "", "", "", "", ""]
        if len(group):
            size = [f"{group.parameters.iloc[0]:,}", f"{group.epochs.iloc[0]:,}"]
            cells = [*size, *times(group), accuracy(group), measured_on(group)]
        lines.append([f"`{name}`", *cells, command(name, catalogue[name])])
    return markdown([*headings, "command"], lines)


def short_table(catalogue: Mapping[str, Recipe], rows: pd.DataFrame) -> str:
    """Return the recipes of README.md in fewer columns."""
    lines = []
    for name, group in tests({name: recipe for name, recipe in catalogue.items() if recipe.in_readme}, rows):
        cells = [f"`{name}`", NOT_YET, ""]
        if len(group):
            size = f"{group.parameters.iloc[0]:,} parameters, {counted(group.epochs.iloc[0], 'epoch')}"
            seconds, _ = times(group)
            cells = [f"`{name}`: {size}", accuracy(group), f"{seconds} s; {measured_on(group)}"]
        lines.append([*cells, command(name, catalogue[name])])
    return markdown(["recipe", "test accuracy", "training", "command"], lines, TEXT | {"test accuracy"})


def tta_table(catalogue: Mapping[str, Recipe], rows: pd.DataFrame) -> str:
    """Return the recipes' networks with test-time augmentation and as ensembles, compared with the networks alone."""
    lines = []
    for name, plain in tests(catalogue, rows):
        machine = plain.machine.iloc[0] if len(plain) else None
        others = rows[(rows.recipe == name) & (rows.machine == machine) & ~is_plain(rows)]
        groups = [group for _, group in others.groupby(["runs", "tta"], sort=False)]
        lines += [tta_line(plain, group) for group in ([plain, *groups] if groups else [])]
    headings = ["recipe", "networks", "tta", "test accuracy", "gain, points", "command"]
    return markdown(headings, lines) if lines else NOT_YET


def tta_line(plain: pd.DataFrame, group: pd.DataFrame) -> list[str]:
    """Return one line of that table. An ensemble is compared with the mean of its networks.

    Args:
        plain: the rows of each network alone.
        group: rows of one test-time augmentation, or of one ensemble.
    """
    recipe, runs, tta = group.recipe.iloc[0], group.runs.iloc[0], group.tta.iloc[0]
    run = f"'run=outputs/results/{recipe}/test_seed_{'0' if runs == 1 else '*'}/*'"
    evaluate = f"`python scripts/evaluate.py {run}{'' if tta == 'none' else f' tta={tta}'}`"
    if runs == 1:
        score = accuracy(group)
        # Each network is compared with itself.
        gains = group.set_index("seed").accuracy - plain.set_index("seed").accuracy
        gain = "" if tta == "none" else points(gains.mean(), gains.sem())
    else:
        score = f"{100 * group.accuracy.iloc[0]:.2f} %"
        gain = points(group.accuracy.iloc[0] - plain.accuracy.mean(), math.nan)
    return [f"`{recipe}`", str(runs), tta, score, gain, evaluate]


def ablations_table(name: str, recipe: Recipe, rows: pd.DataFrame) -> str:
    """Return a recipe and its variants on validation images: what the recipe gains over each of them."""
    own = rows[(rows.recipe == name) & (rows.split == "val")]
    changes = {"": [f"`{name}`", ""]}
    changes |= {
        variant: [variant.replace("_", " "), f"`{' '.join(recipe.variants[variant])}`"] for variant in recipe.variants
    }
    lines = []
    for _, group in own.groupby(["machine", "precision"], sort=False):
        members = {variant: group[group.variant == variant] for variant in changes}
        std = pooled_std(group[group.variant.isin(changes)])
        base = members[""].accuracy
        for variant, member in members.items():
            if len(member):
                # Trainings of different variants aren't alike in an equal seed, and so are no pairs.
                error = std * math.sqrt(1 / len(base) + 1 / len(member)) if len(base) else math.nan
                gain = points(base.mean() - member.accuracy.mean(), error) if variant else ""
                lines.append([*changes[variant], accuracy(member), gain, *times(member), measured_on(member)])
    missing = [variant for variant in recipe.variants if variant not in set(own.variant)]
    lines += [[*changes[variant], NOT_YET, "", "", "", ""] for variant in missing]
    headings = ["change", "that is", "validation accuracy", "the recipe's gain, points", "seconds", "tutorial epochs"]
    return markdown([*headings, "measured on"], lines)


def pooled_std(group: pd.DataFrame) -> float:
    """Return the standard deviation that the variants have in common; NaN if none has two seeds.

    Source: https://en.wikipedia.org/wiki/Pooled_variance
    """
    variants = group.groupby("variant").accuracy
    freedom = variants.count() - 1
    return math.sqrt((freedom * variants.var()).sum() / freedom.sum()) if freedom.sum() else math.nan


def tests(catalogue: Mapping[str, Recipe], rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each recipe with the rows of its tests that can be in one mean; without rows where there are none."""
    for name in catalogue:
        own = rows[(rows.recipe == name) & (rows.variant == "") & (rows.split == "test") & is_plain(rows)]
        groups = [group for _, group in own.groupby(["machine", "precision", "parameters", "epochs"], sort=False)]
        yield from ((name, group) for group in groups or [own])


def times(group: pd.DataFrame) -> list[str]:
    """Return the medians of seconds and tutorial epochs."""
    medians = group[["seconds", "tutorial_epochs"]].median()
    return [digits(value).format(value) for value in medians]


def accuracy(group: pd.DataFrame) -> str:
    """Return `mean ± std (n seeds)` in percent."""
    std = f" ± {100 * group.accuracy.std():.2f}" if len(group) > 1 else ""
    return f"{100 * group.accuracy.mean():.2f} %{std} ({counted(len(group), 'seed')})"


def points(gain: float, error: float) -> str:
    """Return a difference in percentage points, with its standard error where it is known."""
    if math.isnan(gain):
        return "-"
    return f"{100 * gain:+.2f}" + ("" if math.isnan(error) else f" ± {100 * error:.2f}")


def measured_on(group: pd.DataFrame) -> str:
    """Return the machine and the precision."""
    return f"{group.machine.iloc[0]}, {group.precision.iloc[0]}"


def command(name: str, recipe: Recipe) -> str:
    """Return the command that trains a recipe once."""
    return f"`python scripts/train.py {' '.join(train_overrides(name, recipe))}`"


def counted(number: int, noun: str) -> str:
    """Return `1 seed`, `2 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]], left: Iterable[str] = TEXT) -> str:
    """Return a table in Markdown.

    Args:
        headings: of the columns.
        lines: a text for each column.
        left: the headings of columns that are flush left.
    """
    rule = ["---" if heading in left else "---:" for heading in headings]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in (headings, rule, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
