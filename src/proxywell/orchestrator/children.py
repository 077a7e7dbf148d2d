"""One child process: its group, its log file, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxywell.orchestrator import shim

LOG_MAX_BYTES: Final = 2**20
_LAST_WORDS_BYTES: Final = 4096
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW


class Order(Struct, frozen=True, kw_only=True):
    """What to run.

    Attributes:
        command: The program and its arguments; nothing secret, everybody may read them.
        log: Where its output goes; appended to.
        lock: What it keeps locked while it runs; None: nothing.
        environment: The whole of it; None: this process' own.
    """

    command: tuple[str, ...]
    log: Path
    lock: Path | None = None
    environment: Mapping[str, str] | None = None


class Child:
    """A program in a session and process group of its own that ends when its maker ends.

    The kernel ties it to the thread that calls this, which must outlive it.

    Args:
        order: What to run.

    Raises:
        OSError: The log cannot be written, or no process can be made.
    """

    def __init__(self, order: Order) -> None:
        self.log = order.log
        self._log_from = _make_room(order.log)
        lock = "-" if order.lock is None else str(order.lock)
        log = os.open(order.log, _APPEND, 0o600)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - no shell, our own words
                [sys.executable, "-I", "-S", shim.__file__, str(os.getpid()), lock, *order.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=order.environment,
                start_new_session=True,
            )
        finally:
            os.close(log)

    @property
    def pid(self) -> int:
        """Number of the process, and of its group."""
        return self._process.pid

    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs.

        What is left of its group is killed before the number is given back to the system.
        """
        if self._process.returncode is None:
            if not self._has_ended():
                return None
            self._signal_group(signal.SIGKILL)
            self._process.wait()
        return self._process.returncode

    def _has_ended(self) -> bool:
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def stop(self) -> None:
        """Ask its main to end."""
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and its group at once."""
        if self._process.returncode is None:
            self._signal_group(signal.SIGKILL)

    def wait(self, timeout_s: float) -> None:
        """Return when it has ended, or after the time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def last_words(self) -> list[str]:
        """The last lines of what this child wrote, as far as they are kept, without blank ones."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_from, size - _LAST_WORDS_BYTES))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def in_words(status: int) -> str:
    """An exit status as a person says it."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _make_room(log: Path) -> int:
    """Put a log that has grown large aside; where the next line will stand in it."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= LOG_MAX_BYTES:
        return size
    log.replace(log.with_name(f"{log.name}.1"))
    return 0
