"""tools/benchmark.py on small sizes: that it measures what it says, not how fast anything is."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from processes import wait_for
from torch import nn
from torchvision import transforms

from fmnist.config.help import CONF
from fmnist.data.augment import Augmentation
from fmnist.data.info import FASHION_MNIST
from fmnist.models import CNN, MLP
from tools import baseline
from tools.arguments import exit_status
from tools.benchmark import BENCHMARKS, main
from tools.benchmarks import arithmetic, evaluation, training
from tools.benchmarks.comparison import Comparison, Options, interleave, spread
from tools.processes import run_process
from tools.trainings import open_training

ROOT = CONF.parent
SHAPE, K = FASHION_MNIST.image_shape, len(FASHION_MNIST.classes)
SMALL = ("data=idx", "data.val_size=100", "data.batch_size=50", "model.channels=[4]", "trainer.log_every_n_steps=1")


@pytest.fixture
def options(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setattr(training, "hardware_precision", lambda _: "bf16-mixed")
    return Options(repetitions=1, images=100, data=data_root, networks=("",), overrides=SMALL)


@pytest.fixture
def benchmark(options: Options, tmp_path: Path) -> Callable[..., int]:
    """Run tools/benchmark.py on the made-up images, and return its exit status."""
    words = ["--images", "100", "--repetitions", "2", "--data", str(options.data), "--outputs", str(tmp_path)]
    return lambda *arguments: exit_status(main, [*words, *arguments, "--overrides", *SMALL])


@pytest.mark.slow
def test_rates_and_ratios_are_shown_and_written(
    benchmark: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark("input", "training", "--networks", "experiment=intro_adam") == 0
    shown = capsys.readouterr().out
    (file,) = tmp_path.glob("benchmark/*.json")
    results = json.loads(file.read_text())
    assert [comparison["title"] for comparison in results["input"]] == [
        "input, no augmentation",
        "input, flip and shift",
    ]
    ratios = results["input"][0]["ratios"]["BatchLoader"]["DataLoader"]
    assert len(ratios) == 2
    (compared,) = results["training"]
    assert compared["title"] == "training, experiment=intro_adam"
    here, plain = compared["values"]["Lightning here, bf16-mixed"], compared["values"]["plain PyTorch loop, bf16-mixed"]
    assert len(here) == len(plain) == 2
    expected = [ours / theirs for ours, theirs in zip(here, plain, strict=True)]
    assert compared["ratios"]["Lightning here, bf16-mixed"]["plain PyTorch loop"] == pytest.approx(expected)
    for way, values in compared["values"].items():
        assert min(values) > 0
        assert any(way in line and spread(values) in line for line in shown.splitlines())


@pytest.mark.slow
def test_every_benchmark_runs(benchmark: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "SIZES", (16, 32))
    monkeypatch.setattr(evaluation, "PREDICTED", 300)
    assert benchmark("--networks", "model.dropout=0") == 0
    (file,) = tmp_path.glob("benchmark/*.json")
    assert set(BENCHMARKS) < set(json.loads(file.read_text()))


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["speed"], ["speed: there is no such benchmark", "input, training"]),
        (["--repetitions", "0"], ["--repetitions", "at least 1"]),
        (["--images", "20"], ["--images 20", "at least one batch"]),
        (["--networks", "model.dropout=2"], ["model.dropout=2"]),
        (["--networks", "model.dropuot=0.2"], ["model.dropuot"]),
        (["--networks", "model=none"], ["model"]),
        (["--speed"], ["--speed"]),
    ],
)
def test_invalid_arguments_are_one_line_before_anything_is_measured(
    arguments: list[str],
    fragments: list[str],
    benchmark: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmark(*arguments) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert all(fragment in line for fragment in fragments)
    assert not out
    assert not [*tmp_path.iterdir()]


def test_measurements_are_interleaved_after_a_warm_up() -> None:
    made: list[str] = []

    def way(name: str, values: list[float]) -> Callable[[], float]:
        remaining = iter(values)
        return lambda: (made.append(name), next(remaining))[1]

    values = interleave({"a": way("a", [1, 10, 20]), "b": way("b", [1, 5, 4])}, repetitions=2)
    assert values.to_dict("list") == {"a": [10, 20], "b": [5, 4]}
    assert made == ["a", "b"] * 3
    assert interleave({"a": way("a", [7])}, 1, warm_up=False).to_dict("list") == {"a": [7]}


def test_a_table_has_medians_and_the_ratios_of_each_repetition() -> None:
    values = pd.DataFrame({"baseline": [5.0, 5.0, 10.0], "ours": [10.0, 30.0, 25.0]})
    lines = Comparison("both", "images/s", values, {"ours": {"it": "baseline"}}).table().splitlines()
    assert lines[0] == "both"
    assert lines[1].split() == ["images/s", "/", "it"]
    assert lines[3].split() == ["ours", "25.0", "(10.0..30.0)", "2.50", "(2.00..6.00)"]
    assert spread([1234.5]) == "1,234"


LOOPS = (training.lightning_loop, training.bare_lightning_loop, training.plain_loop)


@pytest.mark.parametrize("loop", [training.tutorial_loop, *LOOPS])
@pytest.mark.parametrize(("images", "used"), [(149, 100), (10_000, 500)])
def test_all_loops_train_on_the_same_number_of_images(
    loop: training.Loop, images: int, used: int, options: Options
) -> None:
    with open_training(*options.overrides_of("", *training.ONE_EPOCH)) as opened:
        before = [weight.clone() for weight in opened.classifier.network.parameters()]
        timed = loop(opened, training.count_batches(opened, images))
        assert timed.images == used
        assert timed.seconds > 0
        assert not any(torch.equal(*pair) for pair in zip(before, opened.classifier.network.parameters(), strict=True))
        assert "val/loss" not in opened.trainer.callback_metrics  # validation isn't measured


def test_the_plain_loop_and_lightning_alone_train_as_lightning_does_here(options: Options) -> None:
    weights = []
    overrides = [*training.ONE_EPOCH, "augment=none", "model.dropout=0", "trainer.precision=32-true"]
    for loop in LOOPS:
        with open_training(*options.overrides_of("", *overrides)) as opened:
            loop(opened, training.count_batches(opened, 10_000))
            weights.append(opened.classifier.network.state_dict())
    for name, value in weights[0].items():
        for other in weights[1:]:
            torch.testing.assert_close(value, other[name], msg=name)


def test_the_baseline_pools_after_the_activation_and_computes_the_same() -> None:
    network = CNN(SHAPE, K, [4, 5], batch_norm=False)
    images = torch.randn(3, *SHAPE)
    before = network(images)
    layers = baseline.pool_after_activation(network).blocks
    assert [type(layer).__name__ for layer in layers] == ["Conv2d", "ReLU", "MaxPool2d"] * 2
    assert torch.equal(network(images), before)


def test_the_baseline_has_the_optimizer_and_the_augmentation_of_the_tutorials(data_root: Path) -> None:
    weight = [nn.Parameter(torch.zeros(1))]
    optimizer = baseline.not_fused(functools.partial(torch.optim.Adam, lr=0.3, fused=True))(weight)
    assert (type(optimizer), optimizer.defaults["fused"], optimizer.defaults["lr"]) == (torch.optim.Adam, False, 0.3)
    images, labels = next(iter(baseline.tutorial_loader(data_root, 20)))
    assert (images.shape, images.dtype, labels.shape) == ((20, *SHAPE), torch.float32, (20,))
    assert 0 <= images.min() < images.max() <= 1
    loader = baseline.tutorial_loader(data_root, 20, Augmentation(flip=0.5, shift=2))
    kinds = [type(step) for step in loader.dataset.transform.transforms]
    assert kinds == [transforms.RandomCrop, transforms.RandomHorizontalFlip, transforms.ToTensor]


def test_operations_of_known_layers_are_counted() -> None:
    # The gradient of a layer's weights costs as much as the layer, and so does that of its input, but for the first.
    first, second = 2 * 784 * 30, 2 * 30 * K
    network = MLP(SHAPE, K, [30])
    assert arithmetic.flops_per_image(network, nn.CrossEntropyLoss(), SHAPE) == 2 * first + 3 * second
    assert all(weight.grad is None for weight in network.parameters())
    convolution, linear = 2 * 28 * 28 * 4 * 9, 2 * 4 * 14 * 14 * K
    flops = arithmetic.flops_per_image(CNN(SHAPE, K, [4]), nn.CrossEntropyLoss(), SHAPE)
    assert flops == 2 * convolution + 3 * linear


def test_the_memory_of_a_process_is_not_that_of_the_one_that_starts_it() -> None:
    small = run_process([sys.executable, "-S", "-c", "pass"])
    large = run_process([sys.executable, "-S", "-c", "full = b'1' * (200 << 20)"])
    assert small.peak_mib < 60  # this process has hundreds
    assert 190 < large.peak_mib - small.peak_mib < 220
    assert 0 < small.seconds < 60


def test_a_process_that_fails_is_reported_by_its_last_line() -> None:
    with pytest.raises(ValueError, match=r"failed: ValueError: no such thing$"):
        run_process([sys.executable, "-S", "-c", "raise ValueError('no such thing')"])


def test_a_process_ends_with_the_tool_that_measures_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    sleeper = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    code = (
        "import signal, sys; from tools.processes import run_process; "
        "signal.signal(signal.SIGTERM, signal.default_int_handler); run_process(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, sys.executable, "-S", "-c", sleeper]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL) as tool:
        wait_for(lambda: file.exists() and file.read_text() != "")
        tool.terminate()
        tool.wait(60)
    wait_for(lambda: not is_alive(int(file.read_text())))


def is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
