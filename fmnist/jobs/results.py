"""Measure the recipes again, a real training after the other, and write the tables that show them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, MinLen
from omegaconf import DictConfig

from fmnist import logs
from fmnist.arguments import check_arguments
from fmnist.build import plain_config
from fmnist.jobs.results_runs import Sitting, check_words, machine_name
from fmnist.results.pages import read_page, write_pages
from fmnist.results.recipes import Recipe, Task, ablation_tasks, choose, left, read_catalogue, recipe_tasks
from fmnist.results.rows import Row, put, read_rows, write_rows
from fmnist.results.tables import all_tables
from fmnist.runs import Run

log = logging.getLogger(__name__)

Count = Annotated[int, Ge(1)]
Text = Annotated[str, MinLen(1)]


def settings(
    what: Literal["recipes", "ablations", "tables"],
    recipes: Annotated[Sequence[str], MinLen(1)] | None,
    seeds: Count | None,
    again: bool,
    val_size: Count,
    unit_steps: Count,
    unit_warm_up: Count,
    data_root: Text,
    rows: Text,
    pages: Sequence[Text],
    outputs: Text,
    catalogue: Mapping[str, Mapping[str, Any]],
) -> None:
    """The keys of conf/results.yaml, and what they may be."""


@dataclass(frozen=True)
class Book:
    """The rows, and the pages that show them."""

    file: Path
    pages: Sequence[Path]
    catalogue: Mapping[str, Recipe]

    def rows(self) -> list[Row]:
        """What has been measured; see `read_rows`."""
        return read_rows(self.file)

    def add(self, row: Row) -> None:
        """Keeps a row, and shows it."""
        write_rows(self.file, put(self.rows(), row))
        write_pages(self.texts())

    def texts(self) -> dict[Path, str]:
        """The pages as they are to be.

        Raises:
            ValueError: if one can't be read, or its markers can't be.
        """
        tables = all_tables(self.catalogue, self.rows())
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
    if not Path(cfg.rows).parent.is_dir():
        raise ValueError(f"rows={cfg.rows}: there is no folder {Path(cfg.rows).parent}")
    book = Book(Path(cfg.rows), [Path(page) for page in cfg.pages], catalogue)
    texts = book.texts()
    if cfg.what != "tables":
        measure(cfg, find_tasks(cfg, recipes, book.rows()), book)
        texts = book.texts()
    write_pages(texts)
    log.info("%s", "\n".join(map(str, (book.file, *book.pages))))


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
            row = sitting.measure(task)
            book.add(row)
            log.info(
                "  %s accuracy %.2f%%, %.2f s, or %.2f tutorial epochs of %.2f s",
                *(row.split, 100 * row.accuracy, row.seconds, row.tutorial_epochs, row.tutorial_epoch_seconds),
            )
