"""The Trainer of the config, on the machine that there is."""

import copy
import inspect
import json
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from fmnist.arguments import check_arguments
from fmnist.build.nodes import build
from fmnist.checkpoints import WholeCheckpointIO

Count = Annotated[int, Ge(1)]
Share = Annotated[int, Gt(0)] | Annotated[float, Gt(0), Le(1)]
"""Of the batches: that many of them, or that share."""


def build_trainer(node: DictConfig, *, progress: bool, **parts: Any) -> Trainer:
    """The Trainer of the config, with the callbacks and loggers of the run.

    Raises:
        ValueError: also if the machine hasn't got what it asks for.
    """
    node = copy.deepcopy(node)
    node.enable_progress_bar = progress
    bounded = inspect.signature(trainer_bounds).parameters
    check_arguments("trainer", trainer_bounds, {name: node[name] for name in bounded if name in node})
    if node.precision == "auto":
        node.precision = hardware_precision(node.accelerator)
    if node.max_epochs in (None, -1) and node.max_steps == -1:
        raise ValueError(
            f"trainer.max_epochs={json.dumps(node.max_epochs)}: the schedule needs an end: give it or trainer.max_steps"
        )
    # The untrained network is measured before training, which shows whether validation runs.
    ours: dict[str, Any] = {"enable_model_summary": False, "num_sanity_val_steps": 0, "plugins": [WholeCheckpointIO()]}
    trainer: Trainer = build("trainer", node, Trainer, **ours, **parts)
    if trainer.world_size > 1:
        raise ValueError(f"trainer.devices={node.devices}: only one device can be used")
    return trainer


def trainer_bounds(
    max_epochs: Count | Literal[-1] | None,
    max_steps: Count | Literal[-1],
    accumulate_grad_batches: Count,
    check_val_every_n_epoch: Count | None,
    log_every_n_steps: Count,
    limit_train_batches: Share,
    limit_val_batches: Share,
    limit_test_batches: Share,
) -> None:
    """What the Trainer would take and then fail with, or train nothing."""


def build_measuring_trainer(cfg: DictConfig) -> Trainer:
    """The same device, precision and limits, for measuring alone: it logs and keeps nothing."""
    node = copy.deepcopy(cfg.trainer)
    node.profiler = None
    return build_trainer(node, progress=False, callbacks=[], logger=False, enable_checkpointing=False)


def hardware_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware computes in it, otherwise 32-true."""
    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if cuda:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = accelerator in ("auto", "cpu") and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"
