"""Input that no person would think of: at most one line, exit status 0 or 2, never a traceback, nothing left behind.

FMNIST_FUZZ_EXAMPLES=1000 has each test try so many, and others each time.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Done, RunScript
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmnist import train
from fmnist.evaluation import main as evaluate
from fmnist.runs import checkpoints
from fmnist.tune import main as tune

EXAMPLES = os.environ.get("FMNIST_FUZZ_EXAMPLES")
fuzz = settings(
    max_examples=int(EXAMPLES or 6),
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FAR_ENOUGH = "nothing was wrong with it"
KEYS = {
    "": "name seed monitor test report cuda_graph compile checkpoint_every_n_steps checkpoint_every_minutes "
    "stop_on_nan resume",
    "data": "root batch_size eval_batch_size val_size split_seed prune self_distillation verify _target_",
    "augment": "flip shift erase alternate mixup cutmix mix until _target_",
    "model": "channels kernel_size stride padding batch_norm activation pooling hidden dropout _target_",
    "loss": "label_smoothing _target_ _partial_",
    "optimizer": "lr weight_decay betas fused _target_ _partial_",
    "scheduler": "warmup peak _target_ _partial_",
    "trainer": "max_epochs max_steps max_time accelerator devices num_nodes strategy precision limit_val_batches "
    "accumulate_grad_batches check_val_every_n_epoch profiler gradient_clip_val deterministic _target_",
    "callbacks": "x",
    "pictures": "every_n_epochs predictions embedding _target_",
}
GROUPS = [group for group in KEYS if group]
LEAVES = [f"{group}.{key}" if group else key for group, keys in KEYS.items() for key in keys.split()]
ODD = [
    "",
    "null",
    "???",
    "${seed}",
    "${oc.env:HOME}",
    "${x",
    "[]",
    "{}",
    "[[1]]",
    "{a: 1}",
    "1e400",
    "nan",
    "-1",
    "true",
]
ODD += [
    "'",
    '"',
    "a,b",
    "range(3)",
    "{_target_: os.system}",
    "../..",
    "\0",
    "9" * 30,
    "\N{FULLWIDTH DIGIT NINE}",
    "\\",
    "=",
    "@",
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(ODD)
names = st.sampled_from([*GROUPS, *(key for keys in KEYS.values() for key in keys.split()), "_target_", "hydra"])
values = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(names | st.text(max_size=5), below, max_size=3),
    max_leaves=6,
)
configs = st.dictionaries(names | st.text(max_size=5), values, max_size=4)
yamls = st.text(max_size=60) | st.binary(max_size=60) | configs.map(lambda value: yaml.safe_dump(value))
overrides = st.text(max_size=30).filter(lambda word: not word.startswith("-")) | st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "", "", "+", "++", "~"]),
    st.sampled_from([*GROUPS, *LEAVES]) | st.text(max_size=8),
    st.just("") | st.builds("={}".format, st.sampled_from(ODD) | st.text(max_size=10) | st.integers() | st.floats()),
).filter(lambda word: not word.startswith("-"))


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The config with another value at a place of it."""
    *above, last = key.split(".")
    copy = yaml.safe_load(yaml.safe_dump(config))
    node = copy
    for name in above:
        node = node[name]
    node[last] = value
    return copy


def assert_calm(done: Done) -> None:
    assert done.status in (0, 2), done
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (done.status == 2), done
    assert "Traceback" not in done.err
    if done.status == 2:
        assert len(done.err[done.err.index("error: ") :].splitlines()) == 1, done


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
    """Lets a script come as far as a function."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError(FAR_ENOUGH)

    return lambda module, name: monkeypatch.setattr(module, name, refuse)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def run(trained: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a run of one epoch, the same for all tests."""
    if not any(trained.iterdir()):
        done = request.getfixturevalue("train")("trainer.max_epochs=1", "test=false")
        shutil.copytree(done.run, trained / "run")
        shutil.rmtree(tmp_path / "outputs")
    return shutil.copytree(trained / "run", tmp_path / "run")


@fuzz
@given(words=st.lists(overrides, min_size=1, max_size=3))
def test_words(run_script: RunScript, stop: Callable[..., None], tmp_path: Path, words: list[str]) -> None:
    stop(train, "set_up")
    assert_calm(run_script("train", *words))
    assert not any(tmp_path.iterdir())


@fuzz
@given(key=st.sampled_from(LEAVES), value=st.sampled_from(ODD))
def test_odd_values(run_script: RunScript, stop: Callable[..., None], tmp_path: Path, key: str, value: str) -> None:
    stop(train, "set_up")
    assert_calm(run_script("train", f"++{key}={value}"))
    assert not any(tmp_path.iterdir())


@fuzz
@given(script=st.sampled_from(["evaluate", "report", "predict", "compare", "show_data"]), words=st.lists(overrides))
def test_words_of_the_other_scripts(
    run_script: RunScript, stop: Callable[..., None], tmp_path: Path, script: str, words: list[str]
) -> None:
    from fmnist.data.datamodule import FashionMNISTDataModule

    stop(FashionMNISTDataModule, "prepare_data")
    assert_calm(run_script(script, *words))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "group", "last_step"),
    [("train", "experiment", (train, "set_up")), ("tune", "search", (tune.Configs, "check_free"))],
)
@fuzz
@given(text=yamls)
def test_file_of_choices(
    run_script: RunScript,
    stop: Callable[..., None],
    tmp_path: Path,
    script: str,
    group: str,
    last_step: tuple[Any, str],
    text: str | bytes,
) -> None:
    stop(*last_step)
    file = tmp_path / "conf" / group / "odd.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode(errors="replace"))
    assert_calm(run_script(script, "--config-dir", "conf", f"{group}=odd"))
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@fuzz
@given(text=yamls | st.builds(lambda *pair: pair, st.sampled_from(LEAVES), values))
def test_config_file_of_a_run(
    trained: Path, run: Path, run_script: RunScript, stop: Callable[..., None], text: Any
) -> None:
    stop(train, "set_up")
    file = run / "config.yaml"
    if isinstance(text, tuple):
        text = yaml.safe_dump(changed(yaml.safe_load((trained / "run" / "config.yaml").read_text()), *text))
    file.write_bytes(text if isinstance(text, bytes) else text.encode(errors="replace"))
    for done in (
        run_script("compare", str(run), f"outputs={run.parent}/compared"),
        run_script("train", f"resume={run}", "trainer.max_epochs=2"),
    ):
        assert_calm(done)


@fuzz
@given(key=st.sampled_from([*GROUPS, *LEAVES]), value=values)
def test_config_in_a_checkpoint(
    run: Path, run_script: RunScript, stop: Callable[..., None], key: str, value: Any
) -> None:
    stop(evaluate, "measure")
    whole = checkpoints.load(run / "checkpoints" / "best.ckpt")
    whole[checkpoints.CONFIG_KEY] = changed(whole[checkpoints.CONFIG_KEY], key, value)
    torch.save(whole, run / "odd.ckpt")
    assert_calm(run_script("evaluate", f"checkpoint={run}/odd.ckpt"))
