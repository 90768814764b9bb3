"""Take the pictures of a page for docs/, on a light and on a dark background.

python tools/screenshots.py outputs/train/<run>/report.html docs/report        # docs/report.png, docs/report_dark.png
python tools/screenshots.py outputs/train/<run>/report.html docs/confusion --width 900 --element '#confusion'
python tools/screenshots.py 'http://127.0.0.1:6006/?smoothing=0' docs/tensorboard --click 'button:has-text("Settings")'
"""

import argparse
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SCRIPTS = Path(__file__).parents[1] / "scripts"
# WebGL without a graphics card, for TensorBoard's curves.
FLAGS = ("--no-sandbox", "--disable-quic", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("page", help="an address, or a file")
    parser.add_argument("output", help="the pictures' path, without .png")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=800, help="(default: %(default)s)")
    parser.add_argument("--click", action="append", default=[], help="what to click on first, as a selector")
    parser.add_argument("--element", help="what to show, as a selector (default: the window)")
    parser.add_argument("--wait", type=float, default=5, help="seconds before the picture (default: %(default)s)")
    given = parser.parse_args()
    address = Path(given.page).resolve().as_uri() if Path(given.page).is_file() else given.page
    found = subprocess.run(
        ["sh", SCRIPTS / "chromium.sh", sys.executable], stdout=subprocess.PIPE, text=True, check=True
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.stdout.strip(), args=FLAGS)
        for is_dark, ending in ((False, ""), (True, "_dark")):
            page = browser.new_page(
                viewport={"width": given.width, "height": given.height}, color_scheme="dark" if is_dark else "light"
            )
            page.goto(address)
            for selector in given.click:
                page.locator(selector).first.click()
            page.wait_for_timeout(1000 * given.wait)
            shown = page.locator(given.element) if given.element else page
            shown.screenshot(path=f"{given.output}{ending}.png")
        browser.close()


if __name__ == "__main__":
    main()
