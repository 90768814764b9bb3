"""Checkpoints on disk."""

import errno
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from fmnist.runs.checkpoints import CONFIG_KEY, AtomicCheckpointIO, load, load_newest


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


def value_in(content: dict[str, Any]) -> float:
    return content["state_dict"]["network.head.weight"].unique().item()


def test_saved_checkpoint_is_loaded_and_replaced(tmp_path: Path) -> None:
    for value in (3.0, 2.0):
        path = saved(tmp_path, value)
        for loaded in (load(path), AtomicCheckpointIO().load_checkpoint(path)):
            assert loaded[CONFIG_KEY] == {"model": {"hidden": [16]}, "name": None}
            assert (loaded["global_step"], value_in(loaded)) == (7, value)
        assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


DAMAGED = {
    "truncated": None,
    "empty": b"",
    "old pickle": pickle.dumps({CONFIG_KEY: {}, "state_dict": {}}, 2),
    "pickle of nonsense": b"\x80\x02\x8a",  # IndexError
    "cut pickle": b"\x80\x02M\x01",  # struct.error
    "zip of nonsense": b"PK\x03\x04" + b"x" * 100,
    "end of a large zip": b"PK\x06\x07" + b"\xff" * 16 + b"PK\x05\x06" + b"\xff" * 16 + b"\0\0",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_file_is_refused_in_one_line_with_its_name(tmp_path: Path, content: bytes | None) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=f"^{path} is not a readable checkpoint[^\n]*$"):
        load(path)


def test_archive_with_overlapping_parts_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist += 9 * [max(archive.infolist(), key=lambda entry: entry.file_size)]
        archive._didModify = True
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load(path)


@pytest.mark.parametrize("content", [{CONFIG_KEY: {}}, torch.zeros(3)], ids=str)
def test_checkpoint_of_another_project_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "foreign.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"foreign\.ckpt is not a checkpoint of this project"):
        load(path)


def test_error_of_the_disk_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, previous = saved(tmp_path, 2.0), tmp_path / "checkpoints" / "previous.ckpt"
    previous.write_bytes(saved(tmp_path / "older").read_bytes())
    calls, failing = 0, None

    class Unreadable(io.FileIO):
        """A file of which one access fails."""

        def access(self, function: Any, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.EIO, "Input/output error")
            return function(*arguments)

        def readinto(self, *arguments: Any) -> int:
            return self.access(super().readinto, *arguments)

        def readall(self) -> bytes:
            return self.access(super().readall)

        def seek(self, *arguments: Any) -> int:
            return self.access(super().seek, *arguments)

    monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedReader(Unreadable(path, mode)))
    assert load_newest([last, previous])[0] == last
    for failing in range(1, calls + 1):  # noqa: B007 (read above)
        calls = 0
        with pytest.raises(OSError, match="Input/output error") as error:
            load_newest([last, previous])
        assert error.value.filename == str(last)
        assert load_newest([last, previous])[0] == last  # the next time the disk can read it


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_missing_memory_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        load(saved(tmp_path))


def test_newest_undamaged_checkpoint_is_loaded_wherever_a_save_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    io = AtomicCheckpointIO({last: previous})
    assert load_newest([last, previous]) is None
    io.save_checkpoint(checkpoint(1.0), last)
    original = Path.replace
    renames = []

    def killed(file: Path, target: Path) -> Path:
        renames.append(target.name)
        assert value_in(load_newest([last, previous])[1]) == 1.0  # before each rename
        return original(file, target)

    monkeypatch.setattr(Path, "replace", killed)
    io.save_checkpoint(checkpoint(2.0), last)
    assert renames == ["previous.ckpt", "last.ckpt"]
    assert [value_in(load(file)) for file in (last, previous)] == [2.0, 1.0]
    monkeypatch.undo()
    io.save_checkpoint(checkpoint(4.0), tmp_path / "best.ckpt")  # which keeps no older one
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_damaged_checkpoints_are_refused_if_there_is_no_other(tmp_path: Path, caplog: Any) -> None:
    last, previous = saved(tmp_path), tmp_path / "checkpoints" / "previous.ckpt"
    previous.write_bytes(last.read_bytes())
    last.write_bytes(b"PK")
    assert load_newest([last, previous])[0] == previous
    assert "last.ckpt is not a readable checkpoint" in caplog.text
    previous.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"last\.ckpt is not a readable checkpoint"):
        load_newest([last, previous])
