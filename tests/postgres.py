"""A server of PostgreSQL on the loopback address, from Debian's package postgresql."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import wait_for

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@dataclass
class Server:
    """A server with a user `tuner`, whom it believes any password."""

    folder: Path
    port: int
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://tuner:secret@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-c", "unix_socket_directories=", "-c", "fsync=off"]
        with (self.folder / "log").open("a") as log:
            command = [FOLDERS[-1] / "postgres", "-D", self.folder / "data", *options]
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, **as_user()))
        wait_for(self.answers, 60)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        """Stop it without waiting for its clients."""
        while self.processes:
            process = self.processes.pop()
            process.send_signal(signal.SIGINT)
            process.wait(60)


def as_user() -> dict[str, Any]:
    """Return the arguments of a process that isn't root's, as the server must not be."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


@contextlib.contextmanager
def run_server() -> Iterator[Server]:
    """Start a server with its data in a temporary folder, and end it by its process id."""
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as free:
        server = Server(Path(name), free.getsockname()[1])
    server.folder.mkdir()
    try:
        if os.getuid() == 0:
            shutil.chown(server.folder, "postgres", "postgres")
        initdb = [FOLDERS[-1] / "initdb", "--auth=trust", "--username=tuner", "--no-sync", server.folder / "data"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=server.folder, **as_user())
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder)
