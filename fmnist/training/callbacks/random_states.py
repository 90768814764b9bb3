"""Random numbers that continue where a checkpoint left them."""

import logging
import random
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fmnist.training.distributed import gather

log = logging.getLogger(__name__)


class RandomStates(Callback):
    """Keeps torch's random states (dropout, augmentation) in the checkpoints and restores them on resuming.

    Each of several processes has random numbers of its own. Where another number of processes resumes a run, they are
    drawn anew, from the seed, the step and the rank.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._world_size = 1
        self._restored: list[dict[str, Any]] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._world_size = trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        state = {"cpu": torch.get_rng_state(), "cuda": cuda}
        return {"ranks": gather(state) if self._world_size > 1 else [state]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict["ranks"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not before: setting up a training draws random numbers too.
        restored, self._restored = self._restored, None
        if restored is not None and len(restored) == self._world_size:
            state = restored[trainer.global_rank]
            torch.set_rng_state(state["cpu"].cpu())
            if state["cuda"] is not None and torch.cuda.is_initialized():
                torch.cuda.set_rng_state(state["cuda"].cpu())
        elif restored is not None or self._world_size > 1:
            if restored is not None:
                log.info("random numbers are drawn anew: %d processes now, %d before", self._world_size, len(restored))
            # Neighbouring seeds need not give independent numbers; the hash of a text is far from its neighbour's.
            torch.manual_seed(random.Random(f"{self.seed} {trainer.global_step} {trainer.global_rank}").getrandbits(63))
