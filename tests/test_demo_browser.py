"""The page of scripts/demo.py in a headless browser: `make test-browser`."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic
from conftest import SCRIPTS, SMALL

pytest.importorskip("playwright", reason="Playwright belongs to the developer's tools: pip install -e '.[dev]'")
pytest.importorskip("fastapi", reason="FastAPI is optional: pip install -e '.[demo]'")
from playwright.sync_api import Browser, Page, expect
from test_browser import browser as browser
from test_browser import page as page
from test_demo import IMAGES, noise, photo, png, serving

pytestmark = [pytest.mark.browser, pytest.mark.extras]

SIZES = {"phone": {"width": 400, "height": 860}, "desktop": {"width": 1400, "height": 900}}
LOOKS = [
    {"viewport": SIZES[size], "color_scheme": scheme, "has_touch": size == "phone"}
    for size in SIZES
    for scheme in ("light", "dark")
]
DROP = """([name, type, data]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(atob(data), (byte) => byte.charCodeAt(0))], name, { type }));
  const event = EVENT;
  document.body.dispatchEvent(event);
}"""
DROPPED = DROP.replace("EVENT", "new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true })")
PASTED = DROP.replace("EVENT", "new ClipboardEvent('paste', { clipboardData: files, bubbles: true })")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a demo of a small run."""
    folder = tmp_path_factory.mktemp("demo")
    data_root = synthetic.write(folder / "data", black=True)
    command = [sys.executable, str(SCRIPTS / "train.py"), *SMALL, f"data.root={data_root}", "trainer.max_epochs=2"]
    done = subprocess.run([*command, f"outputs={folder / 'outputs'}", "test=false"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "outputs").glob("*/*/")
    with serving(run, folder / "log.txt") as server:
        yield server.address


def give(page: Page, script: str, name: str, content: bytes) -> None:
    page.evaluate(script, [name, "image/png", base64.b64encode(content).decode()])


def test_dropped_picture_gets_bars_a_set_and_what_the_network_sees(page: Page, address: str) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    expect(page.locator("#samples button")).to_have_count(20)
    give(page, DROPPED, "photo.png", photo())
    card = page.locator("article")
    expect(card).to_have_count(1)
    expect(card.locator(".bars li")).to_have_count(10)
    widths = card.locator(".fill").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    shares = [float(text.removesuffix(" %")) / 100 for text in card.locator(".percent").all_inner_texts()]
    track = card.locator(".track").first.evaluate("track => track.getBoundingClientRect().width")
    assert widths == sorted(widths, reverse=True)
    assert [width / track for width in widths] == pytest.approx([max(share, 2 / track) for share in shares], abs=0.002)
    assert sum(shares) == pytest.approx(1, abs=0.01)
    best = card.locator(".bars li span").first.inner_text()
    expect(card.locator("h3")).to_have_text(f"{best}, {shares[0]:.1%}".replace("%", " %"))
    expect(card.locator(".set")).to_contain_text("95 % prediction set: ")
    assert card.locator(".inside").count() == card.locator(".set").inner_text().count(",") + 1
    expect(card.locator(".badge").first).to_have_text("inverted")
    assert card.locator(".input img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [28, 28]
    expect(page.get_by_role("status")).to_have_text(f"photo.png: {best}, {shares[0]:.1%}".replace("%", " %"))
    card.get_by_role("button", name="What speaks for it?").click()
    expect(card.locator(".attribution figcaption")).to_contain_text("Grad-CAM of ")
    assert card.locator(".attribution img").evaluate("image => image.naturalWidth") == 28
    assert all(request.startswith((address, "blob:", "data:")) for request in requests)


def test_pasted_and_chosen_pictures(page: Page, address: str, tmp_path: Path) -> None:
    page.goto(address)
    expect(page.locator("#samples button")).to_have_count(20)
    give(page, PASTED, "pasted.png", png(IMAGES[0]))
    expect(page.locator("article .name")).to_have_text("pasted.png")
    expect(page.locator("article .badge")).to_have_count(0)
    give(page, PASTED, "noise.png", png(noise()))
    expect(page.locator("article .badge")).to_have_text("unlike the training images")
    (tmp_path / "a.png").write_bytes(png(IMAGES[1]))
    page.locator("#file").set_input_files([tmp_path / "a.png"])
    expect(page.locator("article")).to_have_count(3)
    expect(page.locator("article .name").first).to_have_text("a.png")


def test_picture_that_is_refused_gets_the_reason(browser: Browser, address: str) -> None:
    with browser.new_context() as context:  # not `page`, which takes the status 422 for an error
        page = context.new_page()
        page.goto(address)
        expect(page.locator("#samples button")).to_have_count(20)
        give(page, DROPPED, "a<b>.png", b"<svg>")
        expect(page.locator(".error")).to_have_text("a<b>.png: SVG isn't supported; save it as PNG")
        large = "document.body.dispatchEvent(Object.assign(new Event('paste', { bubbles: true }), { clipboardData: "
        page.evaluate(f"{large} {{ files: [new File([new Uint8Array(20000001)], 'big.png')] }} }}))")
        expect(page.locator(".error").first).to_have_text("big.png: must have at most 20 MB")
        expect(page.get_by_role("status")).to_have_text("big.png: must have at most 20 MB")


def test_page_is_used_with_the_keyboard_alone(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#samples button")).to_have_count(20)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Tab")
    expect(page.locator("#samples button").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("article .name")).to_contain_text("test image 1 (T-shirt/top: ")
    button = page.get_by_role("button", name="What speaks for it?")
    for _ in range(20):
        page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".attribution")).to_be_visible()


@pytest.mark.parametrize(
    "page", LOOKS, ids=["phone light", "phone dark", "desktop light", "desktop dark"], indirect=True
)
def test_page_fits_and_has_enough_contrast(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("#samples button").nth(8).click()
    expect(page.locator("article")).to_have_count(1)
    page.get_by_role("button", name="What speaks for it?").click()
    expect(page.locator(".attribution")).to_be_visible()
    narrow = page.evaluate("innerWidth") < 500
    assert page.locator("#camera").is_visible() == narrow
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.locator("main > *").nth(1).evaluate("box => box.getBoundingClientRect().left < 100") == narrow
    texts = page.evaluate(Path(__file__).with_name("contrasts.js").read_text())
    assert len(texts) > 30
    assert [(text, ratio) for ratio, text in texts if ratio < 4.5] == []  # what WCAG 2.2 asks (1.4.3)
    page.evaluate("scrollTo(0, 0)")


def test_interface_page_fits_a_phone_and_has_enough_contrast(page: Page, address: str) -> None:
    page.goto(f"{address}/docs")
    expect(page.get_by_role("heading", name="POST /predict")).to_be_visible()
    page.set_viewport_size(SIZES["phone"])
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    texts = page.evaluate(Path(__file__).with_name("contrasts.js").read_text())
    assert [(text, ratio) for ratio, text in texts if ratio < 4.5] == []
