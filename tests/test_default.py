"""The default training on the real images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_default_reaches_the_accuracy_of_the_readme(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), f"outputs={tmp_path}", f"data.root={ROOT / 'data'}"]
    subprocess.run(command, check=True, cwd=tmp_path)
    (file,) = tmp_path.glob("train/*/metrics.json")
    assert json.loads(file.read_text())["test/accuracy"] > 0.92
