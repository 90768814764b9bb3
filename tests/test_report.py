"""scripts/report.py as a person uses it, and its page as a browser reads it."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from conftest import RunScript
from torch import nn
from torch.optim import SGD

from fmnist.data.info import FASHION_MNIST
from fmnist.evaluation.interval import wilson
from fmnist.report import curves, page
from fmnist.report.examples import Predictions
from fmnist.runs import checkpoints
from fmnist.training.classifier import Classifier
from fmnist.training.schedules import one_cycle

CLASSES = FASHION_MNIST.classes
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
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run(train: RunScript, trained: Path, tmp_path: Path, data_root: Path) -> Path:
    """A copy of one run of three epochs, called mine, that makes mistakes. Its data are no longer where they were."""
    if not trained.exists():
        data = shutil.copytree(data_root, tmp_path / "its data")
        overrides = (
            "trainer.max_epochs=3",
            "optimizer=adamw",
            "optimizer.lr=0.00005",
            "name=mine",
            "data.prune=0.25",
            "report=true",
        )
        shutil.move(train(f"data.root='{data}'", *overrides).run, trained)
        shutil.rmtree(data)
        shutil.rmtree(tmp_path / "outputs")
    return shutil.copytree(trained, tmp_path / "a copy")


@pytest.fixture
def report(run_script: RunScript, data_root: Path) -> Callable[..., Node]:
    """Writes the report of a run and reads it."""

    def write(run: Path, *overrides: str) -> Node:
        done = run_script("report", f"run='{run}'", f"data_root={data_root}", *overrides)
        assert done.status == 0, done.err
        assert done.out.splitlines()[-1] == f"report: {run / 'report.html'}"
        return read(run)

    return write


def test_the_report_of_a_run_has_the_numbers_of_its_folder(run: Path) -> None:
    html, metrics = read(run), metrics_of(run)
    assert (run / "report.html").stat().st_size < 2_000_000

    result = html.one("section", id="result")
    assert html.one("h1").text.startswith("its data, run mine/")
    assert result.one("strong").text == f"{100 * metrics['test/accuracy']:.2f}%"
    assert f"Loss {metrics['test/loss']:.4f}." in result.text
    assert re.search(r"of 200 test images are right. 95% interval: [\d.]+% to [\d.]+%", result.text)
    assert re.search(r"Top-2 accuracy [\d.]+%. Top-3 accuracy [\d.]+%. Loss", result.text)
    for text in (f"CNN, {metrics['parameters']:,} parameters", "best.ckpt, chosen by val/accuracy", "3 epochs in "):
        assert text in result.text

    sections = html.all("section")
    headings = [section.one("h2").text for section in sections]
    assert headings == [
        *("Result", "Weaknesses", "Training curves", "Classes", "Confusion matrix", "Most confused pairs"),
        *("Most confident mistakes", "Calibration", "Robustness", "Filters and activation maps", "Grad-CAM", "Layers"),
        *("Config", "Record"),
    ]
    links = [(link.text, link.attributes["href"]) for link in html.one("nav").all("a")]
    assert links == [(title, f"#{each.attributes['id']}") for title, each in zip(headings, sections, strict=True)]
    assert [len(html.one("section", id=id).all("svg")) for id in ("curves", "calibration")] == [4, 1]
    assert "train, labels smoothed by 0.1" in html.one("section", id="curves").text
    assert "by step" in html.one("section", id="curves").text
    assert "leaves out 25% of the training images" in html.one("section", id="curves").text
    assert "of harder images. The untrained network" in html.one("section", id="curves").text
    assert re.search(r"by Grad-CAM of blocks\.\d+, \d+x\d+ pixels", html.one("section", id="grad-cam").text)

    counts = [[int(cell) for cell in row[1:]] for row in table_of(html.one("section", id="confusion"))]
    assert [sum(row) for row in counts] == [20] * 10
    per_class = metrics["test/accuracy_per_class"]
    for place, row in enumerate(table_of(html.one("section", id="classes"))):
        recall, predicted = per_class[CLASSES[place]], sum(counts[true][place] for true in range(10))
        assert row[:4] == [CLASSES[place], f"{20 * recall:.0f}", "20", f"{100 * recall:.1f}%"]
        assert counts[place][place] == round(20 * recall)
        assert row[4] == (f"{100 * counts[place][place] / predicted:.1f}%" if predicted else "-")

    layers = table_of(html.one("section", id="network"))
    assert layers[0] == ["blocks.0", "Conv2d", "4 x 28 x 28", "36"]
    assert sum(int(row[3].replace(",", "") or 0) for row in layers) == metrics["parameters"]
    assert html.one("section", id="network").one("tfoot").text == f"all{metrics['parameters']:,}"

    assert "seed: 0" in html.one("section", id="config").one("pre").text
    record = dict(table_of(html.one("section", id="record")))
    assert "name=mine" in record["overrides"]
    assert len(record["dataset: train-images-idx3-ubyte"]) == 64


def test_every_picture_says_what_it_shows_and_whether_it_is_right(run: Path) -> None:
    html = read(run)
    figures = {id: html.one("section", id=id).all("figure", class_="example") for id in ("mistakes", "grad-cam")}
    assert [len(found) for found in figures.values()] == [16, 12]
    for figure in html.all("figure", class_="example"):
        predicted, true = re.fullmatch(r"[✓✗] (.+) \((.+)\) [\d.]+%", figure.one("figcaption").text).groups()
        right = predicted == true
        assert figure.attributes["class"].split()[1] == ("right" if right else "wrong")
        assert figure.one("b").text == ("✓" if right else "✗")
        assert figure.all("img")[0].attributes["alt"].startswith(true)
    confidences = [float(re.findall(r"([\d.]+)%", figure.text)[-1]) for figure in figures["mistakes"]]
    assert confidences == sorted(confidences, reverse=True)
    assert all("wrong" in figure.attributes["class"] for figure in figures["mistakes"])
    assert [len(figure.all("img")) for figure in figures["grad-cam"]] == [2] * 6 + [3] * 6

    counts = [[int(cell) for cell in row[1:]] for row in table_of(html.one("section", id="confusion"))]
    pairs = html.one("section", id="pairs")
    for title, grid in zip(pairs.all("h3"), pairs.all("div", class_="examples"), strict=True):
        true, predicted, count = re.fullmatch(r"(.+) predicted as (.+): (\d+) of 20", title.text).groups()
        assert counts[CLASSES.index(true)][CLASSES.index(predicted)] == int(count)
        assert len(grid.all("figure")) == min(6, int(count))
        assert all(f"✗ {predicted} ({true})" in figure.text for figure in grid.all("figure"))

    maps = [caption.text for caption in html.one("section", id="filters").all("figcaption")[1:]]
    assert maps == ["first layer, all 4", "blocks.0, all 4", "blocks.4, all 8"]


def test_the_page_loads_nothing(run: Path) -> None:
    html = read(run)
    (policy,) = (meta.attributes["content"] for meta in html.all("meta") if "http-equiv" in meta.attributes)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    sources = [node.attributes["src"] for node in html.all("*") if "src" in node.attributes]
    assert len(sources) == len(html.all("img")) > 50
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    text = (run / "report.html").read_text()
    links = {node.attributes["href"] for node in html.all("a")}
    assert {target for target in re.findall(r'href="([^"]*)"', text) if target[0] != "#"} <= links
    assert not html.all("script") + html.all("link") + html.all("iframe")
    assert not re.search(r"url\((?!#)|@import", text)
    assert not [name for node in html.all("*") for name in node.attributes if name.startswith("on")]


def test_texts_from_strangers_are_escaped(run: Path, report: Callable[..., Node]) -> None:
    record = json.loads((run / "run.json").read_text())
    evil = {"start": "<b>now", "precision": ["<i>"], "hardware": "<i>", "<u>": {"\ud800</pre>": [1, {"x": None}]}}
    (run / "run.json").write_text(json.dumps(record | evil))
    config = (run / "config.yaml").read_text().replace("name: mine", "name: <script>a&b")
    (run / "config.yaml").write_text(config + "evil: '</pre><script>alert(1)</script>'\n")
    html = report(run)
    assert not html.all("script") + html.all("i") + html.all("u")
    assert html.one("h1").text.startswith("its data, run <script>a&b/")
    assert "<script>alert(1)</script>" in html.one("section", id="config").one("pre").text
    assert "<b>now" in html.one("section", id="result").text


def test_a_run_without_its_data_is_refused(run: Path, run_script: RunScript) -> None:
    (run / "report.html").unlink()
    run_script("report", f"run='{run}'").assert_refused("its data")
    assert not (run / "report.html").exists()


def test_missing_and_damaged_files_are_left_out(
    run: Path, run_script: RunScript, report: Callable[..., Node], data_root: Path
) -> None:
    accuracy = metrics_of(run)["test/accuracy"]
    for name in ("metrics.json", "run.json", "metrics.csv"):
        (run / name).unlink()
    html = report(run)
    ids = {section.attributes["id"] for section in html.all("section")}
    assert {"result", "confusion", "network", "config"} <= ids
    assert not {"curves", "record"} & ids
    assert html.one("strong").text == f"{100 * accuracy:.2f}%"

    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("max_epochs: 3", "max_epochs: many"))
    (run / "metrics.csv").write_text("epoch,step,learning_rate\n1,5,7\n2,10,7\n")
    assert len(report(run).one("section", id="curves").all("svg")) == 1

    (run / "metrics.json").write_text("[")
    (run / "run.json").write_text('{"hardware": {"gpus": 3, "cpu": 4}, "resumed": [[], "x"]}')
    (run / "metrics.csv").write_text(
        "epoch,val/loss,val/accuracy,learning_rate\n0,2,0,inf\n1,nan,0.5,7,7\nx,1,1\n2,0.25,0.6\n\n"
    )
    html = report(run)
    charts = [figure.attributes["aria-label"] for figure in html.one("section", id="curves").all("figure")]
    assert charts == ["Accuracy over the epochs"]
    assert "4, no GPU" in html.one("section", id="result").text

    (run / "run.json").write_text("not json")
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    done = run_script("report", f"run='{run}'", f"data_root={data_root}")
    assert (done.status, done.err.count("left out of the report")) == (0, 2)
    assert not read(run).all("section", id="record")


@pytest.mark.slow
def test_a_run_without_test_and_convolution_is_reported_on_its_validation_images(
    train: RunScript, report: Callable[..., Node]
) -> None:
    run = train("trainer.max_epochs=1", "test=false", "model=mlp", "model.hidden=[12]").run
    html = report(run)
    assert "Data pruning" not in html.text
    assert html.one("strong").text == f"{100 * metrics_of(run)['val/accuracy']:.2f}%"
    assert "of 100 validation images are right" in html.text
    assert "selection bias" in html.text
    assert html.one("section", id="grad-cam").one("h2").text == "Saliency"
    assert [caption.text for caption in html.one("section", id="filters").all("figcaption")] == ["first layer, all 12"]
    # One epoch is a line only together with the untrained network.
    charts = [figure.attributes["aria-label"] for figure in html.one("section", id="curves").all("figure")]
    assert charts == ["Accuracy over the epochs", "Loss over the epochs"]
    html = report(run, "split=test")
    assert "of 200 test images are right" in html.text
    assert "selection bias" not in html.text


def test_a_run_without_validation_and_test_is_refused(
    train: RunScript, run_script: RunScript, report: Callable[..., Node]
) -> None:
    run = train("trainer.max_epochs=1", "test=false", "data.val_size=0").run
    done = run_script("report", f"run={run}")
    done.assert_refused("error: split=val: the run had no validation images (data.val_size=0)")
    assert not (run / "report.html").exists()
    assert "last.ckpt, as there are no validation images" in report(run, "split=test").text


def test_a_network_that_has_diverged_is_reported(run: Path, report: Callable[..., Node]) -> None:
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    checkpoint["state_dict"]["network.head.3.bias"].fill_(math.nan)
    torch.save(checkpoint, file)
    html = report(run)
    assert "The outputs for 200 of 200 images are not finite" in html.one("section", id="weaknesses").text
    assert not html.all("section", id="calibration")
    assert "Loss nan." in html.text


def test_prediction_sets_of_each_class_by_value(run: Path) -> None:
    found = {"a": ((0.9, 1.25), (0.97, 2.0)), "b": ((0.5, 1.0), (0.8, 1.5)), "c": ((0.95, 1.0), (0.9, 1.0))}
    sets = [{"classes": [(name, *values[place]) for name, values in found.items()]} for place in range(2)]
    assert page.set_rows(sets) == [
        ["b", "50.0%", "1.00", "80.0%", "1.50"],
        ["c", "95.0%", "1.00", "90.0%", "1.00"],
        ["a", "90.0%", "1.25", "97.0%", "2.00"],
    ]
    for count, shown in ((20, 20), (21, 10)):
        many = {"classes": [(str(place), 1 - place / 100, 1.0) for place in range(count)]}
        assert [row[0] for row in page.set_rows([many])] == [str(count - 1 - place) for place in range(shown)]
    details = read(run).one("section", id="calibration").one("details")
    headings = [cell.text for cell in details.one("thead").all("th")]
    assert headings == ["class", "at 90%", "size", "at 95%", "size", "at 99%", "size"]
    assert sorted(row[0] for row in table_of(details)) == sorted(CLASSES)


def test_top_accuracies_by_value() -> None:
    logits = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [1, 2, 3, 4]])
    assert page.top_accuracies(logits, torch.tensor([0, 1, 2, 3, 3])) == pytest.approx({2: 0.6, 3: 0.8})
    assert page.top_accuracies(logits[:, :2], torch.tensor([0, 1, 0, 0, 0])) == {}
    many = torch.arange(20.0).repeat(20, 1)
    assert page.top_accuracies(many, torch.arange(20)) == pytest.approx({2: 0.1, 3: 0.15, 5: 0.25})


def schedule_of(total: int) -> list[float]:
    return [0.01 * one_cycle(step, total) for step in range(total + 1)]


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "name", "count"),
    [(2, -1, "by step", 21), (-1, 20, "by step", 21), (3, 20, "by step", 21), (3, -1, "at the end of the epoch", 2)],
)
def test_the_learning_rate_is_drawn_by_step_where_the_schedule_explains_it(
    max_epochs: int, max_steps: int, name: str, count: int
) -> None:
    rates = schedule_of(20)
    line = {"step": [(0, 0), (1, 10), (2, 20)], "learning_rate": [(1, rates[10]), (2, rates[20])]}
    classifier = Classifier(nn.Linear(1, 2), None, lambda weights: SGD(weights, lr=0.01), one_cycle, classes="ab")
    ((found, points),) = curves.learning_rates(line, classifier, max_epochs, max_steps).items()
    assert (found, len(points)) == (name, count)
    assert [*curves.learning_rates(line, classifier, -1, -1)] == ["at the end of the epoch"]  # a damaged config
    line["step"] = [(0, 0), (1, 1e308), (2, 1e308)]  # a damaged table
    assert [*curves.learning_rates(line, classifier, 9, -1)] == ["at the end of the epoch"]
    expected = [(step / 10, rate) for step, rate in enumerate(rates)] if count > 2 else line["learning_rate"]
    for point, wanted in zip(points, expected, strict=True):
        assert point == pytest.approx(wanted)


def test_interval_and_class_metrics_by_value() -> None:
    confusion = torch.zeros(10, 10, dtype=torch.long)
    confusion[0, 0], confusion[0, 6], confusion[6, 0] = 81, 100, 82
    found = page.counts(confusion, CLASSES)
    assert (found["correct"], found["total"]) == (81, 263)
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3
    assert found["interval"] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert found["rows"][0] == ("T-shirt/top", 81, 181, *(pytest.approx(x) for x in (81 / 181, 81 / 163, 162 / 344)))
    assert found["rows"][6] == ("Shirt", 0, 82, 0, 0, 0)
    assert all(math.isnan(value) for value in found["rows"][8][3:])


def test_intervals_are_those_of_wilson() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_grad_cam_is_of_the_predicted_and_then_of_the_true_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def attribution(_: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[str, torch.Tensor]:
        return "a method", (labels > 0)[:, None, None].expand(-1, *images.shape[2:]).float()

    monkeypatch.setattr(page.inspection, "attribution", attribution)
    labels, predicted = torch.tensor([3, 2, 1]), torch.tensor([3, 0, 4])
    images = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    found = Predictions(images, labels, predicted, torch.ones(3), CLASSES)
    method, examples = page.grad_cam(nn.Identity(), FASHION_MNIST, found)
    assert method == "a method"
    assert [[picture.label for picture in example.pictures] for example in examples] == [
        ["", "Dress"],
        ["", "T-shirt/top: none", "Pullover"],
        ["", "Coat", "Trouser"],
    ]
