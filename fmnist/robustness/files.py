"""The scores as files: a table, all values as JSON, and a page with pictures."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from pandas import DataFrame

from fmnist.plotting.frame import render, svg
from fmnist.plotting.tiles import tiles
from fmnist.robustness import tables
from fmnist.robustness.corruptions import CORRUPTIONS, STRENGTHS
from fmnist.robustness.measure import Network, Robustness
from fmnist.runs.files import atomic_write, write_json

PAGE_FILE, CSV_FILE, JSON_FILE = "robustness.html", "robustness.csv", "robustness.json"


def write_files(folder: Path, result: Robustness) -> None:
    """Write the page, the table and all values into a folder, which is made if it is missing."""
    page, table = render_page(result), str(DataFrame(rows(result)).to_csv(index=False))
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / CSV_FILE, table)
    write_json(folder / JSON_FILE, values(result))
    atomic_write(folder / PAGE_FILE, page)


def rows(result: Robustness) -> Iterator[dict[str, Any]]:
    """Yield a row for each network and condition; the clean images have the strength 0."""
    for network in result.networks:
        yield {"run": network.name, "corruption": "clean", "strength": 0, "value": None, **asdict(network.clean)}
        for (name, strength), scores in network.corrupted.items():
            value = CORRUPTIONS[name].value(strength)
            yield {"run": network.name, "corruption": name, "strength": strength, "value": value, **asdict(scores)}


def values(result: Robustness) -> dict[str, Any]:
    """Return all values, as plain ones."""
    return {
        "images": result.count,
        "seed": result.seed,
        "all_corruptions": result.complete,
        "corruptions": {
            name: {
                "unit": CORRUPTIONS[name].unit,
                "values": {str(strength): CORRUPTIONS[name].value(strength) for strength in result.strengths},
            }
            for name in result.corruptions
        },
        "runs": [network_values(result, network) for network in result.networks],
    }


def network_values(result: Robustness, network: Network) -> dict[str, Any]:
    """Return the scores of one network, as plain values."""
    return {
        "run": network.name,
        "calibrated": network.calibrator is not None,
        "clean": asdict(network.clean),
        "mean": asdict(network.mean()),
        "corruptions": {
            name: {
                "mean": asdict(network.mean(name)),
                **{str(strength): asdict(network.corrupted[name, strength]) for strength in result.strengths},
            }
            for name in result.corruptions
        },
    }


def render_page(result: Robustness) -> str:
    """Return the page as HTML."""
    several = len(result.networks) > 1
    return render(
        "robustness/page.html",
        subject=tables.subject(result),
        several=several,
        complete=result.complete,
        networks=[
            (network, tables.sentence(result, network), tables.strength_table(result, network))
            for network in result.networks
        ],
        together=tables.networks_table(result) if several else None,
        pictures=[(name, picture(result, name)) for name in result.corruptions],
        corruptions=CORRUPTIONS,
        strengths=STRENGTHS,
    )


def picture(result: Robustness, name: str) -> Markup:
    """Return one image under the strengths of a corruption, with the accuracies of the only network."""
    conditions = [None, *((name, strength) for strength in result.strengths)]
    titles = ["clean", *(f"{strength}: {CORRUPTIONS[name].value(strength):g}" for strength in result.strengths)]
    if len(result.networks) == 1:
        (network,) = result.networks
        scores = [network.clean, *(network.corrupted[name, strength] for strength in result.strengths)]
        titles = [f"{title}\n{100 * each.accuracy:.1f} %" for title, each in zip(titles, scores, strict=True)]
    return svg(tiles(torch.stack([result.pictures[condition] for condition in conditions]), titles))
