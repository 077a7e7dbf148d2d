"""A job on a server that forgets, goes back in time and goes away, and waiters that die.

The home is the memory ledger, the journal a real file; workers and waiters take turns on two
simulated clocks that count from different instants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from proxywell.errors import StoreAwayError, StoreBusyError
from proxywell.model.candidate import Candidate
from proxywell.model.report import GivenUpWhy, PoolChange
from proxywell.model.verdict import Verdict
from proxywell.refresh.books import Claim, JobRow, JobState, Settled, Terms, Worker
from proxywell.refresh.finalise import Collector, finalise
from proxywell.refresh.ledgers.journal import Journal
from proxywell.refresh.ledgers.journaled import JournaledLedger
from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.packing import pack_verdicts
from proxywell.refresh.plan import blocks
from proxywell.refresh.ports import NewJob
from proxywell.refresh.spans import items_of, spans_of
from tests.network.refresh_fakes import candidates, verdict_of, works

JOB = "j1"
TERMS = Terms(
    lease_s=5.0,
    attempt_hard_s=300.0,
    attempts_max=50,
    errors_max=50,
    blames_max=50,
    fan=4,
    stalled_s=30.0,
    chunk_size=5,
    min_count=2,
    want=None,
    floor_s=600.0,
    cap_s=2_400.0,
    time_per_chunk_s=90.0,
)


@dataclass(frozen=True)
class Faults:
    """Chances per step of the waiter."""

    forgets: float = 0.0
    rewinds: float = 0.0
    away: float = 0.0
    reply_lost: float = 0.0
    waiter_dies: float = 0.0
    worker_dies: float = 0.0
    sealing_dies: float = 0.0


class WaiterDiedError(Exception):
    pass


@dataclass
class Pool:
    """Keeps the first verdict of each item, and counts seals."""

    told: dict[int, Verdict] = field(default_factory=dict)
    seals: list[int] = field(default_factory=list)

    def record(
        self, job_id: str, epoch: int, verdicts: Iterable[tuple[int, Candidate, Verdict]]
    ) -> None:
        for item, _, verdict in verdicts:
            self.told.setdefault(item, verdict)

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        self.seals.append(epoch)
        return PoolChange(added=len(self.told))

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        return PoolChange(added=len(self.told)) if epoch in self.seals else None


class Server:
    """The home as it is reached over a network; every call may fail before or after it is done."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._world.home, name)

        def reach(*given: Any, **named: Any) -> Any:
            world = self._world
            if name != "close" and world.now_s < world.away_until_s:
                raise StoreAwayError("away")
            answer = step(*given, **named)
            if name not in ("create", "close") and world.meets(world.faults.reply_lost):
                raise StoreAwayError("the reply was lost")
            return answer

        return reach


class World:
    """One job from creation to its end, under faults that stop after ``faulty_s``."""

    def __init__(
        self,
        seed: int,
        faults: Faults,
        path: Path,
        *,
        items: int = 40,
        faulty_s: float = 60.0,
        view: Callable[[Any, Journal], Any] = JournaledLedger,
    ) -> None:
        self.draw = Random(seed)
        self.faults = faults
        self.faulty_s = faulty_s
        self.now_s = 0.0
        self.away_until_s = -1.0
        self.items = items
        self.pool = Pool()
        self.home = MemoryLedger(lambda: 5_000.0 + self.now_s)
        self._past: list[Any] = []
        self._journal_path = path
        self._view = view
        self._held: list[tuple[Claim, float]] = []
        self._serial = 0
        self.checks = 0
        self.ledger = self._open()
        self.all = candidates(items)
        job = NewJob(JOB, items, TERMS, b"{}", 0.0)
        assert self.ledger.create(job, blocks(list(self.all), TERMS.chunk_size))

    def meets(self, chance: float) -> bool:
        return self.now_s < self.faulty_s and self.draw.random() < chance

    def run(self, *, bound_s: float = 1_000.0) -> JobRow:
        """Until the job is final; an AssertionError if it is not within the bound."""
        collector = self._collector()
        while self.now_s < bound_s:
            self._something_breaks()
            try:
                line = self._one_look(collector)
            except StoreBusyError:
                pass
            except WaiterDiedError:
                self.ledger.close()
                self._work(self.draw.uniform(0.0, 10.0))
                self.ledger = self._open()
                collector = self._collector()
            else:
                if line.state is JobState.DONE:
                    return line
            self._work(0.5)
        raise AssertionError(f"not final within {bound_s:g} s: {self.ledger.status(JOB)}")

    def close(self) -> None:
        self.ledger.close()

    # --- the waiter

    def _open(self) -> Any:
        journal = Journal(self._journal_path, clock=lambda: 100.0 + self.now_s, boot="b")
        return self._view(Server(self), journal)

    def _collector(self) -> Collector:
        return Collector(self.ledger, JOB, 1, self.pool)

    def _one_look(self, collector: Collector) -> JobRow:
        line: JobRow = self.ledger.tick(JOB).job
        if self.meets(self.faults.waiter_dies):
            raise WaiterDiedError
        collector.collect()
        if line.state in (JobState.CLOSED, JobState.FINALISING):
            finalise(self.ledger, _Sealing(self), collector, job_id=JOB)
            line = self.ledger.status(JOB)
        return line

    # --- the server and its workers

    def _something_breaks(self) -> None:
        if self.draw.random() < 0.2:
            self._past.append((self.now_s, deepcopy(self.home._jobs)))
        if self.meets(self.faults.forgets):
            self.home._jobs.clear()
        if self.meets(self.faults.rewinds) and self._past:
            self.home._jobs = deepcopy(self._past[-1][1])
        if self.meets(self.faults.away):
            self.away_until_s = self.now_s + self.draw.uniform(0.5, 20.0)

    def _work(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 0.25
            self.home.node_beat("n", "", term_s=60.0)
            self._one_worker_step()

    def _one_worker_step(self) -> None:
        if JOB not in self.home._jobs:
            self._held.clear()
            return
        if self.meets(self.faults.worker_dies):
            self._held.clear()
        for claim, ready_s in list(self._held):
            if self.now_s >= ready_s:
                self._held.remove((claim, ready_s))
                self._submit(claim)
        if len(self._held) < 2:
            self._serial += 1
            worker = Worker("n", f"n/{self._serial}")
            answer = self.home.claim(JOB, worker, f"t{self._serial}")
            if isinstance(answer, Claim):
                self._held.append((answer, self.now_s + self.draw.uniform(0.2, 3.0)))

    def _submit(self, claim: Claim) -> None:
        told = [
            (item, self.all[item], verdict_of(self.all[item])) for item in items_of(claim.items)
        ]
        self.checks += len(told)
        good = spans_of(item for item, candidate, _ in told if works(candidate))
        settled = Settled(claim.items, good, pack_verdicts(told))
        self.home.submit(JOB, claim.chunk_id, claim.token, claim.epoch, settled)


class _Sealing:
    """The pool, as a waiter uses it that may die just behind the seal."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.record = world.pool.record
        self.sealed = world.pool.sealed

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        change = self._world.pool.seal(job_id, epoch)
        if self._world.meets(self._world.faults.sealing_dies):
            if self._world.draw.random() < 0.5:
                self._world.home._jobs.clear()
            raise WaiterDiedError
        return change


def cancel(world: World) -> bool:
    """As a waiter does whose bound was met."""
    return bool(world.ledger.cancel(JOB, GivenUpWhy.DEADLINE, "timed_out"))
