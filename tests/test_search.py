"""What trials choose among: read, checked, drawn."""

from collections.abc import Sequence
from typing import Any

import optuna
import pytest

from fmnist.tune import storage
from fmnist.tune.sampling import SeededByNumber
from fmnist.tune.search import ends, leaves, present, read_space, suggest, words_of

CONFIG: dict[str, Any] = {
    "seed": 0,
    "optimizer": {"lr": 0.005, "weight_decay": 0.05},
    "model": {"dropout": 0.2, "channels": [8, 16], "hidden": 64, "pooling": "max"},
    "data": {"batch_size": 256, "val_size": 5000},
    "pictures": {"embedding": 10},
}
GROUPS = {"optimizer": ["adamw", "sgd"], "data": ["fashion_mnist", "folder"], "augment": ["none", "flip"]}


def composed(words: Sequence[str]) -> dict[str, Any]:
    if "optimizer=sgd" in words:
        return CONFIG | {"optimizer": {"lr": 0.1, "momentum": 0.9}}
    return CONFIG


def read(search: dict[str, Any]) -> list[Any]:
    return read_space(search, composed, lambda group: GROUPS.get(group, []))


def drawn(search: dict[str, Any], number: int, seed: int = 0) -> list[list[str]]:
    storage.quiet()
    space = read(search)
    sampler = SeededByNumber(lambda seed: optuna.samplers.RandomSampler(seed=seed), seed)
    study = optuna.create_study(sampler=sampler)
    found = []
    for _ in range(number):
        trial = study.ask()
        found.append(suggest(trial, space))
        assert words_of(space, trial.params) == found[-1]
        study.tell(trial, 0.0)
    return found


def test_values_are_drawn_between_their_ends_and_of_their_kind() -> None:
    search = {
        "optimizer": {"lr": {"low": 0.001, "high": 0.1, "log": True}},
        "model": {
            "dropout": {"low": 0, "high": 1},
            "hidden": {"low": 16, "high": 64, "step": 16},
            "channels": {"choices": [[8, 16], [4]]},
            "pooling": {"choices": ["max", "average"]},
        },
        "augment": {"choices": ["none", "flip"]},
    }
    trials = [dict(word.split("=") for word in words) for words in drawn(search, 200)]
    rates = sorted(float(trial["optimizer.lr"]) for trial in trials)
    assert 0.001 <= rates[0] < rates[-1] <= 0.1
    assert 0.006 < rates[100] < 0.016  # the middle of a logarithmic scale
    assert len({trial["model.dropout"] for trial in trials}) == 200  # as the config's is no whole number
    assert {trial["model.hidden"] for trial in trials} == {"16", "32", "48", "64"}
    assert {trial["model.channels"] for trial in trials} == {"[8, 16]", "[4]"}
    assert {trial["model.pooling"] for trial in trials} == {'"max"', '"average"'}
    assert {trial["augment"] for trial in trials} == {"none", "flip"}


def test_a_draw_depends_on_the_seed_and_the_number_alone() -> None:
    search = {"optimizer": {"lr": {"low": 0.1, "high": 1.0}}}
    assert drawn(search, 3) == drawn(search, 5)[:3]
    assert drawn(search, 3) != drawn(search, 3, seed=1)
    assert len({words[0] for words in drawn(search, 5)}) == 5


BY_OPTION = {
    "optimizer": {
        "choices": {"adamw": {"lr": {"low": 0.001, "high": 0.01}}, "sgd": {"momentum": {"low": 0.5, "high": 0.9}}},
    }
}


def test_each_option_of_a_group_has_parameters_of_its_own() -> None:
    for words in drawn(BY_OPTION, 20):
        keys = [word.split("=")[0] for word in words]
        assert keys == (
            ["optimizer", "optimizer.lr"] if words[0].endswith("adamw") else ["optimizer", "optimizer.momentum"]
        )
    assert [str(parameter) for parameter in leaves(read(BY_OPTION))] == [
        "optimizer: adamw, sgd",
        "optimizer.lr (adamw): 0.001 to 0.01",
        "optimizer.momentum (sgd): 0.5 to 0.9",
    ]


def test_what_stands_beside_the_choices_belongs_to_each() -> None:
    search = {"optimizer": {"choices": ["adamw", "sgd"], "lr": {"low": 0.001, "high": 1.0, "log": True}}}
    assert [parameter.name for parameter in leaves(read(search))] == [
        "optimizer",
        "optimizer.lr (adamw)",
        "optimizer.lr (sgd)",
    ]
    assert str(list(leaves(read(search)))[2]) == "optimizer.lr (sgd): 0.001 to 1, log"


def test_ends_are_the_least_and_the_greatest() -> None:
    assert [words for _, words in ends(read(BY_OPTION))] == [
        ["optimizer=adamw"],
        ["optimizer=adamw", "optimizer.lr=0.001"],
        ["optimizer=adamw", "optimizer.lr=0.01"],
        ["optimizer=sgd"],
        ["optimizer=sgd", "optimizer.momentum=0.5"],
        ["optimizer=sgd", "optimizer.momentum=0.9"],
    ]


def test_the_setting_that_there_is_can_be_a_trial() -> None:
    assert present(read(BY_OPTION), CONFIG, {"optimizer": "adamw"}) == {
        "optimizer": "adamw",
        "optimizer.lr (adamw)": 0.005,
    }
    lists = read({"model": {"channels": {"choices": [[4], [8, 16]]}}})
    found = present(lists, CONFIG, {})
    assert found is not None
    assert words_of(lists, found) == ["model.channels=[8, 16]"]
    for outside in ({"low": 0.1, "high": 0.2}, {"choices": [0.1]}):
        assert present(read({"optimizer": {"lr": outside}}), CONFIG, {}) is None


@pytest.mark.parametrize(
    ("search", "fragments"),
    [
        ({}, ["search has no parameter"]),
        ({"optimizer": 3}, ["search.optimizer=3", "{low, high, log, step} or {choices}"]),
        ({"optimizer": {"lr": 0.1}}, ["search.optimizer.lr=0.1"]),
        ({"optimizer": {"lrr": {"low": 0, "high": 1}}}, ["search.optimizer.lrr", "did you mean optimizer.lr"]),
        ({"lr": {"low": 0, "high": 1}}, ["search.lr", "optimizer.lr"]),
        ({"optimizr": {"lr": {"low": 0, "high": 1}}}, ["search.optimizr.lr", "did you mean optimizer.lr?"]),
        ({"optimizer": {"lr": {"low": 1}}}, ["search.optimizer.lr.high", "there has to be one"]),
        ({"optimizer": {"lr": {"low": 1.0, "high": 0.1}}}, ["search.optimizer.lr.low=1.0", "less than", "high=0.1"]),
        ({"optimizer": {"lr": {"low": 1.0, "high": 1.0}}}, ["search.optimizer.lr.low=1.0", "less than"]),
        ({"optimizer": {"lr": {"low": 0.0, "high": 1.0, "log": True}}}, ["lr.low=0.0", "greater than 0", "log=true"]),
        ({"optimizer": {"lr": {"low": "a", "high": 1.0}}}, ["search.optimizer.lr.low=a", "number"]),
        (
            {"optimizer": {"lr": {"low": 0.1, "high": 1.0, "step": -1}}},
            ["search.optimizer.lr.step=-1", "greater than 0"],
        ),
        ({"optimizer": {"lr": {"low": 0.1, "high": 1.0, "step": 2}}}, ["search.optimizer.lr.step=2", "at most 0.9"]),
        (
            {"optimizer": {"lr": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}}},
            ["search.optimizer.lr.step=0.1", "log=true"],
        ),
        (
            {"optimizer": {"lr": {"low": 0.1, "high": 1.0, "lgo": True}}},
            ["search.optimizer.lr.lgo", "low or log?"],
        ),
        ({"optimizer": {"lr": {"choices": []}}}, ["search.optimizer.lr.choices=[]", "at least 1"]),
        ({"optimizer": {"lr": {"choices": [1], "low": 0}}}, ["search.optimizer.lr.low", "choices"]),
        ({"optimizer": {"lr": {"choices": [{"a": 1}]}}}, ["search.optimizer.lr.choices"]),
        ({"optimizer": {"choices": []}}, ["search.optimizer.choices=[]", "at least 1"]),
        ({"optimizer": {"choices": ["sdg"]}}, ["search.optimizer.choices", "no option sdg", "did you mean sgd?"]),
        ({"optimizer": {"choices": {"sgd": 3}}}, ["search.optimizer.choices.sgd=3"]),
        (
            {"optimizer": {"choices": {"sgd": {"weight_decay": {"low": 0, "high": 1}}}}},
            ["weight_decay", "no optimizer"],
        ),
        ({"model": {"choices": ["a"]}}, ["model is not one value"]),
        ({"seed": {"low": 0, "high": 9}}, ["search.seed", "can't be compared"]),
        ({"data": {"val_size": {"low": 10, "high": 20}}}, ["search.data.val_size", "can't be compared"]),
        ({"data": {"choices": ["folder"]}}, ["search.data", "can't be compared"]),
        ({"pictures": {"embedding": {"low": 10, "high": 20}}}, ["search.pictures", "can't be compared"]),
    ],
)
def test_what_is_no_search_space_is_refused(search: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^search") as refused:
        read(search)
    assert len(str(refused.value).splitlines()) == 1
    for fragment in fragments:
        assert fragment in str(refused.value)
