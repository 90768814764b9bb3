"""The scores as files: a table, all values as JSON, and a page with pictures."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from pandas import DataFrame

from fmnist.evaluation.robustness import Robustness
from fmnist.plotting.frame import render, svg
from fmnist.plotting.tiles import tiles
from fmnist.robustness.corruptions import CORRUPTIONS, STRENGTHS
from fmnist.robustness.measure import Result
from fmnist.robustness.tables import networks_table
from fmnist.runs.files import atomic_write, write_json
from fmnist.runs.run import Run

log = logging.getLogger(__name__)

PAGE_FILE, CSV_FILE = "robustness.html", "robustness.csv"


def write_files(folder: Path, result: Result) -> None:
    """Write the page, the table and all values into a folder, which is made if it is missing."""
    page, table = render_page(result), str(DataFrame(rows(result.networks)).to_csv(index=False))
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / CSV_FILE, table)
    write_json(Run(folder).robustness_file, values(result.networks))
    atomic_write(folder / PAGE_FILE, page)


def write_scores(run: Run, network: Robustness) -> None:
    """Write the values of one network into the folder of its run, where the report and the model card find them.

    A folder that can't be written to is named in a warning.
    """
    try:
        write_json(run.robustness_file, values([network]))
    except OSError as error:
        log.warning("%s: can't be written: %s: no report will have it", run.robustness_file, error.strerror)


def rows(networks: Sequence[Robustness]) -> Iterator[dict[str, Any]]:
    """Yield a row for each network and condition; the clean images have the strength 0."""
    for network in networks:
        yield {"run": network.name, "corruption": "clean", "strength": 0, "value": None, **asdict(network.clean)}
        for (name, strength), scores in network.corrupted.items():
            value = CORRUPTIONS[name].value(strength)
            yield {"run": network.name, "corruption": name, "strength": strength, "value": value, **asdict(scores)}


def values(networks: Sequence[Robustness]) -> dict[str, Any]:
    """Return all values of networks that were measured together, as plain ones."""
    first = networks[0]
    return {
        "images": first.images,
        "seed": first.seed,
        "all_corruptions": first.complete,
        "corruptions": {
            name: {
                "unit": CORRUPTIONS[name].unit,
                "values": {str(strength): CORRUPTIONS[name].value(strength) for strength in first.strengths},
            }
            for name in first.corruptions
        },
        "runs": [network.to_dict() for network in networks],
    }


def render_page(result: Result) -> str:
    """Return the page as HTML."""
    networks = result.networks
    return render(
        "robustness/page.html",
        networks=networks,
        several=len(networks) > 1,
        together=networks_table(networks),
        pictures=[(name, picture(result, name)) for name in result.first.corruptions],
        corruptions=CORRUPTIONS,
        strengths=list(STRENGTHS),
        strength_rows=[
            [name, *(f"{value:g}" for value in each.values), each.unit] for name, each in CORRUPTIONS.items()
        ],
    )


def picture(result: Result, name: str) -> Markup:
    """Return one image under the strengths of a corruption, with the accuracies of the only network."""
    first = result.first
    conditions = [None, *((name, strength) for strength in first.strengths)]
    titles = ["clean", *(f"{strength}: {CORRUPTIONS[name].value(strength):g}" for strength in first.strengths)]
    if len(result.networks) == 1:
        scores = [first.clean, *(first.corrupted[name, strength] for strength in first.strengths)]
        titles = [f"{title}\n{100 * each.accuracy:.1f} %" for title, each in zip(titles, scores, strict=True)]
    return svg(tiles(torch.stack([result.pictures[condition] for condition in conditions]), titles))
