"""Random input: at most one line of error, exit status 0 or 2, never a traceback, nothing left behind.

FMNIST_FUZZ_EXAMPLES=1000 lets each test try so many, and others each time.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Done, RunScript
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from run_folders import composed

from fmnist import run_training
from fmnist.config.keys import flat_settings
from fmnist.data.datamodule import ImageDataModule
from fmnist.evaluation import main as evaluate
from fmnist.runs import checkpoints
from fmnist.tune import main as tune

EXAMPLES = os.environ.get("FMNIST_FUZZ_EXAMPLES")
fuzz = settings(
    max_examples=int(EXAMPLES or 4),
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KEYS = [*flat_settings(OmegaConf.to_container(composed(())[0])), "callbacks.x", "trainer.max_time", "trainer.profiler"]
KEYS += [
    "resume",
    "checkpoint_every_n_steps",
    "checkpoint_every_minutes",
    "loss._partial_",
    "trainer.gradient_clip_val",
]
GROUPS = sorted({key.split(".")[0] for key in KEYS if "." in key})
ODD = ["null", "???", "${seed}", "${oc.env:HOME}", "${x", "[]", "{}", "[[1]]", "{a: 1}", "1e400", "nan", "-1", "true"]
ODD += ["'", '"', "a,b", "range(3)", "{_target_: os.system}", "../..", "", "\0", "9" * 30, "\N{FULLWIDTH DIGIT NINE}"]
ODD += ["\\", "=", "@"]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(ODD)
names = st.sampled_from([*GROUPS, *(key.split(".")[-1] for key in KEYS), "hydra"])
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
    st.sampled_from([*GROUPS, *KEYS]) | st.text(max_size=8),
    st.just("") | st.builds("={}".format, st.sampled_from(ODD) | st.text(max_size=10) | st.integers() | st.floats()),
).filter(lambda word: not word.startswith("-"))


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="replace")


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy of the config with another value for a dotted key."""
    *above, last = key.split(".")
    copy = yaml.safe_load(yaml.safe_dump(config))
    node = copy
    for name in above:
        node = node[name]
    node[last] = value
    return copy


def assert_one_line_at_most(done: Done) -> None:
    assert done.status in (0, 2), done
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (done.status == 2), done
    assert not errors or done.err.splitlines()[-1] == errors[0], done


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """End commands where they would begin their work."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("nothing was wrong with it")

    for module, name in ((run_training, "prepare_data"), (tune.Configs, "check_free"), (evaluate, "measure")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(ImageDataModule, "prepare_data", refuse)


odd_override = st.builds("++{}={}".format, st.sampled_from(KEYS), st.sampled_from(ODD)).map(lambda word: [word])
OTHERS = ["evaluate", "report", "robustness", "predict", "compare", "show_data"]


@pytest.mark.usefixtures("stop")
@pytest.mark.parametrize("scripts", [["train"], OTHERS], ids=["train", "others"])
@fuzz
@given(data=st.data(), words=st.lists(overrides, min_size=1, max_size=3) | odd_override)
def test_overrides(
    run_script: RunScript, tmp_path: Path, scripts: list[str], data: st.DataObject, words: list[str]
) -> None:
    assert_one_line_at_most(run_script(data.draw(st.sampled_from(scripts)), *words))
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("stop")
@pytest.mark.parametrize(("script", "group"), [("train", "experiment"), ("tune", "search")])
@fuzz
@given(text=yamls)
def test_yaml_of_an_option(run_script: RunScript, tmp_path: Path, script: str, group: str, text: str | bytes) -> None:
    file = tmp_path / "conf" / group / "odd.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(as_bytes(text))
    assert_one_line_at_most(run_script(script, "--config-dir", "conf", f"{group}=odd"))
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.usefixtures("finished_run", "stop")
@fuzz
@given(text=yamls | st.tuples(st.sampled_from(KEYS), values))
def test_config_file_of_a_run(finished_run: Path, run_script: RunScript, text: Any) -> None:
    file = finished_run / "config.yaml"
    if isinstance(text, tuple):
        config = checkpoints.load(finished_run / "checkpoints" / "best.ckpt")[checkpoints.CONFIG_KEY]
        text = yaml.safe_dump(changed(config, *text))
    file.write_bytes(as_bytes(text))
    assert_one_line_at_most(run_script("compare", str(finished_run), "outputs=compared"))
    assert_one_line_at_most(run_script("train", f"resume={finished_run}", "trainer.max_epochs=3"))


@pytest.mark.usefixtures("finished_run", "stop")
@fuzz
@given(key=st.sampled_from([*GROUPS, *KEYS]), value=values)
def test_config_in_a_checkpoint(finished_run: Path, run_script: RunScript, key: str, value: Any) -> None:
    whole = checkpoints.load(finished_run / "checkpoints" / "best.ckpt")
    whole[checkpoints.CONFIG_KEY] = changed(whole[checkpoints.CONFIG_KEY], key, value)
    torch.save(whole, finished_run / "odd.ckpt")
    assert_one_line_at_most(run_script("evaluate", f"checkpoint={finished_run}/odd.ckpt"))
