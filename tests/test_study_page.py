"""The results of a study: its table, its page, the comparison of finalists."""

import math
from pathlib import Path

import optuna
import pandas as pd
import pytest
from filelock import FileLock
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from fmnist.tune.page import history_chart, importance_chart, render_page, slice_chart
from fmnist.tune.results import BASE, compare_with_base, counts_text, trials_table
from fmnist.tune.space import Parameter, Space
from fmnist.tune.storage import quiet
from fmnist.tune.study import Tuning

SPACE: Space = [
    Parameter("lr", FloatDistribution(0.001, 1, log=True)),
    Parameter("optimizer", CategoricalDistribution(["sgd", "adam"]), is_group=True),
]
CHOSEN = {
    "headline": "93.00%",
    "meaning": "val/accuracy (trial 2: the best of all trials)",
    "params": {"lr": "0.002"},
    "retrained": None,
    "experiment": "name: mine\n",
    "command": "python scripts/train.py experiment=mine",
}


@pytest.fixture
def tuning(tmp_path: Path) -> Tuning:
    """A study with trials of every state."""
    quiet()
    study = optuna.create_study(direction="maximize")
    for state, value, lr, optimizer, attributes in (
        (TrialState.COMPLETE, 0.90, 0.01, "sgd", {"seconds": 10.0, "epochs": 6}),
        (TrialState.PRUNED, 0.50, 0.5, "sgd", {"seconds": 3.0, "epochs": 2}),
        (TrialState.COMPLETE, 0.93, 0.002, "adam", {"seconds": 11.0, "epochs": 6}),
        (TrialState.FAIL, None, 1.0, "adam", {"seconds": 1.0, "epochs": 0, "error": "out of <memory>"}),
        (TrialState.FAIL, None, 0.003, "adam", {}),  # interrupted, and retried by the next
        (TrialState.COMPLETE, 0.92, 0.003, None, {"seconds": 12.0, "epochs": 6}),
        (TrialState.FAIL, None, 0.003, None, {}),  # killed too often
        (TrialState.WAITING, None, 0.003, None, {}),
    ):
        params = {"lr": lr} | ({"optimizer": optimizer} if optimizer else {})
        distributions = {parameter.name: parameter.distribution for parameter in SPACE if parameter.name in params}
        retries = {"retry_history": [4]} if value == 0.92 else {}
        given = {"params": params, "distributions": distributions, "user_attrs": attributes, "system_attrs": retries}
        study.add_trial(create_trial(state=state, value=value, **given))
    lock = FileLock(tmp_path / ".lock")
    folder = tmp_path / "mine"
    return Tuning(folder, study, "val/accuracy", 0, lambda _: study.sampler, False, "study.db", lock)


def test_the_table_has_a_row_for_each_trial(tuning: Tuning) -> None:
    table = trials_table(tuning)
    assert list(table.columns) == ["trial", "state", "val/accuracy", "lr", "optimizer", "epochs", "seconds", "error"]
    finished, failed = "finished", "failed"
    assert list(table.state) == [finished, "pruned", finished, failed, "interrupted", finished, failed]
    assert table["val/accuracy"].tolist()[:3] == [0.9, 0.5, 0.93]
    assert list(table.error.dropna()) == ["out of <memory>", "its process died"]
    assert counts_text(tuning) == "7 trials: 3 finished, 1 pruned, 2 failed, 1 interrupted"
    assert [trial.number for trial in tuning.finished] == [2, 5, 0]
    assert len(tuning.trials) == 6


def test_the_page_shows_everything_and_escapes_texts_from_outside(tuning: Tuning) -> None:
    page = render_page(tuning, SPACE, trials_table(tuning), {"sampler": "TPESampler"}, CHOSEN)
    for text in (
        "<title>study mine: 93.00%</title>",
        "<dt>lr</dt><dd>0.002</dd>",
        "<dd>TPESampler</dd>",
        "trial 3: out of &lt;memory&gt;",
        "lr: 0.001 to 1, log",
        "python scripts/train.py experiment=mine",
        "It takes 10 finished trials.",
    ):
        assert text in page
    assert page.count("<svg") == 3  # the history and two parameters
    assert "<script" not in page
    assert page.index("<td>93.00%</td>") < page.index("<td>92.00%</td>") < page.index("<td>90.00%</td>")
    page = render_page(tuning, SPACE, trials_table(tuning).iloc[3:4], {}, None)
    assert "No trial has been trained to its end." in page
    assert "<svg" not in page


def test_the_charts_show_the_trials(tuning: Tuning) -> None:
    table = trials_table(tuning).dropna(subset="val/accuracy")
    (axes,) = history_chart(table, "val/accuracy").axes
    drawn = {kind.get_label(): kind.get_offsets().tolist() for kind in axes.collections}  # type: ignore[attr-defined]
    assert drawn["finished"] == [[0, 0.90], [2, 0.93], [5, 0.92]]
    assert [x for x, _ in drawn["pruned"]] == [1]
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.90, 0.93, 0.93]]  # type: ignore[arg-type]
    assert slice_chart(table, "lr", "val/accuracy", log=True).axes[0].get_xscale() == "log"
    (axes,) = slice_chart(table, "optimizer", "val/accuracy", log=False).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["adam", "sgd"]
    (axes,) = importance_chart({"little": 0.2, "much": 0.8}).axes
    assert [text.get_text() for text in axes.texts] == ["20 %", "80 %"]  # from below


def test_a_far_worse_value_does_not_press_the_others_together() -> None:
    table = pd.DataFrame({"trial": range(5), "state": "finished", "val/loss": [0.1, 0.09, 0.08, 0.07, 0.9]})
    low, high = history_chart(table, "val/loss").axes[0].get_ylim()
    assert high - low < 0.2


def test_settings_are_compared_with_the_base_setting() -> None:
    base, first, second = [0.90, 0.91, 0.92], [0.91, 0.92, 0.93], [0.93, 0.94, 0.95]
    # t = 0.03 / sqrt(2 * 0.0001 / 3) = 3.67 and 1.22 with 4 degrees of freedom: p = 0.0213, doubled, and 0.288
    table = compare_with_base({"trial 3": first, "trial 7": second, BASE: base}, "val/accuracy")
    assert table.fillna("").to_numpy().tolist() == [
        ["trial 7", "94.00% ± 1.00%", "3", "+3.00 points", "0.043"],
        ["trial 3", "92.00% ± 1.00%", "3", "+1.00 points", "0.29, no significant difference"],
        ["base setting", "91.00% ± 1.00%", "3", "", ""],
    ]
    table = compare_with_base({"trial 3": [0.4], BASE: [0.5]}, "val/loss")
    assert table.fillna("").to_numpy().tolist() == [
        ["trial 3", "0.4000", "1", "-0.1000", ""],
        ["base setting", "0.5000", "1", "", ""],
    ]
    assert len(compare_with_base({BASE: [math.pi]}, "val/loss")) == 1
