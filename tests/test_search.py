"""The search space: read, checked, drawn from."""

from collections.abc import Sequence
from typing import Any

import optuna
import pytest
import yaml

from fmnist.tune.space import Parameter, base_params, overrides_of, read_space, suggest
from fmnist.tune.storage import quiet

CONFIG: dict[str, Any] = {
    "seed": 0,
    "monitor": "val/accuracy",
    "optimizer": {"lr": 0.005, "weight_decay": 0.05},
    "model": {"dropout": 0.2, "channels": [8, 16], "hidden": 64, "pooling": "max"},
    "data": {"batch_size": 256, "val_size": 5000},
    "pictures": {"embedding": 10},
}
GROUPS = {"optimizer": ["adamw", "sgd"], "data": ["fashion_mnist", "folder"], "augment": ["none", "flip"]}


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    if "optimizer=sgd" in overrides:
        return CONFIG | {"optimizer": {"lr": 0.1, "momentum": 0.9}}
    return CONFIG


def read(search: str) -> Sequence[Parameter]:
    """Return the space that this YAML says."""
    return read_space(yaml.safe_load(search), compose, lambda group: GROUPS.get(group, []))


def draw(search: str, number: int) -> list[list[str]]:
    """Return what random trials choose, each the same again from its stored parameters."""
    quiet()
    space = read(search)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(number):
        trial = study.ask()
        drawn.append(suggest(trial, space))
        assert overrides_of(space, trial.params) == drawn[-1]
        study.tell(trial, 0.0)
    return drawn


def test_values_are_drawn_from_their_ranges_and_have_the_right_type() -> None:
    search = """
        optimizer: {lr: {low: 0.001, high: 0.1, log: true}}
        model:
            dropout: {low: 0, high: 1}
            hidden: {low: 16, high: 64, step: 16}
            channels: {choices: [[8, 16], [4]]}
            pooling: {choices: [max, null]}
        augment: {choices: [none, flip]}
    """
    trials = [dict(override.split("=") for override in overrides) for overrides in draw(search, 200)]
    rates = sorted(float(trial["optimizer.lr"]) for trial in trials)
    assert 0.001 <= rates[0] < rates[-1] <= 0.1
    assert 0.006 < rates[100] < 0.016  # the middle of a logarithmic scale
    assert len({trial["model.dropout"] for trial in trials}) == 200  # the config's value is a float
    assert {trial["model.hidden"] for trial in trials} == {"16", "32", "48", "64"}
    assert {trial["model.channels"] for trial in trials} == {"[8, 16]", "[4]"}
    assert {trial["model.pooling"] for trial in trials} == {'"max"', "null"}
    assert {trial["augment"] for trial in trials} == {"none", "flip"}


BY_OPTION = """
    optimizer: {choices: {adamw: {lr: {low: 0.001, high: 0.01}}, sgd: {momentum: {low: 0.5, high: 0.9}}}}
"""


def test_each_option_of_a_group_has_its_own_parameters() -> None:
    keys = {tuple(override.split("=")[0] for override in overrides) for overrides in draw(BY_OPTION, 20)}
    assert keys == {("optimizer", "optimizer.lr"), ("optimizer", "optimizer.momentum")}
    assert [str(parameter) for parameter in read(BY_OPTION)] == [
        "optimizer: adamw, sgd",
        "optimizer.lr (adamw): 0.001 to 0.01",
        "optimizer.momentum (sgd): 0.5 to 0.9",
    ]


def test_parameters_beside_the_choices_belong_to_each_option() -> None:
    search = "optimizer: {choices: [adamw, sgd], lr: {low: 0.001, high: 1.0, log: true}}"
    assert [str(parameter) for parameter in read(search)[1:]] == [
        "optimizer.lr (adamw): 0.001 to 1, log",
        "optimizer.lr (sgd): 0.001 to 1, log",
    ]


def test_the_base_setting_is_a_trial_if_it_is_inside_the_space() -> None:
    base = base_params(read(BY_OPTION), CONFIG, {"optimizer": "adamw"})
    assert base == {"optimizer": "adamw", "optimizer.lr (adamw)": 0.005}
    lists = read("model: {channels: {choices: [[4], [8, 16]]}}")
    found = base_params(lists, CONFIG, {})
    assert found is not None
    assert overrides_of(lists, found) == ["model.channels=[8, 16]"]
    for outside in ("{low: 0.1, high: 0.2}", "{choices: [0.1]}"):
        assert base_params(read(f"optimizer: {{lr: {outside}}}"), CONFIG, {}) is None
    assert base_params(read(BY_OPTION), CONFIG, {"optimizer": "adam"}) is None


@pytest.mark.parametrize(
    ("search", "fragments"),
    [
        ("{}", ["search has no parameter"]),
        ("optimizer: 3", ["search.optimizer=3", "{low, high, log, step} or {choices}"]),
        ("optimizer: {lr: 0.1}", ["search.optimizer.lr=0.1"]),
        ("optimizer: {lrr: {low: 0, high: 1}}", ["search.optimizer.lrr", "did you mean optimizer.lr"]),
        ("lr: {low: 0, high: 1}", ["search.lr", "optimizer.lr"]),
        ("optimizer: {lr: {low: 1}}", ["search.optimizer.lr.high", "required"]),
        ("optimizer: {lr: {low: 1.0, high: 0.1}}", ["search.optimizer.lr.low=1.0", "less than", "high=0.1"]),
        ("optimizer: {lr: {low: 0.0, high: 1.0, log: true}}", ["lr.low=0.0", "greater than 0", "log=true"]),
        ("optimizer: {lr: {low: a, high: 1.0}}", ["search.optimizer.lr.low=a", "number"]),
        ("optimizer: {lr: {low: 0.1, high: 1.0, step: -1}}", ["search.optimizer.lr.step=-1", "greater than 0"]),
        ("optimizer: {lr: {low: 0.1, high: 1.0, step: 2}}", ["search.optimizer.lr.step=2", "at most 0.9"]),
        ("optimizer: {lr: {low: 0.1, high: 1.0, log: true, step: 0.1}}", ["lr.step=0.1", "log=true"]),
        ("optimizer: {lr: {low: 0.1, high: 1.0, lgo: true}}", ["search.optimizer.lr.lgo", "log or low?"]),
        ("optimizer: {lr: {choices: []}}", ["search.optimizer.lr.choices=[]", "at least 1"]),
        ("optimizer: {lr: {choices: [1], low: 0}}", ["search.optimizer.lr.low", "choices"]),
        ("optimizer: {lr: {choices: [{a: 1}]}}", ["search.optimizer.lr.choices"]),
        ("optimizer: {choices: []}", ["search.optimizer.choices=[]", "at least 1"]),
        ("optimizer: {choices: [sdg]}", ["search.optimizer.choices", "no option sdg", "did you mean sgd?"]),
        ("optimizer: {choices: {sgd: 3}}", ["search.optimizer.choices.sgd=3"]),
        ("optimizer: {choices: {sgd: {weight_decay: {low: 0, high: 1}}}}", ["no value optimizer.weight_decay"]),
        ("model: {choices: [a]}", ["the config has no value model"]),
        ("monitor: {choices: [val/loss]}", ["search.monitor", "can't be compared"]),
        ("seed: {low: 0, high: 9}", ["search.seed", "can't be compared"]),
        ("data: {val_size: {low: 10, high: 20}}", ["search.data.val_size", "can't be compared"]),
        ("data: {choices: [folder]}", ["search.data", "can't be compared"]),
        ("pictures: {embedding: {low: 10, high: 20}}", ["search.pictures", "can't be compared"]),
    ],
)
def test_an_invalid_search_space_is_refused(search: str, fragments: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^search[^\n]*$") as refused:
        read(search)
    for fragment in fragments:
        assert fragment in str(refused.value)
