"""The default experiment on the real images: minutes, and the dataset or a way to get it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_default_reaches_what_the_readme_says(tmp_path: Path) -> None:
    words = [f"outputs={tmp_path}", f"data.root={ROOT / 'data'}"]
    subprocess.run([sys.executable, str(ROOT / "scripts" / "train.py"), *words], check=True, cwd=tmp_path)
    (file,) = tmp_path.glob("train/*/metrics.json")
    assert json.loads(file.read_text())["test/accuracy"] > 0.92
