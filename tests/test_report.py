"""scripts/report.py as a person uses it, and its page as a browser reads it."""

import base64
import io
import json
import math
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from conftest import RunScript
from PIL import Image
from torch import nn

from fmnist.data.info import CLASSES
from fmnist.report.gather import gather as report
from fmnist.report.page import class_rows, entries, wilson_interval
from fmnist.report.pictures import MOST_MAPS, address, mosaic, overlay, sample, surest
from fmnist.runs import checkpoints

VOID = {"img", "meta", "link", "br", "use", "path"}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    children: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(c if isinstance(c, str) else c.text for c in self.children)).strip()

    def all(self, tag: str, **attributes: str) -> list["Node"]:
        """Below it, in order; `class_` is one of its classes, all others are equal."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                fits = all(
                    value in child.attributes.get("class", "").split()
                    if name == "class_"
                    else child.attributes.get(name) == value
                    for name, value in attributes.items()
                )
                found += [child] * (fits and tag in (child.tag, "*")) + child.all(tag, **attributes)
        return found

    def one(self, tag: str, **attributes: str) -> "Node":
        (found,) = self.all(tag, **attributes)
        return found


class Reader(HTMLParser):
    """Builds the tree and refuses a tag that is closed in the wrong place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.path = [Node("", {})]
        self.feed(text)
        assert len(self.path) == 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.path[-1].children.append(node)
        if tag not in VOID:
            self.path.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.path[-1].children.append(Node(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.path.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.path[-1].children.append(data)


def read(run: Path) -> Node:
    return Reader((run / "report.html").read_text()).path[0]


def table_of(section: Node) -> list[list[str]]:
    """The texts of each row of its body."""
    return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in section.one("tbody").all("tr")]


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def run(train: RunScript, kept: Path, tmp_path: Path) -> Path:
    """A run that makes mistakes, called mine, of three epochs; trained once, a copy for each test."""
    if not kept.exists():
        shutil.copytree(train("trainer.max_epochs=3", "optimizer.lr=0.00005", "name=mine").run, kept)
    return shutil.copytree(kept, tmp_path / "run")


def test_the_report_of_a_run_says_what_its_folder_says(run: Path, run_script: RunScript) -> None:
    done = run_script("report", f"run={run}")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"report: {run / 'report.html'}"
    page, metrics = read(run), metrics_of(run)
    assert (run / "report.html").stat().st_size < 2_000_000

    result = page.one("section", id="result")
    assert page.one("h1").text == "Fashion-MNIST, run mine"
    assert result.one("strong").text == f"{100 * metrics['test/accuracy']:.2f}%"
    assert f"Loss {metrics['test/loss']:.4f}." in result.text
    low, high = wilson_interval(round(200 * metrics["test/accuracy"]), 200)
    assert f"of 200 test images right; on other such images between {low:.2%} and {high:.2%}" in result.text
    assert f"CNN, {metrics['parameters']:,} parameters" in result.text
    assert "best.ckpt, chosen by val/accuracy" in result.text
    assert re.search(r"3 epochs in \d+ s, with validation", result.text)

    ids = [section.attributes["id"] for section in page.all("section")]
    assert [link.attributes["href"] for link in page.one("nav").all("a")] == [f"#{name}" for name in ids]
    assert {"weaknesses", "curves", "classes", "confusion", "calibration", "sample", "filters", "record"} <= set(ids)
    assert all(len(section.all("h2")) == 1 for section in page.all("section"))
    assert len(page.one("section", id="curves").all("svg")) == 4
    assert len(page.one("section", id="calibration").all("svg")) == 1

    counts = [[int(cell) for cell in row[1:]] for row in table_of(page.one("section", id="confusion"))]
    assert [sum(row) for row in counts] == [20] * 10
    per_class = metrics["test/accuracy_per_class"]
    for place, row in enumerate(table_of(page.one("section", id="classes"))):
        recall, named = per_class[CLASSES[place]], sum(counts[true][place] for true in range(10))
        assert row[:4] == [CLASSES[place], f"{20 * recall:.0f}", "20", f"{100 * recall:.1f}%"]
        assert counts[place][place] == round(20 * recall)
        assert row[4] == (f"{100 * counts[place][place] / named:.1f}%" if named else "-")

    layers = table_of(page.one("section", id="network"))
    assert layers[0] == ["blocks.0", "Conv2d", "4 x 28 x 28", "36"]
    total = page.one("section", id="network").one("tfoot").text
    assert total == f"all{metrics['parameters']:,}"
    assert sum(int(row[3].replace(",", "") or 0) for row in layers) == metrics["parameters"]

    assert "seed: 0" in page.one("section", id="config").one("pre").text
    record = dict(table_of(page.one("section", id="record")))
    assert "name=mine" in record["overrides"]
    assert len(record["dataset: train-images-idx3-ubyte"]) == 64


def test_every_picture_says_what_it_shows_and_whether_it_is_right(run: Path, run_script: RunScript) -> None:
    assert run_script("report", f"run={run}").status == 0
    page = read(run)
    mistakes = round(200 * (1 - metrics_of(run)["test/accuracy"]))
    assert mistakes > 16
    figures = {
        id: page.one("section", id=id).all("figure", class_="example") for id in ("mistakes", "sample", "attribution")
    }
    assert [len(found) for found in figures.values()] == [16, 24, 12]
    for figure in page.all("figure", class_="example"):
        predicted, true = re.fullmatch(r"[✓✗] (.+) \((.+)\) [\d.]+%", figure.one("figcaption").text).groups()
        right = predicted == true
        assert figure.attributes["class"].split()[1] == ("right" if right else "wrong")
        assert figure.one("b").text == ("✓" if right else "✗")
        assert figure.all("img")[0].attributes["alt"].startswith(true)
    confidences = [float(re.findall(r"([\d.]+)%", figure.text)[-1]) for figure in figures["mistakes"]]
    assert confidences == sorted(confidences, reverse=True)
    assert all("wrong" in figure.attributes["class"] for figure in figures["mistakes"])
    assert [len(figure.all("img")) for figure in figures["attribution"]] == [2] * 6 + [3] * 6
    assert "Grad-CAM" in page.one("section", id="attribution").text

    counts = [[int(cell) for cell in row[1:]] for row in table_of(page.one("section", id="confusion"))]
    pairs = page.one("section", id="pairs")
    for title, grid in zip(pairs.all("h3"), pairs.all("div", class_="examples"), strict=True):
        true, predicted, count = re.fullmatch(r"(.+) called (.+): (\d+) of 20", title.text).groups()
        assert counts[CLASSES.index(true)][CLASSES.index(predicted)] == int(count)
        assert len(grid.all("figure")) == min(6, int(count))
        assert all(f"✗ {predicted} ({true})" in figure.text for figure in grid.all("figure"))

    filters = page.one("section", id="filters")
    assert [caption.text for caption in filters.all("figcaption")[1:]] == [
        "first layer, all 4 filters",
        "blocks.0, all 4 maps",
        "blocks.4, all 8 maps",
    ]


def test_the_page_loads_nothing(run: Path, run_script: RunScript) -> None:
    run_script("report", f"run={run}")
    page = read(run)
    (policy,) = (meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    sources = [node.attributes["src"] for node in page.all("*") if "src" in node.attributes]
    assert len(sources) == len(page.all("img")) > 50
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    links = [node for node in page.all("*") if "href" in node.attributes and node.tag != "a"]
    assert all(node.attributes["href"].startswith("#") for node in links)
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert not re.search(r"url\((?!#)|@import", (run / "report.html").read_text())
    assert not [name for node in page.all("*") for name in node.attributes if name.startswith("on")]
    names = [node.attributes["id"] for node in page.all("*") if "id" in node.attributes]
    assert len(names) == len(set(names))


def test_what_a_stranger_wrote_is_text(train: RunScript, run_script: RunScript) -> None:
    run = train("trainer.max_epochs=1", "name='<script>a&b'", "test=false").run
    assert run.parent.name == "<script>a&b"
    record = json.loads((run / "run.json").read_text())
    evil = {"start": "<b>now", "precision": ["<i>"], "hardware": "<i>", "<u>": {"\ud800</pre>": [1, {"x": None}]}}
    (run / "run.json").write_text(json.dumps(record | evil))
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "evil: '</pre><script>alert(1)</script>'\n")
    assert run_script("report", f"run='{run}'").status == 0
    page = read(run)
    assert not page.all("script") + page.all("i") + page.all("u")
    assert page.one("h1").text == "Fashion-MNIST, run <script>a&b"
    assert "<script>a&b" in dict(table_of(page.one("section", id="record")))["overrides"]
    assert "<script>alert(1)</script>" in page.one("pre").text
    assert "<b>now" in page.one("section", id="result").text


def test_a_run_that_is_copied_needs_only_the_data(
    train: RunScript, run_script: RunScript, data_root: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_root, tmp_path / "its data")
    trained = train("trainer.max_epochs=1", f"data.root='{data}'")
    copy = shutil.copytree(trained.run, tmp_path / "a copy")
    accuracy = metrics_of(copy)["test/accuracy"]
    shutil.rmtree(tmp_path / "outputs")
    shutil.rmtree(data)
    assert run_script("report", f"run='{copy}'").status == 2
    assert not (copy / "report.html").exists()
    done = run_script("report", f"run='{copy}'", f"data_root={data_root}")
    assert done.status == 0, done.err
    assert read(copy).one("strong").text == f"{100 * accuracy:.2f}%"


def test_what_is_missing_or_damaged_is_left_out(run: Path, run_script: RunScript) -> None:
    accuracy = metrics_of(run)["test/accuracy"]
    for name in ("metrics.json", "run.json", "metrics.csv"):
        (run / name).unlink()
    assert run_script("report", f"run={run}").status == 0
    page = read(run)
    ids = {section.attributes["id"] for section in page.all("section")}
    assert {"result", "confusion", "network", "config"} <= ids
    assert not {"curves", "record"} & ids
    assert page.one("strong").text == f"{100 * accuracy:.2f}%"

    (run / "metrics.json").write_text("[")
    (run / "run.json").write_text('{"hardware": {"gpus": 3, "cpu": 4}, "resumed": [[], "x"]}')
    (run / "metrics.csv").write_text(
        "epoch,val/loss,val/accuracy,learning_rate\n0,2,0,inf\n1,nan,0.5,7,7\nx,1,1\n2,0.25,0.6\n\n"
    )
    done = run_script("report", f"run={run}")
    assert done.status == 0, done.err
    page = read(run)
    assert [svg.attributes["aria-label"] for svg in page.one("section", id="curves").all("figure")] == [
        "Accuracy over the epochs",
    ]
    assert "4, no GPU" in page.one("section", id="result").text

    (run / "run.json").write_text("not json")
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    done = run_script("report", f"run={run}")
    assert done.status == 0
    assert done.err.count("the report goes without something") == 2
    assert not read(run).all("section", id="record")


def test_a_network_without_convolution(train: RunScript, run_script: RunScript) -> None:
    run = train("trainer.max_epochs=1", "model=mlp", "model.hidden=[12]").run
    assert run_script("report", f"run={run}").status == 0
    page = read(run)
    assert "Simonyan" in page.one("section", id="attribution").text
    filters = page.one("section", id="filters")
    assert [caption.text for caption in filters.all("figcaption")] == ["first layer, all 12 filters"]
    assert "MLP, " in page.one("section", id="result").text
    # One epoch is a line only together with the untrained network.
    assert [figure.attributes["aria-label"] for figure in page.one("section", id="curves").all("figure")] == [
        "Accuracy over the epochs",
        "Loss over the epochs",
    ]


def test_a_run_that_left_the_test_images_alone_is_reported_on_its_validation_images(
    train: RunScript, run_script: RunScript
) -> None:
    run = train("trainer.max_epochs=1", "test=false").run
    assert run_script("report", f"run={run}").status == 0
    page = read(run)
    assert page.one("strong").text == f"{100 * metrics_of(run)['val/accuracy']:.2f}%"
    assert "of 100 validation images right" in page.text
    assert "chosen on these same images" in page.text
    assert run_script("report", f"run={run}", "split=test").status == 0
    assert "of 200 test images right" in read(run).text
    assert "chosen on these same images" not in read(run).text


def test_no_images_to_report_on_is_said(train: RunScript, run_script: RunScript) -> None:
    run = train("trainer.max_epochs=1", "test=false", "data.val_size=0").run
    for word in ("split=null", "split=val"):
        done = run_script("report", f"run={run}", word)
        assert done.status == 2
        assert done.err.startswith("error: split=val: the run had no validation images (data.val_size=0)")
        assert "Traceback" not in done.err
    assert not (run / "report.html").exists()
    assert run_script("report", f"run={run}", "split=test").status == 0
    assert "last.ckpt, as there are no validation images" in read(run).text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: give run=<run folder>"),
        (["run=nowhere"], "error: run=nowhere: there is no such folder"),
        (["run=.", "split=train"], "error: split=train: must be 'val' or 'test'"),
    ],
)
def test_mistakes_end_in_one_line(run_script: RunScript, arguments: list[str], message: str) -> None:
    done = run_script("report", *arguments)
    assert done.status == 2
    assert done.err.startswith(message)
    assert len(done.err.splitlines()) == 1


def test_a_network_that_has_diverged_is_reported(run: Path, run_script: RunScript) -> None:
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    checkpoint["state_dict"]["network.head.3.bias"].fill_(math.nan)
    torch.save(checkpoint, file)
    done = run_script("report", f"run={run}")
    assert done.status == 0, done.err
    page = read(run)
    assert "For 200 of 200 images its outputs are no numbers" in page.one("section", id="weaknesses").text
    assert not page.all("section", id="calibration")
    assert "Loss nan." in page.text


def test_wilson_interval_by_value() -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson_interval(29, 29) == pytest.approx((0.8830, 1), abs=5e-5)


def test_class_rows_by_value() -> None:
    confusion = torch.zeros(10, 10, dtype=torch.long)
    confusion[0, 0], confusion[0, 6], confusion[6, 0] = 6, 2, 4
    curves = {
        "val/accuracy_per_class/Shirt": [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)],
        "val/accuracy_per_class/Bag": [(1.0, 1.0)],
    }
    rows = class_rows(confusion, curves)
    assert [(row.correct, row.total, row.recall, row.precision, row.f1) for row in (rows[0], rows[6], rows[8])] == [
        (6, 8, 0.75, 0.6, 12 / 18),
        (0, 4, 0, 0, 0),
        (0, 0, None, None, None),
    ]
    assert rows[6].line == ("0.0,20.0 100.0,0.0", 0.5, 1.0)
    assert rows[8].line is None


def test_entries_of_a_record() -> None:
    record = {"command": ["python", "a b"], "git": {"clean": False}, "gpus": [], "resumed": [{"seed": 1}, None]}
    assert list(entries(record)) == [
        ("command", "python 'a b'"),
        ("git: clean", "false"),
        ("gpus", "none"),
        ("resumed 1: seed", "1"),
        ("resumed 2", "null"),
    ]


def pixels(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))


def test_an_image_comes_back_from_its_address() -> None:
    image = torch.arange(28 * 28).remainder(256).to(torch.uint8).view(28, 28)
    assert pixels(address(image)).tobytes() == bytes(image.flatten().tolist())


def test_a_mosaic_scales_each_map_by_itself() -> None:
    maps = torch.zeros(3, 14, 14)
    maps[0, :, :7], maps[0, :, 7:], maps[1] = 1, -2, 0.001
    image = pixels(mosaic(maps, columns=2))
    assert image.size == (2 * 28 + 2, 2 * 28 + 2)
    halfway, blue, red, white = (image.getpixel(at) for at in ((3, 3), (20, 3), (40, 3), (3, 40)))
    assert blue[2] > 2 * blue[0]
    assert red[0] > 2 * red[2]
    assert min(white) > 240
    assert halfway[0] > halfway[2]
    assert halfway[2] > red[2]
    assert image.getpixel((28, 3))[3] == image.getpixel((50, 50))[3] == 0
    assert pixels(mosaic(torch.ones(MOST_MAPS + 9, 5, 3))).size == (8 * (5 * 3 + 2) - 2, 4 * (5 * 5 + 2) - 2)


def test_an_overlay_is_yellow_where_the_heat_is() -> None:
    heat = torch.tensor([[0.0, 1.0]])
    cold, hot = overlay(torch.tensor([[0, 0]], dtype=torch.uint8), heat)[0].tolist()
    assert hot[0] > hot[2] + 50
    assert cold[2] > cold[1]
    brighter = overlay(torch.tensor([[255, 255]], dtype=torch.uint8), heat)[0].tolist()
    assert all(new > old for new, old in zip(brighter[0] + brighter[1], cold + hot, strict=True))


def test_samples_are_the_same_each_time_and_the_surest_come_first() -> None:
    candidates = torch.tensor([True, False, True, True, False, True])
    assert sample(candidates, 9) == [0, 2, 3, 5]
    assert sample(candidates, 2) == sample(candidates, 2)
    assert len(sample(candidates, 2)) == 2
    confidence = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.8, 0.6])
    assert surest(candidates, confidence, 3) == [3, 5, 2]
    assert surest(~candidates, confidence, 3) == [1, 4]


def test_attributions_are_for_the_predicted_and_then_for_the_true_class(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def attribution(_: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[str, torch.Tensor]:
        asked.append(labels.tolist())
        return "a method", torch.full((len(images), 28, 28), float(len(asked)))

    monkeypatch.setattr(report.inspection, "attribution", attribution)
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    method, maps = report.explain(nn.Identity(), images, predicted=torch.tensor([1, 2]), labels=torch.tensor([3, 4]))
    assert method == "a method"
    assert asked == [[1, 2], [3, 4]]
    assert [part.mean().item() for part in maps] == [1.0, 2.0]
