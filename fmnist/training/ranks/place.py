"""Where this process stands among those of its run, as whoever started it says in its environment.

Nothing heavy is imported here, as the command line asks before anything else happens.
"""

import os
from dataclasses import dataclass
from typing import Literal

CHILD = "FMNIST_RANK"
"""Set by rank zero for the processes that it starts: rank and number of processes."""

Starter = Literal["a person", "rank zero", "torchrun", "srun"]


@dataclass(frozen=True)
class Place:
    """One of `size` processes on `nodes` machines, each with as many."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: int = 0
    nodes: int = 1
    started_by: Starter = "a person"

    @property
    def external(self) -> bool:
        """Whether torchrun or srun has started all processes of the run."""
        return self.size > 1 and self.started_by in ("torchrun", "srun")


def find_place() -> Place:
    """This process's place; a process that nobody says anything about is alone, until it starts others."""
    if CHILD in os.environ:
        rank, size = (int(part) for part in os.environ[CHILD].split("/"))
        return Place(rank, size, local_rank=rank, started_by="rank zero")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Not WORLD_SIZE, which Lightning takes away after a training.
        names = ("RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")
        rank, local_size, local_rank, node, nodes = (int(os.environ[name]) for name in names)
        return Place(rank, local_size * nodes, local_rank, node, nodes, "torchrun")
    # In a batch script outside of srun, SLURM's variables are of the one process that runs the script.
    size = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) if "SLURM_STEP_ID" in os.environ else 1
    if size > 1:
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
        node, local_rank = int(os.environ["SLURM_NODEID"]), int(os.environ["SLURM_LOCALID"])
        # Not SLURM_PROCID, which may count across the machines first (--distribution=cyclic).
        return Place(node * (size // nodes) + local_rank, size, local_rank, node, nodes, "srun")
    return Place()


def check_processes(devices: int, nodes: int) -> None:
    """Refuses what the Trainer is asked for if other processes were started for it, or can't be.

    Raises:
        ValueError: naming the keys and what they should be.
    """
    place = find_place()
    asked = f"trainer.devices={devices} trainer.num_nodes={nodes}"
    if place.external or place.started_by == "torchrun":
        if (devices * nodes, nodes) != (place.size, place.nodes):
            fitting = f"trainer.devices={place.size // place.nodes} trainer.num_nodes={place.nodes}"
            raise ValueError(f"{asked}: {place.started_by} has started {place.size} processes, which is {fitting}")
    elif nodes > 1:
        raise ValueError(f"trainer.num_nodes={nodes}: torchrun or srun has to start it on each machine: docs/scale.md")


def check_sweep(processes: int = 1) -> None:
    """Refuses a sweep that several processes would each run, or whose jobs would be of several processes.

    Args:
        processes: of each job.

    Raises:
        ValueError: saying what to do instead.
    """
    place = find_place()
    if place.external:
        raise ValueError(f"--multirun: each of the {place.size} processes of {place.started_by} would run all jobs")
    if processes > 1:
        raise ValueError(
            f"--multirun: a job of {processes} processes can't be part of a sweep: give each job one device "
            "(trainer.devices=1), or start the jobs one after the other, in a loop of the shell"
        )
