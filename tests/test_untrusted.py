"""A checkpoint or a run folder from a stranger: nothing in it is run, looked up, or written elsewhere."""

import json
import os
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunScript
from omegaconf import OmegaConf

from fmnist.runs import checkpoints


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let allocations fail beyond 4 GiB more than are in use."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**32, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def change(run: Path, how: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the checkpoint of a run, and return its file."""
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    how(checkpoint)
    torch.save(checkpoint, file)
    return file


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


WEIGHT = "network.blocks.0.weight"
LOAD = {"_target_": "lightning.pytorch.LightningModule.load_from_checkpoint", "checkpoint_path": "evil"}


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("model", {"_target_": "os.system", "command": "touch trace"}),
        # The loss gets no arguments from the project, so that these would really run.
        ("loss", {"_target_": "fmnist.runs.run.shutil.rmtree", "path": "kept"}),
        ("loss", {"_target_": "fmnist.runs.files.atomic_write", "file": "trace", "text": "x"}),
        ("loss", {**LOAD, "weights_only": False}),
        ("loss", {"_target_": "fmnist.training.losses.CrossEntropy", "label_smoothing": {"_target_": "os.getcwd"}}),
        ("data", {"_target_": "lightning.pytorch.Trainer", "default_root_dir": "trace"}),
        *((group, {"_target_": "os.system"}) for group in ("trainer", "optimizer", "augment")),
    ],
)
def test_target_in_a_checkpoint_that_does_not_belong_there_is_not_built(
    finished_run: Path, run_script: RunScript, tmp_path: Path, group: str, node: dict[str, Any]
) -> None:
    (tmp_path / "kept").mkdir()
    torch.save(Evil(tmp_path / "trace"), tmp_path / "evil")
    change(finished_run, lambda checkpoint: checkpoint[checkpoints.CONFIG_KEY][group].update(node))
    run_script("evaluate", "run=run").assert_refused(f"{group}.")
    assert not (tmp_path / "trace").exists()
    assert (tmp_path / "kept").exists()


def test_call_in_a_checkpoint_is_not_run(finished_run: Path, run_script: RunScript, tmp_path: Path) -> None:
    file = change(finished_run, lambda checkpoint: checkpoint.update(evil=Evil(tmp_path / "trace")))
    for script, more in (("evaluate", []), ("report", []), ("predict", ["images=run/run.json"])):
        run_script(script, "run=run", *more).assert_refused("best.ckpt is not a readable checkpoint")
    for name in ("last", "previous"):
        shutil.copy(file, file.with_name(f"{name}.ckpt"))
    run_script("train", "resume=run", "trainer.max_epochs=3").assert_refused("last.ckpt is not a readable checkpoint")
    assert not (tmp_path / "trace").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "trace").exists()  # torch itself would run it


@pytest.mark.usefixtures("little_memory")
def test_zip_bomb_is_not_unpacked(finished_run: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    file = change(finished_run, lambda checkpoint: checkpoint["state_dict"].update(bomb=torch.zeros(2**24)))
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert file.stat().st_size < 2**20
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    run_script("evaluate", "run=run").assert_refused("best.ckpt is not a readable checkpoint")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [
        (lambda config, _: config["model"].update(channels=[1_000_000_000]), ["don't fit"]),
        (lambda config, _: config["model"].update(channels=[4] * 100_000), ["more than 16,384 values"]),
        (lambda config, _: config["model"].update(hidden=[2**31 - 1]), ["don't fit", "head"]),
        (lambda _, state: state.update({"network.more": torch.zeros(1).expand(2**40)}), ["only a part", "more"]),
        (lambda _, state: state.update({"network.more": torch.zeros(1)}), ["don't fit", "more"]),
        (lambda _, state: state.pop(WEIGHT), ["don't fit", "Missing", "blocks.0.weight"]),
        (lambda _, state: state.update({WEIGHT: 3}), ["no weights for blocks.0.weight"]),
        (lambda _, state: state.update({WEIGHT: torch.zeros(1).expand(4, 1, 3, 3)}), ["only a part", "blocks.0"]),
        (lambda _, state: state.update({WEIGHT: torch.zeros(4, 1, 3, 3, device="meta")}), ["no weights for blocks.0"]),
    ],
)
def test_network_that_is_larger_than_its_weights_is_not_built(
    finished_run: Path, run_script: RunScript, spoil: Callable[..., None], fragments: list[str]
) -> None:
    change(finished_run, lambda checkpoint: spoil(checkpoint[checkpoints.CONFIG_KEY], checkpoint["state_dict"]))
    run_script("evaluate", "run=run").assert_refused(*fragments)


def shared() -> list[Any]:
    """Return ten references to ten references to ten ...: 10^20 values when copied."""
    value: list[Any] = []
    for _ in range(20):
        value = [value] * 10
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("new", "fragments"),
    [
        ({"name": "${oc.env:HOME}"}, ["'${oc.env:HOME}' would be looked up"]),
        ({"many": {"${oc.env:HOME}": 1}}, ["'${oc.env:HOME}' would be looked up"]),
        ({"many": shared()}, ["occurs more than once"]),
        ({"many": endless()}, ["occurs more than once"]),
        ({"many": torch.zeros(3)}, ["it holds a Tensor"]),
        ({"many": {1, 2}}, ["it holds a set"]),
        ({"model": None}, ["model"]),
        ({"model": "fmnist.models.CNN"}, ["model=fmnist.models.CNN", "_target_"]),
        *((config, ["best.ckpt", "is not a mapping"]) for config in ("trainer: {a: 1}", [1, 2], None)),
    ],
)
def test_config_in_a_checkpoint_is_a_mapping_of_plain_values(
    finished_run: Path, run_script: RunScript, new: Any, fragments: list[str]
) -> None:
    key = checkpoints.CONFIG_KEY
    change(finished_run, lambda all: all.update({key: all[key] | new if isinstance(new, dict) else new}))
    run_script("evaluate", "run=run").assert_refused(*fragments)


def nested(template: str, first: str) -> str:
    """Return YAML in which each of nine entries refers nine times to the one before."""
    pairs = zip("abcdefghi", "bcdefghij", strict=True)
    return first + "".join(template.format(name, ", ".join([f"*{before}"] * 9)) + "\n" for before, name in pairs)


HOSTILE = {
    "call": "status: !!python/object/apply:os.system ['touch trace']\n",
    "laughs": nested("{0}: &{0} [{1}]", "a: &a [x, x]\n"),
    "merged laughs": nested("{0}: &{0} {{<<: [{1}]}}", "a: &a {x: 1}\n"),
    "deep": "a: " + "[" * 100_000,
    "deep blocks": "".join(f"{' ' * level}a:\n" for level in range(1000)),
    "long": "a: [" + "x," * 2**20 + "x]\n",
    "environment": "name: ${oc.env:HOME}\n",
    "no utf-8": b"name: \xff\xfe\xfa\n",
    "NUL": "name: a\0b\n",
    "digits": f"seed: {'9' * 5000}\n",
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_config_file_is_refused(
    finished_run: Path, run_script: RunScript, tmp_path: Path, text: str | bytes
) -> None:
    (finished_run / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    record = json.loads((finished_run / "run.json").read_text())
    del record["settings"]  # as in runs of earlier versions, of which compare reads config.yaml
    (finished_run / "run.json").write_text(json.dumps(record))
    before = contents(finished_run)
    for command in (["compare", "run"], ["train", "resume=run", "trainer.max_epochs=3"], ["report", "run=run"]):
        run_script(*command).assert_refused("config.yaml")
        assert before == contents(finished_run)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "callback",
    [
        "{_target_:lightning.pytorch.callbacks.ModelCheckpoint,dirpath:.}",
        "{_target_:lightning.pytorch.callbacks.ModelCheckpoint,filename:../../../here}",
        "{_target_:lightning.pytorch.callbacks.OnExceptionCheckpoint,dirpath:/}",
    ],
)
def test_callback_writes_only_in_the_folder_of_its_run(train: RunScript, tmp_path: Path, callback: str) -> None:
    train(f"+callbacks.x={callback}").assert_refused("callbacks.x.", "a run writes only in its own folder")
    assert not any(tmp_path.iterdir())


EVIL_NODE = {"_target_": "os.system", "command": "touch trace"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *((key, EVIL_NODE, f"{key}._target_=os.system") for key in ("model", "trainer", "pictures", "callbacks.x")),
        *((key, [], f"{key}=[]") for key in ("trainer.max_steps", "seed", "optimizer.lr")),
    ],
)
def test_config_file_of_a_resumed_run_builds_only_what_belongs_there(
    finished_run: Path, run_script: RunScript, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    change_file(finished_run, {key: value})
    run_script("train", "resume=run", "trainer.max_epochs=3").assert_refused(message)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("loops", [{}, {"fit_loop": []}, None])
def test_checkpoint_without_its_progress_is_not_resumed(finished_run: Path, run_script: RunScript, loops: Any) -> None:
    file = finished_run / "checkpoints" / "last.ckpt"
    torch.save(checkpoints.load(file) | {"loops": loops}, file)
    run_script("train", "resume=run", "trainer.max_epochs=3").assert_refused("doesn't say how far the run has come")


def change_file(run: Path, values: dict[str, Any]) -> None:
    cfg = OmegaConf.load(run / "config.yaml")
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    OmegaConf.save(cfg, run / "config.yaml")


def test_resumed_run_writes_only_in_its_folder(finished_run: Path, run_script: RunScript, tmp_path: Path) -> None:
    elsewhere = {"name": "../../../x", "outputs": "../../../y"}
    change_file(finished_run, {"hydra": {"launcher": EVIL_NODE, "run": {"dir": "elsewhere"}}, **elsewhere})
    around = {path for path in tmp_path.rglob("*") if finished_run not in path.parents}
    for command in (["train", "resume=run", "trainer.max_epochs=3"], ["report", "run=run", "split=val"]):
        assert run_script(*command).status == 0
    assert {path for path in tmp_path.rglob("*") if finished_run not in path.parents} == around


@pytest.mark.parametrize("name", ["run.log", ".lock", "metrics.csv", "checkpoints/last.ckpt", "report.html"])
def test_link_in_a_run_folder_is_not_written_through(
    finished_run: Path, run_script: RunScript, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (finished_run / name).unlink(missing_ok=True)
    (finished_run / name).symlink_to(precious)
    run_script("train", "resume=run", "trainer.max_epochs=3").assert_refused(name, "is a link")
    if name == "report.html":
        (finished_run / f".report.html.{os.getpid()}").symlink_to(precious)
        assert run_script("report", "run=run", "split=val").status == 0
    if name == "checkpoints/last.ckpt":
        (finished_run / "checkpoints" / f".last.ckpt.{os.getpid()}").symlink_to(precious)
        checkpoints.AtomicCheckpointIO().save_checkpoint({"a": 1}, finished_run / name)
        assert not (finished_run / name).is_symlink()
    assert precious.read_text() == "mine"
