"""Kills runs at random moments, lets them go on, and compares what comes out with a run that was never touched.

    python tests/kills.py FOLDER [--trials 5] [--most 1] [--seed 0]

Prints what was tried and lost as JSON. Weights, random states and curves have to be equal to the last bit; the table of
the epochs and metrics.json in everything but times. Every second run averages its weights.
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

WORDS = [
    "data=folder",
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
TIMED = ("second",)  # what of names of columns and curves depends on the clock


def differences(one: Path, other: Path) -> list[str]:
    """What of two run folders isn't the same."""
    found = []
    for name in ("best.ckpt", "last.ckpt"):
        a, b = (checkpoints.load(folder / "checkpoints" / name) for folder in (one, other))
        for key in ("state_dict", *AVERAGED, "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            if not same(a.get(key), b.get(key)):
                found.append(f"{name}: {key}")
        if not same(states(a, "RandomStates"), states(b, "RandomStates")):
            found.append(f"{name}: random states")
    tables = [untimed_table(folder / "metrics.csv") for folder in (one, other)]
    if tables[0] != tables[1]:
        found.append("metrics.csv")
    metrics = [
        {key: value for key, value in json.loads((folder / "metrics.json").read_text()).items() if untimed(key)}
        for folder in (one, other)
    ]
    if metrics[0] != metrics[1]:
        found.append("metrics.json")
    ours, theirs = curves(one), curves(other)
    found += [f"curve {name}" for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    halves = [path.name for path in one.rglob(".*") if path.is_file()]
    return found + [f"left behind: {name}" for name in halves]


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def states(checkpoint: dict[str, Any], callback: str) -> Any:
    return next(value for name, value in checkpoint["callbacks"].items() if name.startswith(callback))


def untimed(name: str) -> bool:
    return not any(word in name for word in TIMED)


def untimed_table(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return [{name: value for name, value in row.items() if untimed(name)} for row in csv.DictReader(lines)]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each curve, in the order in which TensorBoard reads them."""
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    shown.Reload()
    names = filter(untimed, shown.Tags()["scalars"])
    return {name: [(event.step, event.value) for event in shown.Scalars(name)] for name in names}


def killed(folder: Path, words: list[str], seconds: float, kills: int, draw: random.Random) -> Path:
    """The folder of a run that was killed that often, each time it had gone on, and then ended by itself."""
    outputs = folder / "outputs"
    log = folder / "output.txt"
    folder.mkdir()
    begin = [*words, f"outputs={outputs}"]
    todo = begin
    for _ in range(kills):
        if forks.train(todo, log, draw.uniform(0, seconds)) == 0:
            break  # it was faster
        found = [config.parent for config in outputs.glob("*/*/config.yaml")]
        if found and finished(found[0]):
            break  # it only hadn't left yet
        todo = [f"resume={found[0]}"] if found else begin
    else:
        if status := forks.train(todo, log):
            raise RuntimeError(f"exit status {status}: {log.read_text()[-2000:]}")
    (config,) = outputs.glob("*/*/config.yaml")
    return config.parent


def finished(run: Path) -> bool:
    record = run / "run.json"
    return record.is_file() and json.loads(record.read_text()).get("status") == "finished"


def main(folder: Path, trials: int, most: int, seed: int) -> int:
    torch.set_num_threads(1)
    draw = random.Random(seed)
    words = [*WORDS, f"data.root={synthetic.write(folder / 'data')}"]
    begun = time.monotonic()
    kinds = [words, [*words, "callbacks=ema"]]
    untouched = [killed(folder / f"untouched_{kind}", kinds[kind], 0, 0, draw) for kind in range(len(kinds))]
    seconds = (time.monotonic() - begun) / len(kinds)
    lost = {}
    for trial in range(trials):
        kind = trial % len(kinds)
        try:
            run = killed(folder / str(trial), kinds[kind], seconds, draw.randint(1, most), draw)
            if found := differences(run, untouched[kind]):
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
