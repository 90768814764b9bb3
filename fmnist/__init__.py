"""Image classification with PyTorch Lightning and Hydra, on Fashion-MNIST first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `import fmnist` takes no time
    from collections.abc import Sequence
    from pathlib import Path

    from fmnist.predict.model import Model
    from fmnist.runs.run import Run


def train(overrides: Sequence[str] = ()) -> Run:
    """Train a classifier in this process, as `train.py` does, and return its run.

    Nothing but the run folder is left behind: random numbers, log handlers, the environment and Hydra are as before.

    Args:
        overrides: what would stand on the command line: ["optimizer=sgd", "model.dropout=0.4"].

    Raises:
        ValueError: in one line, if an override asks for something impossible.
        KeyboardInterrupt: if the training was interrupted; resume=<run folder> resumes it.
    """
    from fmnist.config.in_process import composed, state_kept

    with state_kept(), composed("train", overrides) as (cfg, settings):
        from fmnist.run_training import find_run

        run, training = find_run(cfg, settings)
        training()
    assert run is not None  # as it is in all processes but those that torchrun and srun start
    return run


def load(run: str | Path | Run, accelerator: str = "auto") -> Model:
    """Return the trained network of a run, which classifies images of any kind and size.

    Args:
        run: a run, its folder or any path in it, "latest", or a checkpoint file (.ckpt).
        accelerator: "auto", "cpu", "gpu", ...

    Raises:
        ValueError: if there is no such run or checkpoint, or it can't be restored.
    """
    from fmnist.predict import model

    return model.load(run, accelerator)
