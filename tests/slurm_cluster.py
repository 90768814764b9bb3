"""A SLURM cluster of two nodes that are both this machine, from Debian's packages slurm-wlm and munge.

All daemons listen on the loopback address, run as the user of the tests, and keep everything in one folder.
"""

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from processes import wait_for

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "salloc",
    "srun",
    "scancel",
    "scontrol",
    "sinfo",
    "squeue",
    "script",
)
NODES = ("127.0.0.1", "second")  # a run looks its first node up by name
# A job that is queued again waits for cred_expire seconds, 120 by default.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
ReturnToService=1
SlurmdParameters=config_overrides
PartitionName=all Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=8192 Gres=gpu:1\n"
SACCT = r"""#!/bin/sh
# The cluster keeps no accounts: answer submitit from what the controller remembers.
echo 'JobID|State|NodeList'
for job in $(echo "$*" | grep -o -- '-j [0-9]*' | cut -c4-); do scontrol --oneliner show job "$job"; done |
    sed -E 's/^JobId=([0-9]+) (ArrayJobId=([0-9]+) ArrayTaskId=([0-9]+) )?.* JobState=([A-Z_]+) .*/\1|\3_\4|\5/' |
    awk -F'|' -v OFS='|' '{ print ($2 == "_" ? $1 : $2), $3, "" }'
"""


def missing() -> list[str]:
    """Return the programs that aren't installed."""
    return [program for program in PROGRAMS if not shutil.which(program, path=search_path())]


def search_path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin"])


@dataclass
class Cluster:
    """The cluster, once its nodes are ready."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """What the commands of SLURM need in their environment."""

    def __call__(self, *command: str) -> str:
        """Run a command of SLURM, and return what it has printed."""
        return subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()

    def states(self) -> list[str]:
        """Return the states of the nodes."""
        return self("sinfo", "--noheader", "--Node", "--format=%T").split()

    def job(self, number: str) -> dict[str, str]:
        """Return what the controller knows about a job."""
        text = self("scontrol", "--oneliner", "show", "job", number)
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def clear(self) -> None:
        """End all jobs, and wait until the nodes are free."""
        self("scancel", "--full", f"--user={getpass.getuser()}")
        wait_for(lambda: self.states() == ["idle"] * len(NODES), 60)


@contextlib.contextmanager
def run_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the daemons, and end them, with all jobs, by their process ids."""
    host = socket.gethostname().split(".")[0]
    for name in ("munge", "state", "bin", *(f"spool_{node}" for node in NODES)):
        (folder / name).mkdir()
    key, sacct, conf = folder / "munge" / "key", folder / "bin" / "sacct", folder / "slurm.conf"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    sacct.write_text(SACCT)
    sacct.chmod(0o755)
    port, *ports = free_ports(1 + len(NODES))
    about = {"host": host, "port": port, "user": getpass.getuser(), "folder": folder, "nodes": ",".join(NODES)}
    nodes = (NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports, strict=True))
    conf.write_text("".join(nodes) + CONFIG.format(**about))
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # no GPU: jobs may ask for one all the same
    path = f"{folder}/bin{os.pathsep}{search_path()}"
    cluster = Cluster(folder, {"SLURM_CONF": str(conf), "PATH": path})
    munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge/socket", *munge],
        ["slurmctld", "-D", "-c"],
        *(["slurmd", "-D", "-N", node] for node in NODES),
    ]
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            log = stack.enter_context((folder / f"{number}_{command[0]}.log").open("w"))
            daemon = subprocess.Popen(
                command, env={**os.environ, **cluster.environment}, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(end, daemon)
            if number == 0:
                wait_for(lambda: (folder / "munge" / "socket").exists(), 30)
        wait_for(lambda: ready(cluster), 60)
        stack.callback(cluster.clear)
        yield cluster


def ready(cluster: Cluster) -> bool:
    try:
        return cluster.states() == ["idle"] * len(NODES)
    except subprocess.CalledProcessError:  # as long as the controller starts
        return False


def end(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nothing uses."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
