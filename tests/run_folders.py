"""Write run folders as trainings do, without a training: thousands within seconds."""

import csv
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fmnist.config.help import CONF
from fmnist.config.keys import flat_settings
from fmnist.data.info import FASHION_MNIST

GROUPS = ("data", "augment", "model", "loss", "optimizer", "scheduler", "trainer", "callbacks", "pictures")


@cache
def composed(overrides: Sequence[str]) -> tuple[Any, Mapping[str, str]]:
    """Return the config and the choices of a training."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", list(overrides), return_hydra_config=True)
        choices = {group: str(cfg.hydra.runtime.choices[group]) for group in GROUPS}
    config = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    OmegaConf.resolve(config)
    return config, choices


def write_run(
    folder: Path,
    *overrides: str,
    accuracy: float | None = 0.9,
    loss: float | None = 0.3,
    test: float | None = None,
    status: str = "finished",
    seed: int = 0,
    start: str = "2026-11-22T10:00:00+00:00",
    choices: bool = True,
    settings: bool = True,
    **record: Any,
) -> Path:
    """Write the folder of a run with the config of `train.py <overrides>`, and return it.

    Args:
        folder: is created.
        overrides: as typed.
        accuracy: on the validation images; None for NaN.
        loss: on the validation images; None for NaN.
        test: accuracy on the test images; None if not measured.
        status: of the run. Only finished ones have a metrics.json.
        seed: of the run.
        start: of the run, which ends a minute later.
        choices: whether run.json has the choices of groups.
        settings: whether run.json has the settings; earlier versions wrote neither.
        record: more entries of run.json.
    """
    config, chosen = composed(overrides)
    folder.mkdir(parents=True)
    config.seed = seed
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    if settings:
        record["settings"] = flat_settings(OmegaConf.to_container(config))
    entries = {"overrides": [*overrides, f"seed={seed}"], "start": start, "status": status, "seed": seed, **record}
    if status == "finished":
        entries["end"] = start.replace(":00+", ":59+")
    (folder / "run.json").write_text(json.dumps(entries | ({"choices": chosen} if choices else {}), indent=2))
    write_history(folder, [] if accuracy is None else [0.1, accuracy])
    if status == "finished":
        metrics: dict[str, Any] = {"parameters": 241770, "checkpoint": "best.ckpt", "epochs": 1, "train/seconds": 10.0}
        metrics |= {"val/loss": loss, "val/accuracy": accuracy}
        metrics["val/accuracy_per_class"] = dict.fromkeys(FASHION_MNIST.classes, accuracy)
        metrics |= {"test/accuracy": test} if test is not None else {}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def write_many_runs(folder: Path, count: int) -> None:
    """Write runs of two seeds for each of count / 2 learning rates, of which the last is the best."""
    template = write_run(folder.with_name("template") / "0", "optimizer=sgd", test=0.5)
    texts = {file.name: file.read_text() for file in template.iterdir()}
    record = json.loads(texts["run.json"])
    for i in range(count):
        run = folder / str(i)
        run.mkdir(parents=True)
        record["settings"] |= {"optimizer.lr": 1.5 + i // 2, "seed": i % 2}
        texts["run.json"] = json.dumps(record)
        for name, text in texts.items():
            (run / name).write_text(text.replace("0.9", f"0.{1000 + i}") if name == "metrics.json" else text)


def write_history(folder: Path, accuracies: Sequence[float]) -> None:
    """Write the accuracy of each epoch, from epoch 0 on."""
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["epoch", "step", "val/accuracy"])
        table.writerows([epoch, 215 * epoch, accuracy] for epoch, accuracy in enumerate(accuracies))
