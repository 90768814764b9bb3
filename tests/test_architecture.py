"""The rule of the package: features import the core, the core imports no feature."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmnist

PACKAGE = Path(fmnist.__file__).parent
ROOT = PACKAGE.parent
CORE = {"config", "data", "evaluation", "models", "plotting", "runs", "training"}
FEATURES = {
    "__init__": {"predict", "run_training"},  # fmnist.load and fmnist.train
    "run_training": {"report"},  # a training ends with its report
    "report": set(),
    "robustness": set(),
    "predict": set(),
    "audit": set(),
    "export": set(),
    "demo": {"predict", "export"},  # it prepares pictures as predict does, and runs the exported network
    "find_lr": set(),
    "compare": set(),
    "sweep": {"compare"},  # a sweep ends with a comparison
    "tune": {"compare", "run_training"},  # a study is made of trainings, whose finalists are compared
}
"""The other features that each feature is made of."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def entry_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(file: Path) -> Iterator[str]:
    """Everything that a file imports at any depth, as full names; `from a import b` as a.b."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_each_entry_of_the_package_is_core_or_feature() -> None:
    assert {entry_of(file) for file in MODULES} == CORE | FEATURES.keys()


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_features_import_the_core_and_the_core_imports_no_feature(file: Path) -> None:
    entry = entry_of(file)
    used = {name.split(".")[1] for name in imports(file) if name.startswith("fmnist.")}
    assert used <= CORE | {entry} | FEATURES.get(entry, set())


ENTRIES = {"run_training", "main", "get_data", "show_data", "find_lr"}
"""Modules with the `main` of a command, which read its config and pass plain values on."""
HYDRA_HOOKS = {"callback", "folders", "job", "overrides"}
"""Modules of sweeps that Hydra calls with its configs."""


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_entries_and_the_config_package_take_a_config(file: Path) -> None:
    if entry_of(file) == "config" or file.stem in ENTRIES or (entry_of(file) == "sweep" and file.stem in HYDRA_HOOKS):
        return
    arguments = [each for each in ast.walk(ast.parse(file.read_text())) if isinstance(each, ast.arg)]
    taken = [each.arg for each in arguments if each.annotation and "DictConfig" in ast.unparse(each.annotation)]
    assert taken == []
    assert not {each.arg for each in arguments} & {"cfg"}


def test_only_the_data_package_knows_its_datasets() -> None:
    constants = {"FASHION_MNIST", "CLASSES", "IMAGE_SHAPE", "MEAN", "STD"}
    allowed = {"data", "config"}  # which restores checkpoints of versions that knew one dataset
    for file in MODULES:
        used = {name.rpartition(".")[2] for name in imports(file)} & constants
        assert not used or entry_of(file) in allowed, f"{file}: {used}"


@pytest.mark.parametrize("file", sorted((ROOT / "scripts").glob("*.py")), ids=lambda file: file.name)
def test_scripts_only_start_the_command_line(file: Path) -> None:
    assert {name for name in imports(file) if name.startswith("fmnist")} == {"fmnist.config.command_line.run"}


def test_command_line_imports_nothing_heavy() -> None:
    heavy = "[m for m in ('torch', 'lightning', 'pydantic', 'pandas') if m in sys.modules]"
    code = f"import sys, fmnist.config.command_line; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
