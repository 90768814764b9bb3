"""A training that a callback ends early."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from fmnist.config.build import build_training
from fmnist.config.help import CONF
from fmnist.runs.run import new_run
from fmnist.training.callbacks import Pruning, TrainingPruned
from fmnist.training.fit import prepare_data
from fmnist.training.train import train


def overrides(data_root: Path) -> list[str]:
    return [
        "data=folder",
        f"data.root={data_root}",
        "data.val_size=100",
        "data.batch_size=50",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=5",
        "trainer.log_every_n_steps=5",
        "model.channels=[4]",
        "pictures=none",
        "report=false",
    ]


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3]), (2, [2, 4])])
def test_it_is_called_after_each_validation_and_ends_the_run(
    every: int, epochs: list[int], data_root: Path, tmp_path: Path
) -> None:
    seen: dict[int, float] = {}

    def should_prune(epoch: int, value: float) -> bool:
        seen[epoch] = value
        return epoch >= 3

    run = new_run(tmp_path, "pruned")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides(data_root), f"trainer.check_val_every_n_epoch={every}"])
    training = build_training(cfg, run, extra_callbacks=[Pruning("val/accuracy", should_prune)])
    prepare_data(training)
    with pytest.raises(TrainingPruned, match=f"after epoch {epochs[-1]}"):
        train(training)
    assert list(seen) == epochs
    assert run.status == "pruned"
    lines = [line.split(",") for line in run.history_file.read_text().splitlines()]
    column = lines[0].index("val/accuracy")
    assert [float(line[column]) for line in lines[2:] if line[column]] == pytest.approx(list(seen.values()))
    assert run.epochs == epochs[-1]
    metrics = json.loads(run.metrics_file.read_text())
    assert metrics["epochs"] == epochs[-1]
    assert not {"val/accuracy", "test/accuracy"} & metrics.keys()
