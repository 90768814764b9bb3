"""The YAML files in conf/ do what they say; test_options.py has what all of them must pass."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import RunScript
from hydra import compose, initialize_config_dir
from kills import curves
from lightning.pytorch import Callback, callbacks
from omegaconf import DictConfig, OmegaConf
from torch import nn

from fmnist import run_training
from fmnist.config import build, instantiate
from fmnist.config.checks import check_parts
from fmnist.config.command_line import COMMANDS
from fmnist.config.help import CONF, groups, options
from fmnist.config.trainer import build_evaluation_trainer, hardware_precision
from fmnist.models.layers import L2Pool2d

ROOT = CONF.parent
OPTIONS = [(group, option) for group in groups("train") for option in options(group)]
TUNED = [(group, option) for group in groups("tune") if group not in groups("train") for option in options(group)]
EXPERIMENTS = options("experiment")
SLOW = ("gpu_95", "gpu_96", "record", "deep", "small_300k_long")
"""Experiments whose networks take seconds for a batch on the CPU."""
LARGE = {"gpu_96", "record"}  # networks that are too large for a test


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def test_every_yaml_is_an_option_or_a_command() -> None:
    reachable = {CONF / group / f"{option}.yaml" for group, option in OPTIONS + TUNED}
    reachable.add(CONF / "command_line.yaml")  # shared by all commands
    reachable |= {CONF / f"{command}.yaml" for command in COMMANDS}
    assert reachable == set(CONF.rglob("*.yaml"))


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "data"])
def test_every_dataset_is_built_without_reading_files(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["data.root=somewhere"] if option in ("idx", "image_folder") else []
    cfg = composed(f"data={option}", *given)
    monkeypatch.setattr(Path, "open", None)
    datamodule = build.build_datamodule(cfg)
    assert datamodule.root == (Path("somewhere") if given else None if option == "digits" else Path("data"))
    assert bool(cfg.augment.flip) == (option in ("fashion_mnist", "cifar10", "idx", "image_folder"))


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in EXPERIMENTS],
)
def test_every_experiment_runs(experiment: str, run_script: RunScript, data_root: Path) -> None:
    words = [f"experiment={experiment}", "data=idx", f"data.root={data_root}", "trainer.fast_dev_run=true"]
    words += ["pictures=none", "report=false"]
    cfg = composed(words[0])
    if cfg.data.val_size:
        words.append("data.val_size=100")
    if experiment in LARGE:
        words += ["model.depth=10", "model.width=1"]
    done = run_script("train", *words)
    assert done.status == 0, done.err
    assert done.run.parent.name == experiment


@pytest.mark.slow
def test_default_reaches_the_accuracy_of_the_readme(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), f"outputs={tmp_path}", f"data.root={ROOT / 'data'}"]
    subprocess.run(command, check=True, cwd=tmp_path)
    (file,) = tmp_path.glob("train/*/metrics.json")
    assert json.loads(file.read_text())["test/accuracy"] > 0.92


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sweep", "key", "values"),
    [
        ("batch_size", "data.batch_size", [20, 50, 100, 200, 500, 1000]),
        ("dropout", "model.dropout", [0.0, 0.2, 0.4, 0.6]),
        ("learning_rate", "optimizer.lr", [rate for rate in (0.001, 0.0025, 0.005, 0.01) for _ in range(3)]),
        ("seeds", "seed", [0, 1, 2, 3, 4]),
        ("optimizer", "optimizer._target_", ["torch.optim.SGD"] * 2 + ["torch.optim.Adam", "torch.optim.AdamW"]),
    ],
)
def test_every_sweep_builds_its_jobs(
    sweep: str,
    key: str,
    values: list[Any],
    run_script: RunScript,
    data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_training, "train_and_report", lambda training: training.run.save_config(training.config))
    words = ["data=idx", f"data.root={data_root}", "data.val_size=100"]
    done = run_script("train", f"sweep={sweep}", "experiment=intro_dropout", *words)
    assert done.status == 0, done.err
    (sweep,) = done.folder.glob("outputs/intro_dropout/*")
    names = re.findall(r"^job \d+/\d+: (.*)", done.out, re.MULTILINE)
    assert [OmegaConf.select(OmegaConf.load(sweep / name / "config.yaml"), key) for name in names] == values


ADAM = {"optimizer._target_": "torch.optim.Adam", "optimizer.lr": 0.001, "optimizer.betas": [0.9, 0.999]}
SGD = {"optimizer._target_": "torch.optim.SGD", "optimizer.momentum": 0.9, "optimizer.nesterov": False}


@pytest.mark.parametrize(
    ("experiment", "layers", "dropout", "batch_size", "epochs", "optimizer"),
    [
        ("intro_adam", [(10, 3), (20, 3), (500, 10)], 0.0, 20, 5, ADAM),
        ("intro_dropout", [(10, 3), (20, 3), (500, 50), (50, 10)], 0.4, 20, 20, {**SGD, "optimizer.lr": 0.001}),
        ("intro_wide", [(32, 3), (64, 3), (1600, 128), (128, 10)], 0.4, 64, 15, {**SGD, "optimizer.lr": 0.01}),
        ("intro_lenet", [(20, 5), (50, 5), (800, 500), (500, 10)], 0.0, 75, 25, {**SGD, "optimizer.lr": 0.01}),
    ],
)
def test_tutorial_has_the_layers_and_settings_of_its_original(
    experiment: str,
    layers: list[tuple[int, int]],
    dropout: float,
    batch_size: int,
    epochs: int,
    optimizer: dict[str, Any],
) -> None:
    cfg = composed(f"experiment={experiment}")
    expected = {"data.batch_size": batch_size, "trainer.max_epochs": epochs, **optimizer}
    expected |= {"augment.flip": 0.0, "loss.label_smoothing": 0.0, "data.val_size": 5000}
    assert {key: OmegaConf.select(cfg, key) for key in expected} == expected
    classifier = build.build_classifier(cfg)
    convolutions = [(c.out_channels, c.kernel_size[0]) for c in modules(classifier.network, nn.Conv2d)]
    linear = [(layer.in_features, layer.out_features) for layer in modules(classifier.network, nn.Linear)]
    assert convolutions + linear == layers
    assert {layer.p for layer in modules(classifier.network, nn.Dropout)} == {dropout}
    assert not modules(classifier.network, nn.BatchNorm2d)
    assert len(modules(classifier.network, nn.ReLU)) == len(layers) - 1
    assert [pool.kernel_size for pool in modules(classifier.network, nn.MaxPool2d)] == [2, 2]
    assert classifier.schedule(50, 100) == 1


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_other_choices_go_with_every_experiment(experiment: str) -> None:
    others = ["loss=mean_squared_error", "optimizer=adamw", "augment=none"]
    pooling = composed(f"experiment={experiment}").model.get("pooling")
    if pooling:
        other = "l2" if pooling == "max" else f"[{','.join(pooling).replace('max', 'l2')}]"
        others.append(f"model.pooling={other}")
    network = built(f"experiment={experiment}", *others).network
    assert bool(modules(network, L2Pool2d)) == bool(pooling)


@pytest.mark.parametrize("script", [file.stem for file in sorted((ROOT / "scripts").glob("*.py"))])
def test_help_lists_every_group_and_key(script: str, run_script: RunScript) -> None:
    done = run_script(script, "--help")
    assert done.status == 0
    described = [line[3:].split(maxsplit=1) for line in done.out.splitlines() if "=" in line]
    lines = {words[0]: words[1] for words in described if len(words) == 2}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(script)
    for key, value in cfg.items():
        if not isinstance(value, DictConfig):
            assert any(name.startswith(f"{key}=") for name in lines), key
    for group in groups(script):
        for option in options(group):
            assert f"{group}={option}" in lines


@pytest.mark.parametrize("arguments", [["modle=", "-h"], ["--cfg", "job"], ["-sc", "query=bash"]])
def test_nothing_heavy_is_imported_for_help_config_and_completion(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "scripts" / "train.py"), *arguments],
        env={**os.environ, "COMP_LINE": "train.py optimizer=", "COMP_POINT": "19"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "hydra" in imported
    assert not imported & {"torch", "torchvision", "lightning", "torchmetrics", "pydantic", "tensorboard", "numpy"}
    assert done.stdout


def built(*overrides: str) -> Any:
    return build.build_classifier(composed(*overrides))


def modules(network: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, kind)]


def test_overrides_reach_what_they_name() -> None:
    network = built("model.channels=[8,16]", "model.hidden=[32]", "model.pooling=average", "model.dropout=0.4").network
    assert [layer.out_channels for layer in modules(network, nn.Conv2d)] == [8, 16]
    assert [layer.out_features for layer in modules(network, nn.Linear)] == [32, 10]
    assert len(modules(network, nn.AvgPool2d)) == 2
    assert {layer.p for layer in modules(network, nn.Dropout)} == {0.4}
    classifier = built("model=mlp", "optimizer=sgd", "optimizer.momentum=0.5", "scheduler=step", "scheduler.factor=0.3")
    optimizer = classifier.optimizer([nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.SGD
    assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["nesterov"]) == (0.5, True)
    assert classifier.schedule(60, 100) == 0.3
    datamodule = build.build_datamodule(composed("augment.shift=3", "data.batch_size=7", "seed=5"))
    assert (datamodule.augment.shift, datamodule.batch_size, datamodule.seed) == (3, 7, 5)
    overrides = ("trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.5", "trainer.precision=32-true")
    trainer = build_evaluation_trainer(composed("trainer=cpu", *overrides))
    assert (trainer.accumulate_grad_batches, trainer.gradient_clip_val, trainer.precision) == (3, 0.5, "32-true")


WORKING = {
    "Callback": {},
    "Checkpoint": {},
    "EarlyStopping": {"monitor": "val/loss"},
    "LearningRateMonitor": {"log_momentum": True},
    "ModelCheckpoint": {"save_top_k": -1},
    "Timer": {"duration": "00:01:00:00"},
}
REFUSED = {
    "BackboneFinetuning": "backbone",
    "BaseFinetuning": "backbone",
    "BasePredictionWriter": "scripts/predict.py",
    "BatchSizeFinder": "sweep=batch_size",
    "EMAWeightAveraging": "callbacks=ema",
    "GradientAccumulationScheduler": "trainer.accumulate_grad_batches=N",
    "LambdaCallback": "no functions",
    "LearningRateFinder": "sweep=learning_rate",
    "ModelPruning": "prune again",
    "ModelSummary": "report",
    "OnExceptionCheckpoint": "checkpoint_every_n_steps",
    "ProgressBar": "trainer.enable_progress_bar=true",
    "RichModelSummary": "report",
    "RichProgressBar": "trainer.enable_progress_bar=true",
    "SpikeDetection": "stop_on_nan=true",
    "StochasticWeightAveraging": "callbacks=ema",
    "TQDMProgressBar": "trainer.enable_progress_bar=true",
    "ThroughputMonitor": "images_per_second",
    "WeightAveraging": "callbacks=ema",
}
NEEDS_PSUTIL = {"DeviceStatsMonitor"}


def lightning_callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"lightning.pytorch.callbacks.{name}", **arguments}


def test_every_callback_of_lightning_is_tried() -> None:
    assert {*WORKING, *REFUSED, *NEEDS_PSUTIL} == set(callbacks.__all__)


def test_these_callbacks_of_lightning_work(train: RunScript) -> None:
    words = [f"trainer.limit_{split}_batches=2" for split in ("train", "val", "test")]
    for name, arguments in WORKING.items():
        for argument, value in lightning_callback(name, **arguments).items():
            words.append(f"+callbacks.{name}.{argument}={value}")
    done = train("optimizer=adamw", "trainer.max_epochs=1", *words)
    assert (done.status, done.err) == (0, "")
    assert (done.run / "checkpoints" / "epoch=0-step=2.ckpt").is_file()  # of ModelCheckpoint
    assert "training/learning_rate-momentum" in curves(done.run)


@pytest.mark.parametrize("name", REFUSED)
def test_these_callbacks_of_lightning_are_refused_with_what_to_take_instead(name: str) -> None:
    node = lightning_callback(name)
    cfg: Any = SimpleNamespace(callbacks=OmegaConf.create({"x": node}))
    with pytest.raises(ValueError, match=f"^callbacks.x._target_={node['_target_']}: .*{REFUSED[name]}"):
        build.build_callbacks(cfg)


def test_a_callback_whose_package_is_missing_is_refused(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", False)
    monkeypatch.setattr("lightning.pytorch.accelerators.cpu._PSUTIL_AVAILABLE", False)
    done = train("+callbacks.x._target_=lightning.pytorch.callbacks.DeviceStatsMonitor")
    done.assert_refused("DeviceStatsMonitor", "psutil")
    assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize("arguments", [{"save_last": True}, {"filename": "last"}, {"filename": "best"}])
def test_a_model_checkpoint_leaves_the_checkpoints_of_the_run_alone(arguments: dict[str, Any]) -> None:
    cfg: Any = SimpleNamespace(callbacks=OmegaConf.create({"x": lightning_callback("ModelCheckpoint", **arguments)}))
    with pytest.raises(ValueError, match=r"^callbacks.x: a run keeps best.ckpt and last.ckpt itself"):
        build.build_callbacks(cfg)


@pytest.mark.parametrize(
    ("key", "node", "kind", "named"),
    [
        (
            "loss",
            {
                "_target_": "torch.nn.TripletMarginWithDistanceLoss",
                "distance_function": {"_target_": "torch.nn.PairwiseDistance"},
            },
            nn.Module,
            "loss.distance_function._target_=torch.nn.PairwiseDistance",
        ),
        (
            "model",
            {"_target_": "fmnist.models.CNN", "hidden": [{"_target_": "torch.nn.Linear"}]},
            nn.Module,
            "model.hidden.0._target_=torch.nn.Linear",
        ),
        (
            "callbacks.x",
            lightning_callback("Timer", duration={"days": {"_target_": "datetime.timedelta"}}),
            Callback,
            "callbacks.x.duration.days._target_=datetime.timedelta",
        ),
    ],
)
def test_a_target_within_arguments_is_refused(key: str, node: dict[str, Any], kind: type, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: arguments are plain values; only {key} itself has a _target_$"):
        instantiate.build(key, OmegaConf.create(node), kind)


def test_gradient_clipping_is_refused_for_16_mixed_with_a_fused_optimizer() -> None:
    place = {"num_devices": 1, "num_nodes": 1, "world_size": 1, "strategy": None, "callbacks": []}
    trainer: Any = SimpleNamespace(precision="16-mixed", gradient_clip_val=0.5, **place)
    with pytest.raises(ValueError, match=r"gradient_clip_val=0.5: .* optimizer.fused=false"):
        check_parts(composed("optimizer=adamw"), trainer)
    check_parts(composed("optimizer=adamw", "optimizer.fused=false"), trainer)


def test_auto_precision_is_what_the_hardware_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for able, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=able: able)
        assert hardware_precision("cpu") == precision
        assert hardware_precision("auto") == precision
