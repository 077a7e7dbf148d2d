"""Whole refresh jobs on a simulated clock: real rules, real waiting, real finalisation.

Workers, their nodes and every message are simulated and fail by a seed: a worker dies, freezes
or meets a candidate that kills it; a node dies with all its workers; a request or its answer is
lost, late or doubled; doorbells are lost and doubled; the waiter dies and another one comes; the
pool raises. Faults stop after a while; poison stays.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count as counter
from typing import TypeVar

from proxywell.model.candidate import Candidate
from proxywell.model.report import GivenUpWhy, RefreshReport
from proxywell.model.verdict import Verdict
from proxywell.refresh.books import Beat, BeatAnswer, Claim, Terms, Tick, Worker
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.finalise import Collector, Summary, finalise
from proxywell.refresh.holding import Holding, candidates_of
from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.plan import blocks
from proxywell.refresh.ports import Ledger, NewJob
from proxywell.refresh.report import Dossier, report_of
from proxywell.refresh.wait import GRACE_S, Driver, Until, WaitEnd, hard_bound_s, wait
from tests.network.refresh_fakes import FakePool, candidates, number, verdict_of

T = TypeVar("T")
JOB = "simulated"
STEP_S = 0.25
BEAT_S = 1.25
LEASE_S = 5.0


@dataclass(frozen=True)
class Faults:
    """Chances per step or message, and candidates that behave badly."""

    worker_dies: float = 0.0
    worker_freezes: float = 0.0
    node_dies: float = 0.0
    request_lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    bell_lost: float = 0.0
    bell_doubled: float = 0.0
    waiter_dies: float = 0.0
    pool_raises: int = 0
    poison: frozenset[int] = frozenset()
    hangs: frozenset[int] = frozenset()
    until_s: float = 60.0


@dataclass
class Worked:
    """What a run showed."""

    report: RefreshReport
    ended_s: float
    end: WaitEnd
    pool: FakePool
    starts: dict[int, int] = field(default_factory=dict)


class World:
    """One job, its workers and its waiter, on one clock."""

    def __init__(
        self,
        seed: int,
        faults: Faults,
        *,
        items: int = 60,
        chunk: int = 5,
        nodes: int = 2,
        workers: int = 2,
        cap_s: float = 2_400.0,
        rules: type[LedgerRules] = LedgerRules,
    ) -> None:
        self.draw = random.Random(seed)
        self.faults = faults
        self.now_s = 1_000.0
        self._order = counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.ledger: Ledger = MemoryLedger(lambda: self.now_s, rules)
        self.starts: dict[int, int] = {}
        self.rung = False
        self.pool = FakePool(fails=faults.pool_raises)
        self.terms = Terms(
            lease_s=LEASE_S, attempt_hard_s=20.0, attempts_max=8, errors_max=2, blames_max=2,
            fan=8, stalled_s=30.0, chunk_size=chunk, min_count=2, want=None,
            floor_s=min(600.0, cap_s), cap_s=cap_s, time_per_chunk_s=10.0,
        )  # fmt: skip
        job = NewJob(JOB, items, self.terms, b"{}", 0.0)
        self.ledger.create(job, blocks(candidates(items), chunk))
        self.begun_s = self.now_s
        self.nodes = [Node(self, place, workers) for place in range(nodes)]
        self._doorbells(nodes * workers)

    # --- time

    def at(self, delay_s: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), step))

    def run_until(self, end_s: float) -> None:
        while self._events and self._events[0][0] <= end_s and not self.rung:
            self.now_s, _, step = heapq.heappop(self._events)
            step()
        self.now_s = self.now_s if self.rung else end_s

    def meets(self, chance: float) -> bool:
        """Whether a fault strikes; none does when the time of faults is over."""
        over = self.now_s - self.begun_s > self.faults.until_s
        return not over and self.draw.random() < chance

    # --- the waiter's bell

    def ring(self) -> None:
        self.rung = self.rung or not self.meets(self.faults.bell_lost)

    def wait(self, timeout_s: float) -> None:
        self.run_until(self.now_s + timeout_s)
        self.rung = False

    def close(self) -> None:
        pass

    # --- the job

    def run_refresh(self) -> Worked:
        """Wait, with new waiters for those that die, until the job is finalised."""
        while True:  # ends when a waiter lives long enough; faults stop
            collector = Collector(self.ledger, JOB, 1, self.pool)
            dies_s = self.now_s + self.draw.uniform(1, 20) if self._dying() else float("inf")
            end = self._one_waiter(collector, dies_s)
            if end is not None:
                break
            self.run_quietly(self.draw.uniform(0, 15))
        job = self.ledger.status(JOB)
        counts = Collector(self.ledger, JOB, 1, None)
        while counts.collect():
            continue
        kept = self.ledger.summary(JOB)
        summary = Summary(counts.tally.counts(), self.pool.seal(JOB, 1) if kept else _NO_CHANGE)
        if kept:
            self.pool.seals.pop()
        report = report_of(job, Dossier(), summary.verdicts, summary.pool)
        return Worked(report, self.now_s - self.begun_s, end, self.pool, self.starts)

    def _dying(self) -> bool:
        return self.meets(self.faults.waiter_dies)

    def run_quietly(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.rung = False
            self.run_until(end_s)

    def _one_waiter(self, collector: Collector, dies_s: float) -> WaitEnd | None:
        def each(tick: Tick) -> None:
            if self.now_s >= dies_s:
                raise _WaiterDiedError
            self._doorbells(tick.ring)
            collector.collect()

        def close() -> None:
            finalise(
                self.ledger, self.pool, collector,
                job_id=JOB, monotonic_s=lambda: self.now_s,
            )  # fmt: skip

        try:
            return wait(
                self.ledger,
                JOB,
                until=Until.FINALISED,
                bound_s=hard_bound_s(self.ledger.status(JOB)),
                bell=self,
                monotonic_s=lambda: self.now_s,
                driver=Driver(each=each, finalise=close),
            )
        except _WaiterDiedError:
            return None

    def _doorbells(self, bells: int) -> None:
        for _ in range(bells):
            if self.meets(self.faults.bell_lost):
                continue
            for _ in range(2 if self.meets(self.faults.bell_doubled) else 1):
                self.draw.choice(self.nodes).ring()


class _WaiterDiedError(Exception):
    pass


class Node:
    """A main with its workers; it restarts under a new name."""

    def __init__(self, world: World, place: int, workers: int) -> None:
        self.world = world
        self.place = place
        self.life = 0
        self.alive = True
        self.workers = [SimWorker(world, self, at) for at in range(workers)]
        self._pulse()

    @property
    def name(self) -> str:
        return f"n{self.place}.{self.life}"

    def ring(self) -> None:
        """One worker that sleeps wakes up."""
        asleep = [worker for worker in self.workers if not worker.awake]
        if self.alive and asleep:
            self.world.draw.choice(asleep).awake = True

    def _pulse(self) -> None:
        if self.alive:
            self.world.ledger.node_beat(self.name, "", term_s=LEASE_S - BEAT_S)
            if self.world.meets(self.world.faults.node_dies):
                self._die()
        self.world.at(BEAT_S, self._pulse)

    def _die(self) -> None:
        self.alive = False
        for worker in self.workers:
            worker.die(restart_s=None)
        self.world.at(3.0, self._restart)

    def _restart(self) -> None:
        self.life += 1
        self.alive = True
        for worker in self.workers:
            worker.restart()
        self.ring()  # a worker that starts looks for open jobs


class SimWorker:
    """One holder of chunks: claims when rung, checks, beats, submits; and fails."""

    def __init__(self, world: World, node: Node, place: int) -> None:
        self.world, self.node, self.place = world, node, place
        self.life = 0
        self.awake = False
        self.alive = True
        self.frozen_until_s = 0.0
        self.held: dict[str, Holding] = {}
        self.ends: dict[tuple[str, int], float] = {}
        self.beaten_s = world.now_s
        world.at(world.draw.uniform(0, STEP_S), self._step)

    @property
    def worker(self) -> Worker:
        return Worker(self.node.name, f"{self.node.name}/w{self.place}.{self.life}")

    def die(self, restart_s: float | None) -> None:
        self.alive = False
        self.held.clear()
        self.ends.clear()
        if restart_s is not None:
            self.world.at(restart_s, lambda: self.restart() if self.node.alive else None)

    def restart(self) -> None:
        if not self.alive:
            self.life += 1
            self.alive = self.awake = True

    def _step(self) -> None:
        self.world.at(STEP_S, self._step)
        world, faults = self.world, self.world.faults
        if not self.alive or world.now_s < self.frozen_until_s:
            return
        if world.meets(faults.worker_freezes):
            self.frozen_until_s = world.now_s + world.draw.uniform(2, 20)
            return
        if world.meets(faults.worker_dies):
            self._die_seen()
            return
        self._claim()
        self._check()
        if self.alive:
            self._tell()

    def _die_seen(self) -> None:
        """Sometimes the main sees it and says so at once."""
        ledger, holder = self.world.ledger, self.worker.holder
        self.die(restart_s=self.world.draw.uniform(0.2, 2))
        if self.world.draw.random() < 0.5:
            lost = [
                (lease.chunk_id, lease.token)
                for lease in ledger.leases(JOB)
                if lease.holder == holder
            ]
            ledger.expire(JOB, lost)

    def _claim(self) -> None:
        while self.awake and len(self.ends) < 12:
            token = f"{self.worker.holder}:{self.world.draw.random()}"
            claim = self.world.ledger.claim(JOB, self.worker, token)
            if not isinstance(claim, Claim):
                self.awake = bool(self.held)  # it asks again when a chunk of its own is done
                return
            found = self.world.ledger.blocks(JOB, claim.items)
            holding = Holding(claim, dict(candidates_of(claim.items, found)))
            self.held[claim.token] = holding
            for item in list(holding.waiting):
                self._start(holding, item)
            holding.waiting.clear()

    def _start(self, holding: Holding, item: int) -> None:
        at = number(holding.candidates[item])
        self.world.starts[at] = self.world.starts.get(at, 0) + 1
        took_s = self.world.draw.uniform(0.1, 3.0)
        if at in self.world.faults.hangs:
            took_s = float("inf")
        holding.running[item] = _Nothing()
        self.ends[(holding.claim.token, item)] = self.world.now_s + took_s

    def _check(self) -> None:
        done = [key for key, end_s in self.ends.items() if end_s <= self.world.now_s]
        for token, item in done:
            del self.ends[(token, item)]
            holding = self.held[token]
            candidate = holding.candidates[item]
            if number(candidate) in self.world.faults.poison:
                self._die_seen()
                return
            holding.settle(item, self._verdict(holding, candidate))

    def _verdict(self, holding: Holding, candidate: Candidate) -> Verdict | None:
        deferred = not holding.claim.patient and number(candidate) % 7 == 3
        return None if deferred else verdict_of(candidate)

    def _tell(self) -> None:
        due = self.world.now_s - self.beaten_s >= BEAT_S
        if due:
            self.beaten_s = self.world.now_s
            self._beat([holding for holding in self.held.values() if not holding.finished])
        for holding in [holding for holding in self.held.values() if holding.finished]:
            if due or self.world.draw.random() < 0.7:
                self._submit(holding)

    def _beat(self, held: list[Holding]) -> None:
        beats = [Beat(one.claim.chunk_id, one.claim.token, one.news()) for one in held]
        worker = self.worker
        answers = self._send(lambda ledger: ledger.beat(JOB, worker, beats)) if beats else None
        for holding, answer in zip(held, answers or (), strict=False):
            holding.arrived()
            if answer is BeatAnswer.STOP:
                self._drop(holding)

    def _submit(self, holding: Holding) -> None:
        claim, news, later = holding.claim, holding.news(), holding.later()
        answer = self._send(
            lambda ledger: ledger.submit(
                JOB, claim.chunk_id, claim.token, claim.epoch, news, deferred=later
            )
        )
        if answer is not None:
            holding.arrived()
            self._drop(holding)
            self.world.ring()

    def _drop(self, holding: Holding) -> None:
        token = holding.claim.token
        if self.held.pop(token, None) is not None:
            self.ends = {key: end for key, end in self.ends.items() if key[0] != token}
        self.awake = True

    def _send(self, step: Callable[[Ledger], T]) -> T | None:
        """A message to the ledger: it, or its answer, may be lost, and it may come again late."""
        world, faults = self.world, self.world.faults
        if world.meets(faults.request_lost):
            return None
        if world.meets(faults.late):
            world.at(world.draw.uniform(0.1, 30), lambda: _again(world, step))
            if world.draw.random() < 0.5:
                return None
        answer = step(world.ledger)
        return None if world.meets(faults.answer_lost) else answer


class _Nothing:
    def cancel(self) -> None:
        pass


def _again(world: World, step: Callable[[Ledger], object]) -> None:
    step(world.ledger)


_NO_CHANGE = FakePool().seal("", 0)


def assert_accounted(worked: Worked, faults: Faults, items: int) -> None:
    """What must hold for every run, whatever happened."""
    report = worked.report
    told = report.verdicts
    assert worked.end is WaitEnd.REACHED
    assert report.items.planned == items
    assert report.items.checked + report.items.given_up == items
    assert report.items.checked == told.working + told.not_working + told.inconclusive
    assert report.items.given_up == sum(report.items.given_up_why.values())
    assert report.chunks.planned == report.chunks.done + report.chunks.given_up
    assert worked.ended_s <= report.deadline.cap_s + GRACE_S
    assert len(worked.pool.verdicts) == report.items.checked
    why = report.items.given_up_why
    missing = set(range(items)) - {number(c) for c, _ in worked.pool.verdicts.values()}
    unlucky = missing - faults.poison - faults.hangs
    if why[GivenUpWhy.DEADLINE]:
        assert worked.ended_s >= report.deadline.cap_s, "given up before the time was over"
    elif faults.worker_dies or faults.worker_freezes:
        # Workers that die by chance to the end, each time alone with one candidate, look like it.
        assert len(unlucky) <= 2
        assert why[GivenUpWhy.POISON] + why[GivenUpWhy.ERROR] == report.items.given_up
    else:
        assert not unlucky, f"given up although they could be checked: {sorted(unlucky)}"
    if report.deadline.cap_s >= 600:
        assert worked.ended_s < 400, "ended by the deadline, not by its leases"
    assert faults.hangs <= missing
    if faults.pool_raises < 3:
        assert len(worked.pool.seals) == 1, "finalised more or less than once"
