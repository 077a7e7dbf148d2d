"""Processes that a run started, what belongs to them, and signals that go to nobody else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
LOOK_S: Final = 0.005
AWAY_S: Final = 1.0  # after which a supervisor starts again what went away by itself
STOP_S: Final = 10.0


def children_of(pid: int) -> list[int]:
    """Direct children, as Linux tells them."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def born(pid: int) -> int:
    """Clock ticks at which a process started, by which it is known again; 0: there is none.

    One that stands still is there; a zombie is not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


class Tree:
    """A worker: the process that was started, its main, and the main's children.

    Args:
        start: Starts it.
        watched: The process that is started keeps a main as its child; else it is the main.
        kept: Start it again when it goes away by itself.
    """

    def __init__(
        self, start: Callable[[], subprocess.Popen[bytes]], *, watched: bool, kept: bool = True
    ) -> None:
        self._start = start
        self._watched = watched
        self.kept = kept
        self.process = start()
        self._born: dict[int, int] = {}
        self._gone_s: float | None = None
        self.restarts = 0
        self.all()

    @property
    def main(self) -> int:
        """Its main; 0 while there is none."""
        if not self._watched:
            return self.process.pid
        mains = children_of(self.process.pid)
        return mains[0] if mains else 0

    def children(self) -> list[int]:
        """The processes that check."""
        return children_of(self.main) if self.main else []

    def all(self) -> list[int]:
        """All of them that are there, from the top; noted as ours for good."""
        main = [self.main] if self.main and self._watched else []
        found = [self.process.pid, *main, *self.children()]
        for pid in found:
            self._born.setdefault(pid, born(pid))
        return [pid for pid in found if self.has(pid)]

    def has(self, pid: int) -> bool:
        """Whether this process is one of ours, and there."""
        return bool(self._born.get(pid)) and born(pid) == self._born[pid]

    def left(self) -> list[int]:
        """All that ever were ours, and are still there."""
        return [pid for pid in self._born if self.has(pid)]

    def again(self) -> None:
        """Start it anew; the one before is gone, or has been told to go."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self.process, self._gone_s = self._start(), None
        self.restarts += 1

    def tend(self) -> None:
        """Be its supervisor, once."""
        self.all()
        if not self.kept or self.process.poll() is None:
            return
        if self._gone_s is None:
            self._gone_s = time.monotonic()
        elif time.monotonic() - self._gone_s > AWAY_S:
            self.again()

    def end(self) -> None:
        """Take everything away, whatever state it is in.

        Raises:
            AssertionError: Something is still there after ``STOP_S``.
        """
        self.kept = False
        end_s = time.monotonic() + STOP_S
        while self.process.poll() is None or self.left():
            assert time.monotonic() < end_s, f"processes are left: {self.left()}"
            for pid in {*self.all(), *self.left()}:  # a main may be about to have a child
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(LOOK_S)


def start(
    module: str, environment: Mapping[str, str], log: Path, *words: str
) -> subprocess.Popen[bytes]:
    """Start one of the matrix' programs; what it says is appended to a file.

    It ends with this process where the system can see to that.
    """
    command = [sys.executable, "-m", module, *words]
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "KILL", *command]
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
