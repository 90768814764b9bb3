"""The learning-rate finder: its suggestion, its curve, and what it leaves behind."""

import math
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Done, RunScript
from omegaconf import OmegaConf
from torch import nn

from fmnist.find_lr import Search, curve, meaning, proportional, rate_overrides, suggest
from fmnist.training.optimizers import Muon

RATES = [10 ** (i / 20 - 5) for i in range(100)]


@pytest.fixture
def find_lr(run_script: RunScript, data_root: Path) -> RunScript:
    """Runs scripts/find_lr.py on the made-up images with a small network."""
    small = [word for word in SMALL if word.split("=")[0] not in ("report", "pictures")]

    def run(*arguments: str) -> Done:
        given = {argument.split("=")[0] for argument in arguments}
        flags = [argument for argument in arguments if argument == "-m"]
        kept = [
            word
            for word in (*small, f"data.root={data_root}", "steps=40", "min_lr=1e-4")
            if word.split("=")[0] not in given
        ]
        return run_script("find_lr", *flags, *kept, *(word for word in arguments if word not in flags))

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=sgd", "scheduler=constant", "trainer.accumulate_grad_batches=2"],
        ["optimizer=muon", "augment=cutmix", "callbacks=ema"],
    ],
)
def test_curve_and_an_override_are_all_it_leaves(find_lr: RunScript, words: list[str], tmp_path: Path) -> None:
    done = find_lr(*words)
    assert (done.status, done.err) == (0, "")
    (picture,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert picture.parent == tmp_path / "outputs" / "find_lr"
    assert picture.read_bytes().startswith(b"\x89PNG")
    (suggestion,) = (line for line in done.out.splitlines() if line.startswith("suggestion: optimizer.lr="))
    assert 1e-7 < float(suggestion.split()[1].split("=")[1]) < 10
    assert ("optimizer.adam_lr=" in suggestion) == ("optimizer=muon" in words)
    (command,) = (line for line in done.out.splitlines() if line.startswith("to train with it:"))
    assert words[0] in command
    assert " steps=" not in command
    assert command.endswith(suggestion.removeprefix("suggestion: "))


def test_same_seed_gives_the_same_suggestion_in_a_chosen_file(find_lr: RunScript, tmp_path: Path) -> None:
    outs = [find_lr("output=curve.png", "seed=3").out for _ in range(2)]
    assert outs[0] == outs[1]
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


@pytest.mark.slow
def test_jobs_of_a_sweep_draw_into_their_own_folders(find_lr: RunScript, tmp_path: Path) -> None:
    done = find_lr("-m", "optimizer=sgd,adam")
    assert done.status == 0
    names = sorted(f"{file.parent.name}/{file.name}" for file in tmp_path.rglob("*.png"))
    assert names == ["optimizer=adam/find_lr.png", "optimizer=sgd/find_lr.png"]
    assert done.out.count("suggestion: optimizer.lr=") == 2


def test_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    losses = [(math.log10(rate) + 2) ** 2 for rate in RATES]
    assert suggest(RATES, losses) == 0.001
    assert suggest(RATES, [*losses[:80], *[math.nan] * 20]) == 0.001  # which has diverged


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([float(i) for i in range(100)], "^min_lr=1e-05: the loss rises from there on"),
        ([float(-i) for i in range(100)], "^max_lr=.*: the loss still falls there"),
        ([*[1.0] * 15, *[math.nan] * 85], "^min_lr=1e-05: the loss is infinite or NaN after 15 steps"),
    ],
)
def test_curve_without_a_lowest_point_is_refused(losses: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        suggest(RATES, losses)


def test_other_learning_rates_keep_their_ratio() -> None:
    optimizer = proportional(lambda parameters: Muon(parameters, lr=0.1, adam_lr=0.01))(
        [nn.Parameter(torch.zeros(2, 2, 2, 2)), nn.Parameter(torch.zeros(2))]
    )
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])
    node = OmegaConf.create({"lr": 0.1, "adam_lr": 0.01})
    assert rate_overrides(node, 0.02) == ["optimizer.lr=0.02", "optimizer.adam_lr=0.002"]
    assert rate_overrides(OmegaConf.create({}), 0.02) == ["optimizer.lr=0.02"]


def test_curve_shows_the_suggestion_and_the_present_rate() -> None:
    losses = [(math.log10(rate) + 2) ** 2 for rate in RATES]
    axes = curve(Search(RATES, [*losses[:-1], math.inf], 0.001), 0.0043).axes[0]
    assert axes.get_xscale() == "log"
    assert list(axes.lines[0].get_xdata()) == RATES[:-1]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["suggestion 0.001", "optimizer.lr=0.0043"]
    assert len(curve(Search(RATES, losses, 0.001), None).axes[0].lines) == 2


def test_meaning_depends_on_the_schedule() -> None:
    assert "peak" in meaning("one_cycle")
    assert len({meaning(name).split(";")[0] for name in ("one_cycle", "cosine", "step", "constant", "mine")}) == 5


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["min_lr=0"], ["min_lr=0: must be greater than 0"]),
        (["min_lr=1", "max_lr=0.1"], ["min_lr=1: must be less than max_lr, 0.1"]),
        (["max_lr=1e9"], ["max_lr=1000000000.0: must be less than or equal to 1000000"]),
        (["steps=5"], ["steps=5: must be greater than or equal to 20"]),
        (["output=curve.jpg"], ["output=curve.jpg: the name must end in .png"]),
        (["output=nowhere/curve.png"], ["output=nowhere/curve.png: there is no folder nowhere"]),
        (["resume=x"], ['resume="x": not here']),
        (["test=true"], ["test=true: not here"]),
        (["optimizer.lr=0"], ["optimizer.lr=0: must be greater than 0"]),
        (["trainer=debug"], ["trainer.fast_dev_run=true"]),
        (["max_lr=1e-3", "min_lr=1e-4"], ["max_lr=", "take a larger one"]),
        (["--steps", "50"], ["--steps 50", "scripts/find_lr.py", "steps=50"]),
        (["num_training=50"], ["num_training=50", "steps=50"]),
    ],
)
def test_refused(find_lr: RunScript, words: list[str], fragments: list[str], tmp_path: Path) -> None:
    find_lr(*words).assert_refused(*fragments)
    assert not any(tmp_path.iterdir())
