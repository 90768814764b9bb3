"""Measure a trained classifier again, from its checkpoint alone; or several together."""

import logging
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen
from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.build import build_datamodule
from fmnist.config.memory import explain_out_of_memory
from fmnist.config.restore import restore
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.config.validation import check_arguments
from fmnist.data.sources import check_root
from fmnist.evaluation.measure import measure, show, together
from fmnist.evaluation.tta import VIEWS, TestTimeAugmentation
from fmnist.runs.run import Run, checkpoint_file

log = logging.getLogger(__name__)

KEPT_BACK = ("data.val_size", "data.split_seed")
"""What decides which images validate."""


def settings(
    run: str | Annotated[list[str], MinLen(1)] | None,
    checkpoint: str | None,
    split: Literal["val", "test"],
    views: Literal["none", "flip", "flip_shift"],
    data_root: str | None,
    accelerator: str,
) -> None:
    """The keys of conf/evaluate.yaml, and what they may be."""


@explain_out_of_memory("try accelerator=cpu, or another machine")
def main(cfg: DictConfig, hydra: DictConfig) -> float:  # noqa: ARG001 (what every job gets)
    """Shows the result of a checkpoint, or of several together, on a split and returns its accuracy.

    Raises:
        ValueError: if there is no such run or checkpoint, it can't be read, or several don't go together.
    """
    logs.to_terminal()
    check_arguments("", settings, {str(key): value for key, value in cfg.items()})
    files = find_files(cfg.run, cfg.checkpoint)
    members = [restore(file, cfg.accelerator, cfg.data_root) for file in files]
    configs = {file: saved for file, (saved, *_) in zip(files, members, strict=True)}
    for saved in configs.values():
        check_images(saved, cfg)
    check_same(configs, cfg.split)
    datamodule = build_datamodule(configs[files[0]])
    views = VIEWS[cfg.views]
    results = []
    for file, (saved, classifier, dataset) in zip(files, members, strict=True):
        if len(views) > 1:
            classifier.network = TestTimeAugmentation(classifier.network, views, dataset.black)
        results.append(measure(build_evaluation_trainer(saved), classifier, datamodule, cfg.split))
        if len(files) > 1:
            log.info("%s of %s: accuracy %.2f%%", cfg.split, file, 100 * results[-1]["accuracy"].item())
    how = [f"test-time augmentation, {len(views)} views of each image"] if len(views) > 1 else []
    if len(files) == 1:
        show(cfg.split, str(files[0]), results[0], members[0].dataset.classes, *how)
        return float(results[0]["accuracy"])
    if len({len(result["logits"]) for result in results}) > 1:
        raise ValueError(f"run: by their trainer.limit_{cfg.split}_batches the runs aren't measured on as many images")
    result = together(results, [member.classifier.loss for member in members], datamodule.splits[cfg.split][1])
    show(
        cfg.split,
        f"{len(files)} runs together",
        result,
        members[0].dataset.classes,
        f"the mean of {len(files)} runs",
        *how,
    )
    return float(result["accuracy"])


def find_files(run: str | Sequence[str] | None, checkpoint: str | None) -> list[Path]:
    """The checkpoints that a person names.

    Args:
        run: a folder, a pattern (as of all runs of a sweep), or several of both.
        checkpoint: or one file.

    Raises:
        ValueError: if there is no such run, or one is named twice.
    """
    if run is None:
        return [checkpoint_file(run, checkpoint)]
    files: dict[Path, Path] = {}
    for folder in (folder for name in ([run] if isinstance(run, str) else run) for folder in matching(name)):
        file = checkpoint_file(folder, checkpoint)
        if file.resolve() in files:
            raise ValueError(f"run={folder} stands there twice")
        files[file.resolve()] = file
    return list(files.values())


def matching(name: str) -> list[str]:
    """The run folders that fit a pattern; what is none stands for itself.

    Raises:
        ValueError: if there is none.
    """
    if "*" not in name or Path(name).exists():
        return [name]
    folders = sorted(glob(name))  # noqa: PTH207 (absolute, too)
    found = [folder for folder in folders if Run(Path(folder)).config_file.is_file()]
    if not found:
        raise ValueError(f"run={name}: no run folder has such a name")
    return found


def check_images(saved: DictConfig, cfg: DictConfig) -> None:
    """Refuses a run whose images aren't here, or that kept none for validation.

    Args:
        saved: the run's config.
        cfg: what the person asks for.

    Raises:
        ValueError: naming the key.
    """
    if cfg.data_root is None:
        check_root("data_root", OmegaConf.select(saved, "data.root"))
    if cfg.split == "val" and not saved.data.val_size:
        raise ValueError("split=val: the run had no validation images (data.val_size=0)")


def check_same(configs: Mapping[Path, DictConfig], split: str) -> None:
    """Refuses runs that can't be measured on the same images.

    Args:
        configs: of the runs, by the files of their checkpoints.
        split: on which they are measured.

    Raises:
        ValueError: naming two runs, and what differs.
    """
    (first, one), *others = configs.items()
    for file, other in others:
        changed = [key for key in KEPT_BACK if OmegaConf.select(one, key) != OmegaConf.select(other, key)]
        keys = changed if split == "val" else []
        if one.data.root != other.data.root and hashes(one) != hashes(other):
            keys.append("data.root")
        for key in keys:
            values = [OmegaConf.select(saved, key) for saved in (one, other)]
            raise ValueError(
                f"split={split}: {key} is {values[0]} in {first}, and {values[1]} in {file}: runs are measured "
                "together on the same images"
            )


def hashes(saved: DictConfig) -> dict[str, str]:
    """Of the files that a run's images come from."""
    datamodule = build_datamodule(saved)
    datamodule.prepare_data()
    return datamodule.hashes
