"""Every YAML file in conf/ is composed, built, and does what it says."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import torch
from conftest import RunScript
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from fmnist import train
from fmnist.config import objects as build
from fmnist.config.build import check_parts
from fmnist.config.help import CONF, groups, help_text, options
from fmnist.models.layers import L2Pool2d
from fmnist.runs.run import new_run

ROOT = CONF.parent
OPTIONS = [(group, option) for group in groups("train") for option in options(group)]
TUNED = [(group, option) for group in groups("tune") if group not in groups("train") for option in options(group)]
EXPERIMENTS = options("experiment")
LARGE = {"gpu_96", "record"}  # those of them whose network is too large for a test
# Those that have no choice of pooling.
RESIDUAL = LARGE | {"fast_94", "cpu_95", "gpu_94", "gpu_95", "small_100k", "small_300k", "small_300k_long"}


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def test_every_yaml_is_an_option_or_a_script() -> None:
    reachable = {CONF / group / f"{option}.yaml" for group, option in OPTIONS + TUNED}
    reachable.add(CONF / "command_line.yaml")  # what they share
    reachable |= {CONF / f"{script.stem}.yaml" for script in (ROOT / "scripts").glob("*.py")}
    assert reachable == set(CONF.rglob("*.yaml"))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_builds(group: str, option: str, tmp_path: Path) -> None:
    if group == "trainer" and option in ("gpu", "ddp", "fsdp") and not torch.cuda.is_available():
        assert composed(f"trainer={option}").trainer.accelerator == "gpu"
        return
    needs = {"slurm": "submitit", "ray": "ray"}.get(option)
    if needs and importlib.util.find_spec(needs) is None:  # it composes only where `make cluster` was run
        with pytest.raises(MissingConfigException, match=f"hydra/launcher/{needs}"):
            composed(f"{group}={option}")
        return
    extra = ["data.root=somewhere"] if option == "folder" else []
    session = build.build_training(composed(f"{group}={option}", *extra), new_run(tmp_path, "run"))
    logits = session.classifier.network.eval()(torch.zeros(2, 1, 28, 28))
    assert logits.shape == (2, 10)
    assert session.classifier.loss(logits, torch.tensor([0, 1])).isfinite()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(experiment: str, run_script: RunScript, data_root: Path) -> None:
    words = [f"experiment={experiment}", "data=folder", f"data.root={data_root}", "trainer.fast_dev_run=true"]
    cfg = composed(words[0])
    if cfg.data.val_size:
        words.append("data.val_size=100")
    if experiment in LARGE:
        words += ["model.depth=10", "model.width=1"]
    done = run_script("train", *words)
    assert done.status == 0, done.err
    assert done.run.parent.name == experiment


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
    monkeypatch.setattr(train, "train", lambda session: session.run.save_config(session.config))
    words = ["data=folder", f"data.root={data_root}", "data.val_size=100"]
    done = run_script("train", f"sweep={sweep}", "experiment=intro_dropout", *words)
    assert done.status == 0, done.err
    (sweep,) = done.folder.glob("outputs/intro_dropout/*")
    names = re.findall(r"^job \d+/\d+: (.*)", done.out, re.MULTILINE)
    configs = [sweep / name / "config.yaml" for name in names]
    assert [OmegaConf.select(OmegaConf.load(config), key) for config in configs] == values
    if sweep == "optimizer":
        assert [OmegaConf.load(config).optimizer.get("nesterov") for config in configs] == [False, True, None, None]


def test_optimizers_are_compared_at_learning_rates_of_their_own() -> None:
    names = ["momentum", "sgd", "adam", "adamw"]
    rates = [composed("experiment=intro_adam", f"optimizer={name}").optimizer.lr for name in names]
    assert rates == [0.01, 0.1, 0.001, 0.0043]


EVERY_TUTORIAL: dict[str, Any] = {"augment.flip": 0.0, "loss.label_smoothing": 0.0, "data.val_size": 5000}
SGD: dict[str, Any] = {"optimizer._target_": "torch.optim.SGD", "optimizer.momentum": 0.9, "optimizer.nesterov": False}
ADAM: dict[str, Any] = {
    "optimizer._target_": "torch.optim.Adam",
    "optimizer.betas": [0.9, 0.999],
    "optimizer.eps": 1e-8,
}


@pytest.mark.parametrize(
    ("experiment", "layers", "dropout", "choices"),
    [
        (
            "intro_adam",
            [(10, 3), (20, 3), (500, 10)],
            0.0,
            {**ADAM, "optimizer.lr": 1e-3, "data.batch_size": 20, "trainer.max_epochs": 5},
        ),
        (
            "intro_dropout",
            [(10, 3), (20, 3), (500, 50), (50, 10)],
            0.4,
            {**SGD, "optimizer.lr": 1e-3, "data.batch_size": 20, "trainer.max_epochs": 20},
        ),
        ("intro_wide", [(32, 3), (64, 3), (1600, 128), (128, 10)], 0.4, {**SGD, "optimizer.lr": 0.01}),
        (
            "intro_lenet",
            [(20, 5), (50, 5), (800, 500), (500, 10)],
            0.0,
            {**SGD, "optimizer.lr": 0.01, "data.batch_size": 75, "trainer.max_epochs": 25},
        ),
    ],
)
def test_a_tutorial_has_the_layers_and_settings_of_its_original(
    experiment: str, layers: list[tuple[int, int]], dropout: float, choices: dict[str, Any]
) -> None:
    cfg = composed(f"experiment={experiment}")
    for key, value in (EVERY_TUTORIAL | choices).items():
        assert OmegaConf.select(cfg, key) == value, key
    classifier = build.build_classifier(cfg)
    convolutions = [(c.out_channels, c.kernel_size[0]) for c in modules(classifier.network, nn.Conv2d)]
    linear = [(layer.in_features, layer.out_features) for layer in modules(classifier.network, nn.Linear)]
    assert convolutions + linear == layers
    assert {layer.p for layer in modules(classifier.network, nn.Dropout)} == {dropout}
    assert not modules(classifier.network, nn.BatchNorm2d)
    assert len(modules(classifier.network, nn.ReLU)) == len(layers) - 1
    assert [pool.kernel_size for pool in modules(classifier.network, nn.MaxPool2d)] == [2, 2]
    assert classifier.schedule(50, 100) == 1


@pytest.mark.parametrize("words", [["loss=mean_squared_error"], ["optimizer=adamw"]])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_other_choices_go_with_every_experiment(experiment: str, words: list[str]) -> None:
    built(f"experiment={experiment}", *words)


@pytest.mark.parametrize("experiment", sorted({*EXPERIMENTS} - RESIDUAL))
def test_another_pooling_goes_with_every_experiment(experiment: str) -> None:
    pooling = composed(f"experiment={experiment}").model.pooling
    other = "l2" if pooling == "max" else f"[{','.join(pooling).replace('max', 'l2')}]"
    assert modules(built(f"experiment={experiment}", f"model.pooling={other}").network, L2Pool2d)


def test_every_sweep_is_tested() -> None:  # those that say where, in test_sweep
    assert options("sweep") == [
        "batch_size",
        "dropout",
        "learning_rate",
        "optimizer",
        "parallel",
        "ray",
        "seeds",
        "slurm",
    ]


@pytest.mark.parametrize("script", [file.stem for file in sorted((ROOT / "scripts").glob("*.py"))])
def test_help_lists_every_group_and_key_with_a_line(script: str, run_script: RunScript) -> None:
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
            assert len(lines[f"{group}={option}"]) > 10, (group, option)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--hel"], ["-m", "model=mlp,cnn", "--help"], ["modle=", "-h"]])
def test_help_is_the_same_beside_other_words_and_composes_nothing(
    words: list[str], run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(hydra, "main")
    done = run_script("train", *words)
    assert (done.status, done.err) == (0, "")
    assert done.out == help_text("train") + "\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["-sc", "query=bash"]])
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


# What follows shows that a word on the command line reaches what it names.


def built(*overrides: str) -> Any:
    return build.build_classifier(composed(*overrides))


def modules(network: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, kind)]


def test_model_words() -> None:
    assert {layer.p for layer in modules(built("model.dropout=0.4").network, nn.Dropout)} == {0.4}
    network = built(
        "model.channels=[8,16]", "model.kernel_size=[5,3]", "model.padding=[2,0]", "model.hidden=[32]"
    ).network
    assert [(c.out_channels, c.kernel_size[0], c.padding[0]) for c in modules(network, nn.Conv2d)] == [
        (8, 5, 2),
        (16, 3, 0),
    ]
    assert [layer.out_features for layer in modules(network, nn.Linear)] == [32, 10]
    network = built(
        "model.pooling=average", "model.activation=gelu", "model.batch_norm=false", "model.stride=[1,2,1]"
    ).network
    assert (len(modules(network, nn.AvgPool2d)), len(modules(network, nn.GELU))) == (3, 3 + 1)  # and the hidden layer's
    assert not modules(network, nn.BatchNorm2d)
    assert [layer.stride[0] for layer in modules(network, nn.Conv2d)] == [1, 2, 1]
    network = built("model=mlp", "model.hidden=[20,30]", "model.activation=tanh").network
    assert [layer.out_features for layer in modules(network, nn.Linear)] == [20, 30, 10]
    assert len(modules(network, nn.Tanh)) == 2


@pytest.mark.parametrize(
    ("overrides", "kind", "expected"),
    [
        (["optimizer=sgd", "optimizer.momentum=0.5"], torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
        (["optimizer=adam", "optimizer.betas=[0.8,0.9]"], torch.optim.Adam, {"betas": (0.8, 0.9)}),
        (["optimizer=adamw", "optimizer.weight_decay=0.2"], torch.optim.AdamW, {"weight_decay": 0.2}),
    ],
)
def test_optimizer_words(overrides: list[str], kind: type, expected: dict[str, Any]) -> None:
    optimizer = built(*overrides).optimizer([nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert {name: tuple(group[name]) if name == "betas" else group[name] for name in expected} == expected


def test_scheduler_words() -> None:
    assert built("scheduler=constant").schedule(50, 100) == 1
    assert built("scheduler=step", "scheduler.factor=0.5").schedule(60, 100) == 0.5
    assert built("scheduler=cosine", "scheduler.warmup=0.0").schedule(50, 100) == pytest.approx(0.5)
    assert built("scheduler=one_cycle", "scheduler.peak=0.5").schedule(50, 100) == 1


def test_loss_words() -> None:
    assert type(built("loss=mean_squared_error").loss).__name__ == "MeanSquaredError"
    logits, labels = torch.tensor([[4.0, 0.0]]), torch.tensor([0])
    plain, smooth = (built(f"loss.label_smoothing={value}").loss(logits, labels).item() for value in (0.0, 0.2))
    assert smooth > plain
    assert plain == pytest.approx(0.0181499, rel=1e-4)  # ln(1 + e^-4)


def test_data_and_augment_words() -> None:
    datamodule = build.build_datamodule(
        composed("augment=flip_shift_erase", "augment.shift=3", "data.batch_size=7", "data.split_seed=9", "seed=5")
    )
    augment = datamodule.augment
    assert (augment.flip, augment.shift, augment.erase) == (0.5, 3, 0.5)
    assert (datamodule.batch_size, datamodule.split_seed, datamodule.seed) == (7, 9, 5)
    none = build.build_datamodule(composed("augment=none")).augment
    assert (none.flip, none.shift, none.erase) == (0.0, 0, 0.0)
    assert (none.alternate, none.mixup, none.cutmix, none.mix, none.until) == (False, 0.0, 0.0, 1.0, 1.0)
    both = build.build_datamodule(composed("augment=mixup", "augment.cutmix=1", "augment.alternate=true")).augment
    assert (both.flip, both.shift, both.mixup, both.cutmix, both.mix) == (0.5, 2, 0.2, 1, 1.0)
    cut = build.build_datamodule(composed("augment=cutmix")).augment
    assert (cut.flip, cut.shift, cut.alternate, cut.mixup, cut.cutmix, cut.mix) == (0.5, 2, False, 0.0, 1.0, 0.5)


def test_trainer_words() -> None:
    trainer = build.build_evaluation_trainer(
        composed(
            "trainer=cpu", "trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.5", "trainer.max_epochs=9"
        )
    )
    assert (trainer.accumulate_grad_batches, trainer.gradient_clip_val, trainer.max_epochs) == (3, 0.5, 9)
    assert build.build_evaluation_trainer(composed("trainer=debug")).fast_dev_run
    assert build.build_evaluation_trainer(composed("trainer=overfit")).overfit_batches == 4
    precise = build.build_evaluation_trainer(composed("trainer=cpu", "trainer.precision=32-true"))
    assert precise.precision == "32-true"


def test_scaled_gradients_of_a_fused_optimizer_are_not_clipped() -> None:
    place = {"num_devices": 1, "num_nodes": 1, "world_size": 1, "strategy": None, "callbacks": []}
    trainer: Any = SimpleNamespace(precision="16-mixed", gradient_clip_val=0.5, **place)
    with pytest.raises(ValueError, match=r"gradient_clip_val=0.5: .* optimizer.fused=false"):
        check_parts(composed(), trainer)
    check_parts(composed("optimizer.fused=false"), trainer)


def test_auto_precision_is_what_the_hardware_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for able, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=able: able)
        assert build.hardware_precision("cpu") == precision
        assert build.hardware_precision("auto") == precision
