"""What a study shows: charts, page, table, sentences."""

import csv
from pathlib import Path

import pytest

from fmnist.tune.results import BASE, compare, differences, experiment_text, write_trials
from fmnist.tune.study_charts import Outcome, history_chart, importance_chart, limits, slice_chart
from fmnist.tune.study_page import StudyFindings, best_first, counts_text, study_page, value_text

OUTCOMES = [
    Outcome(0, "finished", 0.90, {"lr": 0.01, "optimizer": "sgd"}, 10.0, 6),
    Outcome(1, "pruned", 0.50, {"lr": 0.5, "optimizer": "sgd"}, 3.0, 2),
    Outcome(2, "finished", 0.93, {"lr": 0.002, "optimizer": "adam"}, 11.0, 6),
    Outcome(3, "failed", None, {"lr": 1.0, "optimizer": "adam"}, 1.0, 0, "out of <memory>"),
    Outcome(4, "cut off", None, {"lr": 0.003, "optimizer": "adam"}, 2.5, 1),
    Outcome(5, "finished", 0.92, {"lr": 0.003}, 12.0, 6),
]
FINDINGS = StudyFindings(
    name="mine",
    metric="val/accuracy",
    better="max",
    outcomes=OUTCOMES,
    chosen=2,
    headline="93.00%",
    meaning="val/accuracy of trial 2, by which it was chosen",
    space=["lr: 0.001 to 1, log"],
    logarithmic={"lr"},
    importance={"lr": 0.75, "optimizer": 0.25},
    enough=10,
    facts={"sampler": "TPESampler"},
    experiment="name: mine\n",
    command="python scripts/train.py experiment=mine",
    retrained=["difference: +1.00 points"],
)


def test_history_has_each_value_and_the_best_so_far() -> None:
    (axes,) = history_chart(OUTCOMES, "max", "accuracy").axes
    drawn = {kind.get_label(): kind.get_offsets().tolist() for kind in axes.collections}  # type: ignore[attr-defined]
    assert drawn["finished"] == [[0, 0.90], [2, 0.93], [5, 0.92]]
    assert [x for x, _ in drawn["pruned"]] == [1]
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}  # type: ignore[arg-type]
    assert lines["best so far"] == ([0, 2, 5, 5], [0.90, 0.93, 0.93, 0.93])
    assert lines["failed"][0] == [3]
    worse = history_chart(OUTCOMES, "min", "loss").axes[0].lines
    assert list(worse[-1].get_ydata()) == [0.90, 0.90, 0.90, 0.90]  # type: ignore[arg-type]


def test_a_hopeless_value_is_drawn_on_the_edge() -> None:
    values = [0.90, 0.91, 0.92, 0.93, 0.10]
    low, high = limits(values, "max")
    assert high == 0.93
    assert 0.8 < low < 0.9
    assert limits([1 - value for value in values], "min") == pytest.approx((1 - high, 1 - low))
    assert limits([], "max") == (0, 1)
    assert limits(values[1:], "max") == (0.10, 0.93)  # too few to call any of them hopeless
    outcomes = [Outcome(i, "finished", value, {"lr": i + 1}, 1.0, 1) for i, value in enumerate(values)]
    for chart in (history_chart(outcomes, "max", ""), slice_chart(outcomes, "lr", "max", "", log=True, ring=4)):
        inside, arrow = chart.axes[0].collections[:2]
        assert len(inside.get_offsets()) == 4  # type: ignore[arg-type]
        assert [y for _, y in arrow.get_offsets().tolist()] == [low]  # type: ignore[attr-defined]


def test_slices_show_numbers_on_their_scale_and_words_side_by_side() -> None:
    (numbers,) = slice_chart(OUTCOMES, "lr", "max", "accuracy", log=True, ring=2).axes
    assert numbers.get_xscale() == "log"
    ring = numbers.collections[-1].get_offsets().tolist()  # type: ignore[attr-defined]
    assert ring == [[0.002, 0.93]]
    (words,) = slice_chart(OUTCOMES, "optimizer", "max", "accuracy", log=False, ring=2).axes
    assert [label.get_text() for label in words.get_xticklabels()] == ["adam", "sgd"]


def test_the_most_important_parameter_is_at_the_top() -> None:
    (axes,) = importance_chart({"little": 0.2, "much": 0.8}).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["little", "much"]  # from below
    assert [text.get_text() for text in axes.texts] == ["20 %", "80 %"]


def test_the_page_holds_it_all_and_escapes_what_is_from_outside() -> None:
    page = study_page(FINDINGS)
    for text in (
        "<title>study mine: 93.00%</title>",
        "6 trials: 3 finished, 1 pruned, 1 failed, 1 cut off",
        "40 seconds in all trials together",
        "trial 3: out of &lt;memory&gt;",
        "difference: +1.00 points",
        "lr: 0.001 to 1, log",
        "python scripts/train.py experiment=mine",
    ):
        assert text in page
    assert page.count("<svg") == 4  # history, importance, two slices
    assert "<script" not in page
    assert page.index("<th>2</th><td>93.00%</td>") < page.index("<th>5</th><td>92.00%</td>") < page.index("<th>0</th>")


def test_the_page_of_a_study_without_results_says_so() -> None:
    few = StudyFindings(
        **{**vars(FINDINGS), "outcomes": [], "chosen": None, "headline": "", "importance": {}, "experiment": ""}
    )
    page = study_page(few)
    assert "No trial has been trained to its end." in page
    assert "It takes 10 finished trials to tell." in page
    assert "<svg" not in page


def test_best_first_by_the_direction() -> None:
    assert [outcome.number for outcome in best_first(OUTCOMES, "max")] == [2, 5, 0]
    assert [outcome.number for outcome in best_first(OUTCOMES, "min")] == [0, 5, 2]
    assert (value_text(0.5, "max"), value_text(0.5, "min"), value_text(None, "max")) == ("50.00%", "0.5000", "-")
    assert counts_text(OUTCOMES[:1]) == "1 trial: 1 finished"


def test_the_table_has_a_row_for_each_trial(tmp_path: Path) -> None:
    write_trials(tmp_path / "trials.csv", OUTCOMES, "val/accuracy")
    with (tmp_path / "trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["val/accuracy"] for row in table] == ["0.9", "0.5", "0.93", "", "", "0.92"]
    assert (table[5]["optimizer"], table[3]["error"], table[0]["seconds"]) == ("", "out of <memory>", "10.0")


def test_settings_are_compared_by_their_means() -> None:
    base, first, second = [0.90, 0.91, 0.92], [0.91, 0.92, 0.93], [0.93, 0.94, 0.95]
    # t = 0.03 / sqrt(2 * 0.0001 / 3) = 3.67 and 1.22 with 4 degrees of freedom: p = 0.0213, doubled, and 0.288
    assert compare({"trial 3": first, "trial 7": second, BASE: base}, "val/accuracy", "max") == [
        "trial 7: val/accuracy 94.00% (mean of 3 seeds, sd 1.00%), +3.00 points to the base setting, p = 0.043",
        "trial 3: val/accuracy 92.00% (mean of 3 seeds, sd 1.00%), +1.00 points to the base setting, p = 0.29: "
        "it may well be chance",
        "base setting: val/accuracy 91.00% (mean of 3 seeds, sd 1.00%)",
        "p: Welch's t-test, Holm-corrected for 2",
    ]
    assert compare({"trial 7": second, BASE: base}, "val/accuracy", "max")[-1] == "p: Welch's t-test"
    assert compare({"trial 3": [0.4], BASE: [0.5]}, "val/loss", "min") == [
        "trial 3: val/loss 0.4000 (1 seed), -0.1000 to the base setting",
        "base setting: val/loss 0.5000 (1 seed)",
    ]
    assert compare({BASE: [0.5]}, "val/loss", "min") == ["base setting: val/loss 0.5000 (1 seed)"]


def test_an_experiment_is_what_differs_and_what_was_searched() -> None:
    base = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "seed": 0, "model": {"dropout": 0.2}}
    best = {"optimizer": {"lr": 0.1, "betas": [0.8, 0.99]}, "seed": 0, "model": {"dropout": 0.2}, "added": 1}
    values = differences(base, best, keep=["model.dropout"])
    assert values == {"optimizer": {"betas": [0.8, 0.99]}, "model": {"dropout": 0.2}, "added": 1}
    text = experiment_text(["What it is."], {"optimizer": "sgd"}, {"seed": 0})
    assert text == "# @package _global_\n# What it is.\ndefaults:\n  - override /optimizer: sgd\n\nseed: 0\n"
    assert experiment_text(["What it is."], {}, {"seed": 0}) == "# @package _global_\n# What it is.\nseed: 0\n"
