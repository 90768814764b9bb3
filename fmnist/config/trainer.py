"""The Trainer of the config, on the machine that there is."""

import copy
import json
import os
from typing import Any, Literal

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import LayerSync, TorchSyncBatchNorm
from lightning.pytorch.strategies import Strategy
from omegaconf import DictConfig, ListConfig
from torch import nn

from fmnist.config.instantiate import build
from fmnist.config.keys import TrainerKeys
from fmnist.config.validation import check_arguments
from fmnist.training.precision import BFloat16MixedPrecision
from fmnist.training.rank_info import RankInfo, check_processes, find_rank, leave_others
from fmnist.training.speed import NoProfiler, prepare_process
from fmnist.training.srun import open_store
from fmnist.training.strategies import WeightedDDPStrategy, WeightedFSDPStrategy
from fmnist.training.sync_batch_norm import synced

GPU = ("auto", "gpu", "cuda")
"""Accelerators that are a GPU where there is one."""
PROCESSES_A_CORE = 4  # more would only slow each other down


def build_trainer(
    node: DictConfig, *, progress: bool, checkpoint_io: CheckpointIO | None = None, **parts: Any
) -> Trainer:
    """Build the Trainer of the config, with the callbacks and loggers of the run.

    Raises:
        ValueError: naming the key, also if the machine lacks what it asks for.
    """
    bounded = TrainerKeys.__dataclass_fields__
    check_arguments("trainer", TrainerKeys, {name: node[name] for name in bounded if name in node})
    node = copy.deepcopy(node)
    node.enable_progress_bar = progress
    if node.precision == "auto":
        node.precision = hardware_precision(node.accelerator)
    if node.max_epochs in (None, -1) and node.max_steps == -1:
        raise ValueError(
            f"trainer.max_epochs={json.dumps(node.max_epochs)}: the schedule needs an end: set it, or trainer.max_steps"
        )
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not {"gpu": any(here.values()), **here}.get(node.accelerator, True):
        raise ValueError(
            f"trainer.accelerator={node.accelerator}: torch finds no GPU on this machine; trainer=cpu needs none"
        )
    strategy = choose_strategy(node)
    del node.strategy
    cuda = node.accelerator in GPU and torch.cuda.is_available()
    prepare_process()
    plugins: list[Any] = [RunEnvironment()]
    if checkpoint_io:
        plugins.append(checkpoint_io)
    if isinstance(strategy, Strategy):
        plugins.append(TorchSyncBatchNorm() if cuda else SyncedBatchNorms())
    device = "cuda" if cuda else "cpu" if node.accelerator in ("auto", "cpu") else None
    if node.precision == "bf16-mixed" and node.gradient_clip_val and device:
        plugins.append(BFloat16MixedPrecision(device))
        del node.precision
    if node.profiler is None:
        parts["profiler"] = NoProfiler()
        del node.profiler
    ours: dict[str, Any] = {
        "enable_model_summary": False,
        # The untrained network is measured before training, which shows whether validation runs.
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the batches come in parts already
        "strategy": strategy,
        "plugins": plugins,
    }
    trainer: Trainer = build("trainer", node, Trainer, **ours, **parts)
    # With max_steps Lightning would end the last epoch of a resumed training a second time.
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    return trainer


def choose_strategy(node: DictConfig) -> Strategy | Literal["auto"]:
    """Return the strategy of the processes that the config asks for; "auto" where there is one.

    Raises:
        ValueError: if the hardware doesn't allow it.
    """
    cuda = torch.cuda.is_available()
    if node.accelerator == "cpu" or (node.accelerator == "auto" and not cuda):
        most = PROCESSES_A_CORE * (os.cpu_count() or 1)
        if isinstance(node.devices, int) and node.devices > most:
            raise ValueError(f"trainer.devices={node.devices}: must be at most {most}, four for each core")
        if node.strategy == "fsdp":
            raise ValueError("trainer.strategy=fsdp: needs GPUs (trainer.accelerator=gpu)")
    if node.num_nodes * count_devices(node) <= 1:
        return "auto"
    if node.strategy == "fsdp":
        return WeightedFSDPStrategy(state_dict_type="full")  # one file with the names of one process
    # Buffers are equal already: statistics of batch norm come from all processes.
    return WeightedDDPStrategy(forward_sync_buffers=False)


def count_devices(node: DictConfig) -> int:
    """Return how many devices of a machine the config asks for."""
    if node.devices in ("auto", -1):
        return torch.cuda.device_count()
    return len(node.devices) if isinstance(node.devices, ListConfig) else int(node.devices)


def find_place(trainer: DictConfig) -> RankInfo:
    """Return the place of this process in a run with a trainer's config, before anything waits for the other processes.

    Where one process is asked for, it is alone, also as one of several tasks of srun.

    Raises:
        ValueError: if other processes were started than it asks for.
    """
    devices, num_nodes = trainer.devices, trainer.num_nodes
    if num_nodes == 1 and (devices == 1 or (isinstance(devices, ListConfig) and len(devices) == 1)):
        leave_others()
    rank = find_rank()
    if rank.external:
        check_arguments("trainer", TrainerKeys, {"devices": devices, "num_nodes": num_nodes})
        check_processes(count_devices(trainer), num_nodes)
        if rank.launcher == "srun" and rank.rank == 0:
            open_store(rank)  # so that the others notice if this process ends before it trains
    return rank


class RunEnvironment(LightningEnvironment):
    """Tells Lightning the place of this process, which it would read from variables that any launcher may have left."""

    def __init__(self) -> None:
        super().__init__()
        self.set_global_rank(find_rank().rank)

    @property
    def creates_processes_externally(self) -> bool:
        return find_rank().world_size > 1

    def local_rank(self) -> int:
        return find_rank().local_rank

    def node_rank(self) -> int:
        return find_rank().node_rank


class SyncedBatchNorms(LayerSync):
    """Replaces batch norms by ones over the images of all processes; torch's own need a GPU."""

    def apply(self, model: nn.Module) -> nn.Module:
        return synced(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model as it is: in a single process they are batch norms."""
        return model


def build_evaluation_trainer(cfg: DictConfig) -> Trainer:
    """Build a Trainer of the same device, precision and limits for one process, which logs and keeps nothing."""
    node = copy.deepcopy(cfg.trainer)
    node.profiler = None
    node.devices = list(node.devices)[:1] if isinstance(node.devices, ListConfig) else 1
    node.num_nodes, node.strategy = 1, "auto"
    return build_trainer(node, progress=False, callbacks=[], logger=False, enable_checkpointing=False)


def hardware_precision(accelerator: str) -> str:
    """Return bf16-mixed where the hardware computes in it, otherwise 32-true."""
    cuda = accelerator in GPU and torch.cuda.is_available()
    if cuda:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = accelerator in ("auto", "cpu") and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"
