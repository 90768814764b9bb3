"""The findings of an audit as files: three tables and a page."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fmnist.audit.findings import DuplicateRow, Findings, Row
from fmnist.audit.labels import Accuracy, frequent_pairs
from fmnist.plotting.frame import percent, render
from fmnist.plotting.tiles import data_url
from fmnist.runs.files import atomic_write

PAGE_FILE = "audit.html"
ERRORS_FILE = "label_issues.csv"
SHOWN = 48  # images of each list on the page
PAIRS = 12
SPLITS = {"train": "training", "test": "test"}


class Picture(NamedTuple):
    """An image of the page, or two side by side."""

    urls: Sequence[str]
    title: str
    """Below it."""
    detail: str


def write_audit(folder: Path, findings: Findings, facts: Mapping[str, str]) -> str:
    """Write label_issues.csv, duplicates.csv, outliers.csv and audit.html, and return the summary.

    Args:
        folder: of the files.
        findings: what the audit has found.
        facts: where it comes from, by name.
    """
    errors = {split: findings.label_rows(split) for split in SPLITS}
    outliers = {split: findings.outlier_rows(split) for split in SPLITS}
    copies = findings.duplicate_rows()
    texts = {
        ERRORS_FILE: to_csv(Row, [row for rows in errors.values() for row in rows]),
        "duplicates.csv": to_csv(DuplicateRow, copies),
        "outliers.csv": to_csv(Row, [row for rows in outliers.values() for row in rows]),
        PAGE_FILE: page(findings, errors, outliers, copies, facts),
    }
    for name, text in texts.items():
        atomic_write(folder / name, text)
    return summary(findings, errors, copies)


def to_csv(kind: type[Row] | type[DuplicateRow], rows: Sequence[Row] | Sequence[DuplicateRow]) -> str:
    """Return a table whose columns are the fields of its rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def summary(findings: Findings, errors: Mapping[str, Sequence[Row]], copies: Sequence[DuplicateRow]) -> str:
    """Return the result as lines for the terminal."""
    lines = ["result:"]
    for split, title in SPLITS.items():
        count, total = len(errors[split]), len(findings.images[split].labels)
        share = percent(count / total, 2)
        lines.append(f"  {count:,} of {total:,} {title} images have a probable label error ({share})")
        pairs = frequent_pairs(*labels_of(errors[split]), most=3)
        lines += [f"    {count:,} {label}, probably {suggestion}" for label, suggestion, count in pairs]
    for (where, kind), count in duplicate_counts(copies).items():
        lines.append(f"  {count:,} {kind} duplicates {where}")
    lines.append("  test accuracy of the networks together (95% interval):")
    for name, value in findings.accuracies().items():
        if value is not None:
            interval = f"{percent(value.low, 2)} to {percent(value.high, 2)}"
            share = percent(value.correct / value.total, 2)
            lines.append(f"    {name}: {share} of {value.total:,} ({interval})")
    return "\n".join(lines)


def labels_of(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the labels and the suggestions of some rows."""
    return [row.label for row in rows], [row.suggestion for row in rows]


def duplicate_counts(copies: Sequence[DuplicateRow]) -> dict[tuple[str, str], int]:
    """Return the number of copies by where they are, and whether they are exact."""
    counts = Counter((where_of(row), row.kind) for row in copies)
    places = ("among training images", "among test images", "of test images among training images")
    return {(where, kind): counts[where, kind] for where in places for kind in ("exact", "near")}


def where_of(row: DuplicateRow) -> str:
    """Return where an image and its copy are."""
    if row.split == row.copy_split == "test":
        return "among test images"
    return "of test images among training images" if row.copy_split == "test" else "among training images"


def page(
    findings: Findings,
    errors: Mapping[str, Sequence[Row]],
    outliers: Mapping[str, Sequence[Row]],
    copies: Sequence[DuplicateRow],
    facts: Mapping[str, str],
) -> str:
    """Return the page as HTML."""
    pairs = {
        split: [(label, probably, f"{count:,}") for label, probably, count in found]
        for split, found in ((split, frequent_pairs(*labels_of(rows), most=PAIRS)) for split, rows in errors.items())
    }
    across = [place for place, row in enumerate(copies) if row.copy_split == "test" != row.split]
    others = [place for place, row in enumerate(copies) if row.label != row.suggestion]
    rest = [place for place, row in enumerate(copies) if row.label == row.suggestion and place not in {*across}]
    return render(
        "audit/audit.html",
        dataset=findings.dataset,
        splits=SPLITS,
        totals={split: len(images.labels) for split, images in findings.images.items()},
        errors=errors,
        accuracy_rows=list(accuracy_rows(findings.accuracies())),
        facts=facts,
        pairs=pairs,
        error_pictures={
            split: pictures(findings.images[split].pixels, findings.errors[split].tolist(), rows, "probability")
            for split, rows in errors.items()
        },
        count_rows=[(where, kind, f"{count:,}") for (where, kind), count in duplicate_counts(copies).items()],
        leaked=int((findings.duplicates.across < len(findings.images["test"].labels)).sum()),
        other_labels=len(others),
        copies=len(copies),
        duplicate_pictures={
            "With different labels": copy_pictures(findings, copies, others),
            "Test images among the training images": copy_pictures(findings, copies, across),
            "Others": copy_pictures(findings, copies, rest),
        },
        outliers=outliers,
        outlier_pictures={
            split: pictures(findings.images[split].pixels, findings.outliers(split), rows, "distance")
            for split, rows in outliers.items()
        },
    )


def accuracy_rows(accuracies: Mapping[str, Accuracy | None]) -> Iterator[tuple[str, ...]]:
    """Yield which test images, correct ones, all, accuracy and interval, as texts, where there are images."""
    for name, value in accuracies.items():
        if value is not None:
            interval = f"{percent(value.low, 2)} to {percent(value.high, 2)}"
            share = percent(value.correct / value.total, 2)
            yield name, f"{value.correct:,}", f"{value.total:,}", share, interval


def pictures(images: Tensor, chosen: Sequence[int], rows: Sequence[Row], score: str) -> list[Picture]:
    """Return the first of some images with their label, suggestion and score."""
    found = []
    for index, row in list(zip(chosen, rows, strict=True))[:SHOWN]:
        title = row.label if row.suggestion == row.label else f"{row.label} → {row.suggestion}"
        found.append(Picture([data_url(images[index])], title, f"{row.split} {row.index}, {score} {row.score:.3f}"))
    return found


def copy_pictures(findings: Findings, copies: Sequence[DuplicateRow], chosen: Sequence[int]) -> list[Picture]:
    """Return the most similar of some pairs, side by side."""
    found = []
    for place in sorted(chosen, key=lambda place: -copies[place].score)[:SHOWN]:
        row = copies[place]
        urls = [data_url(image) for image in findings.duplicate_pixels(place)]
        title = row.label if row.label == row.suggestion else f"{row.label} / {row.suggestion}"
        where = f"{row.split} {row.index}, {row.copy_split} {row.copy_index}"
        found.append(Picture(urls, title, f"{where}: {'exact' if row.kind == 'exact' else f'{row.score:.3f}'}"))
    return found
