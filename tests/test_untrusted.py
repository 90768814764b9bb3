"""A checkpoint or a run folder from a stranger: nothing in it is run, looked up, or written elsewhere."""

import json
import os
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunScript
from omegaconf import OmegaConf

from fmnist.runs import checkpoints, untrusted


@pytest.fixture
def run(finished_run: Path) -> Path:
    return finished_run


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


LOAD = {"_target_": "lightning.pytorch.LightningModule.load_from_checkpoint", "checkpoint_path": "{evil}"}


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("model", {"_target_": "os.system", "command": "touch {trace}"}),
        # The loss gets no arguments from the project, so that these would really run.
        ("loss", {"_target_": "fmnist.runs.run.shutil.rmtree", "path": "{kept}"}),
        ("loss", {"_target_": "fmnist.runs.files.atomic_write", "file": "{trace}", "text": "x"}),
        ("loss", {**LOAD, "weights_only": False}),
        ("loss", {"_target_": "fmnist.training.losses.CrossEntropy", "label_smoothing": {"_target_": "os.getcwd"}}),
        ("data", {"_target_": "lightning.pytorch.Trainer", "default_root_dir": "{trace}"}),
        *((group, {"_target_": "os.system"}) for group in ("trainer", "optimizer", "scheduler", "augment")),
    ],
)
def test_target_in_a_checkpoint_that_does_not_belong_there_is_not_built(
    run: Path, run_script: RunScript, tmp_path: Path, group: str, node: dict[str, Any]
) -> None:
    paths = {name: tmp_path / name for name in ("trace", "evil", "kept")}
    paths["kept"].mkdir()
    torch.save(Evil(paths["trace"]), paths["evil"])
    named = {key: value.format(**paths) if isinstance(value, str) else value for key, value in node.items()}
    file = change(run, lambda checkpoint: checkpoint[checkpoints.CONFIG_KEY][group].update(named))
    run_script("evaluate", f"checkpoint={file}").assert_refused(f"{group}.")
    assert not paths["trace"].exists()
    assert paths["kept"].exists()


@pytest.mark.parametrize(("script", "more"), [("evaluate", []), ("report", []), ("predict", ["images=run"])])
def test_call_in_a_checkpoint_is_not_run(
    run: Path, run_script: RunScript, tmp_path: Path, script: str, more: list[str]
) -> None:
    (run / "image.png").touch()
    change(run, lambda checkpoint: checkpoint.update(evil=Evil(tmp_path / "trace")))
    run_script(script, f"run={run}", *more).assert_refused("best.ckpt is not a readable checkpoint")
    assert not (tmp_path / "trace").exists()


@pytest.mark.usefixtures("little_memory")
def test_zip_bomb_is_not_unpacked(run: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    file = change(run, lambda checkpoint: checkpoint["state_dict"].update(bomb=torch.zeros(2**24)))
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert file.stat().st_size < 2**20
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    run_script("evaluate", f"run={run}").assert_refused("best.ckpt is not a readable checkpoint")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [
        (lambda config, _: config["model"].update(channels=[1_000_000_000]), ["don't fit"]),
        (lambda config, _: config["model"].update(channels=[4, 10**30]), ["model.channels"]),
        (lambda config, _: config["model"].update(channels=[4] * 100_000), ["more than 16,384 values"]),
        (lambda config, _: config["model"].update(hidden=[2**31 - 1]), ["don't fit", "head"]),
        (lambda _, state: state.update({"network.more": torch.zeros(1).expand(2**40)}), ["only a part", "more"]),
        (lambda _, state: state.update({"network.more": torch.zeros(1)}), ["don't fit", "more"]),
        (lambda _, state: state.pop("network.blocks.0.weight"), ["don't fit", "Missing", "blocks.0.weight"]),
        (lambda _, state: state.update({"network.blocks.0.weight": 3}), ["no weights for blocks.0.weight"]),
        (
            lambda _, state: state.update({"network.blocks.0.weight": torch.zeros(1).expand(4, 1, 3, 3)}),
            ["only a part of the weights for blocks.0.weight"],
        ),
        (
            lambda _, state: state.update({"network.blocks.0.weight": torch.zeros(4, 1, 3, 3, device="meta")}),
            ["no weights for blocks.0.weight"],
        ),
    ],
)
def test_network_that_is_larger_than_its_weights_is_not_built(
    run: Path, run_script: RunScript, spoil: Callable[..., None], fragments: list[str]
) -> None:
    change(run, lambda checkpoint: spoil(checkpoint[checkpoints.CONFIG_KEY], checkpoint["state_dict"]))
    run_script("evaluate", f"run={run}").assert_refused(*fragments)


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
    ("spoil", "fragments"),
    [
        (lambda config: config.update(name="${oc.env:HOME}"), ["'${oc.env:HOME}' would be looked up"]),
        (lambda config: config["data"].update({"${oc.env:HOME}": 1}), ["'${oc.env:HOME}' would be looked up"]),
        (lambda config: config.update(many=shared()), ["occurs more than once"]),
        (lambda config: config.update(many=endless()), ["occurs more than once"]),
        (lambda config: config.update(many=torch.zeros(3)), ["it holds a Tensor"]),
        (lambda config: config.update(many={1, 2}), ["it holds a set"]),
        (lambda config: config.clear(), ["has no trainer"]),
        (lambda config: config.pop("model"), ["model: is required"]),
        (lambda config: config.update(model="fmnist.models.CNN"), ["model=fmnist.models.CNN", "_target_"]),
        (lambda config: config["trainer"].update(precision="17"), ["trainer.precision=17"]),
    ],
)
def test_config_in_a_checkpoint_holds_plain_values(
    run: Path, run_script: RunScript, spoil: Callable[..., None], fragments: list[str]
) -> None:
    change(run, lambda checkpoint: spoil(checkpoint[checkpoints.CONFIG_KEY]))
    run_script("evaluate", f"run={run}").assert_refused(*fragments)


@pytest.mark.parametrize("config", ["trainer: {a: 1}", [1, 2], 3, None])
def test_config_in_a_checkpoint_is_a_mapping(run: Path, run_script: RunScript, config: Any) -> None:
    change(run, lambda checkpoint: checkpoint.update({checkpoints.CONFIG_KEY: config}))
    run_script("evaluate", f"run={run}").assert_refused("best.ckpt", "is not a mapping")


def nested(template: str, first: str) -> str:
    """Return YAML in which each of nine entries refers nine times to the one before."""
    pairs = zip("abcdefghi", "bcdefghij", strict=True)
    return first + "".join(template.format(name, ", ".join([f"*{before}"] * 9)) + "\n" for before, name in pairs)


HOSTILE = {
    "call": "status: !!python/object/apply:os.system ['touch trace']\n",
    "laughs": nested("{0}: &{0} [{1}]", "a: &a [x, x]\n"),
    "merged laughs": nested("{0}: &{0} {{<<: [{1}]}}", "a: &a {x: 1}\n"),
    "deep": "a: " + "[" * 100_000,
    "deep and closed": "a: " + "[" * 1000 + "]" * 1000,
    "deep blocks": "".join(f"{' ' * level}a:\n" for level in range(1000)),
    "long": "a: [" + "x," * 2**20 + "x]\n",
    "environment": "name: ${oc.env:HOME}\n",
    "no utf-8": b"name: \xff\xfe\xfa\n",
    "NUL": "name: a\0b\n",
    "digits": f"seed: {'9' * 5000}\n",
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_config_file_is_refused(run: Path, run_script: RunScript, tmp_path: Path, text: str | bytes) -> None:
    (run / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    record = json.loads((run / "run.json").read_text())
    del record["settings"]  # as in runs of earlier versions, of which compare reads config.yaml
    (run / "run.json").write_text(json.dumps(record))
    before = contents(run)
    for command in (
        ["compare", str(run)],
        ["train", f"resume={run}", "trainer.max_epochs=3"],
        ["report", f"run={run}"],
    ):
        run_script(*command).assert_refused("config.yaml")
        assert before == contents(run)
    assert not (tmp_path / "trace").exists()


def test_references_and_links_are_found_wherever_they_are(tmp_path: Path) -> None:
    untrusted.check_yaml("a: {b: [1, 2.5, true, null, x]}\n# ${oc.env:HOME}\n")
    for text in ("a: ${b}", "${a}: b", "a: [x, {b: 'c ${d}'}]"):
        with pytest.raises(ValueError, match="would be looked up"):
            untrusted.check_yaml(text)
    (tmp_path / "folder").mkdir()
    untrusted.check_links(tmp_path)
    (tmp_path / "folder" / "more").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="folder/more is a link"):
        untrusted.check_links(tmp_path)


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
        *(
            (key, EVIL_NODE, f"{key}._target_=os.system")
            for key in ("model", "loss", "optimizer", "scheduler", "trainer", "augment", "data", "pictures")
        ),
        ("callbacks.x", EVIL_NODE, "callbacks.x._target_=os.system"),
        *((key, [], f"{key}=[]") for key in ("trainer.max_steps", "trainer.max_epochs", "seed", "optimizer.lr")),
        ("hydra", {"launcher": EVIL_NODE, "run": {"dir": "elsewhere"}}, None),
        ("name", "../../../x", None),
        ("outputs", "../../../y", None),
    ],
)
def test_config_file_of_a_resumed_run(
    run: Path, run_script: RunScript, tmp_path: Path, key: str, value: Any, message: str | None
) -> None:
    """It builds only what belongs there, and writes only in the run's folder."""
    cfg = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(cfg, key, value, force_add=True)
    OmegaConf.save(cfg, run / "config.yaml")
    around = {path for path in tmp_path.rglob("*") if run not in path.parents}
    limit = "trainer.max_time=00:01:00:00" if value == [] else "trainer.max_epochs=3"
    done = run_script("train", f"resume={run}", limit)
    if message is None:
        assert done.status == 0, done.err
        assert run_script("report", f"run={run}", "split=val").status == 0
    else:
        done.assert_refused(message)
    assert {path for path in tmp_path.rglob("*") if run not in path.parents} == around


@pytest.mark.parametrize("name", ["run.log", ".lock", "metrics.csv", "checkpoints/last.ckpt", "report.html"])
def test_link_in_a_run_folder_is_not_written_through(
    run: Path, run_script: RunScript, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    run_script("train", f"resume={run}", "trainer.max_epochs=3").assert_refused(name, "is a link")
    if name == "report.html":
        (run / f".report.html.{os.getpid()}").symlink_to(precious)
        assert run_script("report", f"run={run}", "split=val").status == 0
    if name == "checkpoints/last.ckpt":
        (run / "checkpoints" / f".last.ckpt.{os.getpid()}").symlink_to(precious)
        checkpoints.AtomicCheckpointIO().save_checkpoint({"a": 1}, run / name)
        assert not (run / name).is_symlink()
    assert precious.read_text() == "mine"


def test_deeply_nested_record_is_refused(run: Path, run_script: RunScript) -> None:
    (run / "run.json").write_text("[" * 100_000)
    run_script("train", f"resume={run}", "trainer.max_epochs=3").assert_refused("run.json")
