"""Write run folders as trainings do, without a training."""

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
        status: only finished runs have a metrics.json.
        seed: of the run.
        choices: whether run.json has the choices of groups; earlier versions wrote neither them nor the settings.
        settings: whether run.json has the settings.
        record: more entries of run.json.
    """
    config, chosen = composed(overrides)
    folder.mkdir(parents=True)
    config.seed = seed
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    if settings:
        record["settings"] = flat_settings(OmegaConf.to_container(config))
    entries = {
        "overrides": [*overrides, f"seed={seed}"],
        "start": "2026-11-22T10:00:00+00:00",
        "status": status,
        "seed": seed,
        **record,
    }
    if status == "finished":
        entries["end"] = "2026-11-22T10:00:59+00:00"
    (folder / "run.json").write_text(json.dumps(entries | ({"choices": chosen} if choices else {}), indent=2))
    history = "epoch,step,val/accuracy\n0,0,0.1\n" + (f"1,215,{accuracy}\n" if accuracy is not None else "")
    (folder / "metrics.csv").write_text(history)
    if status == "finished":
        metrics: dict[str, Any] = {"parameters": 241770, "checkpoint": "best.ckpt", "epochs": 1, "train/seconds": 10.0}
        metrics |= {"val/loss": loss, "val/accuracy": accuracy}
        metrics["val/accuracy_per_class"] = dict.fromkeys(FASHION_MNIST.classes, accuracy)
        metrics |= {"test/accuracy": test} if test is not None else {}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder
