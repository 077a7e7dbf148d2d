"""What the matrix' workers do with a candidate, and the log of it that lies outside of Redis.

The log has a line for every start (``s``) and end (``e``) of a check: what, candidate, process,
instant. It is appended by the processes that check, so it tells what was done whatever became of
the books.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from proxywell.model.candidate import Candidate
from proxywell.model.verdict import Verdict
from proxywell.refresh.ports import CandidateChecker, Running
from tests.network.refresh_fakes import number, verdict_of

START, END = "s", "e"
CHUNK = 8
_APPEND = os.O_APPEND | os.O_CREAT | os.O_WRONLY


@dataclass(frozen=True)
class Script:
    """How candidates are checked.

    Attributes:
        log: The log's path. Beside it lie marks of what is done only once.
        check_s: Seconds for one candidate; a chunk's run side by side, so also for a chunk.
        sockets: How many candidates one process checks at a time.
        slow: Candidates that take longer, and their seconds.
        deadly: Checking one of these kills the process, every time.
        deadly_once: The same, but only the first time.
        raises: The checker raises when given one of these.
        hangs: These never end.
        spins: These keep the process' loop from turning, for ever.
        gap: One process dies once between the last verdict of a chunk and its report.
    """

    log: str
    check_s: float = 0.5
    sockets: int = CHUNK
    slow: Mapping[int, float] = field(default_factory=dict)
    deadly: tuple[int, ...] = ()
    deadly_once: tuple[int, ...] = ()
    raises: tuple[int, ...] = ()
    hangs: tuple[int, ...] = ()
    spins: tuple[int, ...] = ()
    gap: bool = False

    def once(self, name: str) -> bool:
        """True for the first process that asks."""
        try:
            os.close(os.open(f"{self.log}.{name}", os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True


class _Check:
    """One candidate that is being checked."""

    def __init__(self, checker: ScriptedChecker) -> None:
        self._checker = checker
        self.timer: asyncio.TimerHandle | None = None
        self._over = False

    def cancel(self) -> None:
        if self.over() and self.timer is not None:
            self.timer.cancel()

    def over(self) -> bool:
        """Make room, once; False if that was done."""
        if self._over:
            return False
        self._over = True
        self._checker.busy -= 1
        return True


class ScriptedChecker:
    """Implements ``CandidateChecker``: one chunk at a time, like a pool's child of the chord."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.busy = self._ended = 0
        self._loop = asyncio.get_running_loop()
        self._log = os.open(script.log, _APPEND, 0o600)

    def close(self) -> None:
        os.close(self._log)

    def room(self) -> int:
        return max(0, self._script.sockets - self.busy)

    def start(
        self, candidate: Candidate, *, patient: bool, done: Callable[[Verdict | None], None]
    ) -> Running:
        at, script = number(candidate), self._script
        tell(self._log, START, at)
        if at in script.raises:
            raise RuntimeError(f"cannot check {at}")
        self.busy += 1
        check = _Check(self)
        if at not in script.hangs:
            step = partial(self._answer, check, candidate, done)
            check.timer = self._loop.call_later(script.slow.get(at, script.check_s), step)
        return check

    def _answer(
        self, check: _Check, candidate: Candidate, done: Callable[[Verdict | None], None]
    ) -> None:
        at, script = number(candidate), self._script
        if at in script.deadly or (at in script.deadly_once and script.once("died")):
            os._exit(9)
        while at in script.spins:  # until somebody ends this attempt, or this process
            pass
        check.over()
        tell(self._log, END, at)
        done(verdict_of(candidate))
        self._ended += 1
        if script.gap and self._ended % script.sockets == 0 and script.once("gap"):
            os._exit(1)  # the chunk's submit waits for this thread to let go


def tell(log: int, what: str, at: int) -> None:
    """Append one line, whole."""
    os.write(log, f"{what} {at} {os.getpid()} {time.monotonic():.6f}\n".encode())


@asynccontextmanager
async def scripted_checker(script: Script) -> AsyncIterator[CandidateChecker]:
    checker = ScriptedChecker(script)
    try:
        yield checker
    finally:
        checker.close()


class Mark(NamedTuple):
    """One line of the log."""

    what: str
    item: int
    pid: int
    at_s: float


class Log:
    """The log as it grows, for whoever watches from outside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marks: list[Mark] = []
        self._read = 0
        self._ended: set[int] = set()

    def look(self) -> list[Mark]:
        """Take in what is new; all lines so far."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._read)
            whole, _, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + bool(whole)
            for line in whole.splitlines():
                what, item, pid, at_s = line.decode("ascii").split()
                self.marks.append(Mark(what, int(item), int(pid), float(at_s)))
                if what == END:
                    self._ended.add(int(item))
        return self.marks

    def ended(self) -> set[int]:
        """Candidates of which a check was ended."""
        self.look()
        return self._ended

    def starts(self) -> Counter[int]:
        """How often each candidate's check was started."""
        return Counter(mark.item for mark in self.look() if mark.what == START)
