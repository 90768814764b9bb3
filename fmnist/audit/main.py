"""Look for probable label errors, duplicates and outliers in a dataset."""

import json
import logging
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le
from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist.audit.duplicates import find_duplicates
from fmnist.audit.findings import Findings, Images
from fmnist.audit.folds import assign_folds, cross_validate
from fmnist.audit.labels import check_package, label_errors
from fmnist.audit.page import ERRORS_FILE, PAGE_FILE, write_audit
from fmnist.config import logs
from fmnist.config.build import build_datamodule, build_training
from fmnist.config.errors import explain_out_of_memory
from fmnist.config.keys import TrainKeys
from fmnist.config.overrides import program, shell_argument
from fmnist.config.settings import read_settings
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.splits import complete, positions
from fmnist.runs.run import Run, check_name, claim_run, new_run
from fmnist.training.rank_info import leave_others

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Settings(TrainKeys):
    """The keys of conf/audit_data.yaml, and what they may be."""

    name: str | None  # type: ignore[assignment]
    folds: Annotated[int, Ge(2), Le(100)]
    near_duplicates: Annotated[float, Ge(0.5), Le(1)]
    outliers: Annotated[int, Ge(0)]


@explain_out_of_memory("try half of data.batch_size, or a smaller network")
def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Write the findings as a page and as tables into a new folder.

    Raises:
        ValueError: if the config asks for something impossible. Then there is no new folder.
        KeyboardInterrupt: if the user pressed Ctrl-C. Nothing is written then.
    """
    leave_others()  # an audit has one process
    logs.to_terminal()
    given = read_settings(Settings, cfg)
    check_settings(given, cfg)
    check_package()
    cfg.trainer.update({"devices": 1, "num_nodes": 1, "strategy": "auto"})
    in_sweep = hydra.mode == RunMode.MULTIRUN
    run = claim_run(Path(hydra.runtime.output_dir)) if in_sweep else new_folder(Path(given.outputs), given.name)
    try:
        findings = find(cfg, given)
        overrides = shlex.join(hydra.overrides.task)
        facts = {**describe(cfg, given), "command": f"{program('audit_data')} {overrides}".strip()}
        log.info("%s", write_audit(run.folder, findings, facts))
    except BaseException:
        run.discard()
        raise
    log.info("page: %s", run.folder / PAGE_FILE)
    log.info("to train without the doubtful ones:  %s", exclude_command(run.folder / ERRORS_FILE))


def exclude_command(file: Path) -> str:
    """Return the command that trains without the images that a file lists."""
    return f"{program('train')} {shell_argument('data.exclude', file)}"


def check_settings(given: Settings, cfg: DictConfig) -> None:
    """Refuse keys that don't go with an audit.

    Raises:
        ValueError: naming the key.
    """
    for key, fixed in {"test": False, "report": False, "resume": None}.items():
        if getattr(given, key) != fixed:
            raise ValueError(f"{key}={json.dumps(getattr(given, key))}: not here, as an audit makes no run")
    for key in ("pictures", "logger"):
        if cfg.get(key):
            raise ValueError(f"{key}: must be none, as an audit makes no run")
    if cfg.data.get("val_size"):
        raise ValueError(f"data.val_size={cfg.data.val_size}: must be 0, as each fold is held out once")
    if cfg.data.get("exclude") is not None:
        raise ValueError(f"data.exclude={cfg.data.exclude}: must be null, as an audit looks at all images")


def new_folder(outputs: Path, name: str | None) -> Run:
    """Make the folder outputs/audit/name; without a name one of the present time.

    Raises:
        ValueError: if it exists, or can't be made.
    """
    if name is None:
        return new_run(outputs, "audit")
    check_name(name)
    folder = outputs.absolute() / "audit" / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ValueError(f"name={name}: {folder} exists already: give another name") from error
    except OSError as error:
        raise ValueError(f"outputs={outputs}: can't make a folder there: {error.strerror}") from error
    return Run(folder)


def find(cfg: DictConfig, given: Settings) -> Findings:
    """Return what there is to say about the images of a dataset.

    Raises:
        ValueError: if a class has too few images for the folds, or there are no test images.
    """
    datamodule = build_datamodule(cfg)
    dataset, images = datamodule.dataset, read_images(datamodule)
    train, test = images["train"], images["test"]
    folds = assign_folds(train.labels, given.folds, given.seed, dataset.classes)
    log.info("%s training images, %s test images", f"{len(train.labels):,}", f"{len(test.labels):,}")
    duplicates = find_duplicates(torch.cat([test.pixels, train.pixels]), given.near_duplicates, len(test.labels))
    log.info("%s images have an earlier copy, %s an exact one", len(duplicates.index), int(duplicates.exact.sum()))
    splits = {split: (part.pixels, part.labels) for split, part in images.items()}
    predicted = cross_validate(splits, folds, lambda folder: build_training(cfg, Run(folder)))
    errors = {split: label_errors(part.labels, predicted[split].probabilities) for split, part in images.items()}
    return Findings(dataset, images, predicted, errors, duplicates, given.outliers)


def read_images(datamodule: ImageDataModule) -> dict[str, Images]:
    """Return the training and the test images of a dataset; validation images of its own are training images here.

    Raises:
        ValueError: if it has no test images, or they can't be had.
    """
    given, sizes = datamodule.source.contents.splits, (0, datamodule.test_size, datamodule.split_seed)
    splits, places = complete(given, *sizes), positions(given, *sizes)
    own = len(given["train"][1])
    train = [("train", place) if place < own else ("val", place - own) for place in places["train"].tolist()]
    test = [("test", index) for index in range(len(splits["test"][1]))]
    return {"train": Images(*splits["train"], train), "test": Images(*splits["test"], test)}


def describe(cfg: DictConfig, given: Settings) -> dict[str, str]:
    """Return what the findings come from, by name."""
    epochs, steps = cfg.trainer.max_epochs, cfg.trainer.max_steps
    length = f"{epochs} epochs" if epochs and epochs > 0 else f"{steps} steps"
    return {
        "network": str(cfg.model.get("name") or str(cfg.model.get("_target_")).rpartition(".")[2]),
        "trainings": f"{given.folds}, of {length} each",
        "seed": str(given.seed),
        "near duplicates": f"pixels with a correlation of {given.near_duplicates:g} or more",
    }
