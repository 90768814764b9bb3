"""The documentation: its links, its size, the generated reference, and the site that `make docs` builds."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import reference

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("*.ipynb")])
LONG = {"lab_notes.md", "reference.md"}
"""Pages to look something up in."""
LINK = re.compile(r"\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def prose(page: Path) -> str:
    """Return the Markdown of a page or notebook without its code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4}.*|`[^`\n]*`", "", text, flags=re.MULTILINE)


def links(page: Path) -> Iterator[str]:
    for first, second in LINK.findall(prose(page)):
        yield first or second


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def problem(page: Path, link: str) -> str | None:
    """Return what is wrong with a relative link; None if nothing is."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return f"{page.name}: {link}: there is no such file"
    if anchor and anchor not in anchors(target):
        return f"{page.name}: {link}: there is no such heading"
    return None


def test_links_lead_somewhere() -> None:
    found = [(page, link) for page in PAGES for link in links(page) if not re.match(r"https?:|mailto:", link)]
    assert len(found) > 80
    assert [wrong for page, link in found if (wrong := problem(page, link))] == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = DOCS / "index.md"
    assert problem(page, "nowhere.md") == "index.md: nowhere.md: there is no such file"
    assert problem(page, "results.md#nothing") == "index.md: results.md#nothing: there is no such heading"
    assert problem(page, str(tmp_path)) is not None
    assert problem(page, "results.md#how-it-is-measured") is None


def test_links_to_other_hosts_are_encrypted() -> None:
    assert [link for page in PAGES for link in links(page) if link.startswith("http:")] == []


def test_the_index_lists_each_page_once() -> None:
    listed = [link for link in links(DOCS / "index.md") if "#" not in link]
    assert sorted(listed) == sorted(page.name for page in PAGES if page.parent == DOCS and page.name != "index.md")


def test_pages_are_short() -> None:
    long = {page.name for page in DOCS.glob("*.md") if len(page.read_text(encoding="utf-8").splitlines()) > 150}
    assert long == LONG


def test_the_reference_is_up_to_date() -> None:
    text = reference.reference()
    assert reference.PAGE.read_text(encoding="utf-8") == text, "run python tools/reference.py"
    # A key of a command, of a group's default, of another option, and what an experiment sets.
    assert "| `stop_on_nan` | `true` | ends a training whose loss or weights become infinite or NaN; false" in text
    assert "| `trainer.max_epochs` | `8` | number of epochs | ✓ |" in text
    assert "| `optimizer.momentum` | `0.9` | share of the last step's direction that is kept |  |" in text
    assert "augment=none model=cnn_plain loss=cross_entropy optimizer=adam scheduler=constant data.batch" in text
    assert "folder is outputs/&lt;name>/&lt;date>" in text  # which would be a tag of HTML


def test_troubleshooting_has_twenty_entries_each_with_what_to_do() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(entries) == 20
    for entry in entries:
        assert len(entry.splitlines()) >= 3, entry


@pytest.mark.extras
def test_the_site_is_built_without_warnings_and_takes_nothing_from_other_hosts(tmp_path: Path) -> None:
    """Ten seconds: Sphinx reads all pages."""
    pytest.importorskip("myst_nb")
    pytest.importorskip("furo")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        str(tmp_path / "cache"),
    ]
    done = subprocess.run([*command, DOCS, tmp_path / "site"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    pages = list((tmp_path / "site").glob("*.html"))
    assert {page.stem for page in PAGES if page.parent == DOCS} <= {page.stem for page in pages}
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=\"([^\"]+)\"", html)
        assert [address for address in loaded if re.match(r"(https?:)?//", address)] == [], page.name
        files = [address.partition("?")[0] for address in loaded if not address.startswith(("data:", "#"))]
        assert [name for name in files if not (page.parent / name).exists()] == [], page.name
    styles = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "site").rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles) == []
    assert "searchindex.js" in (tmp_path / "site" / "search.html").read_text(encoding="utf-8")
