"""A checker that answers from a table after a small delay, and a pool that remembers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from proxywell.config.schema import RefreshSettings
from proxywell.errors import NoJudgeError
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.report import PoolChange
from proxywell.model.verdict import CheckState, CheckStep, Verdict
from proxywell.refresh.engines.local import LocalKind
from proxywell.refresh.ports import CandidateChecker, Running, VerdictSink
from proxywell.refresh.run import RefreshRoom

_APPEND = os.O_APPEND | os.O_CREAT | os.O_WRONLY


def candidates(count: int) -> list[Candidate]:
    return [
        Candidate(
            Endpoint(f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}", 1080),
            (Protocol.SOCKS5,),
            ("list",),
        )
        for at in range(count)
    ]


def number(candidate: Candidate) -> int:
    _, a, b, c = candidate.endpoint.host.split(".")
    return (int(a) << 16) + (int(b) << 8) + int(c)


def works(candidate: Candidate) -> bool:
    return number(candidate) % 20 == 0


def verdict_of(candidate: Candidate) -> Verdict:
    good = works(candidate)
    return Verdict(
        proxy=candidate.endpoint.url(Protocol.SOCKS5),
        host=candidate.endpoint.host,
        port=candidate.endpoint.port,
        protocol=Protocol.SOCKS5,
        protocols=(Protocol.SOCKS5,) if good else (),
        working=good,
        failure=None if good else FailureKind.CONNECT_TIMEOUT,
        blame=None if good else Blame.PROXY,
        checked_at=datetime.now(UTC),
        latency_ms=12.5 if good else None,
        checks=(CheckStep("reach", CheckState.PASSED if good else CheckState.FAILED, took_ms=1.0),),
    )


@dataclass(frozen=True)
class Habits:
    """How the fake checker behaves; picklable, so that children can have it too.

    ``log``: one line ``item pid`` is appended for each verdict. ``deferred``: one in so many is
    deferred when impatient. ``deadly``: checking this one kills the process. ``spins``, ``sleeps``:
    checking this one keeps the loop, for ever in Python code, for 8 s in the system.
    """

    delay_s: float = 0.01
    sockets: int = 200
    log: str | None = None
    deferred: int = 0
    deadly: frozenset[int] = frozenset()
    raises: frozenset[int] = frozenset()
    hangs: frozenset[int] = frozenset()
    spins: frozenset[int] = frozenset()
    sleeps: frozenset[int] = frozenset()
    no_judge: bool = False
    buggy: bool = False
    crashes: bool = False

    def factory(self) -> Callable[[], AbstractAsyncContextManager[CandidateChecker]]:
        return partial(fake_checker, self)

    def room(
        self, state: Path, settings: RefreshSettings, sink: VerdictSink, *, workers: int = 1
    ) -> RefreshRoom:
        kind = LocalKind(state, settings, make_checker=self.factory(), workers=workers)
        return RefreshRoom(state, settings, sink=sink, kind=kind, workers=workers)


class _Handle:
    def __init__(self, timer: asyncio.TimerHandle | None, ended: Callable[[], None]) -> None:
        self._timer = timer
        self._ended = ended

    def cancel(self) -> None:
        if self._timer is not None and not self._timer.cancelled():
            self._timer.cancel()
            self._ended()


class FakeChecker:
    def __init__(self, habits: Habits) -> None:
        self._habits = habits
        self._busy = 0
        self._loop = asyncio.get_running_loop()
        self._log = None if habits.log is None else os.open(habits.log, _APPEND, 0o600)

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log)

    def room(self) -> int:
        if self._habits.buggy:
            raise RuntimeError("no room for anybody")
        return max(0, self._habits.sockets - self._busy)

    def start(
        self, candidate: Candidate, *, patient: bool, done: Callable[[Verdict | None], None]
    ) -> Running:
        at = number(candidate)
        if at in self._habits.raises:
            raise RuntimeError(f"cannot check {at}")
        self._busy += 1
        if at in self._habits.hangs:
            return _Handle(None, self._freed)
        step = partial(self._answer, candidate, patient, done)
        return _Handle(self._loop.call_later(self._habits.delay_s, step), self._freed)

    def _freed(self) -> None:
        self._busy -= 1

    def _answer(
        self, candidate: Candidate, patient: bool, done: Callable[[Verdict | None], None]
    ) -> None:
        self._busy -= 1
        at = number(candidate)
        if at in self._habits.deadly:
            os._exit(9)
        while at in self._habits.spins:
            pass
        while at in self._habits.sleeps:
            time.sleep(8.0)
        if self._habits.deferred and not patient and at % self._habits.deferred == 0:
            done(None)
            return
        if self._log is not None:
            os.write(self._log, f"{at} {os.getpid()}\n".encode())
        done(verdict_of(candidate))


@asynccontextmanager
async def fake_checker(habits: Habits) -> AsyncIterator[CandidateChecker]:
    if habits.no_judge:
        raise NoJudgeError("no judge answers; name one with --judge")
    if habits.crashes:
        os._exit(7)
    checker = FakeChecker(habits)
    try:
        yield checker
    finally:
        checker.close()


@dataclass
class FakePool:
    """Keeps what it is told, each item once; seals once."""

    verdicts: dict[int, tuple[Candidate, Verdict]] = field(default_factory=dict)
    seals: list[tuple[str, int]] = field(default_factory=list)
    fails: int = 0

    def record(
        self, job_id: str, epoch: int, verdicts: Iterable[tuple[int, Candidate, Verdict]]
    ) -> None:
        for item, candidate, verdict in verdicts:
            self.verdicts.setdefault(item, (candidate, verdict))

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the pool is out of order")
        self.seals.append((job_id, epoch))
        good = sum(verdict.working for _, verdict in self.verdicts.values())
        return PoolChange(before=0, after=good, added=good)

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        return None
