"""The networks that measured the recipes looked at again: in several views, together, and what they miss."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from fmnist.config.build import build_datamodule
from fmnist.config.restore import restore
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.evaluation.measure import Result, measure, together
from fmnist.evaluation.tta import VIEWS, TestTimeAugmentation
from fmnist.runs import provenance as record
from fmnist.runs.run import Run
from tools.results.mistakes import Miss, Twin, find_misses, find_twins
from tools.results.recipes import Recipe
from tools.results.rows import Row
from tools.results.runs import code_version, machine_name

log = logging.getLogger(__name__)

ONE_IMAGE = 1.5e-4
"""Of 10,000, with four decimals."""


@dataclass(frozen=True)
class Network:
    """One that a recipe has trained, and what it answers to the test images."""

    row: Row
    results: Mapping[str, Result]
    """By the name of the views."""


@dataclass(frozen=True)
class Look:
    """What has been seen of a recipe."""

    rows: Sequence[Row]
    """In several views, and of all its networks together."""
    networks: Sequence[Network]
    datamodule: FashionMNISTDataModule


def trained_here(name: str, recipe: Recipe, rows: Sequence[Row]) -> list[Row]:
    """The tests of a recipe that were made on this machine."""
    machine = machine_name(recipe.hardware)
    return [row for row in rows if (row.recipe, row.split, row.machine) == (name, "test", machine) and row.plain]


def look(cfg: DictConfig, recipe: Recipe, rows: Sequence[Row]) -> Look:
    """Tests the networks of a recipe again.

    Args:
        cfg: as conf/results.yaml composes it.
        recipe: whose they are.
        rows: of its trainings on this machine.

    Raises:
        ValueError: if a network is gone, or is another one than in its row.
    """
    runs = [find_run(cfg, row) for row in rows]
    members = [restore(run.chosen_checkpoint, recipe.hardware, cfg.data_root) for run in runs]
    datamodule = build_datamodule(members[0][0])
    networks = []
    for row, run, (saved, classifier, _) in zip(rows, runs, members, strict=True):
        network, results = classifier.network, {}
        for name, views in VIEWS.items():
            classifier.network = (
                TestTimeAugmentation(network, views, members[0].dataset.black) if len(views) > 1 else network
            )
            results[name] = measure(build_evaluation_trainer(saved), classifier, datamodule, "test")
        check_accuracy(run, results["none"]["accuracy"].item(), row)
        log.info("%s, seed %d: %s", row.recipe, row.seed, in_views(results))
        networks.append(Network(row, results))
    several = [scored(replace(one.row, views=name), one.results[name]) for name in VIEWS for one in networks]
    if len(networks) > 1:
        labels = datamodule.splits["test"][1]
        losses = [classifier.loss for _, classifier, _ in members]
        answers = {name: together([one.results[name] for one in networks], losses, labels) for name in VIEWS}
        log.info("%s, %d together: %s", rows[0].recipe, len(networks), in_views(answers))
        parameters, seconds = sum(row.parameters for row in rows), sum(row.seconds for row in rows)
        all_of_them = replace(rows[0], runs=len(networks), parameters=parameters, seconds=seconds)
        several += [scored(replace(all_of_them, views=name), answer) for name, answer in answers.items()]
    date, version = record.now().partition("T")[0], code_version()
    return Look([replace(row, date=date, version=version) for row in several if not row.plain], networks, datamodule)


def check_accuracy(run: Run, accuracy: float, row: Row) -> None:
    """Refuses a network that isn't the one that was measured.

    Raises:
        ValueError: if so; an image more or less is allowed, as another machine may round it otherwise.
    """
    if abs(accuracy - row.accuracy) > ONE_IMAGE:
        raise ValueError(
            f"{run.folder}: its accuracy is {accuracy:.4f}, and {row.accuracy:.4f} in the results: train it anew "
            f"(recipes=[{row.recipe}] again=true)"
        )


def find_run(cfg: DictConfig, row: Row) -> Run:
    """The folder of a training.

    Raises:
        ValueError: if it isn't there.
    """
    parent = Path(cfg.outputs, "results", row.recipe, f"test_seed_{row.seed}")
    folders = sorted(parent.glob("*"))
    if not folders:
        raise ValueError(f"{parent}: the run is gone (recipes=[{row.recipe}] again=true makes it anew)")
    return Run(folders[-1])


def scored(row: Row, result: Result) -> Row:
    """The row with another result."""
    return replace(row, accuracy=result["accuracy"].item(), loss=result["loss"].item())


def in_views(results: Mapping[str, Result]) -> str:
    """The accuracies in words."""
    return ", ".join(f"{100 * result['accuracy']:.2f}% (views={name})" for name, result in results.items())


def gather(looks: Sequence[Look], near: float) -> tuple[list[Miss], list[Twin]]:
    """The test images that some of the networks miss, and the images that have a twin nearer than that.

    Args:
        looks: at one recipe or more.
        near: the distance of a `Twin`.
    """
    splits = looks[0].datamodule.splits
    twins = {split: find_twins(split, *splits[split], *splits["train"]) for split in ("test", "train")}
    logits = [network.results["none"]["logits"] for look in looks for network in look.networks]
    misses = find_misses(logits, splits["test"][1], twins["test"])
    return misses, [twin for split in twins.values() for twin in split if twin.distance < near]
