"""From missed images and twins to tables in Markdown."""

from collections import Counter
from collections.abc import Sequence

from fmnist.data.info import CLASSES
from tools.results.mistakes import Miss, Twin
from tools.results.tables import NOT_YET, markdown

TEST_IMAGES = 10_000
IN_A_CLASS = 1_000
DISTANCES = (0.01, 0.02, 0.03, 0.04, 0.05)
"""Below which a twin is counted; none is kept that is farther than the last."""


def mistake_tables(misses: Sequence[Miss], twins: Sequence[Twin]) -> dict[str, str]:
    """The tables of the mistakes by the names of their markers."""
    return {
        "missed": missed_table(misses) if misses else NOT_YET,
        "missed classes": classes_table(misses) if misses else NOT_YET,
        "twins": twins_table(twins) if twins else NOT_YET,
    }


def missed_table(misses: Sequence[Miss]) -> str:
    """By how many networks images were missed."""
    networks = misses[0].networks
    groups = {
        "some, at most half": [miss for miss in misses if 2 * miss.missed <= networks],
        "more than half": [miss for miss in misses if networks / 2 < miss.missed < networks],
        f"all {networks}": [miss for miss in misses if miss.missed == networks],
    }
    right = TEST_IMAGES - len(misses)
    lines = [["none", f"{right:,}", percent(right, TEST_IMAGES), "", "", ""]]
    for name, group in groups.items():
        agreed = sum(miss.gave == miss.missed for miss in group)
        right_near = sum(miss.nearest_label == miss.label for miss in group)
        wrong_near = sum(miss.nearest_label == miss.answer for miss in group)
        cells = [len(group), agreed, right_near, wrong_near]
        count, *others = (f"{cell:,}" for cell in cells)
        lines.append([name, count, percent(len(group), TEST_IMAGES), *others])
    headings = ["missed by", "images", "of all", "all wrong answers agree"]
    headings += ["the nearest training image has the label", "it has the wrong answer"]
    return markdown(headings, lines, {"missed by"})


def classes_table(misses: Sequence[Miss]) -> str:
    """The classes, those first of which the most images are missed by all networks."""
    networks = misses[0].networks
    lines = []
    for name in CLASSES:
        own = [miss for miss in misses if miss.label == name]
        always = [miss for miss in own if miss.missed == networks]
        answers = Counter(miss.answer for miss in always).most_common(3)
        right = networks * IN_A_CLASS - sum(miss.missed for miss in own)
        cells = [percent(right, networks * IN_A_CLASS), f"{len(own):,}", f"{len(always):,}"]
        lines.append([name, *cells, ", ".join(f"{answer} {count}" for answer, count in answers)])
    lines.sort(key=lambda line: -int(line[3].replace(",", "")))
    headings = ["class", "right, on average", "images missed by any", "by all", "most frequent answers to these"]
    return markdown(headings, lines, {"class", "most frequent answers to these"})


def twins_table(twins: Sequence[Twin]) -> str:
    """How many images have a training image so near that it is as good as the same, and whether the labels agree."""
    lines = []
    for limit in DISTANCES:
        cells = []
        for split in ("test", "train"):
            near = [twin for twin in twins if twin.split == split and twin.distance < limit]
            cells += [f"{len(near):,}", f"{sum(twin.label != twin.nearest_label for twin in near):,}"]
        lines.append([f"{limit:g}", *cells])
    headings = ["distance below", "test images", "with another label", "training images", "with another label"]
    return markdown(headings, lines, ())


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %"
