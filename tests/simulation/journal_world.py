"""A job on a server that forgets, goes back in time and goes away, and waiters that die.

The home is the memory ledger, the journal a real file; workers and waiters take turns on two
simulated clocks that count from different instants. What happens at a call happens before or
behind any call to the server, and before or behind any commit of the journal: the waiter dies, the
server forgets, a second waiter takes a look of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec

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
from proxywell.refresh.spans import count, items_of, spans_of
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
    """Chances per step of the waiter; those of ``at_call`` per call and per commit."""

    forgets: float = 0.0
    rewinds: float = 0.0
    away: float = 0.0
    reply_lost: float = 0.0
    waiter_dies: float = 0.0
    worker_dies: float = 0.0
    sealing_dies: float = 0.0
    dies_at_call: float = 0.0
    forgets_at_call: float = 0.0
    second_at_call: float = 0.0


class WaiterDiedError(BaseException):
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
            if name == "close":
                return None
            world.instant()
            if world.now_s < world.away_until_s:
                raise StoreAwayError("away")
            answer = step(*given, **named)
            world.instant()
            if name != "create" and world.meets(world.faults.reply_lost):
                raise StoreAwayError("the reply was lost")
            return answer

        return reach


class MortalJournal(Journal):
    """A journal whose process may die before or behind any commit."""

    world: World

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with super()._transaction():
            yield
            self.world.death()
        self.world.instant()


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
        self._second: Any = None
        self.all = candidates(items)
        self.ledger = self._created()

    def meets(self, chance: float) -> bool:
        return self.now_s < self.faulty_s and self.draw.random() < chance

    def instant(self) -> None:
        """Between two steps of a waiter: anything may happen."""
        self.death()
        if self.meets(self.faults.forgets_at_call):
            self.home._jobs.clear()
        second = self._second
        if second is not None and self.meets(self.faults.second_at_call):
            self._second = None  # it is in its look: not again within
            try:
                self._one_look(second, Collector(second, JOB, 1, self.pool))
            except (StoreBusyError, WaiterDiedError):
                pass
            finally:
                self._second = second

    def death(self) -> None:
        if self.meets(self.faults.dies_at_call):
            raise WaiterDiedError

    def run(self, *, bound_s: float = 1_000.0) -> JobRow:
        """Until the job is final; an AssertionError if it is not within the bound."""
        collector = self._collector()
        if self.faults.second_at_call:
            self._second = self._living()
        while self.now_s < bound_s:
            self._something_breaks()
            try:
                line = self._one_look(self.ledger, collector)
            except StoreBusyError:
                pass
            except WaiterDiedError:
                self.ledger.close()
                self._work(self.draw.uniform(0.0, 10.0))
                self.ledger = self._living()
                collector = self._collector()
            else:
                if line.state is JobState.DONE:
                    return line
            self._balance()
            self._work(0.5)
        raise AssertionError(f"not final within {bound_s:g} s: {self.ledger.status(JOB)}")

    def _balance(self) -> None:
        """Whoever looks at the journal now sees figures that go with the verdicts."""
        with sqlite3.connect(self._journal_path) as db:
            body = db.execute("SELECT body FROM job").fetchone()[0]
            line = msgspec.msgpack.decode(body, type=JobRow)
            rows = db.execute("SELECT items FROM part ORDER BY seq LIMIT ?", (line.parts,))
            told = sum(count(msgspec.msgpack.decode(items)) for (items,) in rows)
        db.close()
        assert line.checked == told, "the line counts other verdicts than those that are here"

    def close(self) -> None:
        self.ledger.close()
        if self._second is not None:
            self._second.close()

    # --- the waiter

    def _open(self) -> Any:
        MortalJournal.world = self
        journal = MortalJournal(self._journal_path, clock=lambda: 100.0 + self.now_s, boot="b")
        return self._view(Server(self), journal)

    def _created(self) -> Any:
        """A ledger with the job, however often its creator died on the way."""
        while True:  # ends when a creator lives long enough: faults stop
            ledger = self._living()
            if JOB in {line.job_id for line in ledger.jobs()}:
                return ledger
            job = NewJob(JOB, self.items, TERMS, b"{}", 0.0)
            try:
                assert ledger.create(job, blocks(list(self.all), TERMS.chunk_size))
            except WaiterDiedError:
                ledger.close()
                self.now_s += 1.0
            else:
                return ledger

    def _living(self) -> Any:
        while True:  # as above
            try:
                return self._open()
            except WaiterDiedError:
                self.now_s += 1.0

    def _collector(self) -> Collector:
        return Collector(self.ledger, JOB, 1, self.pool)

    def _one_look(self, ledger: Any, collector: Collector) -> JobRow:
        line: JobRow = ledger.tick(JOB).job
        if self.meets(self.faults.waiter_dies):
            raise WaiterDiedError
        collector.collect()
        if line.state in (JobState.CLOSED, JobState.FINALISING):
            finalise(ledger, _Sealing(self), collector, job_id=JOB)
            line = ledger.status(JOB)
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
