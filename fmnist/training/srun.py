"""Where the processes of a run meet that srun has started, and whom they wait for."""

import errno
import functools
import logging
import os
import time
from datetime import timedelta

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed import DistNetworkError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from fmnist.training.rank_info import RankInfo

log = logging.getLogger(__name__)

PORTS = 15000  # the ports of the stores: from there on, and as many
TIMEOUT = timedelta(minutes=30)  # of an operation of the processes: rank zero may have to download the data
PATIENCE = 10.0  # seconds of waiting after which the user is told


@functools.cache
def open_store(rank: RankInfo) -> Store:
    """Return the store of the processes of a run, which rank zero opens, and which closes when rank zero has ended.

    Raises:
        ValueError: if its port is taken.
    """
    job, step = os.environ["SLURM_JOB_ID"], os.environ["SLURM_STEP_ID"]
    nodes = os.environ["SLURM_STEP_NODELIST"]
    os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    os.environ.setdefault("MASTER_PORT", str(default_port(int(job), int(step))))
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        opened = TCPStore(address, port, None, rank.rank == 0, TIMEOUT, wait_for_workers=False)
    except DistNetworkError as error:
        if os.strerror(errno.EADDRINUSE).lower() not in str(error):
            raise
        raise ValueError(
            f"MASTER_PORT={port}: another program on {address} uses it: set MASTER_PORT to another number for srun"
        ) from None
    store = PrefixStore(f"job {job}, step {step}", opened)  # should it be the store of another job
    store.set(str(rank.rank), "")
    return store


def default_port(job: int, step: int) -> int:
    """Return a port from PORTS on: another one for each step of the jobs that a machine has at the same time."""
    return PORTS + (job * 31 + step) % PORTS


def wait_for_others(store: Store, rank: RankInfo) -> None:
    """Wait until all processes of a run have come to their store; after some seconds tell the user who is missing.

    Raises:
        ConnectionError: if some haven't come after TIMEOUT.
    """
    began, told = time.monotonic(), False
    while missing := [str(other) for other in range(rank.world_size) if not store.check([str(other)])]:
        waited = time.monotonic() - began
        if waited > PATIENCE and not told:
            told = True
            step = f"job {os.environ['SLURM_JOB_ID']}, step {os.environ['SLURM_STEP_ID']}"
            where = f"{step} on {os.environ['SLURM_STEP_NODELIST']}"
            log.warning(
                "waiting for rank %s of the %d processes that srun has started (%s); a shell of `srun --pty` is one "
                "of them: start the command itself by srun",
                *(", ".join(missing), rank.world_size, where),
            )
        if waited > TIMEOUT.total_seconds():
            raise ConnectionError(f"rank {', '.join(missing)} of srun's {rank.world_size} processes hasn't come")
        time.sleep(0.1)
