"""Wake-up between processes of one machine: Unix datagrams, and looking again by the clock.

A ring says only "look again". Whoever is woken reads the ledger, so a lost, late or doubled
ring costs at most one look.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from enum import StrEnum
from itertools import count
from pathlib import Path

DIRECTORY = "bells"
POLL_S = 0.05  # how often to look where no socket could be bound
_PATH_MAX_BYTES = 100  # sun_path holds 108 with its end (unix(7)); some systems less
_serial = count()


class Role(StrEnum):
    """Who listens."""

    WAITER = "waiter"
    WORKER = "worker"

    @property
    def other(self) -> Role:
        """Whom somebody in this role rings."""
        return Role.WORKER if self is Role.WAITER else Role.WAITER


class DatagramBell:
    """One listener in a state directory, and a way to ring all that listen in the other role.

    Where no socket can be bound (the path is too long, the system has none) it still rings,
    and ``wait`` returns after a short while instead. May be used by several threads.

    Args:
        state_dir: The state directory.
        role: Whom this one is woken as; it rings the others.
    """

    def __init__(self, state_dir: Path, role: Role) -> None:
        self._directory = state_dir / DIRECTORY
        self._role = role
        self._path = self._directory / f"{role}-{os.getpid()}-{next(_serial)}"
        self._socket: socket.socket | None = None
        self._closing = threading.Lock()
        if hasattr(socket, "AF_UNIX") and len(os.fsencode(self._path)) <= _PATH_MAX_BYTES:
            with contextlib.suppress(OSError):
                self._socket = self._bound()

    def _bound(self) -> socket.socket:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            listener.setblocking(False)
            listener.bind(str(self._path))
        except BaseException:
            listener.close()
            raise
        return listener

    def fileno(self) -> int | None:
        """What becomes readable when rung; None where there is only the clock."""
        return None if self._socket is None else self._socket.fileno()

    def ring(self) -> None:
        """Wake everybody in the other role; never waits, never raises."""
        with contextlib.suppress(OSError):
            names = os.listdir(self._directory)  # noqa: PTH208 - on every submit: names suffice
            heard = [name for name in names if name.startswith(self._role.other)]
            if heard:
                self._send([self._directory / name for name in heard])

    def _send(self, paths: list[Path]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for path in paths:
                try:
                    sender.sendto(b"!", str(path))
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)  # its process died
                except OSError:
                    continue  # full: it has a ring already; gone: nobody to wake

    def hush(self) -> None:
        """Take in what was rung, so that the next look waits for the next ring."""
        listener = self._socket
        with contextlib.suppress(OSError):
            while listener is not None and listener.recv(16):
                continue  # ends when nothing more is there: BlockingIOError

    def wait(self, timeout_s: float) -> None:
        """Return when rung, or after the time; sometimes earlier."""
        if self._socket is None:
            time.sleep(min(timeout_s, POLL_S))
            return
        with contextlib.suppress(OSError, ValueError):
            select.select([self._socket], [], [], timeout_s)
        self.hush()

    def close(self) -> None:
        """Stop listening; works twice."""
        with self._closing:
            listener, self._socket = self._socket, None
        if listener is not None:
            listener.close()
            self._path.unlink(missing_ok=True)
