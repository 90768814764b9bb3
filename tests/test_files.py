"""Files that nobody sees half of."""

import json
from pathlib import Path
from typing import Any

import pytest

from fmnist.runs.files import atomic_write, write_json


def test_write_whole_replaces_the_text(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for text in ("a long text", "short"):
        atomic_write(file, text)
        assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_write_that_fails_midway_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    atomic_write(file, "old")
    write_text = Path.write_text

    def fail_midway(path: Path, text: str, *_: Any, **__: Any) -> int:
        write_text(path, text[:1])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail_midway)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": float("nan"), "classes": {"Bag": float("inf"), "Coat": 0.5}, "all": [1.0]})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "loss": None,
        "classes": {"Bag": None, "Coat": 0.5},
        "all": [1.0],
    }
