"""A checkpoint or a config from a stranger builds and runs nothing but what the project is made of."""

import json
import os
import pickle
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
from PIL import Image

from fmnist.runs import checkpoints
from fmnist.runs import untrusted as trust


class Evil:
    """What a pickle of it would do."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("model", {"_target_": "os.system", "command": "touch {trace}"}),
        # The loss gets no arguments of the project's own, so that these would really run.
        ("loss", {"_target_": "fmnist.runs.run.shutil.rmtree", "path": "{kept}"}),
        ("loss", {"_target_": "fmnist.runs.files.atomic_write", "file": "{trace}", "text": "x"}),
        (
            "loss",
            {
                "_target_": "lightning.pytorch.LightningModule.load_from_checkpoint",
                "checkpoint_path": "{evil}",
                "weights_only": False,
            },
        ),
        ("loss", {"_target_": "fmnist.training.losses.CrossEntropy", "label_smoothing": {"_target_": "os.getcwd"}}),
        ("data", {"_target_": "lightning.pytorch.Trainer", "default_root_dir": "{trace}"}),
    ],
)
def test_a_checkpoint_names_what_does_not_belong_there(
    train: RunScript, run_script: RunScript, tmp_path: Path, group: str, node: dict
) -> None:
    trace, evil, kept = tmp_path / "trace", tmp_path / "evil.bin", tmp_path / "kept"
    kept.mkdir()
    torch.save(Evil(trace), evil)
    file = train("trainer.max_epochs=1", "test=false").run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    named = {
        key: value.format(trace=trace, evil=evil, kept=kept) if isinstance(value, str) else value
        for key, value in node.items()
    }
    checkpoint[checkpoints.CONFIG_KEY][group] = named
    torch.save(checkpoint, file)
    done = run_script("evaluate", f"checkpoint={file}")
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert group in line
    assert not trace.exists()
    assert kept.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the run of the first test that trains one is kept for the others."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def run(trained: Path, tmp_path: Path, train: RunScript) -> Path:
    """A folder with a finished run, to be spoilt, and nothing else."""
    if not any(trained.iterdir()):
        shutil.copytree(train("trainer.max_epochs=1", "test=false").run, trained / "run")
        shutil.rmtree(tmp_path / "outputs")
    return shutil.copytree(trained / "run", tmp_path / "run")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """4 GiB more than are in use: what is asked for beyond that fails, instead of ending the machine."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**32, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def change(run: Path, how: Callable[[dict[str, Any]], None]) -> Path:
    """Changes the checkpoint of a run, and returns its file."""
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    how(checkpoint)
    torch.save(checkpoint, file)
    return file


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


READERS = [("evaluate", []), ("report", []), ("predict", ["images=image.png"])]


@pytest.mark.parametrize(("script", "more"), READERS)
def test_a_pickled_call_in_a_checkpoint_is_not_run(
    run: Path, run_script: RunScript, tmp_path: Path, script: str, more: list[str]
) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "image.png")
    trace = tmp_path / "trace"
    change(run, lambda checkpoint: checkpoint.update(evil=Evil(trace)))
    run_script(script, f"run={run}", *more).assert_refused("best.ckpt is not a readable checkpoint")
    assert not trace.exists()


def packed(file: Path, compression: int) -> None:
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.mark.usefixtures("little_memory")
def test_a_zip_bomb_is_not_unpacked(run: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    file = change(run, lambda checkpoint: checkpoint["state_dict"].update(bomb=torch.zeros(2**24)))
    packed(file, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 2**20
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    run_script("evaluate", f"run={run}").assert_refused("best.ckpt is not a readable checkpoint")


def test_parts_of_an_archive_that_are_the_same_bytes_are_refused(run: Path) -> None:
    file = run / "checkpoints" / "best.ckpt"
    with zipfile.ZipFile(file, "a") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        archive.filelist += 2 * [largest]
        archive._didModify = True
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoints.load(file)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_checkpoint_that_is_no_archive_is_not_read(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "old.ckpt"
    file.write_bytes(pickle.dumps({checkpoints.CONFIG_KEY: {}, "state_dict": {}}, protocol))
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoints.load(file)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [
        (lambda config, _: config["model"].update(channels=[1_000_000_000]), ["don't fit", "blocks.0.weight"]),
        (lambda config, _: config["model"].update(channels=[4, 10**30]), ["model"]),
        (lambda config, _: config["model"].update(channels=[4] * 100_000), ["more than 16,384 values"]),
        (lambda config, _: config["model"].update(hidden=[2**31 - 1]), ["don't fit", "head"]),
        (lambda _, state: state.update({"network.more": torch.zeros(1).expand(2**40)}), ["don't fit", "more"]),
        (lambda _, state: state.update({"network.blocks.0.weight": 3}), ["aren't all tensors"]),
        (
            lambda _, state: state.update({"network.blocks.0.weight": torch.zeros(1).expand(4, 1, 3, 3)}),
            ["blocks.0.weight aren't all in"],
        ),
        (
            lambda _, state: state.update({"network.blocks.0.weight": torch.zeros(4, 1, 3, 3, device="meta")}),
            ["blocks.0.weight aren't all in"],
        ),
    ],
)
def test_a_network_beyond_its_weights_is_not_made(
    run: Path, run_script: RunScript, spoil: Callable[..., None], fragments: list[str]
) -> None:
    change(run, lambda checkpoint: spoil(checkpoint[checkpoints.CONFIG_KEY], checkpoint["state_dict"]))
    run_script("evaluate", f"run={run}").assert_refused(*fragments)


def shared() -> list[Any]:
    """Ten in ten in ten ..., each the same: 10^20 values when copied."""
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
        (lambda config: config.update(many=shared()), ["stands in several places"]),
        (lambda config: config.update(many=endless()), ["stands in several places"]),
        (lambda config: config.update(many=torch.zeros(3)), ["Tensor is nothing that a config holds"]),
        (lambda config: config.update(many={1, 2}), ["set is nothing that a config holds"]),
        (lambda config: config.clear(), ["has no trainer"]),
        (lambda config: config.pop("model"), ["model: there has to be one"]),
        (lambda config: config.update(model="fmnist.models.CNN"), ["model=fmnist.models.CNN", "_target_"]),
        (lambda config: config["trainer"].update(precision="17"), ["trainer.precision=17"]),
        (lambda config: config["trainer"].update(_target_="os.system"), ["trainer._target_=os.system"]),
        (lambda config: config["optimizer"].update(_target_="os.system"), ["optimizer._target_=os.system"]),
        (lambda config: config["scheduler"].update(_target_="os.system"), ["scheduler._target_=os.system"]),
        (lambda config: config["augment"].update(_target_="os.system"), ["augment._target_=os.system"]),
    ],
)
def test_a_config_in_a_checkpoint_is_plain(
    run: Path, run_script: RunScript, spoil: Callable[..., None], fragments: list[str]
) -> None:
    change(run, lambda checkpoint: spoil(checkpoint[checkpoints.CONFIG_KEY]))
    run_script("evaluate", f"run={run}").assert_refused(*fragments)


def test_a_config_in_a_checkpoint_is_no_text(run: Path, run_script: RunScript) -> None:
    for config in ("trainer: {a: 1}", [1, 2], 3, None):
        change(run, lambda checkpoint, config=config: checkpoint.update({checkpoints.CONFIG_KEY: config}))
        run_script("evaluate", f"run={run}").assert_refused("best.ckpt", "doesn't hold names and values")


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
HOSTILE = {
    "call": "status: !!python/object/apply:os.system ['touch trace']\n",
    "laughs": LAUGHS,
    "merged laughs": MERGED,
    "deep": "a: " + "[" * 100_000,
    "deep and closed": "a: " + "[" * 1000 + "]" * 1000,
    "deep blocks": "".join(f"{' ' * level}a:\n" for level in range(1000)),
    "long": "a: [" + "x," * 2**20 + "x]\n",
    "environment": "name: ${oc.env:HOME}\n",
    "no utf-8": b"name: \xff\xfe\xfa\n",
    "NUL": "name: a\0b\n",
    "digits": f"seed: {'9' * 5000}\n",
    "date": "name: 2026-99-99\n",
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_config_file_takes_neither_memory_nor_secrets(
    run: Path, run_script: RunScript, tmp_path: Path, text: str | bytes
) -> None:
    (run / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    record = json.loads((run / "run.json").read_text())
    del record["settings"]  # as in runs of earlier versions, of which config.yaml is read
    (run / "run.json").write_text(json.dumps(record))
    before = everything(run)
    done = run_script("compare", str(run))
    done.assert_refused("run", "config.yaml")
    assert before == everything(run)
    assert not (tmp_path / "trace").exists()


def test_a_config_of_a_run_is_plain() -> None:
    trust.check_yaml("a: {b: [1, 2.5, true, null, x]}\n# ${oc.env:HOME}\n")
    for text in ("a: ${b}", "${a}: b", "a: [x, {b: 'c ${d}'}]"):
        with pytest.raises(ValueError, match="would be looked up"):
            trust.check_yaml(text)


def test_links_in_a_run_folder_are_named(run: Path, tmp_path: Path) -> None:
    trust.check_links(run)
    (run / "checkpoints" / "more").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="checkpoints/more is a link"):
        trust.check_links(run)


def test_a_checkpoint_is_not_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    target = tmp_path / "last.ckpt"
    target.symlink_to(precious)
    (tmp_path / f".last.ckpt.{os.getpid()}").symlink_to(precious)
    checkpoints.AtomicCheckpointIO().save_checkpoint({"a": 1}, target)
    assert precious.read_text() == "mine"
    assert not target.is_symlink()


@pytest.mark.parametrize(
    "callback",
    [
        "{_target_:lightning.pytorch.callbacks.ModelCheckpoint,dirpath:.}",
        "{_target_:lightning.pytorch.callbacks.ModelCheckpoint,filename:../../../here}",
        "{_target_:lightning.pytorch.callbacks.OnExceptionCheckpoint,dirpath:/}",
    ],
)
def test_a_callback_writes_in_the_folder_of_its_run_alone(train: RunScript, tmp_path: Path, callback: str) -> None:
    train(f"+callbacks.x={callback}").assert_refused("callbacks.x.", "a run writes in its own folder alone")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"date"}))  # which OmegaConf takes for a text
@pytest.mark.parametrize("script", ["train", "report"])
def test_a_hostile_config_file_is_refused(
    run: Path, run_script: RunScript, tmp_path: Path, name: str, script: str
) -> None:
    text = HOSTILE[name]
    (run / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = everything(run)
    key = {"train": "resume", "report": "run"}[script]
    run_script(script, f"{key}={run}", *(["trainer.max_epochs=2"] if script == "train" else [])).assert_refused(
        "config.yaml"
    )
    assert before == everything(run)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "key", ["model", "loss", "optimizer", "scheduler", "trainer", "augment", "data", "pictures", "callbacks.x"]
)
def test_a_config_file_that_names_what_does_not_belong_there(
    run: Path, run_script: RunScript, tmp_path: Path, key: str
) -> None:
    cfg = OmegaConf.load(run / "config.yaml")
    node = OmegaConf.select(cfg, key) or {}
    OmegaConf.update(cfg, key, {**node, "_target_": "os.system", "command": "touch trace"}, force_add=True)
    OmegaConf.save(cfg, run / "config.yaml")
    done = run_script("train", f"resume={run}", "trainer.max_epochs=2")
    done.assert_refused(f"{key}._target_=os.system")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("key", ["trainer.max_steps", "trainer.max_epochs", "seed", "data.val_size", "optimizer.lr"])
def test_a_config_file_with_a_list_where_a_number_belongs(run: Path, run_script: RunScript, key: str) -> None:
    cfg = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(cfg, key, [])
    OmegaConf.save(cfg, run / "config.yaml")
    run_script("train", f"resume={run}", "trainer.max_time=00:01:00:00").assert_refused(f"{key}=[]")


def test_a_hydra_node_in_a_config_file_is_not_heard(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write("hydra: {launcher: {_target_: os.system, command: touch trace}, run: {dir: elsewhere}}\n")
    assert run_script("train", f"resume={run}", "trainer.max_epochs=2").status == 0
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["run.log", ".lock", "metrics.csv", "checkpoints/last.ckpt", "report.html"])
def test_a_link_in_a_run_folder_is_not_written_through(
    run: Path, run_script: RunScript, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    run_script("train", f"resume={run}", "trainer.max_epochs=2").assert_refused(name, "is a link")
    assert precious.read_text() == "mine"


def test_a_report_is_not_written_through_a_link(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("report.html", f".report.html.{os.getpid()}"):
        (run / name).symlink_to(precious)
    assert run_script("report", f"run={run}", "split=val").status == 0
    assert precious.read_text() == "mine"


def test_a_record_nested_without_end_is_refused(run: Path, run_script: RunScript) -> None:
    (run / "run.json").write_text("[" * 100_000)
    run_script("train", f"resume={run}", "trainer.max_epochs=2").assert_refused("run.json")


def test_names_that_climb_lead_nowhere(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    text = (run / "config.yaml").read_text()
    climbing = text.replace("name: train", "name: ../../../x").replace("outputs: outputs", "outputs: ../../../y")
    assert climbing != text
    (run / "config.yaml").write_text(climbing)
    around = {path for path in tmp_path.rglob("*") if run not in path.parents}
    assert run_script("train", f"resume={run}", "trainer.max_epochs=2").status == 0
    assert run_script("report", f"run={run}", "split=val").status == 0
    assert {path for path in tmp_path.rglob("*") if run not in path.parents} == around
