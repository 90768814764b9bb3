"""TensorBoard, reports and comparisons of small runs in a headless browser: `make test-browser`.

Each test leaves a screenshot in outputs/screenshots/.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import SCRIPTS
from run_folders import write_run

from fmnist.compare import PAGE_FILE, read_runs, write_comparison
from fmnist.data.info import FASHION_MNIST
from fmnist.training.tensorboard import trial_name

pytest.importorskip("playwright", reason="Playwright belongs to the developer's tools: pip install -e '.[dev]'")
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

CLASSES = FASHION_MNIST.classes
SCREENSHOTS = SCRIPTS.parent / "outputs" / "screenshots"
PATIENCE = 60  # seconds, for anything that a browser or a server does
EPOCHS = 3
VALIDATION_IMAGES = 100
CHOICES = {
    "first": {"seed": "0", "model.dropout": "0.1", "optimizer": "adamw", "optimizer.lr": "0.0002"},
    "second": {"seed": "1", "model.dropout": "0.3", "optimizer": "sgd", "optimizer.lr": "0.001"},
}
DRAWN = "path.line[d*=L]:not([d*=NaN])"
"""A line of a chart with at least two points."""
# WebGL without a graphics card; QUIC would look for a network.
FLAGS = ("--no-sandbox", "--disable-quic", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
DESKTOP, WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 2000, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def outputs(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two finished runs."""
    outputs = tmp_path_factory.mktemp("browser") / "outputs"
    same = (
        "data=idx",
        f"data.root={data_root}",
        f"data.val_size={VALIDATION_IMAGES}",
        "data.batch_size=50",
        "trainer.accelerator=cpu",
        f"trainer.max_epochs={EPOCHS}",
        "trainer.log_every_n_steps=5",
        "model.channels=[4,8]",
        "pictures.every_n_epochs=1",
        f"outputs={outputs}",
    )

    def train(name: str) -> None:
        own = (f"{key}={value}" for key, value in CHOICES[name].items())
        command = [sys.executable, str(SCRIPTS / "train.py"), f"name={name}", *same, *own]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=one_thread, capture_output=True, text=True, timeout=5 * PATIENCE)
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor() as pool:
        list(pool.map(train, CHOICES))
    return outputs


@pytest.fixture(scope="module")
def runs(outputs: Path) -> dict[str, Path]:
    """The runs' folders by the names that TensorBoard gives them."""
    folders = [next(outputs.glob(f"{name}/*")) for name in CHOICES]
    return {str(folder.relative_to(outputs)): folder for folder in folders}


@pytest.fixture(scope="module")
def tensorboard(outputs: Path, runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a TensorBoard that has read the runs."""
    log = tmp_path_factory.mktemp("tensorboard") / "log.txt"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(outputs), "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as server:
        try:
            wait_until(lambda: " at http://127.0.0.1:" in log.read_text() or server.poll() is not None, log.read_text)
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            (address,) = re.findall(r" at (http://127\.0\.0\.1:\d+/)", log.read_text())

            def has_read() -> bool:
                with direct.open(f"{address}data/plugin/scalars/tags", timeout=PATIENCE) as answer:
                    tags = json.load(answer)
                return tags.keys() == runs.keys() and all("result/val/accuracy" in tags[run] for run in runs)

            wait_until(has_read, log.read_text)
            yield address
        finally:
            server.terminate()


def wait_until(condition: Callable[[], bool], explain: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    command = ["sh", str(SCRIPTS / "chromium.sh"), sys.executable]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=10 * PATIENCE)
    assert found.returncode == 0, "no browser"
    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.stdout.strip(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """An empty page, for what parameters ask; photographed in the end, and looked through for errors."""
    errors: list[str] = []
    with browser.new_context(**{"viewport": DESKTOP, **getattr(request, "param", {})}) as context:
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "_", request.node.name.removeprefix("test_")).strip("_")
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=page.url.startswith("file:"))
    assert errors == []


def open_page(page: Page, file: Path) -> None:
    """Open a file that asks for nothing outside itself."""
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    assert {request for request in requests if not request.startswith("data:")} == {page.url}


@pytest.fixture
def report(page: Page, runs: dict[str, Path]) -> Page:
    open_page(page, next(iter(runs.values())) / "report.html")
    return page


@pytest.fixture
def comparison(page: Page, tmp_path: Path) -> Page:
    for i in range(12):
        overrides = f"optimizer={('sgd', 'adam')[i % 2]}", f"model.dropout={i // 4 / 10}"
        write_run(tmp_path / str(i), *overrides, accuracy=0.9 + i / 1000, test=0.9, seed=i)
    write_run(tmp_path / "12", status="failed", error="the loss is not a number")
    write_comparison(tmp_path, read_runs([tmp_path]))
    open_page(page, tmp_path / PAGE_FILE)
    return page


def cards(page: Page, element: str, title: str) -> Locator:
    """Return the cards that TensorBoard shows under a title."""
    return page.locator(element).filter(has=page.get_by_text(title, exact=True))


def test_custom_scalars_draw_several_curves_in_one_chart(page: Page, tensorboard: str, runs: dict[str, Path]) -> None:
    page.goto(f"{tensorboard}#custom_scalars&_smoothingWeight=0")
    charts = {
        "loss": ["loss/train", "loss/val"],
        "accuracy": ["accuracy/train", "accuracy/val"],
        "validation": [f"val/accuracy_per_class/{name}" for name in CLASSES],
        "training": [f"train/accuracy_per_class/{name}" for name in CLASSES],
    }
    for title, tags in charts.items():
        chart = cards(page, "tf-custom-scalar-multi-line-chart-card", title)
        expect(chart.locator(DRAWN)).to_have_count(len(tags) * len(runs))


def test_graph_unfolds_the_network(page: Page, tensorboard: str) -> None:
    page.goto(f"{tensorboard}#graphs")
    page.locator("g.node[data-name=CNN]").dblclick(force=True)
    for name in ("CNN/Sequential[blocks]", "CNN/Sequential[head]"):
        part = page.locator(f"g.node[data-name='{name}']")
        expect(part).to_be_visible()
        part.hover()  # once it has come to rest


def test_projector_shows_the_validation_images(page: Page, tensorboard: str) -> None:
    page.goto(f"{tensorboard}#projector")
    projector = page.frame_locator("iframe").frame_locator("iframe")
    expect(projector.get_by_text(f"Points: {VALIDATION_IMAGES}")).to_be_visible()


@pytest.mark.parametrize("page", [{"viewport": WIDE}], ids=["wide"], indirect=True)
def test_hparams_has_a_row_for_each_run_and_first_what_differs(
    page: Page, tensorboard: str, runs: dict[str, Path]
) -> None:
    page.goto(f"{tensorboard}#hparams")
    grid = page.locator("vaadin-grid")
    trials = {trial_name(folder): folder for folder in runs.values()}
    for trial in trials:
        expect(grid.get_by_text(trial)).to_be_visible()
    texts = re.split(f"\n(?={'|'.join(map(re.escape, trials))})", grid.inner_text())
    header, *rows = (row.split("\n") for row in texts)
    table = {row[0]: dict(zip(header[2:], row[1:], strict=True)) for row in rows}  # "Show Metrics" is a box to tick
    assert table.keys() == trials.keys()
    assert {*header[2:6]} == {"model.dropout", "optimizer", "optimizer.lr", "seed"}
    assert header[7:] == ["accuracy/train", "accuracy/val", "loss/train", "loss/val", "result/val/accuracy"]
    for (trial, folder), chosen in zip(trials.items(), CHOICES.values(), strict=True):
        accuracy = json.loads((folder / "metrics.json").read_text())["val/accuracy"]
        assert float(table[trial]["result/val/accuracy"]) == pytest.approx(accuracy, abs=1e-5)
        assert table[trial]["optimizer"] == chosen["optimizer"]
        assert float(table[trial]["model.dropout"]) == float(chosen["model.dropout"])


def test_time_series_opens_on_accuracy_and_loss(page: Page, tensorboard: str) -> None:
    page.goto(tensorboard)
    titles = page.locator("metrics-main-view card-view .tag")
    expect(titles).to_have_text(["accuracy/train", "accuracy/val", "loss/train", "loss/val"])


def test_report_shows_every_section_and_every_image(report: Page) -> None:
    headings = report.locator("h2")
    assert headings.count() == report.locator("nav a").count() > 10
    for heading in headings.all():
        heading.scroll_into_view_if_needed()
        expect(heading).to_be_in_viewport()
    assert min(report.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")) > 0
    assert min(report.locator("svg").evaluate_all("charts => charts.map(chart => chart.clientWidth)")) > 0


def test_comparison_shows_every_section(comparison: Page) -> None:
    for heading in ("Result", "Ranking", "Each setting on its own", "Not ranked"):
        expect(comparison.get_by_role("heading", name=heading)).to_be_visible()
    assert min(comparison.locator("svg").evaluate_all("charts => charts.map(chart => chart.clientWidth)")) > 200


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize(
    "page",
    [{"viewport": PHONE, "color_scheme": "light"}, {"color_scheme": "dark"}],
    ids=["light, 390px", "dark"],
    indirect=True,
)
def test_page_fits_a_phone_and_has_enough_contrast(page: Page, name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(name)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    texts = page.evaluate(Path(__file__).with_name("contrasts.js").read_text())
    assert len(texts) > 100
    # What WCAG 2.2 asks of texts (1.4.3) and of signs (1.4.11).
    assert [(text, ratio) for ratio, text in texts if ratio < (3 if text in "✓✗" else 4.5)] == []
