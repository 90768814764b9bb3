"""callbacks=ema: an average of the weights is validated, kept and tested, and the training itself doesn't change."""

import contextlib
import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Done, RunScript, press_ctrl_c
from kills import equal as same
from lightning.pytorch import Callback, Trainer
from test_classifier import data, linear, quiet_trainer
from torch import Tensor, nn

from fmnist.runs import checkpoints
from fmnist.runs.run import Run
from fmnist.training.callbacks import AveragedWeights, History, Pictures
from fmnist.training.callbacks.averaged_weights import decay_after

RANDOM = ("model.dropout=0.3", "augment=flip_shift_erase")
State = dict[str, Any]


def finished(done: Done, name: str = "train") -> Run:
    assert done.status == 0, done.err
    assert done.err == ""
    (config,) = done.folder.glob(f"outputs/{name}/*/config.yaml")
    return Run(config.parent)


def current(checkpoint: State) -> dict[str, Tensor]:
    """The weights that a checkpoint continues with, under the network's own names."""
    return checkpoints.network_weights({"state_dict": checkpoint[checkpoints.CURRENT_KEY]})


def metrics(run: Run) -> dict[str, Any]:
    return json.loads(run.metrics_file.read_text())


def test_an_average_keeps_more_of_itself_up_to_its_decay() -> None:
    assert [decay_after(n, 0.9) for n in (1, 8, 10)] == [2 / 11, 0.5, 11 / 20]
    assert decay_after(80, 0.9) == decay_after(10**9, 0.9) == 0.9


class Watch(Callback):
    """The weights and statistics after each step, and those that each validation sees."""

    def __init__(self) -> None:
        self.after_steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step > len(self.after_steps):
            self.after_steps.append({name: value.clone() for name, value in pl_module.network.state_dict().items()})

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.validated.append({name: value.clone() for name, value in pl_module.network.state_dict().items()})


def by_hand(states: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    average = {name: value.double() for name, value in states[0].items()}
    for n, state in enumerate(states[1:], 1):
        keep = min(decay, (1 + n) / (10 + n))
        for name, value in state.items():
            average[name] = value.double() if name.endswith("tracked") else keep * average[name] + (1 - keep) * value
    return average


@pytest.mark.parametrize(("decay", "accumulate"), [(0.999, 1), (0.5, 2)])
def test_what_is_validated_and_left_is_the_average_of_weights_and_statistics(
    data_root: Path, decay: float, accumulate: int
) -> None:
    model, watch = linear(), Watch()
    model.network = nn.Sequential(nn.Conv2d(1, 3, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.LazyLinear(10))
    model.network(torch.zeros(2, 1, 28, 28))
    callbacks = [AveragedWeights(decay), watch]
    trainer = quiet_trainer(max_epochs=3, callbacks=callbacks, accumulate_grad_batches=accumulate)
    trainer.fit(model, data(data_root))
    steps = len(watch.after_steps) // 3
    assert len(watch.validated) == 3
    for epoch, seen in enumerate([*watch.validated[:2], model.network.state_dict()], 1):
        expected = by_hand(watch.after_steps[: epoch * steps if epoch < 3 else None], decay)
        for name, value in seen.items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_pictures_are_of_the_network_that_was_validated(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[State] = []
    pictures = Pictures(1, *[0, False, False, False, False, False, False, 0])
    monkeypatch.setattr(Pictures, "_draw", lambda *given: drawn.append(copy.deepcopy(given[-1].network.state_dict())))
    watch, model = Watch(), linear()
    quiet_trainer(max_epochs=2, callbacks=[AveragedWeights(), watch, pictures]).fit(model, data(data_root))
    assert same(drawn[:2], watch.validated)
    assert not same(drawn[0], watch.after_steps[4])


def assert_resumed_as(
    run: Run, train: RunScript, run_script: RunScript, undo: pytest.MonkeyPatch, *overrides: str
) -> None:
    """A training that is interrupted in its second epoch and resumed ends as the run did."""
    with contextlib.suppress(RuntimeError):
        train(*overrides, "name=cut")
    undo.undo()
    (folder,) = run.folder.parent.parent.glob("cut/*")
    assert run_script("train", f"resume={folder}").status == 0
    one, other = (checkpoints.load(each.last_checkpoint) for each in (Run(folder), run))
    for key in ("state_dict", checkpoints.CURRENT_KEY, "averaging_state", "optimizer_states"):
        assert same(one[key], other[key]), key
    assert metrics(Run(folder))["test/loss"] == metrics(run)["test/loss"]


@pytest.mark.slow
def test_training_is_unchanged_also_if_killed_and_its_results_are_those_of_the_average(
    train: RunScript, run_script: RunScript, at_batch: Callable[..., pytest.MonkeyPatch]
) -> None:
    overrides = (*RANDOM, "trainer.accumulate_grad_batches=2", "trainer.precision=64-true")
    plain = checkpoints.load(finished(train(*overrides, "name=plain"), "plain").last_checkpoint)
    run = finished(train(*overrides, "callbacks=ema", "name=ema"), "ema")
    last, best = checkpoints.load(run.last_checkpoint), checkpoints.load(run.best_checkpoint)
    assert same(current(last), checkpoints.network_weights(plain))
    assert same(last["optimizer_states"], plain["optimizer_states"])
    assert not same(checkpoints.network_weights(last), current(last))
    assert last["state_dict"].keys() == plain["state_dict"].keys()
    for name in ("_metrics.train_metrics.loss_sum", "_metrics.train_metrics.confusion"):
        assert same(last["state_dict"][name], plain["state_dict"][name])
    assert best["averaging_state"]["n_averaged"] == best["global_step"]

    found = metrics(run)
    with run.history_file.open() as table:
        assert max(float(row["val/accuracy"]) for row in [*csv.DictReader(table)][1:]) == found["val/accuracy"]
    evaluated = run_script("evaluate", f"run={run.folder}")
    said = f"test: loss {found['test/loss']:.4f}, accuracy {found['test/accuracy']:.2%}"
    assert evaluated.out.splitlines()[-1] == said
    assert_resumed_as(run, train, run_script, at_batch(14, press_ctrl_c), *overrides, "callbacks=ema")


@pytest.mark.slow
def test_a_run_without_validation_that_was_killed_ends_the_same(
    train: RunScript, run_script: RunScript, at_batch: Callable[..., pytest.MonkeyPatch]
) -> None:
    def break_down() -> None:
        raise RuntimeError("the power went")

    overrides = (*RANDOM, "callbacks=ema", "data.val_size=0")
    run = finished(train(*overrides, "name=whole"), "whole")
    assert run.chosen_checkpoint.name == "last.ckpt"
    assert_resumed_as(run, train, run_script, at_batch(14, break_down), *overrides)


def test_weights_that_are_no_numbers_are_seen_beside_their_average(
    train: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(_: History, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if rest and trainer.global_step == 10:  # after the average of this step
            pl_module.network.head[0].weight.data[0, 0] = torch.nan

    monkeypatch.setattr(History, "on_train_batch_end", poison)
    done = train("callbacks=ema", "trainer.check_val_every_n_epoch=5")
    done.assert_refused("head.0.weight became infinite or NaN in step 10 (epoch 1)", "there is no checkpoint yet")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda checkpoint: checkpoint.pop(checkpoints.CURRENT_KEY), "no weights besides the averaged ones"),
        (lambda checkpoint: checkpoint["averaging_state"].clear(), "don't fit"),
        (lambda checkpoint: checkpoint[checkpoints.CURRENT_KEY].update({"network.1.bias": torch.ones(3)}), "don't fit"),
        (lambda checkpoint: checkpoint[checkpoints.CURRENT_KEY].update(more=torch.ones(3)), "don't fit"),
    ],
)
def test_a_checkpoint_without_the_weights_to_resume_is_refused(spoil: Callable[[State], Any], said: str) -> None:
    callback, trainer, model = AveragedWeights(), quiet_trainer(), linear()
    callback.setup(trainer, model, "fit")
    checkpoint = {"state_dict": model.state_dict()}
    callback.on_save_checkpoint(trainer, model, checkpoint)
    callback.on_load_checkpoint(trainer, model, checkpoint)
    spoil(checkpoint)
    with pytest.raises(ValueError, match=said) as refusal:
        callback.on_load_checkpoint(trainer, model, checkpoint)
    assert "\n" not in str(refusal.value)
