import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from fmnist.config.validation import check_arguments, check_value, did_you_mean
from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.models.cnn import CNN
from fmnist.models.mlp import MLP
from fmnist.training import schedules

SGD, ADAMW, CROSS_ENTROPY = torch.optim.SGD, torch.optim.AdamW, torch.nn.CrossEntropyLoss


@pytest.mark.parametrize(
    ("target", "argument", "value", "message"),
    [
        (CNN, "dropout", 1.0, "k.dropout=1.0: it should be less than 1"),
        (CNN, "dropout", -0.1, "k.dropout=-0.1: it should be greater than or equal to 0"),
        (CNN, "dropout", "0.4", "k.dropout=0.4: it should be a valid number"),
        (CNN, "dropout", True, "k.dropout=true: it should be a valid number"),
        (CNN, "dropout", None, "k.dropout=null: it should be a valid number"),
        (CNN, "dropout", math.nan, "k.dropout=NaN: it should be finite"),
        (CNN, "batch_norm", 1, "k.batch_norm=1: it should be a valid boolean"),
        (CNN, "batch_norm", "yes", "k.batch_norm=yes: it should be a valid boolean"),
        (CNN, "channels", [], "k.channels=[]: it should have at least 1 item, not 0"),
        (CNN, "channels", [32, 0], "k.channels=[32, 0]: it should be greater than or equal to 1"),
        (CNN, "channels", [32, True], "k.channels=[32, true]: it should be a valid integer"),
        (CNN, "channels", 32, "k.channels=32: it should be a valid array"),
        (CNN, "kernel_size", 2.5, "k.kernel_size=2.5: it should be a valid integer or be a valid array"),
        (CNN, "kernel_size", [3, "x"], 'k.kernel_size=[3, "x"]: it should be a valid integer'),
        (CNN, "padding", "sane", "k.padding=sane: it should be 'same' or be a valid integer or be a valid array"),
        (CNN, "pooling", ["max", "mix"], "k.pooling=[\"max\", \"mix\"]: it should be 'max', 'average', 'l2' or 'none'"),
        (CNN, "image_shape", [1, 28], "k.image_shape=[1, 28]: it should have more items"),
        (
            CNN,
            "activation",
            "relo",
            "k.activation=relo: it should be 'relu', 'leaky_relu', 'gelu', 'silu', 'tanh' or 'sigmoid'",
        ),
        (MLP, "hidden", ["5"], 'k.hidden=["5"]: it should be a valid integer'),
        (Augmentation, "flip", 1.5, "k.flip=1.5: it should be less than or equal to 1"),
        (Augmentation, "shift", 2.5, "k.shift=2.5: it should be a valid integer"),
        (FashionMNISTDataModule, "batch_size", 0, "k.batch_size=0: it should be greater than or equal to 1"),
        (FashionMNISTDataModule, "val_size", 60_000, "k.val_size=60000: it should be less than or equal to 59999"),
        (schedules.cosine, "warmup", 1, "k.warmup=1: it should be less than 1"),
        (schedules.step, "milestones", [0.5, 1.5], "k.milestones=[0.5, 1.5]: it should be less than or equal to 1"),
        (schedules.step, "factor", 0, "k.factor=0: it should be greater than 0"),
        (SGD, "lr", "fast", "k.lr=fast: it should be a valid number"),
        (SGD, "nesterov", 1, "k.nesterov=1: it should be a valid boolean"),
        (ADAMW, "betas", [0.9, 0.99, 0.999], "k.betas=[0.9, 0.99, 0.999]: it should have at most 2 items, not 3"),
        (CROSS_ENTROPY, "label_smoothing", "a", "k.label_smoothing=a: it should be a valid number"),
        (EarlyStopping, "patience", 2.5, "k.patience=2.5: it should be a valid integer"),
        (Trainer, "max_epochs", "abc", "k.max_epochs=abc: it should be a valid integer"),
        (Trainer, "max_epochs", 1.5, "k.max_epochs=1.5: it should be a valid integer"),
        (
            Trainer,
            "limit_train_batches",
            "a",
            "k.limit_train_batches=a: it should be a valid integer or be a valid number",
        ),
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
        (CNN, {"image_shape": [1, 28, 28], "channels": [32, 64], "hidden": [], "dropout": 0}),
        (CNN, {"kernel_size": 3, "stride": [1, 2], "padding": "same", "pooling": ["max", "none"]}),
        (CNN, {"padding": ["same", 2], "pooling": "average", "batch_norm": False}),
        (FashionMNISTDataModule, {"root": "data", "val_size": 0, "verify": False}),
        (schedules.step, {"milestones": [0, 0.5, 1], "factor": 1}),
        (SGD, {"lr": 1, "momentum": 0.9, "nesterov": True}),
        (ADAMW, {"betas": [0.9, 0.999], "eps": 1e-8}),
        (Trainer, {"max_epochs": 3, "devices": 1, "precision": "bf16-mixed", "limit_train_batches": 1.0}),
        (Trainer, {"max_epochs": None, "max_time": {"hours": 1}, "limit_train_batches": 7, "gradient_clip_val": None}),
        (CROSS_ENTROPY, {"weight": [1.0] * 10}),  # a Tensor, which the target itself has to refuse
    ],
)
def test_values_that_the_annotations_allow_pass(target: Any, arguments: dict[str, Any]) -> None:
    check_arguments("k", target, arguments)


@pytest.mark.parametrize(
    ("target", "name", "nearest"),
    [
        (CNN, "dropot", "did you mean dropout?"),
        (MLP, "channels", "there are activation, dropout, hidden, image_shape, num_classes"),
        (SGD, "momentun", "did you mean momentum?"),
        (schedules.constant, "warmup", "there are step, total_steps"),
        (Trainer, "max_epoch", "did you mean max_epochs or min_epochs or max_steps?"),
    ],
)
def test_unknown_argument_is_named_with_the_nearest(target: Any, name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=r".*") as refusal:
        check_arguments("k", target, {name: 1})
    assert str(refusal.value) == f"k.{name}: there is no such argument; {nearest}"


def test_without_a_key_the_argument_stands_alone() -> None:
    with pytest.raises(ValueError, match=r"^dropout=3: it should"):
        check_arguments("", MLP, {"dropout": 3})
    with pytest.raises(ValueError, match=r"^dropuot: there is no such argument"):
        check_arguments("", MLP, {"dropuot": 0.3})


def test_target_that_takes_any_argument_takes_unknown_ones_and_still_checks_the_others() -> None:
    def target(known: int, **others: Any) -> None: ...

    check_arguments("k", target, {"known": 1, "unknown": "x"})
    with pytest.raises(ValueError, match=r"^k\.known=x: it should be a valid integer$"):
        check_arguments("k", target, {"known": "x"})


def test_annotation_that_no_plain_value_fits_is_left_to_the_target() -> None:
    check_value("k", torch.Tensor, [1.0])
    check_value("k", int, object())


def test_did_you_mean_names_near_candidates_or_else_all() -> None:
    assert did_you_mean("colour", ["color", "width", "height"]) == "; did you mean color?"
    assert did_you_mean("xyz", ["width", "height"]) == "; there are height, width"
    assert did_you_mean("xyz", []) == ""
