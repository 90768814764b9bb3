"""Kill runs at random moments, resume them, and compare the results with those of a run that was never killed.

    python tests/kills.py FOLDER [--trials 5] [--most 1] [--seed 0]

Prints the number of trials and the lost ones as JSON. Weights, random states and curves have to be equal to the last
bit, metrics.csv and metrics.json in everything but times. Every second run averages its weights.
"""

import argparse
import csv
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import forks
import synthetic
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.runs import checkpoints
from fmnist.runs.run import Run

WORDS = [
    "data=idx",
    "data.val_size=100",
    "data.batch_size=25",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=4",
    "trainer.log_every_n_steps=3",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    "model.channels=[4,8]",
    "model.dropout=0.3",
    "augment=flip_shift",
    "checkpoint_every_n_steps=3",
    "pictures.weights=true",
    "pictures.graph=false",
    "pictures.embedding=20",
    "report=false",
]
AVERAGED = ("current_model_state", "averaging_state")  # in checkpoints of runs that average their weights
STATES = ("state_dict", *AVERAGED, "optimizer_states", "lr_schedulers", "global_step", "epoch")


def differences(run: Path, expected: Path) -> list[str]:
    """Return the names of what differs between two run folders."""
    found = [f"left behind: {path.name}" for path in run.rglob(".*") if path.is_file()]
    for name in ("best.ckpt", "last.ckpt"):
        a, b = (checkpoints.load(folder / "checkpoints" / name) for folder in (run, expected))
        found += [f"{name}: {key}" for key in STATES if not equal(a.get(key), b.get(key))]
        if not equal(random_states(a), random_states(b)):
            found.append(f"{name}: random states")
    for name in ("metrics.csv", "metrics.json"):
        if untimed_rows(run / name) != untimed_rows(expected / name):
            found.append(name)
    ours, theirs = curves(run), curves(expected)
    return found + [f"curve {name}" for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]


def equal(a: Any, b: Any) -> bool:
    """Return whether two values are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def random_states(checkpoint: dict[str, Any]) -> Any:
    return next(value for name, value in checkpoint["callbacks"].items() if name.startswith("RandomStates"))


def untimed_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.csv, or the only one of metrics.json, without times."""
    with file.open() as lines:
        rows = csv.DictReader(lines) if file.suffix == ".csv" else [json.load(lines)]
        return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points (step, value) of each curve, in the order in which TensorBoard reads them."""
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    shown.Reload()
    names = [name for name in shown.Tags()["scalars"] if "second" not in name]
    return {name: [(event.step, event.value) for event in shown.Scalars(name)] for name in names}


def killed(folder: Path, words: list[str], seconds: float, kills: int, draw: random.Random) -> Path:
    """Return the folder of a run that is killed and resumed `kills` times, each within `seconds`, and then finished."""
    outputs, log = folder / "outputs", folder / "output.txt"
    folder.mkdir()
    start = [*words, f"outputs={outputs}"]
    command = start
    for _ in range(kills):
        if forks.train(command, log, draw.uniform(0, seconds)) == 0:
            break  # it was faster
        found = [config.parent for config in outputs.glob("*/*/config.yaml")]
        if found and Run(found[0]).status == "finished":
            Run(found[0]).lock_file.unlink(missing_ok=True)  # it only hadn't ended yet
            break
        command = [f"resume={found[0]}"] if found else start
    else:
        if status := forks.train(command, log):
            raise RuntimeError(f"exit status {status}: {log.read_text()[-2000:]}")
    (config,) = outputs.glob("*/*/config.yaml")
    return config.parent


def main(folder: Path, trials: int, most: int, seed: int) -> int:
    torch.set_num_threads(1)
    draw = random.Random(seed)
    words = [*WORDS, f"data.root={synthetic.write(folder / 'data')}"]
    started = time.monotonic()
    kinds = [words, [*words, "callbacks=ema"]]
    expected = [killed(folder / f"untouched_{kind}", kinds[kind], 0, 0, draw) for kind in range(len(kinds))]
    seconds = (time.monotonic() - started) / len(kinds)
    lost = {}
    for trial in range(trials):
        kind = trial % len(kinds)
        try:
            run = killed(folder / str(trial), kinds[kind], seconds, draw.randint(1, most), draw)
            if found := differences(run, expected[kind]):
                lost[trial] = ", ".join(found)
        except Exception as error:
            lost[trial] = f"{type(error).__name__}: {error}"
    print(json.dumps({"tried": trials, "seconds": round(seconds, 2), "lost": lost}))
    return 1 if lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--most", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(main(given.folder, given.trials, given.most, given.seed))
