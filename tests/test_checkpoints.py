import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from fmnist.runs.checkpoints import CONFIG_KEY, AtomicCheckpointIO, load, load_newest, network_weights


def checkpoint(value: float = 1.0) -> dict[str, Any]:
    return {
        CONFIG_KEY: {"model": {"hidden": [16]}, "name": None},
        "state_dict": {"network.head.weight": torch.full((2, 3), value), "metrics.total": torch.tensor(5)},
        "global_step": 7,
    }


def saved(folder: Path, value: float = 1.0) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(value), path)
    return path


def only_file(path: Path) -> bool:
    return [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path, 3.0)
    for loaded in (load(path), AtomicCheckpointIO().load_checkpoint(path)):
        assert loaded[CONFIG_KEY] == {"model": {"hidden": [16]}, "name": None}
        assert loaded["global_step"] == 7
        assert torch.equal(loaded["state_dict"]["network.head.weight"], torch.full((2, 3), 3.0))
    assert only_file(path)


def test_newer_checkpoint_replaces_the_older(tmp_path: Path) -> None:
    saved(tmp_path, 1.0)
    path = saved(tmp_path, 2.0)
    assert load(path)["state_dict"]["network.head.weight"].unique().item() == 2.0
    assert only_file(path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_write_that_fails_midway_leaves_the_old_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def fail_midway(_: Any, file: Any) -> None:
        file.write(before[: len(before) // 2])
        assert path.read_bytes() == before
        raise error

    monkeypatch.setattr(torch, "save", fail_midway)
    with pytest.raises(type(error)):
        saved(tmp_path, 2.0)
    assert path.read_bytes() == before
    assert load(path)["global_step"] == 7
    assert only_file(path)


def test_checkpoint_gets_its_name_only_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(Path, "replace", lambda old, new: (done.append("replace"), replace(old, new))[1])
    saved(tmp_path)
    assert done == ["fsync", "replace"]


class Touch:
    """A pickle that, where it is run, makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("key", [CONFIG_KEY, "state_dict", "other"])
def test_call_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, key: str) -> None:
    path, victim = tmp_path / "evil.ckpt", tmp_path / "victim"
    torch.save(checkpoint() | {key: Touch(victim)}, path)
    for read in (load, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(ValueError, match=r"is not a readable checkpoint"):
            read(path)
    # Asked for by its caller, Lightning say, it stays refused.
    with pytest.raises(ValueError, match=r"is not a readable checkpoint"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not victim.exists()
    torch.load(path, weights_only=False)
    assert victim.exists()  # it would have run


def damaged() -> dict[str, bytes]:
    folder_bytes = pickle.dumps({"a": 1})
    return {
        "empty": b"",
        "text": b"trainer:\n  max_epochs: 3\n",
        "page": b"<!DOCTYPE html><html></html>",
        "pickle": folder_bytes,
        "pickle-of-nonsense": b"\x80\x02\x8a",  # IndexError
        "pickle-cut": b"\x80\x02M\x01",  # struct.error
        "zip-of-nonsense": b"PK\x03\x04" + b"x" * 100,
        "zeros": bytes(1000),
    }


@pytest.mark.parametrize("content", damaged().values(), ids=damaged().keys())
def test_file_that_is_no_checkpoint_is_refused_in_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".*") as refusal:
        load(path)
    assert str(path) in str(refusal.value)
    assert "checkpoint" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_checkpoint_is_refused(tmp_path: Path, part: float) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"last\.ckpt is not a readable checkpoint"):
        load(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ckpt", tmp_path):
        with pytest.raises(ValueError, match=f"^there is no checkpoint {path}$"):
            load(path)


@pytest.mark.parametrize(
    "content",
    [{"state_dict": {}}, {CONFIG_KEY: {}}, {"epoch": 3}, torch.zeros(3), [1, 2]],
    ids=["no config", "no weights", "neither", "tensor", "list"],
)
def test_checkpoint_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "foreign.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"foreign\.ckpt is not a checkpoint of this project"):
        load(path)


def test_network_weights_are_those_of_the_network_under_its_own_names() -> None:
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    state = {"network.head.weight": one, "network.network.bias": two, "loss.weight": three, "networks.x": three}
    weights = network_weights({"state_dict": state})
    assert list(weights) == ["head.weight", "network.bias"]
    assert weights["head.weight"] is one
    assert weights["network.bias"] is two


def test_the_one_before_is_kept_where_it_should_be(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    io = AtomicCheckpointIO({last: previous})
    for value in (1.0, 2.0, 3.0):
        io.save_checkpoint(checkpoint(value), last)
    assert [load(file)["state_dict"]["network.head.weight"].max() for file in (last, previous)] == [3.0, 2.0]
    io.save_checkpoint(checkpoint(4.0), tmp_path / "best.ckpt")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_the_newest_whole_one_is_loaded_wherever_a_save_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    io = AtomicCheckpointIO({last: previous})
    assert load_newest([last, previous]) is None
    io.save_checkpoint(checkpoint(1.0), last)
    original = Path.replace
    renames = []

    def killed(file: Path, target: Path) -> Path:
        renames.append((file, target))
        found = load_newest([last, previous])  # before each rename
        assert found is not None
        assert found[1]["state_dict"]["network.head.weight"].max() == 1.0
        return original(file, target)

    monkeypatch.setattr(Path, "replace", killed)
    io.save_checkpoint(checkpoint(2.0), last)
    assert [target.name for _, target in renames] == ["previous.ckpt", "last.ckpt"]
    newest = load_newest([last, previous])
    assert newest is not None
    assert newest[0] == last
    assert newest[1]["state_dict"]["network.head.weight"].max() == 2.0


def test_a_damaged_one_is_refused_where_there_is_no_other(tmp_path: Path) -> None:
    last, previous = saved(tmp_path), tmp_path / "checkpoints" / "previous.ckpt"
    for file in (last, previous):
        file.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"last\.ckpt is not a readable checkpoint"):
        load_newest([last, previous])
