"""The LightningModule in trainings by a plain Trainer."""

import csv
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import FashionMNIST
from torchvision.transforms import v2

from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import FASHION_MNIST
from fmnist.models.cnn import CNN
from fmnist.models.mlp import MLP
from fmnist.runs import checkpoints
from fmnist.training.callbacks import StepLoss
from fmnist.training.classifier import Classifier
from fmnist.training.metric_names import metric_names
from fmnist.training.precision import BFloat16MixedPrecision
from fmnist.training.schedules import constant, cosine, one_cycle

SHAPE, CLASSES = FASHION_MNIST.image_shape, FASHION_MNIST.classes


def data(root: Path, **arguments: Any) -> ImageDataModule:
    arguments = {"augment": Augmentation(), "batch_size": 100, "val_size": 100} | arguments
    return ImageDataModule(synthetic.dataset(root), **arguments)


def classifier(network: nn.Module, schedule: Callable[..., float] = constant, lr: float = 0.01) -> Classifier:
    return Classifier(network, nn.CrossEntropyLoss(), partial(torch.optim.Adam, lr=lr), schedule, classes=CLASSES)


def linear(schedule: Callable[..., float] = constant) -> Classifier:
    return classifier(MLP(SHAPE, 10, []), schedule)


def quiet_trainer(**arguments: Any) -> Trainer:
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(accelerator="cpu", devices=1, num_sanity_val_steps=0, **(dict.fromkeys(off, False) | arguments))


class RateRecorder(Callback):
    """Records the learning rate of each optimizer step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.rates += [group["lr"] for group in optimizer.param_groups]


@pytest.mark.filterwarnings("ignore")  # what Lightning recommends for large data
def test_any_trainer_trains_it_with_any_loader_and_logger(data_root: Path, tmp_path: Path) -> None:
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    images = FashionMNIST(str(data_root), train=True, transform=transform)
    model = Classifier(CNN(SHAPE, 10, [4, 8]), classes=images.classes)
    trainer = Trainer(max_epochs=2, logger=CSVLogger(tmp_path), accelerator="cpu", enable_progress_bar=False)
    trainer.fit(model, DataLoader(images, batch_size=50, shuffle=True), DataLoader(images, batch_size=100))
    assert trainer.global_step == 24
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        logged = {name: value for row in csv.DictReader(file) for name, value in row.items() if value}
    assert set(metric_names("train", images.classes) + metric_names("val", images.classes)) < logged.keys()
    again = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    (result,) = again.test(model, DataLoader(images, batch_size=100), verbose=False)
    assert result["test/accuracy"] == pytest.approx(float(logged["val/accuracy"]), abs=1e-6)


def test_a_checkpoint_gives_the_classifier_back(finished_run: Path) -> None:
    file = finished_run / "checkpoints" / "best.ckpt"
    model = Classifier.load_from_checkpoint(file)
    weights = checkpoints.network_weights(checkpoints.load(file))
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())
    assert model.classes == CLASSES
    with pytest.raises(ValueError, match="there is no checkpoint"):
        Classifier.load_from_checkpoint(finished_run / "other.ckpt")


def test_network_generalises_to_other_images(data_root: Path) -> None:
    seed_everything(0, verbose=False)
    module = data(data_root, augment=Augmentation(flip=0.5, shift=1, erase=0.1), batch_size=50)
    model = classifier(CNN(SHAPE, 10, [8, 16], hidden=[16]), one_cycle)
    trainer = quiet_trainer(max_epochs=4)
    trainer.fit(model, module)
    trainer.test(model, module, verbose=False)
    assert trainer.callback_metrics["test/accuracy"] > 0.95


def test_metrics_are_logged_by_name_with_the_values_of_all_images(data_root: Path) -> None:
    seed_everything(0, verbose=False)
    module, model = data(data_root, eval_batch_size=90), classifier(MLP(SHAPE, 10, [32]))
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, module)
    trainer.test(model, module, verbose=False)
    assert sorted(trainer.callback_metrics) == sorted(metric_names("test", CLASSES))
    images, labels = module.splits["test"]
    with torch.no_grad():
        logits = model.eval()(module.dataset.normalise(images))
    right = logits.argmax(1) == labels
    expected = {
        "test/loss": nn.functional.cross_entropy(logits, labels).item(),
        "test/accuracy": right.float().mean().item(),
    }
    for label, name in enumerate(CLASSES):
        expected[f"test/accuracy_per_class/{name}"] = right[labels == label].float().mean().item()
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged == pytest.approx(expected, abs=1e-5)
    assert 0.2 < expected["test/accuracy"] < 1.0


class LossRecorder(Callback):
    """Records the loss of each batch."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"].item())


@pytest.mark.parametrize(("every", "accumulate"), [(3, 1), (5, 1), (2, 2)])
def test_mean_loss_is_logged_each_n_steps_over_the_batches_since_the_last_time(
    data_root: Path, tmp_path: Path, every: int, accumulate: int
) -> None:
    seen = LossRecorder()
    options = {"log_every_n_steps": every, "accumulate_grad_batches": accumulate, "logger": CSVLogger(tmp_path)}
    trainer = quiet_trainer(max_epochs=2, callbacks=[seen, StepLoss()], **options)
    trainer.fit(linear(), data(data_root, batch_size=50))
    assert len(seen.losses) == 20
    curve = pd.read_csv(next(tmp_path.rglob("metrics.csv"))).dropna(subset="train/loss_step").set_index("step")
    batches = every * accumulate
    losses = [loss * accumulate for loss in seen.losses]  # Lightning divides what it shows
    for step in range(every, trainer.global_step + 1, every):
        window = losses[(step // every - 1) * batches : step // every * batches]
        assert curve["train/loss_step"][step - 1] == pytest.approx(sum(window) / len(window), rel=1e-5)


def test_metrics_of_an_epoch_are_of_that_epoch_alone(data_root: Path) -> None:
    model = linear()
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(model, data(data_root))
    assert model.metrics("train").compute()["confusion"].sum() == 500
    assert model.metrics("val").compute()["confusion"].sum() == 100
    trainer.validate(model, datamodule=trainer.datamodule, verbose=False)
    assert model.metrics("val").compute()["confusion"].sum() == 100


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"max_epochs": 2}, 10),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 4),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, 6),
        ({"max_epochs": 2, "accumulate_grad_batches": 2, "limit_train_batches": 3}, 4),
        ({"max_epochs": 3, "max_steps": 7}, 7),
        ({"max_steps": 7}, 7),
        ({"max_epochs": -1, "max_steps": 6}, 6),
        ({"max_epochs": 3, "overfit_batches": 2}, 6),
        ({"max_epochs": 2, "overfit_batches": 1.0}, 10),
        ({"fast_dev_run": 3}, 3),
    ],
    ids=str,
)
def test_the_schedule_gets_the_number_of_steps_that_the_trainer_takes(
    data_root: Path, arguments: dict[str, Any], expected: int
) -> None:
    totals: set[int] = set()
    trainer = quiet_trainer(limit_val_batches=0, **arguments)
    trainer.fit(linear(lambda _, total: totals.add(total) or 1.0), data(data_root))
    assert totals == {trainer.global_step} == {expected}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_learning_rate_follows_the_schedule_at_each_optimizer_step(data_root: Path, accumulate: int) -> None:
    recorder = RateRecorder()
    trainer = quiet_trainer(callbacks=[recorder], limit_val_batches=0, max_epochs=3, accumulate_grad_batches=accumulate)
    trainer.fit(linear(partial(cosine, warmup=0.2, final=0.1)), data(data_root))
    total = 3 * math.ceil(5 / accumulate)
    expected = [0.01 * cosine(step, total, warmup=0.2, final=0.1) for step in range(total)]
    assert recorder.rates == pytest.approx(expected)
    assert len(set(recorder.rates)) > 5


class GradientRecorder(Callback):
    """Records norm and maximum of the gradients of each optimizer step but the last."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.largest: list[float] = []

    def on_before_zero_grad(self, trainer: Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        gradients = [parameter.grad.flatten() for parameter in pl_module.parameters() if parameter.grad is not None]
        if gradients:
            self.norms.append(torch.cat(gradients).norm().item())
            self.largest.append(torch.cat(gradients).abs().max().item())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("fused", [True, False])
def test_gradients_are_clipped_whatever_the_precision_and_the_optimizer(
    data_root: Path, precision: str, fused: bool
) -> None:
    def seen(**options: Any) -> GradientRecorder:
        recorder = GradientRecorder()
        optimizer = partial(torch.optim.Adam, lr=0.01, fused=fused)
        model = Classifier(MLP(SHAPE, 10, []), nn.CrossEntropyLoss(), optimizer, constant, classes=CLASSES)
        place = {"plugins": [BFloat16MixedPrecision("cpu")]} if precision == "bf16-mixed" else {"precision": precision}
        quiet_trainer(max_epochs=1, callbacks=[recorder], **place, **options).fit(model, data(data_root))
        return recorder

    assert min(seen().norms) > 0.1
    assert seen(gradient_clip_val=0.1).norms == pytest.approx([0.1] * 4, rel=1e-4)
    assert seen(gradient_clip_val=0.001, gradient_clip_algorithm="value").largest == pytest.approx([0.001] * 4)
