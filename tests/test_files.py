"""Files that are replaced as a whole."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fmnist.runs.files import atomic_path, atomic_write, load_json, write_json


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_write_that_fails_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    file, kept = tmp_path / "file", tmp_path / "kept"
    atomic_write(file, "old")

    def fail(*_: Any) -> None:
        raise OSError(28, "disk full")

    monkeypatch.setattr(os, "fsync", fail if function == "fsync" else os.fsync)
    monkeypatch.setattr(Path, "replace", fail if function == "replace" else Path.replace)

    def write() -> None:
        with atomic_path(file, keep=kept) as temporary:
            temporary.write_text("half")
            if function == "write":
                fail()

    with pytest.raises(OSError, match="disk full") as error:
        write()
    assert error.value.filename == str(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_file_gets_its_name_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(Path, "replace", lambda old, new: (done.append(new.name), replace(old, new))[1])
    atomic_write(tmp_path / "a", "größer")
    with atomic_path(tmp_path / "a", keep=tmp_path / "old") as temporary:
        temporary.write_text("new")
    assert done == ["fsync", "a", "fsync", "old", "a"]
    assert (tmp_path / "old").read_text(encoding="utf-8") == "größer"
    assert (tmp_path / "a").read_text() == "new"


def test_json_has_null_for_nan(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert load_json(file) == {}
    write_json(file, {"loss": float("nan"), "classes": {"Bag": float("inf"), "Coat": 0.5}, "all": [1.0]})
    expected = {"loss": None, "classes": {"Bag": None, "Coat": 0.5}, "all": [1.0]}
    assert json.loads(file.read_text()) == load_json(file) == expected


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOTDIR])
def test_json_that_the_system_cannot_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    file = tmp_path / "run.json"
    write_json(file, {"seed": 1})
    reads = iter([OSError(code, os.strerror(code)), '{"seed": 1}'])

    def read_text(*_: object, **__: object) -> str:
        if isinstance(result := next(reads), OSError):
            raise result
        return result

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(OSError, match=f"{os.strerror(code)}: '{file}'"):
        load_json(file)
    assert load_json(file) == {"seed": 1}


@pytest.mark.parametrize("content", [b'{"status": ', b"[1]", b"\xff", b"[" * 100_000])
def test_json_that_is_damaged_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{file} (can't be read|is not a mapping)"):
        load_json(file)
