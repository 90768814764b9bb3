"""Every option of conf/ passes these tests, a new one too: `make test ARGS="-k <option>"`.

What an option needs besides its YAML file stands in the tables below.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import DictConfig
from torch import Tensor

from fmnist.config import build
from fmnist.config.help import CONF, groups, options
from fmnist.data.info import DatasetInfo
from fmnist.runs import checkpoints
from fmnist.runs.run import Run, new_run
from fmnist.training.classifier import Classifier
from fmnist.training.fit import fit, prepare_data

PACKAGES = {
    "slurm": "submitit",
    "ray": "ray",
    "timm": "timm",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "comet": "comet_ml",
}
"""Optional packages, by the option that needs one."""
SMALL = {
    "resnet": ("model.channels=[4,8]", "model.depth=1"),
    "wide_resnet": ("model.depth=10", "model.width=1"),
    "timm": ("model.name=test_resnet", "model.input_size=32"),
    "torchvision": ("model.name=shufflenet_v2_x0_5", "model.input_size=32"),
}
"""What makes a large network small enough for a test."""
TRAINED = ("model", "optimizer", "scheduler", "augment")
"""Groups whose options train, resume and are restored."""
SHAPES = {(1, 28, 28): 10, (3, 32, 32): 100, (1, 8, 8): 2, (3, 64, 64): 1000}
"""Images and numbers of classes that a network follows."""
TOO_SMALL = {("cnn_plain", (1, 8, 8)): "fewer model.channels, model.padding=same or model.pooling=none"}
"""Images that a network refuses, and the keys that it names."""


def found(*names: str) -> list[Any]:
    """Return group and option of each YAML file of the groups, marked where it needs a package."""
    return [
        pytest.param(group, option, marks=pytest.mark.extras if option in PACKAGES else (), id=f"{group}-{option}")
        for group in names
        for option in options(group)
    ]


def composed(group: str, option: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"{group}={option}", *SMALL.get(option, ()), *overrides])


def importable(option: str) -> bool:
    return option not in PACKAGES or importlib.util.find_spec(PACKAGES[option]) is not None


def need(option: str) -> None:
    if not importable(option):
        pytest.skip(f"needs {PACKAGES[option]}")


def short_training(data_root: Path, group: str, option: str) -> DictConfig:
    """Return the config of a training of two epochs of three batches."""
    small = ("trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1")
    data = () if group == "data" else ("data=idx", f"data.root={data_root}")
    network = () if group == "model" else ("model.channels=[4,8]",)
    more = ("data.val_size=100", "data.batch_size=16", "pictures=none", "report=false")
    return composed(group, option, *data, *network, *small, *more)


def session(cfg: DictConfig, folder: Path) -> build.Training:
    """Return the objects of a training, with its data in place."""
    training = build.build_training(cfg, Run(folder))
    prepare_data(training)
    return training


@pytest.mark.parametrize(("group", "option"), found(*sorted(set(groups("train")) - {"experiment", "data"})))
def test_builds(group: str, option: str, tmp_path: Path) -> None:
    if group == "trainer" and option in ("gpu", "ddp", "fsdp") and not torch.cuda.is_available():
        composed(group, option)
        return
    if group == "sweep":  # says only which jobs there are
        if importable(option):
            composed(group, option)
        else:  # it composes only where `make extras` was run
            with pytest.raises(MissingConfigException, match=f"hydra/launcher/{PACKAGES[option]}"):
                composed(group, option)
        return
    need(option)
    training = build.build_training(composed(group, option), new_run(tmp_path, "run"))
    dataset = training.datamodule.dataset
    logits = training.classifier.network.eval()(torch.zeros(2, *dataset.image_shape))
    assert logits.shape == (2, len(dataset.classes))
    assert training.classifier.loss(logits, torch.tensor([0, 1])).isfinite()


@pytest.mark.parametrize(("group", "option"), found(*TRAINED))
def test_resumes_exactly_and_is_restored_from_its_checkpoint_alone(
    group: str, option: str, data_root: Path, tmp_path: Path
) -> None:
    need(option)
    cfg = short_training(data_root, group, option)
    first = session(cfg, tmp_path / "run")
    fit(first, None)
    run = first.run
    images = first.datamodule.dataset.normalise(first.datamodule.splits["test"][0][:8])
    network = first.classifier.network.eval()
    with torch.no_grad():
        expected = network(images)
        restored = Classifier.load_from_checkpoint(run.last_checkpoint).eval()
        assert torch.equal(restored(images), expected)

    middle = run.previous_checkpoint.rename(tmp_path / "middle.ckpt")
    assert checkpoints.load(middle)["global_step"] == 3
    second = session(cfg, tmp_path / "resumed")
    fit(second, middle)
    resumed = second.classifier.network.state_dict()
    assert [name for name, value in network.state_dict().items() if not torch.equal(value, resumed[name])] == []


@pytest.mark.parametrize(("group", "option"), found("model", "optimizer", "loss"))
def test_overfits_a_batch(group: str, option: str) -> None:
    need(option)
    torch.manual_seed(0)
    pixels, labels = synthetic.make(20, seed=0)
    classifier = build.build_classifier(composed(group, option, *(() if group == "model" else ("model=mlp",))))
    images, labels = pixels[:, None] / 127.5 - 1, labels.long()
    optimizer = classifier.optimizer(classifier.network.parameters())
    for step in range(100):
        loss = classifier.loss(classifier(images), labels)
        if step and step % 10 == 0 and accuracy(classifier, images, labels) == 1:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pytest.fail(f"accuracy {accuracy(classifier, images, labels)} after 100 steps")


def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of right predictions in the mode of training, in which batch norms know this batch."""
    with torch.no_grad():
        return (classifier(images).argmax(dim=1) == labels).double().mean().item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("group", "option"), found("model"))
def test_follows_the_dataset(group: str, option: str, shape: tuple[int, int, int]) -> None:
    need(option)
    classes = tuple(map(str, range(SHAPES[shape])))
    dataset = DatasetInfo("any", classes, shape, mean=0.5, std=0.5)
    node = composed(group, option).model
    if hint := TOO_SMALL.get((option, shape)):
        with pytest.raises(ValueError, match=f"^model: .*{hint}"):
            build.build_network(node, dataset)
        return
    network = build.build_network(node, dataset)
    assert network(torch.zeros(2, *shape)).shape == (2, len(classes))
