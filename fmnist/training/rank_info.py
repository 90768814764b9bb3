"""The place of this process among those of a run, as whoever started it says in its environment.

Nothing heavy is imported here: the command line asks before anything else happens.
"""

import os
import socket
from dataclasses import dataclass
from typing import Literal

Launcher = Literal["user", "fmnist", "torchrun", "srun"]
SRUN = (
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS"),
    *("SLURM_NODEID", "SLURM_LOCALID"),
)
"""Set in the tasks of srun, and not in a batch script or a shell of salloc."""
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""Set by torchrun, which sets others, too, and by launchers of which nothing is known here."""
OWN_LAUNCHER = "FMNIST_LAUNCHED"
"""Set in the processes that `fmnist.training.distributed.launch` starts."""


@dataclass(frozen=True)
class RankInfo:
    """One of `world_size` processes on `num_nodes` machines, each with as many."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    node_rank: int = 0
    num_nodes: int = 1
    launcher: Launcher = "user"
    restarts: int = 0
    """How often the launcher has started the processes again."""
    job: str | None = None
    """Names the launch, the same before and after a restart."""

    @property
    def external(self) -> bool:
        """Whether torchrun or srun has started several processes."""
        return self.world_size > 1 and self.launcher in ("torchrun", "srun")


def find_rank() -> RankInfo:
    """Return the place of this process; a process that no launcher has started is alone."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        # Not WORLD_SIZE, which Lightning removes after a training.
        names = ("RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")
        rank, local_world_size, local_rank, node_rank, num_nodes = (int(environment[name]) for name in names)
        run_id = environment["TORCHELASTIC_RUN_ID"]
        return RankInfo(
            rank,
            local_world_size * num_nodes,
            local_rank,
            node_rank,
            num_nodes,
            launcher="fmnist" if OWN_LAUNCHER in environment else "torchrun",
            restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
            # torchrun's default id is "none" for all launches: then its process tells them apart.
            job=run_id if run_id != "none" else f"{socket.gethostname()} {os.getppid()}",
        )
    size = int(environment["SLURM_STEP_NUM_TASKS"]) if all(name in environment for name in SRUN) else 1
    if size > 1:
        num_nodes, node_rank = int(environment["SLURM_STEP_NUM_NODES"]), int(environment["SLURM_NODEID"])
        local_rank = int(environment["SLURM_LOCALID"])
        # Not SLURM_PROCID, which may count across the machines first (--distribution=cyclic).
        rank = node_rank * (size // num_nodes) + local_rank
        return RankInfo(rank, size, local_rank, node_rank, num_nodes, launcher="srun")
    return RankInfo()


def leave_others() -> None:
    """Let this process be alone from now on, though srun has started others: each of them is a run of its own."""
    if find_rank().launcher == "srun":
        del os.environ["SLURM_STEP_NUM_TASKS"]


def check_processes(devices: int, num_nodes: int) -> None:
    """Refuse devices and nodes that don't fit the processes that were started.

    Raises:
        ValueError: naming the keys and what they must be.
    """
    rank = find_rank()
    asked = f"trainer.devices={devices} trainer.num_nodes={num_nodes}"
    if rank.launcher in ("torchrun", "srun"):
        if (devices * num_nodes, num_nodes) != (rank.world_size, rank.num_nodes):
            fitting = f"trainer.devices={rank.world_size // rank.num_nodes} trainer.num_nodes={rank.num_nodes}"
            raise ValueError(f"{asked}: {rank.launcher} has started {rank.world_size} processes, which is {fitting}")
    elif num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={num_nodes}: torchrun or srun must start the run on each machine: docs/scale.md"
        )
    elif rank.launcher == "user" and devices > 1 and (found := [name for name in RANKS if name in os.environ]):
        values = " ".join(f"{name}={os.environ[name]}" for name in found)
        raise ValueError(
            f"{asked}: the environment has {values}, which torchrun hasn't set: start the run by torchrun or srun "
            f"(docs/scale.md), or type: unset {' '.join(found)}"
        )


def check_sweep(processes: int = 1) -> None:
    """Refuse a sweep that several processes would each run, or whose jobs have several processes.

    Args:
        processes: of each job.

    Raises:
        ValueError: saying what to do instead.
    """
    rank = find_rank()
    if rank.external:
        raise ValueError(f"--multirun: each of the {rank.world_size} processes of {rank.launcher} would run all jobs")
    if processes > 1:
        raise ValueError(
            f"--multirun: a job of {processes} processes can't be part of a sweep: give each job one device "
            "(trainer.devices=1), or start the jobs one after the other, in a loop of the shell"
        )
