"""The Trainer of the config, on the machine that there is."""

import contextlib
import copy
import ctypes
import inspect
import json
import os
import sys
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, MinLen
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import LayerSync, TorchSyncBatchNorm
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from omegaconf import DictConfig, ListConfig
from torch import nn

from fmnist.config.instantiate import build
from fmnist.config.validation import check_arguments
from fmnist.training.sync_batch_norm import synced

GPU = ("auto", "gpu", "cuda")
"""Accelerators that are a GPU where there is one."""
PROCESSES_A_CORE = 4  # more would only be in each other's way
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's names, malloc.h
KEPT_BYTES = 2**26
Count = Annotated[int, Ge(1)]
Share = Annotated[int, Gt(0)] | Annotated[float, Gt(0), Le(1)]
"""Of the batches: that many of them, or that share."""


def build_trainer(
    node: DictConfig, *, progress: bool, checkpoint_io: CheckpointIO | None = None, **parts: Any
) -> Trainer:
    """The Trainer of the config, with the callbacks and loggers of the run.

    Raises:
        ValueError: also if the machine hasn't got what it asks for.
    """
    bounded = inspect.signature(trainer_bounds).parameters
    check_arguments("trainer", trainer_bounds, {name: node[name] for name in bounded if name in node})
    node = copy.deepcopy(node)
    node.enable_progress_bar = progress
    if node.precision == "auto":
        node.precision = hardware_precision(node.accelerator)
    if node.max_epochs in (None, -1) and node.max_steps == -1:
        raise ValueError(
            f"trainer.max_epochs={json.dumps(node.max_epochs)}: the schedule needs an end: give it or trainer.max_steps"
        )
    strategy = choose_strategy(node)
    del node.strategy
    cuda = node.accelerator in GPU and torch.cuda.is_available()
    prepare_process()
    if node.profiler is None:
        parts["profiler"] = NoProfiler()
        del node.profiler
    synced = [TorchSyncBatchNorm() if cuda else SyncedBatchNorms()] if isinstance(strategy, Strategy) else []
    ours: dict[str, Any] = {
        "enable_model_summary": False,
        # The untrained network is measured before training, which shows whether validation runs.
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the batches come in parts already
        "strategy": strategy,
        # Whoever has started the processes, fmnist.training.ranks tells Lightning their places.
        "plugins": [*([checkpoint_io] if checkpoint_io else []), LightningEnvironment(), *synced],
    }
    trainer: Trainer = build("trainer", node, Trainer, **ours, **parts)
    return trainer


def choose_strategy(node: DictConfig) -> Strategy | Literal["auto"]:
    """How the processes that the config asks for work together; "auto" where there is one.

    Raises:
        ValueError: if the hardware isn't one for it.
    """
    cuda = torch.cuda.is_available()
    if node.accelerator == "cpu" or (node.accelerator == "auto" and not cuda):
        most = PROCESSES_A_CORE * (os.cpu_count() or 1)
        if isinstance(node.devices, int) and node.devices > most:
            raise ValueError(f"trainer.devices={node.devices}: it should be at most {most}, four to each core")
        if node.strategy == "fsdp":
            raise ValueError("trainer.strategy=fsdp: it needs GPUs (trainer.accelerator=gpu)")
    if node.devices in ("auto", -1):
        devices = torch.cuda.device_count()
    else:
        devices = len(node.devices) if isinstance(node.devices, ListConfig) else node.devices
    if node.num_nodes * devices <= 1:
        return "auto"
    if node.strategy == "fsdp":
        return FSDPStrategy(state_dict_type="full")  # one file with the names of one process
    # Buffers are equal already: statistics of batch norm come from all processes.
    return DDPStrategy(forward_sync_buffers=False)


def prepare_process() -> None:
    """Settings of this process that a training on the CPU is faster with."""
    if not torch.cuda.is_available():
        # Lightning sets it, which makes each look for a GPU search for a driver, and Adam looks in each step: 0.15 ms.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    # The C library gives large tensors back to the system and gets them again, cleared, in each step. If it may keep
    # them, up to 64 MiB, the default network's step is 1.1 times as fast (2 cores).
    keep = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if keep is not None:
        keep(M_MMAP_THRESHOLD, KEPT_BYTES)
        keep(M_TRIM_THRESHOLD, KEPT_BYTES)


class NoProfiler(PassThroughProfiler):
    """Lightning's own makes a context of its own for each hook of each callback: 60 µs of each step."""

    _NOTHING = contextlib.nullcontext()

    def profile(self, action_name: str) -> contextlib.nullcontext[None]:  # type: ignore[override]
        return self._NOTHING


class SyncedBatchNorms(LayerSync):
    """Lets the batch norms of a network see the images of all processes, as torch's own can't without a GPU."""

    def apply(self, model: nn.Module) -> nn.Module:
        return synced(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Leaves them: in a process of its own they are batch norms."""
        return model


def trainer_bounds(
    devices: Count | Literal[-1, "auto"] | Annotated[list[Annotated[int, Ge(0)]], MinLen(1)],
    num_nodes: Count,
    strategy: Literal["auto", "ddp", "fsdp"],
    max_epochs: Count | Literal[-1] | None,
    max_steps: Count | Literal[-1],
    accumulate_grad_batches: Count,
    check_val_every_n_epoch: Count | None,
    log_every_n_steps: Count,
    limit_train_batches: Share,
    limit_val_batches: Share,
    limit_test_batches: Share,
    gradient_clip_val: Annotated[float, Ge(0)] | None,
    enable_progress_bar: bool,
) -> None:
    """What the Trainer would take and then fail with, or train nothing."""


def build_evaluation_trainer(cfg: DictConfig) -> Trainer:
    """The same device, precision and limits, for measuring in one process: it logs and keeps nothing."""
    node = copy.deepcopy(cfg.trainer)
    node.profiler = None
    node.devices = list(node.devices)[:1] if isinstance(node.devices, ListConfig) else 1
    node.num_nodes, node.strategy = 1, "auto"
    return build_trainer(node, progress=False, callbacks=[], logger=False, enable_checkpointing=False)


def hardware_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware computes in it, otherwise 32-true."""
    cuda = accelerator in GPU and torch.cuda.is_available()
    if cuda:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = accelerator in ("auto", "cpu") and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"
