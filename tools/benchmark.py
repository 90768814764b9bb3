"""Measure the speed of the parts against what they replace, on the CPU.

python tools/benchmark.py input training --repetitions 9
"""

import atexit
import gc
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # `tools` isn't installed

from tools.arguments import Parser, exit_status, positive

BENCHMARKS = {
    "input": "batches by index, against the image-by-image DataLoader",
    "training": "Lightning here and alone, against the tutorials' loop and a plain PyTorch loop",
    "arithmetic": "FLOP/s of training steps, against a matrix product",
    "start": "whole processes: seconds until they train, and memory",
    "evaluation": "validation and test, predictions",
}


def main(arguments: Sequence[str]) -> None:
    """Print a table for each benchmark as soon as it is measured, and write all values as JSON.

    Raises:
        ValueError: if an argument isn't allowed, before anything is measured.
    """
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    listed = "; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items())
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"default: all. {listed}")
    parser.add_argument("--repetitions", type=positive, default=3, help="the medians count (default: %(default)s)")
    parser.add_argument("--images", type=positive, default=10_000, help="of each training (default: %(default)s)")
    parser.add_argument("--networks", nargs="+", default=[], help="each the overrides of a training in quotes")
    parser.add_argument("--overrides", nargs="+", default=[], help="further overrides of every training")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of the data (default: %(default)s)")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="benchmark/<date>.json goes there")
    given = parser.parse_args(arguments)
    for name in given.benchmarks:
        if name not in BENCHMARKS:
            parser.error(f"{name}: there is no such benchmark; there are {', '.join(BENCHMARKS)}")

    from fmnist.config import logs
    from fmnist.runs import provenance
    from fmnist.runs.files import write_json
    from tools.benchmarks.comparison import Options
    from tools.benchmarks.training import count_batches
    from tools.trainings import open_training

    logs.to_terminal(errors_only=True)
    networks, overrides = tuple(given.networks), tuple(given.overrides)
    options = Options(given.repetitions, given.images, given.data, networks, overrides)
    for network in networks or ("",):  # invalid values show before anything is measured
        with open_training(*options.overrides_of(network)) as training:
            count_batches(training, options.images)
    atexit.register(gc.unfreeze)
    gc.freeze()  # as scripts/train.py does: a collection would look through all modules, for most of a second
    results: dict[str, Any] = provenance.environment()
    file = given.outputs / "benchmark" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    for name in given.benchmarks or BENCHMARKS:
        for comparison in import_module(f"tools.benchmarks.{name}").compare(options):
            results.setdefault(name, []).append(comparison.to_dict())
            print(comparison.table(), end="\n\n", flush=True)
            write_json(file, results)
    print(file)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the process that is measured ends as well
    sys.exit(exit_status(main, sys.argv[1:]))
