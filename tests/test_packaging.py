"""The wheel: what is in it, and a training without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
MAIN = "import sys; from fmnist.config.command_line import main; main()"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` builds, from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("fmnist", "conf", "tools", "tests", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", source)
    shutil.copy(ROOT / "LICENSE", source)
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=source, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


def files_below(folder: str, *suffixes: str) -> set[str]:
    files = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)
    return {path.as_posix() for path in files}


def test_wheel_holds_the_package_with_its_configs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "fmnist = fmnist.config.command_line:main" in archive.read(entry_points).decode()
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    configs = {f"fmnist/{name}" for name in files_below("conf", ".yaml")}
    assert found == files_below("fmnist", ".py", ".html", ".md") | configs


def test_help_names_the_installed_command(tmp_path: Path) -> None:
    program = tmp_path / "fmnist"
    program.write_text(MAIN)
    command, environment = [sys.executable, str(program)], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "train", "--help"], env=environment, capture_output=True, text=True, check=True)
    assert "  fmnist train [key=value ...]\n" in done.stdout
    done = subprocess.run([*command, "results"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2  # the code of `results` is not in the wheel
    assert done.stderr.startswith("error: fmnist results: there is no such command; there are ")


@pytest.mark.slow
def test_installed_package_trains_without_the_checkout(wheel: Path, tmp_path: Path, data_root: Path) -> None:
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)  # as pip does with a wheel of Python files
    words = ["data=idx", f"data.root={data_root}", "data.val_size=100", "trainer.fast_dev_run=true"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = f"{MAIN}; import fmnist; print(fmnist.__file__, file=sys.stderr)"
    command = [sys.executable, "-c", code, "train", *words]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{installed / 'fmnist' / '__init__.py'}\n"
    assert [path.name for path in empty.glob("outputs/train/*/report.html")] == ["report.html"]
