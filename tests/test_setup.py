"""`scripts/setup.sh`, with a uv that only writes down what it is asked to install."""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no sh")
ROOT = Path(__file__).parents[1]
UV = """#!/bin/sh
echo "backend=${UV_TORCH_BACKEND:-} $*" >>"$RECORD"
for word; do case $word in *.lock) grep -oE '^[a-z0-9-]+==[0-9.]+' "$word" >>"$RECORD" ;; esac; done
"""
LOCK = """\
cuda-toolkit==13.2 ; sys_platform == 'linux' \\
    --hash=sha256:0
nvidia-nccl-cu13==2.30 ; sys_platform == 'linux' \\
    --hash=sha256:1 \\
    --hash=sha256:2
pillow==13.0 \\
    --hash=sha256:3
setuptools==84.2 \\
    --hash=sha256:4
torch==2.15.0 \\
    --hash=sha256:5
torchmetrics==1.9 \\
    --hash=sha256:6
torchvision==0.29.2 \\
    --hash=sha256:7
triton==3.9 ; sys_platform == 'linux' \\
    --hash=sha256:8
"""
ALL = ["cuda-toolkit", "nvidia-nccl-cu13", "pillow", "setuptools", "torch", "torchmetrics", "torchvision", "triton"]
WITHOUT_TORCH = ["pillow", "setuptools", "torchmetrics"]


def set_up(folder: Path, torch: str = "", **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the set-up of a checkout whose environment has this version of torch; return it and what uv was asked."""
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", folder / "scripts")
    (folder / "requirements.lock").write_text(LOCK)
    (folder / "bin").mkdir()
    (folder / "bin" / "uv").write_text(UV)
    (folder / "bin" / "uv").chmod(0o755)
    venv.create(folder / ".venv")
    if torch:
        (packages,) = (folder / ".venv" / "lib").glob("python*/site-packages")
        (packages / "torch.dist-info").mkdir()
        (packages / "torch.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n"
        )
    record = folder / "record"
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RECORD": str(record), "UV_TORCH_BACKEND": "", **variables}
    command = ["sh", str(folder / "scripts" / "setup.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done, record.read_text().splitlines()


def names(record: list[str]) -> list[str]:
    """Return the packages of the last lock that uv was given."""
    last = max(number for number, line in enumerate(record) if "--requirement" in line)
    return [line.partition("==")[0] for line in record[last + 1 :] if not line.startswith("backend=")]


@pytest.mark.parametrize(
    ("torch", "expected"),
    [("", ALL), ("2.15.0", ALL), ("2.15.0+cpu", WITHOUT_TORCH), ("2.15.0+rocm7.2", WITHOUT_TORCH)],
)
def test_a_build_of_pytorch_that_is_there_stays_and_cuda_is_left_out(
    tmp_path: Path, torch: str, expected: list[str]
) -> None:
    done, record = set_up(tmp_path, torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(record) == expected
    assert (tmp_path / ".venv" / ".ready").exists()


def test_another_version_of_pytorch_is_refused(tmp_path: Path) -> None:
    done, _ = set_up(tmp_path, "2.14.0+cpu")
    assert done.returncode == 1
    line = "fmnist set-up: .venv has torch 2.14.0+cpu, and requirements.lock another version"
    assert done.stderr == f"{line}: remove .venv with `make clean`.\n"


def test_uv_takes_the_locked_versions_from_the_backend_that_the_variable_names(tmp_path: Path) -> None:
    done, record = set_up(tmp_path, UV_TORCH_BACKEND="cpu")
    assert done.returncode == 0
    (asked,) = (line for line in record if "torch==" in line and line.startswith("backend="))
    assert asked.startswith("backend=cpu pip install")
    assert asked.endswith(" torch==2.15.0 torchvision==0.29.2")
    after = record[record.index(asked) + 1 :]
    assert all(line.startswith("backend= ") for line in after if line.startswith("backend=")), "the rest is locked"
