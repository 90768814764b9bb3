"""Measure the recipes again, and write the tables of docs/ and README.md.

python tools/measure_recipes.py recipes --recipes fast_92,cpu_95 --seeds 10
"""

import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # `tools` isn't installed

from tools.arguments import Parser, exit_status, names, positive  # noqa: E402

WHAT = {
    "recipes": "train on all images and test (the default)",
    "ablations": "train recipes and their variants on 55,000 images, and measure them on the other 5,000",
    "tta": "evaluate the networks of the recipes with test-time augmentation and together",
    "tables": "only write the tables",
}


def parse(arguments: Sequence[str]) -> Namespace:
    """Return the arguments of the command line."""
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    listed = "; ".join(f"{name}: {text}" for name, text in WHAT.items())
    parser.add_argument("what", nargs="?", choices=WHAT, default="recipes", help=listed)
    parser.add_argument("--recipes", type=names, help="some of the recipes: fast_92,cpu_95 (default: all)")
    parser.add_argument("--seeds", type=positive, help="how many, from 0 on (default: as recipes.yaml says)")
    parser.add_argument("--again", action="store_true", help="measure again what has a row of this machine")
    folders = parser.add_argument_group("files")
    folders.add_argument("--data", type=Path, default=Path("data"), help="the folder of the data")
    folders.add_argument("--outputs", type=Path, default=Path("outputs/results"), help="the runs go there, and stay")
    folders.add_argument("--catalogue", type=Path, default=ROOT / "tools" / "recipes.yaml")
    folders.add_argument("--csv", type=Path, default=ROOT / "docs" / "results.csv", help="what has been measured")
    pages = [ROOT / "docs" / "results.md", ROOT / "docs" / "lab_notes.md", ROOT / "README.md"]
    folders.add_argument("--pages", type=Path, nargs="+", default=pages, help="have the tables")
    parser.add_argument("--val-size", type=positive, default=5000, help="images that ablations are measured on")
    parser.add_argument("--tutorial-steps", type=positive, default=200, help="that a tutorial epoch is measured by")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Make the trainings that have no row of this machine yet; each row and the tables are written at once.

    Raises:
        ValueError: if an argument isn't allowed, before anything is measured; or a training fails.
    """
    given = parse(arguments)

    from fmnist.config import logs
    from tools.results.measure import Measurement

    logs.to_terminal(errors_only=True)
    measurement = Measurement(given)
    measurement.pages()  # which shows what is wrong with them before anything is measured
    if given.what == "tta":
        measurement.evaluate()
    elif given.what != "tables":
        measurement.train()
    measurement.write_pages()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the training ends as well
    sys.exit(exit_status(main, sys.argv[1:]))
