"""docs/tutorial.ipynb: its form, and its execution from top to bottom on a small synthetic dataset."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import synthetic

from fmnist.data.info import FASHION_MNIST

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"
SETTINGS = """
from pathlib import Path
from fmnist.data.datasets.idx_files import IdxFiles

dataset = IdxFiles({root!r}, {classes}, {mean}, {std})
DATA = ["data=idx", "data.root={root}", "data.val_size=100", *{facts}]
EPOCHS = 1
FEW_IMAGES = 100
MANY_EPOCHS = 2
PHOTO = None
"""


def cells() -> list[dict[str, Any]]:
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    found: list[dict[str, Any]] = book["cells"]
    return found


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_the_notebook_is_kept_without_outputs_and_with_stable_ids() -> None:
    ids = [cell["id"] for cell in cells()]
    assert len(set(ids)) == len(ids)
    for cell in cells():
        assert re.fullmatch(r"[a-z0-9-]+", cell["id"]), cell["id"]  # chosen by people; Jupyter's are random
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]
        assert not text(cell).endswith("\n"), cell["id"]
    assert [cell["id"] for cell in cells() if "parameters" in cell["metadata"].get("tags", [])] == ["settings"]


def test_ten_chapters_each_with_checks_a_picture_and_one_exercise() -> None:
    contents = dict(re.findall(r"^(\d+)\. (.*)$", text(cells()[0]), re.MULTILINE))
    titles, chapters = {}, {}
    for cell in cells():
        if heading := re.match(r"## (\d+)\. (.*)", text(cell)):
            number = heading[1]
            titles[number], chapters[number] = heading[2], []
        if titles:
            chapters[number].append(cell)
    assert list(titles) == [str(number) for number in range(1, 11)]
    assert titles == contents
    for number, chapter in chapters.items():
        code = "\n".join(text(cell) for cell in chapter if cell["cell_type"] == "code")
        prose = [text(cell) for cell in chapter if cell["cell_type"] == "markdown"]
        assert re.search(r"^\s*assert ", code, re.MULTILINE), number
        assert re.search(r"plt\.|\.plot\.|tiles\(|pixel_values\(|show_maps\(|chart\(|draw\(|curves\(", code), number
        exercises = [place for place, each in enumerate(prose) if each.startswith("**Exercise.**")]
        assert exercises == [len(prose) - 1], number
        assert "<details><summary>Answer</summary>\n\n" in prose[-1], number


def test_no_code_cell_is_long() -> None:
    assert max(text(cell).count("\n") + 1 for cell in cells() if cell["cell_type"] == "code") <= 25


@pytest.mark.extras
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute on two idle cores: thirteen short trainings."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    root = synthetic.write(tmp_path / "images", black=True)
    facts = {name: list(getattr(FASHION_MNIST, name)) for name in ("classes", "mean", "std")}
    book = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(book)
    (settings,) = (cell for cell in book.cells if cell.id == "settings")
    settings.source = SETTINGS.format(root=str(root), facts=synthetic.FACTS, **facts)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # An assert that fails, as any other error, is raised here with the cell it came from.
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 17
    errors = [output.text for output in outputs if output.get("name") == "stderr"]
    assert errors == []
    runs = list((tmp_path / "outputs" / "tutorial").glob("*/*/metrics.csv"))
    assert len(runs) == 10
