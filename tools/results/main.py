"""Measure the recipes again, a real training after the other, and write the tables that show them."""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, MinLen
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor

from fmnist.config import logs
from fmnist.config.instantiate import plain_config
from fmnist.config.validation import check_arguments
from fmnist.data.info import CLASSES
from fmnist.plotting.style import save_png
from fmnist.plotting.tiles import prediction_tiles
from fmnist.runs.run import Run
from tools.results.mistake_runs import gather, look, trained_here
from tools.results.mistake_tables import DISTANCES, mistake_tables
from tools.results.mistakes import Miss, Twin
from tools.results.pages import read_page, write_pages
from tools.results.recipes import Recipe, Task, ablation_tasks, choose, left, read_catalogue, recipe_tasks
from tools.results.rows import Row, put, read_rows, write_rows
from tools.results.runs import Sitting, check_words, machine_name, remove_others
from tools.results.tables import result_tables

log = logging.getLogger(__name__)

SHOWN = 72
"""Images in the picture of those that are missed."""
Count = Annotated[int, Ge(1)]
Text = Annotated[str, MinLen(1)]


def settings(
    what: Literal["recipes", "ablations", "mistakes", "tables"],
    recipes: Annotated[Sequence[str], MinLen(1)] | None,
    seeds: Count | None,
    again: bool,
    val_size: Count,
    unit_steps: Count,
    unit_warm_up: Count,
    data_root: Text,
    docs: Text,
    mistakes_of: Annotated[Sequence[str], MinLen(1)],
    pages: Sequence[Text],
    outputs: Text,
    catalogue: Mapping[str, Mapping[str, Any]],
) -> None:
    """The keys of conf/results.yaml, and what they may be."""


@dataclass(frozen=True)
class Book:
    """What has been measured, and the pages that show it."""

    docs: Path
    pages: Sequence[Path]
    catalogue: Mapping[str, Recipe]

    @property
    def rows_file(self) -> Path:
        return self.docs / "results.csv"

    @property
    def missed_file(self) -> Path:
        return self.docs / "missed.csv"

    @property
    def twins_file(self) -> Path:
        return self.docs / "twins.csv"

    @property
    def missed_picture(self) -> Path:
        return self.docs / "missed.png"

    def rows(self) -> list[Row]:
        """What has been measured; see `read_rows`."""
        return read_rows(Row, self.rows_file)

    def add(self, *rows: Row) -> None:
        """Keeps rows, and shows them."""
        write_rows(Row, self.rows_file, functools.reduce(put, rows, self.rows()))
        write_pages(self.texts())

    def texts(self) -> dict[Path, str]:
        """The pages as they are to be.

        Raises:
            ValueError: if one can't be read, or its markers can't be.
        """
        tables = result_tables(self.catalogue, self.rows()) | mistake_tables(
            read_rows(Miss, self.missed_file), read_rows(Twin, self.twins_file)
        )
        return {page: read_page(page, tables) for page in self.pages}


def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (what every job gets)
    """Makes the trainings that have no row yet; each row is kept and shown as soon as it is there.

    Raises:
        ValueError: if the config asks for something that can't be, before anything is measured; or a training fails.
    """
    logs.to_terminal()
    config = plain_config(cfg)
    check_arguments("", settings, config)
    catalogue = read_catalogue(config["catalogue"])
    recipes = choose(catalogue, config["recipes"])
    choose(catalogue, cfg.mistakes_of)
    if not Path(cfg.docs).is_dir():
        raise ValueError(f"docs={cfg.docs}: there is no such folder")
    book = Book(Path(cfg.docs), [Path(page) for page in cfg.pages], catalogue)
    book.texts()
    if cfg.what == "mistakes":
        look_again(cfg, recipes, book)
    elif cfg.what != "tables":
        measure(cfg, find_tasks(cfg, recipes, book.rows()), book)
    write_pages(book.texts())
    log.info("%s", "\n".join(map(str, (book.docs, *book.pages))))


def find_tasks(cfg: DictConfig, recipes: Mapping[str, Recipe], rows: Sequence[Row]) -> list[Task]:
    """The trainings that are asked for, can be made on this machine, and are left.

    Raises:
        ValueError: if a recipe that was named has no variants to compare it with.
    """
    ablations = cfg.what == "ablations"
    possible = {}
    for name, recipe in recipes.items():
        if ablations and cfg.recipes is not None and not recipe.variants:
            raise ValueError(f"recipes={name}: it has no variants in conf/results.yaml (catalogue.{name}.variants)")
        if recipe.hardware == "gpu" and not torch.cuda.is_available():
            log.info("%s is left out: it is trained on a GPU, and there is none", name)
        else:
            possible[name] = recipe
    tasks = ablation_tasks(possible, cfg.seeds, cfg.val_size) if ablations else recipe_tasks(possible, cfg.seeds)
    machines = {recipe.hardware: machine_name(recipe.hardware) for recipe in possible.values()}
    return tasks if cfg.again else left(tasks, rows, machines)


def measure(cfg: DictConfig, tasks: Sequence[Task], book: Book) -> None:
    """Makes the trainings one after the other.

    Raises:
        ValueError: if one can't be, or fails; or another process is measuring.
    """
    if not tasks:
        log.info("nothing is left to be measured (again=true measures anew what has its row)")
        return
    check_words(cfg, tasks)
    folder = Path(cfg.outputs, "results")
    folder.mkdir(parents=True, exist_ok=True)
    with Run(folder).locked():
        sitting = Sitting(cfg)
        for number, task in enumerate(tasks, start=1):
            log.info("%s (%d of %d)", task.title, number, len(tasks))
            run, row = sitting.measure(task)
            book.add(row)
            remove_others(run)
            log.info(
                "  %s accuracy %.2f%%, %.2f s, or %.2f tutorial epochs of %.2f s",
                *(row.split, 100 * row.accuracy, row.seconds, row.tutorial_epochs, row.tutorial_epoch_seconds),
            )


def look_again(cfg: DictConfig, recipes: Mapping[str, Recipe], book: Book) -> None:
    """Tests the networks of the recipes in several views and together, and gathers what those of `mistakes_of` miss.

    Raises:
        ValueError: if none of the recipes has been measured here, or a network of them is gone.
    """
    measured = {name: trained_here(name, recipe, book.rows()) for name, recipe in recipes.items()}
    looks = {name: look(cfg, recipes[name], rows) for name, rows in measured.items() if rows}
    if not looks:
        raise ValueError(f"what=mistakes: none of {', '.join(recipes)} has been measured on this machine")
    stale = {(name, rows[0].machine) for name, rows in measured.items() if rows}
    write_rows(Row, book.rows_file, [row for row in book.rows() if row.plain or (row.recipe, row.machine) not in stale])
    book.add(*(row for seen in looks.values() for row in seen.rows))
    asked = [seen for name, seen in looks.items() if name in cfg.mistakes_of]
    if not asked:
        return
    misses, twins = gather(asked, max(DISTANCES))
    write_rows(Miss, book.missed_file, misses)
    write_rows(Twin, book.twins_file, twins)
    save_png(missed_tiles(misses, *asked[0].datamodule.splits["test"]), book.missed_picture)


def missed_tiles(misses: Sequence[Miss], images: Tensor, labels: Tensor) -> Figure:
    """Of the test images that all networks miss those that they are the surest of."""
    by_all = sorted((m for m in misses if m.missed == m.networks), key=lambda miss: -miss.answer_probability)[:SHOWN]
    places = [miss.image for miss in by_all]
    answers = torch.tensor([CLASSES.index(miss.answer) for miss in by_all], dtype=torch.long)
    return prediction_tiles(images[places, 0], answers, labels[places], CLASSES, columns=12)
