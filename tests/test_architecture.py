import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmnist

PACKAGE = Path(fmnist.__file__).parent
ROOT = PACKAGE.parent

# Who may import whom. A room is a module or a package directly in fmnist; its own modules it may import always.
ARROWS = {
    "__init__": "",
    # the jobs only by name, when they are run
    "command_line": "arguments choices files processes ranks runs sweeping words",
    "sweeping": "comparison files ranks runs words",
    "choices": "",
    "words": "",
    "jobs": "arguments benchmarks build callbacks checkpoints classes comparison data evaluation files images logs "
    "measures memory processes ranks record report reporting results runs training trust tuning views words",
    "build": "arguments board callbacks checkpoints classes classifier data measures models ranks runs schedules "
    "training trust",
    "tuning": "arguments comparison files reporting runs words",
    "results": "arguments classes comparison files reporting",
    "benchmarks": "classes data evaluation files logs runs training",
    "board": "measures",
    "training": "board callbacks checkpoints classifier data evaluation inspection memory processes ranks record "
    "report runs",
    "report": "classes classifier data evaluation files inspection metrics reporting runs trust",
    "comparison": "arguments files measures reporting runs trust",  # no torch: it opens ten thousand runs in seconds
    "evaluation": "classes classifier data measures metrics reporting views",
    "classifier": "classes data measures metrics replay",
    "callbacks": "checkpoints classes classifier data files inspection measures ranks reporting",
    "ranks": "",
    "processes": "",
    "runs": "files trust",
    "files": "",
    "trust": "",
    "data": "classes",
    "reporting": "classes",
    "images": "classes logs",
    "metrics": "classes",
    "measures": "classes",
    "models": "",
    "losses": "",
    "optimizers": "",
    "replay": "",
    "inspection": "",
    "views": "classes",
    "memory": "",
    "schedules": "",
    "classes": "",
    "checkpoints": "files",
    "arguments": "",
    "logs": "",
    "record": "",
}
MAY_KNOW_HYDRA = {"command_line", "choices", "sweeping", "jobs", "build", "runs"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    return ".".join(("fmnist", *file.relative_to(PACKAGE).with_suffix("").parts))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(file: Path) -> Iterator[str]:
    """Everything that a file imports at any depth, as full names; `from a import b` as a.b."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name_of(file).split(".")[: -node.level] if node.level else []
            yield from (".".join([*package, *filter(None, [node.module]), alias.name]) for alias in node.names)


def rooms_imported(file: Path) -> set[str]:
    names = (name.split(".") for name in imports(file))
    return {parts[1] if len(parts) > 1 else "" for parts in names if parts[0] == "fmnist"}


def test_every_room_has_its_arrows() -> None:
    assert {room_of(file) for file in MODULES} == set(ARROWS)


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_module_imports_only_the_rooms_its_arrows_point_to(file: Path) -> None:
    allowed = {*ARROWS.get(room_of(file), "").split(), room_of(file)}
    assert rooms_imported(file) <= allowed


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_only_the_rooms_that_handle_configs_know_hydra(file: Path) -> None:
    known = {name.split(".")[0] for name in imports(file)} & {"hydra", "omegaconf"}
    assert not known or room_of(file) in MAY_KNOW_HYDRA


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_only_tuning_knows_optuna(file: Path) -> None:
    known = {name.split(".")[0] for name in imports(file)} & {"optuna", "sqlalchemy"}
    assert not known or room_of(file) == "tuning" or file.stem.startswith("tune")


@pytest.mark.parametrize("file", sorted((ROOT / "scripts").glob("*.py")), ids=lambda file: file.name)
def test_scripts_only_start_the_command_line(file: Path) -> None:
    assert rooms_imported(file) == {"command_line"}


def test_arrows_have_no_circle() -> None:
    left = {room: set(arrows.split()) for room, arrows in ARROWS.items()}
    while free := [room for room, arrows in left.items() if not arrows & left.keys()]:
        for room in free:
            del left[room]
    assert not left


def test_command_line_imports_nothing_heavy() -> None:
    code = "import sys, fmnist.command_line; print([m for m in ('torch', 'lightning', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
