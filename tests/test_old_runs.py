"""Runs of the version that kept everything directly under fmnist/."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from conftest import RunScript
from PIL import Image

from fmnist.data.info import FASHION_MNIST
from fmnist.runs import checkpoints
from fmnist.runs.moved_targets import MOVED, current_target, update_settings, update_targets
from fmnist.runs.run import Run


def old_targets(config: Any) -> Any:
    """Return a copy of a config with the targets of the old version."""
    text = json.dumps(config)
    for old, new in MOVED.items():
        text = text.replace(f'"{new}', f'"{old}')
    return json.loads(text)


def test_every_moved_target_exists_and_others_stay() -> None:
    assert current_target("fmnist.schedules.cosine") == "fmnist.training.schedules.cosine"
    for target in ("fmnist.models.CNN", "torch.optim.SGD", "os.system", "fmnist.losses_of_mine.X"):
        assert current_target(target) == target
    config = {"a": [{"_target_": "fmnist.losses.CrossEntropy"}], "b": {"text": "fmnist.losses.X", "_target_": 3}}
    expected = {"a": [{"_target_": "fmnist.training.losses.CrossEntropy"}], "b": config["b"]}
    assert update_targets(config) == expected
    assert update_targets(expected) == expected


def test_the_data_of_older_configs_are_those_of_today() -> None:
    module = {"_target_": "fmnist.data.datamodule.FashionMNISTDataModule", "root": "data", "val_size": 5000}
    published = {"_target_": "fmnist.data.datasets.fashion_mnist.FashionMNIST", "root": "data", "val_size": 5000}
    assert update_targets({"data": module | {"verify": True}}) == {"data": published}
    assert update_targets({"data": module}) == {"data": published}
    own = update_targets(module | {"verify": False})
    assert own["_target_"] == "fmnist.data.datasets.idx_files.IdxFiles"
    assert (own["classes"], own["mean"]) == (list(FASHION_MNIST.classes), [0.286])
    flat = {"seed": 0, "data.verify": True, "loss._target_": "fmnist.losses.X"}
    flat |= {f"data.{key}": value for key, value in module.items()}
    expected = {"seed": 0, "loss._target_": "fmnist.training.losses.X"}
    assert update_settings(flat) == expected | {f"data.{key}": value for key, value in published.items()}


@pytest.fixture
def old_run(train: RunScript) -> tuple[Path, str]:
    """A run folder of the old version, and the last line of its training about the test images."""
    arguments = ("optimizer=muon", "scheduler=cosine", "callbacks=ema", "pictures=default", "trainer.max_epochs=1")
    done = train(*arguments)
    config = Run(done.run).load_config()
    for file in (done.run / "checkpoints").glob("*.ckpt"):
        checkpoint = checkpoints.load(file)
        checkpoint[checkpoints.CONFIG_KEY] = old_targets(checkpoint[checkpoints.CONFIG_KEY])
        del checkpoint[checkpoints.DATASET_KEY]
        checkpoint.pop(checkpoints.CALIBRATION_KEY, None)
        torch.save(checkpoint, file)
    config_file = done.run / "config.yaml"
    config_file.write_text(re.sub(r"fmnist\.training\.(\w+\.\w+)$", r"fmnist.\1", config_file.read_text(), flags=re.M))
    assert Run(done.run).load_config() == config
    return done.run, next(line for line in done.out.splitlines() if line.startswith("test: "))


def test_old_run_is_evaluated_predicted_with_and_reported(
    old_run: tuple[Path, str], run_script: RunScript, tmp_path: Path
) -> None:
    run, result = old_run
    done = run_script("evaluate", f"run={run}")
    assert done.status == 0
    assert result in done.out.splitlines()
    assert "calibrated with temperature" in done.out
    Image.fromarray(synthetic.make(1, seed=1)[0][0].numpy()).save(tmp_path / "a.png")
    assert run_script("predict", f"run={run}", "images=a.png").out.count("%") == 3
    assert run_script("report", f"run={run}").status == 0
    assert (run / "report.html").is_file()
