"""scripts/benchmark.py on small sizes: that it measures what it says, not how fast anything is."""

import functools
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from conftest import RunScript
from hydra import compose, initialize_config_dir
from torch import nn
from torchvision import transforms

from fmnist.config.help import CONF
from fmnist.data import sources
from fmnist.data.augment import Augmentation
from fmnist.data.info import CLASSES, IMAGE_SHAPE
from fmnist.models import CNN, MLP
from tools.benchmarks import arithmetic, evaluation, growth, memory, processes, start, tables, training, turns, usual
from tools.benchmarks import main as benchmark
from tools.benchmarks.bench import Bench, title, whole_batches
from tools.benchmarks.clocks import PARTS, EpochClock, StepClock
from tools.benchmarks.processes import Ended, resident_mib, run_process
from tools.benchmarks.start import Trained, train_process

ROOT = CONF.parent
PRECISIONS = ("32-true", "bf16-mixed")


@pytest.fixture
def overrides(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(benchmark, "ensure_files", lambda root: sources.ensure_files(root, None))
    monkeypatch.setattr(benchmark, "hardware_precision", lambda _: "bf16-mixed")
    return [
        "data=folder",
        f"data.root={data_root}",
        "data.val_size=100",
        "data.batch_size=50",
        "model.channels=[4]",
        "trainer.log_every_n_steps=1",
    ]


@pytest.fixture
def bench(overrides: list[str], data_root: Path) -> Iterator[Bench]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ",".join(f"'{word}'" for word in overrides)
        cfg = compose(
            "benchmark", [f"data_root={data_root}", f"overrides=[{words}]", "networks=[[]]", "arithmetic_networks=[[]]"]
        )
        gc.freeze()  # as the job does
        yield benchmark.make_bench(cfg)
    gc.unfreeze()


@pytest.fixture
def run_benchmark(run_script: RunScript, overrides: list[str], data_root: Path) -> RunScript:
    """Runs scripts/benchmark.py on the made-up images."""
    words = ",".join(f"'{word}'" for word in overrides)
    small = [f"data_root={data_root}", f"overrides=[{words}]", "batch_size=50", "train_images=100", "repetitions=2"]

    def run(*arguments: str):
        keys = {argument.split("=")[0] for argument in arguments}
        return run_script("benchmark", *(word for word in small if word.split("=")[0] not in keys), *arguments)

    return run


def test_each_comparison_has_a_module_and_a_table_and_is_made_by_default() -> None:
    names = set(get_args(benchmark.What))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert names == set(tables.TABLES) == set(compose("benchmark").what)
    assert all((ROOT / "fmnist" / "benchmarks" / f"{name}.py").is_file() for name in names)


def test_benchmark_shows_and_writes_rates_and_ratios(run_benchmark: RunScript) -> None:
    done = run_benchmark("what=[input,training]", "networks=[['experiment=intro_adam']]")
    assert done.status == 0, done.err
    (file,) = done.folder.glob("outputs/benchmark/*/benchmark.json")
    results = json.loads(file.read_text())
    assert results["settings"]["train_images"] == 100
    assert list(results["input"]) == ["input, plain", "input, flip and shift"]
    assert list(results["training"]) == ["intro_adam"]
    for contest in [*results["input"].values(), *results["training"].values()]:
        for way, values in contest["ways"].items():
            assert len(values["values"]) == 2
            assert values["lowest"] > 0
            shown = tables.spread(values, "{:,.0f}")
            assert any(way in line and shown in line for line in done.out.splitlines())
    race = results["training"]["intro_adam"]
    assert list(race["ways"]) == [
        "usual loop, 32-true",
        *(f"{way}, {precision}" for precision in PRECISIONS for way in ("ours", "by hand")),
    ]
    ours, usual = race["ways"]["ours, bf16-mixed"]["values"], race["ways"]["usual loop, 32-true"]["values"]
    ratios = race["ratios"]["ours, bf16-mixed"]["usual"]["values"]
    assert ratios == pytest.approx([our / their for our, their in zip(ours, usual, strict=True)])
    assert results["input"]["input, plain"]["ratios"]["ours"]["usual"]["median"] > 2  # whole batches, on any machine


@pytest.mark.slow
def test_benchmark_shows_and_writes_arithmetic_evaluation_and_growth(
    run_benchmark: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "STEPS", 2)
    smaller = {name: replace(axis, start=max(1, axis.start // 8)) for name, axis in growth.AXES.items()}
    monkeypatch.setattr(growth, "AXES", smaller)
    monkeypatch.setattr(evaluation, "PREDICTED", 300)
    words = ("networks=[[]]", "arithmetic_networks=[[]]", "matrix_sizes=[16,32]", "doublings=1", "repetitions=1")
    done = run_benchmark("what=[arithmetic,evaluation,growth]", *words)
    assert done.status == 0, done.err
    (file,) = done.folder.glob("outputs/benchmark/*/benchmark.json")
    results = json.loads(file.read_text())
    assert set(results["arithmetic"]["products"]) == set(PRECISIONS)
    for row in results["arithmetic"]["networks"]:
        step = row["step_seconds"]["median"]
        assert row["flops_per_second"]["median"] == pytest.approx(row["flops"] / step)
        product = results["arithmetic"]["products"][row["precision"]]["median"]
        assert row["of_product"]["median"] == pytest.approx(row["flops"] / step / product)
        assert sum(share["median"] for share in row["shares"].values()) == pytest.approx(1)
        assert f"{row['of_product']['median']:.1%}" in done.out
    seconds = results["evaluation"]["quantities"]["validation and test, 300 images"]
    rates = results["evaluation"]["contests"]["evaluation"]["ways"]["ours, validation and test, bf16-mixed"]
    assert seconds["median"] == pytest.approx(300 / rates["median"])
    assert set(results["growth"]) == set(growth.AXES)
    for axis in results["growth"].values():
        assert axis["sizes"][1] == 2 * axis["sizes"][0]
        assert len(axis["seconds"]) == len(axis["mib"]) == 2
        assert len(axis["seconds_exponents"]) == len(axis["mib_exponents"]) == 1
    assert results["growth"]["images in a batch"]["mib"][1] > results["growth"]["images in a batch"]["mib"][0]


@pytest.mark.parametrize(
    ("word", "fragments"),
    [
        ("what=[speed]", ["what=", "'input'"]),
        ("what=[]", ["what=[]", "at least 1"]),
        ("repetitions=0", ["repetitions=0"]),
        ("train_images=20", ["train_images=20", "at least one batch"]),
        ("networks=[['model.dropout=2']]", ["model.dropout=2"]),
        ("networks=[['model.dropuot=0.2']]", ["model.dropuot"]),
        ("networks=[['model=none']]", ["model"]),
        ("arithmetic_networks=[['model.dropout=2']]", ["model.dropout=2"]),
        ("networks=model", ["networks=model"]),
        ("matrix_sizes=[0]", ["matrix_sizes=[0]"]),
        ("doublings=0", ["doublings=0"]),
        ("memory_epochs=2", ["memory_epochs=2", "3"]),
        ("repetition=2", ["repetition", "did you mean repetitions"]),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    word: str, fragments: list[str], run_benchmark: RunScript
) -> None:
    words = [word] if word.startswith("what") else ["what=[training,arithmetic]", word]
    done = run_benchmark(*words)
    done.assert_refused(*fragments)
    assert "measuring" not in done.out
    assert not (done.folder / "outputs").exists()


def test_turns_are_counted_after_one_for_warming_up_and_in_their_order() -> None:
    made: list[str] = []

    def measurement(name: str, values: list[float]) -> turns.Measurement:
        remaining = iter(values)

        def measure() -> dict[str, float]:
            made.append(name)
            return {name: next(remaining)}

        return measure

    measurements = [measurement("a", [1, 10, 20]), measurement("b", [1, 5, 4])]
    assert turns.take_turns("both", measurements, repetitions=2) == {"a": [10, 20], "b": [5, 4]}
    assert made == ["a", "b"] * 3
    assert turns.take_turns("cold", [measurement("a", [7])], 1, warm_up=False) == {"a": [7]}


def test_medians_ratios_and_exponents_of_known_values() -> None:
    assert turns.summary([3.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0, "values": [3.0, 1.0, 2.0]}
    assert turns.ratio([10.0, 20.0, 30.0], [5.0, 5.0, 5.0])["values"] == [2.0, 4.0, 6.0]
    sizes = [1, 2, 4, 8]
    assert turns.exponents(sizes, [3.0, 3.0, 6.0, 24.0]) == pytest.approx([0, 1, 2])
    assert turns.exponents([10, 30], [1.0, 9.0]) == pytest.approx([2])


def test_a_contest_has_the_ratios_of_each_turn() -> None:
    ours, theirs = iter([1.0, 10.0, 30.0]), iter([1.0, 5.0, 5.0])
    ways = {"theirs": lambda: next(theirs), "ours": lambda: next(ours)}
    result = turns.contest("both", ways, 2, {"ours": {"usual": "theirs"}})
    assert result["ways"]["ours"]["values"] == [10.0, 30.0]
    assert result["ratios"]["ours"]["usual"]["values"] == [2.0, 6.0]
    table = tables.contest_table({"both": result}).splitlines()
    assert table[0].split() == ["images/s", "/", "usual"]
    assert table[-1].split() == ["ours", "20", "(10..30)", "4.00", "(2.00..6.00)"]


@pytest.mark.parametrize("loop", [training.usual_epoch, training.trainer_epoch, training.epoch_by_hand])
@pytest.mark.parametrize(("train_images", "seen"), [(149, 100), (None, 500)])
def test_all_loops_train_on_the_same_number_of_images(loop, train_images: int | None, seen: int, bench: Bench) -> None:
    clock = EpochClock()
    with bench.open_session(training.ONE_EPOCH, clock) as session:
        before = [weight.clone() for weight in session.classifier.network.parameters()]
        images, seconds = loop(session, clock, whole_batches(session, train_images))
        assert images == seen
        assert seconds > 0
        assert not any(torch.equal(*pair) for pair in zip(before, session.classifier.network.parameters(), strict=True))
        assert len(session.history.rows) == (loop is training.trainer_epoch)
        assert "val/loss" not in session.trainer.callback_metrics  # validation isn't of the epoch


def test_the_loop_by_hand_trains_as_the_trainer_does(bench: Bench) -> None:
    weights = []
    words = [*training.ONE_EPOCH, "augment=none", "model.dropout=0", "trainer.precision=32-true"]
    for loop in (training.trainer_epoch, training.epoch_by_hand):
        clock = EpochClock()
        with bench.open_session(words, clock) as session:
            loop(session, clock, whole_batches(session, None))
            weights.append(session.classifier.network.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], msg=name)


def test_the_usual_loop_takes_maxima_after_the_activation_of_the_same_function() -> None:
    network = CNN(IMAGE_SHAPE, len(CLASSES), [4, 5], batch_norm=False)
    images = torch.randn(3, *IMAGE_SHAPE)
    before = network(images)
    layers = usual.usual_order(network).blocks
    assert [type(layer).__name__ for layer in layers] == ["Conv2d", "ReLU", "MaxPool2d"] * 2
    assert torch.equal(network(images), before)
    default = CNN(IMAGE_SHAPE, len(CLASSES), [4], activation="silu").blocks
    assert [type(layer) for layer in usual.usual_order(default)] == [type(layer) for layer in default]


def test_the_usual_loop_has_the_optimizer_of_the_tutorials() -> None:
    weight = [nn.Parameter(torch.zeros(1))]
    optimizer = usual.usual_optimizer(functools.partial(torch.optim.Adam, lr=0.3, fused=True))(weight)
    assert (type(optimizer), optimizer.defaults["fused"], optimizer.defaults["lr"]) == (torch.optim.Adam, False, 0.3)


def test_the_usual_loop_has_the_augmentation_of_ours(data_root: Path) -> None:
    images, labels = next(iter(usual.usual_loader(data_root, 20)))
    assert images.shape == (20, *IMAGE_SHAPE)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert labels.shape == (20,)
    loader = usual.usual_loader(data_root, 20, Augmentation(flip=0.5, shift=2))
    kinds = [type(change) for change in loader.dataset.transform.transforms]
    assert kinds == [transforms.RandomCrop, transforms.RandomHorizontalFlip, transforms.ToTensor]


def test_operations_of_known_layers_are_counted() -> None:
    cross_entropy, images = nn.CrossEntropyLoss(), 7
    # The gradient of a layer's weights costs as much as the layer, and so does that of its input, but for the first.
    first, second = 2 * images * 784 * 30, 2 * images * 30 * len(CLASSES)
    network = MLP(IMAGE_SHAPE, len(CLASSES), [30])
    assert arithmetic.step_flops(network, cross_entropy, images) == 2 * first + 3 * second
    assert all(weight.grad is None for weight in network.parameters())
    convolution, linear = 2 * images * 28 * 28 * 4 * 9, 2 * images * 4 * 14 * 14 * len(CLASSES)
    network = CNN(IMAGE_SHAPE, len(CLASSES), [4])
    assert arithmetic.step_flops(network, cross_entropy, images) == 2 * convolution + 3 * linear


def test_the_parts_of_a_step_are_the_whole(bench: Bench) -> None:
    clock = StepClock(skip=3)
    with bench.open_session(training.ONE_EPOCH, clock) as session:
        session.trainer.fit(session.classifier, session.datamodule)
    parts = clock.per_step()
    assert list(parts) == list(PARTS)
    assert all(seconds > 0 for seconds in parts.values())
    assert clock.steps == 10 - 3
    assert sum(parts.values()) == pytest.approx(clock.seconds / clock.steps)


def test_memory_of_tensors_is_that_of_the_fullest_moment(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        for _ in range(3):
            torch.zeros(1000, 250).add(1)  # two at a time

    assert growth.allocated_bytes(work) == pytest.approx(2 * 1000 * 250 * 4, rel=1e-4)
    assert capfd.readouterr().err == ""


def test_a_process_is_measured_without_the_one_that_starts_it() -> None:
    small = run_process([sys.executable, "-S", "-c", "pass"])
    large = run_process([sys.executable, "-S", "-c", "full = b'1' * (200 << 20)"])
    own = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
    assert small.peak_mib < 60 < own / 1024
    assert 190 < large.peak_mib - small.peak_mib < 220
    assert 0 < small.seconds < 60


def test_a_process_that_fails_is_told_by_its_last_line() -> None:
    with pytest.raises(ValueError, match=r"failed: ValueError: no such thing$"):
        run_process([sys.executable, "-S", "-c", "raise ValueError('no such thing')"])


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_ends_with_the_benchmark(end: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    sleeper = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    code = (
        "import signal, sys; from tools.benchmarks.processes import run_process; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # which is ignored in the background of a shell
        "run_process(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, sys.executable, "-S", "-c", sleeper]
    started = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        until(lambda: file.exists() and file.read_text())
        started.send_signal(end)
        started.wait(120)
    finally:
        started.kill()
        started.wait()
    until(lambda: not alive(int(file.read_text())))


def alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def until(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_resident_memory_is_what_there_is_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    had: list[float | None] = [resident_mib()]
    full = bytearray(b"1") * (200 << 20)
    had.append(resident_mib())
    del full
    had.append(resident_mib())
    assert [now - had[0] for now in had] == pytest.approx([0, 200, 0], abs=20)
    monkeypatch.setattr(processes, "STATM", tmp_path / "none")
    assert resident_mib() is None


@pytest.mark.slow
def test_a_training_process_tells_its_times_and_its_memory(bench: Bench) -> None:
    trained = train_process(bench, "pictures=none", "report=false", "trainer.max_epochs=2", memory.WITH_MEMORY)
    assert trained.process.status == 0
    assert 0 < trained.first_step < trained.process.seconds
    assert 0 < trained.rest < trained.process.seconds - trained.first_step
    assert len(trained.resident_mib) == 2
    assert all(100 < mib <= trained.process.peak_mib for mib in trained.resident_mib)


def test_start_tells_whole_processes_and_parts_of_trainings(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    resident = [300.0, 400.0, 700.0, 500.0, 503.0, 506.0]

    def run(command: list[str]) -> Ended:
        commands.append(command)
        return Ended(float(len(commands)), 2048.0, 0, 0.0, 0.0)

    def train(_: Bench, *words: str) -> Trained:
        commands.append([*words])
        times = (0.5, float(len(commands)))
        return Trained(Ended(10.0 * len(commands), 1024.0 * len(commands), 0, 0.0, 0.0), *times, resident)

    for module in (start, memory):
        monkeypatch.setattr(module, "run_process", run)
        monkeypatch.setattr(module, "train_process", train)
    result = start.compare(replace(bench, repetitions=1))
    assert [values["median"] for values in result.values()] == [1.0, 2.0, 3.0, 0.5, 40.0, 5.0, 6.0]
    assert commands[0][1:] == [str(ROOT / "scripts" / "train.py"), "--help"]
    assert commands[1][-2:] == ["--cfg", "job"]
    assert all(Path(command[1]).is_file() for command in commands[:2])
    assert commands[3] == ["trainer.fast_dev_run=true"]
    assert commands[4:] == [[*start.SHORT, "report=true"], [*start.SHORT, "report=false"]]
    last = [line.split() for line in tables.quantity_table(result).splitlines()[-2:]]
    assert [words[-2:] for words in last] == [["5.00", "s"], ["6.00", "s"]]
    assert last[1][:4] == ["the", "same", "with", "report=false"]
    commands.clear()
    result = memory.compare(replace(bench, memory_batch_sizes=[20, 40], memory_epochs=6))
    few_steps = f"trainer.limit_train_batches={memory.STEPS}"
    assert commands[1:] == [
        ["data.batch_size=20", "trainer.max_epochs=1", few_steps],
        ["data.batch_size=40", "trainer.max_epochs=1", few_steps],
        ["trainer.max_epochs=6", few_steps, memory.WITH_MEMORY],
    ]
    assert result["resident_mib"] == resident
    units = {name: (values["median"], values["unit"]) for name, values in result["quantities"].items()}
    assert units == {
        "import lightning, for comparison": (2.0, "MiB"),
        "train.py data.batch_size=20": (2.0, "MiB"),
        "train.py data.batch_size=40": (3.0, "MiB"),
        "train.py, resident after epoch 2": (400.0, "MiB"),
        "train.py, resident after epoch 6": (506.0, "MiB"),
        "train.py, growth over epochs 4 to 6": (3.0, "MiB/epoch"),
    }
    assert tables.TABLES["memory"](result).splitlines()[-1].split()[-2:] == ["3.00", "MiB/epoch"]


@pytest.mark.parametrize(
    ("resident", "growth"),
    [
        ([100.0, 150.0, 150.0], 0.0),
        ([100.0, 150.0, 160.0], 10.0),
        ([0.0, 0.0, 0.0, 10.0, 30.0, 20.0, 40.0], 8.0),  # of the last four; by least squares
        ([9.0, 8.0, 7.0, 6.0], -1.0),
    ],
)
def test_growth_is_that_of_the_second_half_of_the_epochs(resident: list[float], growth: float) -> None:
    *_, last = memory.from_epoch_to_epoch(resident).values()
    assert last["median"] == pytest.approx(growth)


def test_no_growth_has_no_sign() -> None:
    result = memory.from_epoch_to_epoch([100.0, 200.0, 200.0, 199.999])
    assert tables.quantity_table(result).splitlines()[-1].split()[-2:] == ["0.00", "MiB/epoch"]


@pytest.mark.parametrize("resident", [[], [100.0, 150.0]])
def test_no_growth_is_told_where_the_memory_is_not_known(resident: list[float]) -> None:
    assert memory.from_epoch_to_epoch(resident) == {}


def test_networks_have_short_titles() -> None:
    assert title([]) == "the default"
    assert title(["experiment=intro_adam", "model.dropout=0.1"]) == "intro_adam model.dropout=0.1"
    assert processes.ROOT == ROOT
