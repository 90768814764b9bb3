"""Values against annotations: what is refused, and with which message."""

import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from fmnist.config.keys import TrainerKeys, TrainKeys
from fmnist.config.validation import check_arguments, check_value, did_you_mean
from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.datasets.idx_files import IdxFiles
from fmnist.models.cnn import CNN
from fmnist.training import schedules
from fmnist.training.callbacks import AveragedWeights, Pictures

ADAMW = torch.optim.AdamW


@pytest.mark.parametrize(
    ("target", "argument", "value", "message"),
    [
        (CNN, "dropout", 1.0, "k.dropout=1.0: must be less than 1"),
        (CNN, "dropout", True, "k.dropout=true: must be a number"),
        (CNN, "dropout", math.nan, "k.dropout=NaN: must be finite"),
        (CNN, "batch_norm", 1, "k.batch_norm=1: must be true or false"),
        (CNN, "channels", [], "k.channels=[]: must have at least 1 item, not 0"),
        (CNN, "channels", [32, True], "k.channels=[32, true]: must be an integer or a list"),
        (CNN, "padding", "sane", "k.padding=sane: must be 'same' or an integer or a list"),
        (CNN, "image_shape", [1, 28], "k.image_shape=[1, 28]: must have more items"),
        (CNN, "pooling", ["mix"], "k.pooling=[\"mix\"]: must be 'max', 'average', 'l2' or 'none'"),
        (IdxFiles, "root", 3, """k.root=3: must be a string: in quotes it is one, 'k.root="..."'"""),
        (IdxFiles, "root", "a\0b", r"k.root='a\x00b': must not contain NUL"),
        (ADAMW, "betas", [0.9, 0.99, 0.999], "k.betas=[0.9, 0.99, 0.999]: must have at most 2 items, not 3"),
        (Trainer, "limit_train_batches", "a", "k.limit_train_batches=a: must be an integer or a number"),
        (CNN, "dropot", 1, "k.dropot: there is no such argument; did you mean dropout?"),
        (schedules.constant, "warmup", 1, "k.warmup: there is no such argument; there are step, total_steps"),
    ],
)
def test_refused_value_is_named_with_its_key_and_what_is_allowed(
    target: Any, argument: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=r".*") as refusal:
        check_arguments("k", target, {argument: value})
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        (Augmentation, {"flip": 2, "shift": -1, "erase": -0.1, "mixup": -0.1, "cutmix": 101, "mix": 1.1, "until": 0}),
        (ImageDataModule, {"batch_size": 0, "val_size": -1, "split_seed": 2**32}),
        (schedules.one_cycle, {"peak": 2}),
        (Pictures, {"every_n_epochs": 0, "embedding": -1}),
        (AveragedWeights, {"decay": 1}),
        (TrainKeys, {"seed": 2**32, "checkpoint_every_n_steps": 0, "checkpoint_every_minutes": 0, "test": 1}),
        (TrainerKeys, {"max_epochs": 0, "max_steps": -2, "devices": 0, "num_nodes": 0, "strategy": "dp"}),
        (TrainerKeys, {"limit_train_batches": 0, "limit_val_batches": 0.0, "limit_test_batches": 1.5}),
        (TrainerKeys, {"accumulate_grad_batches": 0, "check_val_every_n_epoch": 0, "gradient_clip_val": -1}),
    ],
)
def test_values_outside_the_bounds_are_refused(target: Any, arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        with pytest.raises(ValueError, match=rf"^k\.{name}=.*: must "):
            check_arguments("k", target, {name: value})


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        (CNN, {"image_shape": [1, 28, 28], "channels": [32, 64], "hidden": [], "dropout": 0}),
        (CNN, {"kernel_size": 3, "stride": [1, 2], "padding": ["same", 2], "pooling": ["max", "none"]}),
        (ADAMW, {"betas": [0.9, 0.999], "eps": 1e-8}),
        (TrainerKeys, {"val_check_interval": 7}),
        (TrainerKeys, {"val_check_interval": 0.5}),
        (TrainerKeys, {"val_check_interval": "00:00:05:00"}),
        (TrainerKeys, {"val_check_interval": {"minutes": 5}}),
        (Trainer, {"max_epochs": None, "max_time": {"hours": 1}, "limit_train_batches": 7, "gradient_clip_val": None}),
        (torch.nn.CrossEntropyLoss, {"weight": [1.0] * 10}),  # a Tensor, which the target itself has to refuse
    ],
)
def test_values_that_the_annotations_allow_pass(target: Any, arguments: dict[str, Any]) -> None:
    check_arguments("k", target, arguments)


def test_target_with_kwargs_takes_unknown_arguments_and_the_others_are_checked() -> None:
    def target(known: int, **others: Any) -> None: ...

    check_arguments("k", target, {"known": 1, "unknown": "x"})
    with pytest.raises(ValueError, match=r"^known=x: must be an integer$"):
        check_arguments("", target, {"known": "x"})


def test_annotation_that_no_plain_value_fits_is_left_to_the_target() -> None:
    check_value("k", torch.Tensor, [1.0])
    check_value("k", int, object())


def test_did_you_mean_names_near_candidates_or_else_all() -> None:
    assert did_you_mean("colour", ["color", "width", "height"]) == "; did you mean color?"
    assert did_you_mean("xyz", ["width", "height"]) == "; there are height, width"
