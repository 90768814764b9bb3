"""Connections on which rank zero and each other process hear whether the other is still there.

A collective operation doesn't say that a process is gone: on some machines and networks it waits for it, for minutes.
"""

import contextlib
import ipaddress
import secrets
import socket
import threading
import time
from collections.abc import Callable

BEAT, SILENCE = 5.0, 30.0  # seconds: between two signs of life, and without one until a process counts as gone
PATIENCE = 10.0  # seconds that a process has for its last words
ALIVE, BYE = b".", b"!"


class Connection:
    """One end of a lifeline, with a thread that listens.

    Args:
        peer: the rank at the other end.
        stream: what connects both.
        ended: called once, with the rank and whether it had said goodbye.
    """

    def __init__(self, peer: int, stream: socket.socket, ended: Callable[[int, bool], None]) -> None:
        self.peer = peer
        self._stream = stream
        self._ended = ended
        self._stream.settimeout(1.0)
        threading.Thread(target=self._listen, name=f"lifeline to rank {peer}", daemon=True).start()

    def say_goodbye(self) -> None:
        """Tells the other end that what comes now is no accident."""
        with contextlib.suppress(OSError):
            self._stream.sendall(BYE)

    def _listen(self) -> None:
        goodbye = False
        heard = sent = time.monotonic()
        with contextlib.suppress(OSError):
            while (now := time.monotonic()) - heard < (PATIENCE if goodbye else SILENCE):
                if now - sent >= BEAT:
                    self._stream.sendall(ALIVE)
                    sent = now
                try:
                    received = self._stream.recv(64)
                except TimeoutError:
                    continue
                if not received:
                    break
                heard, goodbye = time.monotonic(), goodbye or BYE in received
        self._stream.close()
        self._ended(self.peer, goodbye)


class Lifelines:
    """Rank zero's ends of all lifelines.

    Args:
        host: the address of this machine as the others know it.
        ended: what is called when one ends.
    """

    def __init__(self, host: str, ended: Callable[[int, bool], None]) -> None:
        self.token = secrets.token_hex(16)
        """Without it whoever connects is a stranger."""
        self.connections: dict[int, Connection] = {}
        self._ended = ended
        # One machine talks to itself; where there are several, rank zero can't know by which address they reach it.
        self._server = socket.create_server((host if is_loopback(host) else "", 0))
        self._server.settimeout(0.2)
        self.port: int = self._server.getsockname()[1]
        self._closing = False
        self._door = threading.Thread(target=self._accept_all, name="door of the lifelines", daemon=True)
        self._door.start()

    def say_goodbye(self) -> None:
        """To all, also to those that have come meanwhile."""
        if not self._closing:
            self._closing = True
            self._door.join()
            self._server.settimeout(0)
            while self._accept():
                continue
            self._server.close()
        for connection in self.connections.values():
            connection.say_goodbye()

    def _accept_all(self) -> None:
        while not self._closing:
            self._accept()

    def _accept(self) -> bool:
        """Takes one process in; whether one has come."""
        try:
            stream, _ = self._server.accept()
        except OSError:
            return False
        with contextlib.suppress(OSError, ValueError):
            stream.settimeout(PATIENCE)
            token, _, rank = stream.recv(100).partition(b" ")
            if secrets.compare_digest(token, self.token.encode()):
                self.connections[int(rank)] = Connection(int(rank), stream, self._ended)
                return True
        stream.close()
        return True


def connect(host: str, port: int, token: str, rank: int, ended: Callable[[int, bool], None]) -> Connection:
    """Another process's end of its lifeline to rank zero.

    Raises:
        OSError: if rank zero isn't there.
    """
    stream = socket.create_connection((host, port), timeout=SILENCE)
    stream.sendall(f"{token} {rank}".encode())
    return Connection(0, stream, ended)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
