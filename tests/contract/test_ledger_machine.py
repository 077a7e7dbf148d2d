from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from msgspec.structs import replace

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    Beat,
    BeatAnswer,
    ChunkRow,
    ChunkState,
    Claim,
    SubmitAnswer,
    Worker,
)
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ports import NewJob
from proxywell.refresh.spans import items_of, spans_of
from tests.contract.ledger_world import JOB, TERMS, Homes, blocks_of, quiet_end, settled
from tests.services.redis_server import RedisServer

WORKERS = (Worker("n1", "h1"), Worker("n1", "h2"), Worker("n2", "h3"))
share = st.integers(0, 2**12 - 1)  # a bit per item: told or not


class Held:
    """What a holder knows of one attempt; it goes on speaking whatever the ledger thinks."""

    def __init__(self, worker: Worker, claim: Claim) -> None:
        self.worker = worker
        self.claim = claim
        self.left = list(items_of(claim.items))

    def some(self, bits: int) -> list[int]:
        return [item for at, item in enumerate(self.left) if bits >> at & 1]

    def told(self, items: list[int]) -> None:
        self.left = [item for item in self.left if item not in items]


class LedgerMachine(RuleBasedStateMachine):
    """Holders, nodes, waiters and finalisers in any order, late, twice, and after their end."""

    rule_book: type[LedgerRules] = LedgerRules
    with_sqlite = True
    server: RedisServer | None = None
    defect = ""

    @initialize(
        items=st.integers(1, 12),
        want=st.sampled_from([None, None, 3]),
        size=st.integers(1, 4),
    )
    def create(self, items: int, want: int | None, size: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "ledger.sqlite" if self.with_sqlite else None
        terms = replace(TERMS, want=want, chunk_size=size)
        self.homes = Homes(
            items=items,
            terms=terms,
            path=path,
            rules=self.rule_book,
            server=self.server,
            defect=self.defect,
        )
        self.held: list[Held] = []
        self.serial = 0
        for node in ("n1", "n2"):
            self.node_beat(node)

    def token(self) -> str:
        self.serial += 1
        return f"t{self.serial}"

    @rule(worker=st.sampled_from(WORKERS))
    def claim(self, worker: Worker) -> None:
        claim = self.homes.claim(worker, self.token())
        if claim is not None:
            self.held.append(Held(worker, claim))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), bits=share, arrivals=st.sampled_from([1, 1, 2]))
    def beat(self, data: st.DataObject, bits: int, arrivals: int) -> None:
        self.beat_of(self.pick(data), bits, arrivals)

    def beat_of(self, held: Held, bits: int, arrivals: int = 1) -> None:
        claim, items = held.claim, held.some(bits)
        beats = [Beat(claim.chunk_id, claim.token, settled(items))]
        for _ in range(arrivals):  # a message may come twice
            answer = self.homes.speak(
                claim.chunk_id,
                claim.token,
                lambda ledger: ledger.beat(JOB, held.worker, beats),
            )
        if answer != [BeatAnswer.STOP]:
            held.told(items)
            row = self.row(claim)
            assert row is not None, "a beat of an earlier epoch was obeyed"
            age_s = self.homes.clock.now_s - row.since_s
            assert age_s <= TERMS.attempt_hard_s, "an attempt was renewed past its end"

    @precondition(lambda self: self.held)
    @rule(worker=st.sampled_from(WORKERS))
    def beat_together(self, worker: Worker) -> None:
        mine = [held for held in self.held if held.worker == worker]
        beats = [Beat(held.claim.chunk_id, held.claim.token) for held in mine]
        self.homes.all(lambda ledger: ledger.beat(JOB, worker, beats))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), bits=share)
    def submit(self, data: st.DataObject, bits: int) -> None:
        held = self.pick(data)
        claim = held.claim
        deferred = [] if claim.patient else held.some(bits)
        done = [item for item in held.left if item not in deferred]
        before = self.row(claim)
        answer = self.homes.all(
            lambda ledger: ledger.submit(
                JOB,
                claim.chunk_id,
                claim.token,
                claim.epoch,
                settled(done),
                deferred=spans_of(deferred),
            )
        )
        assert answer is not SubmitAnswer.INCOMPLETE
        if before is None:
            assert answer is SubmitAnswer.STALE
        elif before.state not in (ChunkState.READY, ChunkState.RUNNING):
            assert answer is SubmitAnswer.DUP
        else:
            assert answer in (SubmitAnswer.OK, SubmitAnswer.CLOSED)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def submit_with_a_hole(self, data: st.DataObject) -> None:
        held = self.pick(data)
        claim = held.claim
        chunk = self.row(claim)
        if chunk and chunk.state in (ChunkState.READY, ChunkState.RUNNING) and chunk.items:
            answer = self.homes.all(
                lambda ledger: ledger.submit(
                    JOB, claim.chunk_id, claim.token, claim.epoch, settled([])
                )
            )
            assert answer is SubmitAnswer.INCOMPLETE

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def error(self, data: st.DataObject) -> None:
        claim = self.pick(data).claim
        before, chunk = self.homes.chunks, self.row(claim)
        answer = self.homes.all(
            lambda ledger: ledger.submit(
                JOB, claim.chunk_id, claim.token, claim.epoch, settled([]), error="raised"
            )
        )
        if not self.current(claim, chunk):
            assert answer in (SubmitAnswer.LATE, SubmitAnswer.DUP, SubmitAnswer.STALE)
            for number, after in self.homes.chunks.items():
                assert (after.errors, after.state) == (before[number].errors, before[number].state)
        if chunk is not None and chunk.state is ChunkState.READY:
            assert answer is SubmitAnswer.LATE

    @precondition(lambda self: self.held)
    @rule(data=st.data(), bits=share)
    def release(self, data: st.DataObject, bits: int) -> None:
        held = self.pick(data)
        claim, items = held.claim, held.some(bits)
        current = self.current(claim, self.row(claim))
        answer = self.homes.all(
            lambda ledger: ledger.release(JOB, claim.chunk_id, claim.token, settled(items))
        )
        assert (answer is BeatAnswer.OK) == current
        if current:
            held.told(items)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 6.0, 45.0, 100.0]))
    def advance(self, seconds: float) -> None:
        self.homes.clock.now_s += seconds

    @rule(seconds=st.sampled_from([3.0, 700.0]))
    def the_clock_is_put_back(self, seconds: float) -> None:
        self.homes.clock.now_s -= seconds

    @rule(seconds=st.integers(1, 12))
    def time_passes_while_a_waiter_ticks(self, seconds: int) -> None:
        for _ in range(seconds):
            self.homes.clock.now_s += 1.0
            self.homes.tick()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), bits=share, seconds=st.sampled_from([5, 50]))
    def a_worker_beats_on(self, data: st.DataObject, bits: int, seconds: int) -> None:
        held = self.pick(data)
        self.beat_of(held, bits)
        for _ in range(seconds):
            self.homes.clock.now_s += 1.0
            for node in ("n1", "n2"):
                self.node_beat(node)
            self.homes.tick()
            self.beat_of(held, 0)

    @rule(node=st.sampled_from(["n1", "n2"]))
    def node_beat(self, node: str) -> None:
        self.homes.all(lambda ledger: ledger.node_beat(node, "", term_s=3.75))

    @rule(worker=st.sampled_from(WORKERS))
    def a_holder_dies_and_its_node_lives(self, worker: Worker) -> None:
        for _ in range(7):
            self.homes.clock.now_s += 1.0
            self.node_beat(worker.node)
            self.homes.tick()

    @rule(node=st.sampled_from(["n1", "n2"]))
    def node_goes(self, node: str) -> None:
        self.homes.all(lambda ledger: ledger.node_gone(node))

    @rule()
    def tick(self) -> None:
        self.homes.tick()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        claim = self.pick(data).claim
        held = [(claim.chunk_id, claim.token)]
        self.homes.all(lambda ledger: ledger.expire(JOB, held))

    @rule(sure=st.integers(0, 9))
    def cancel(self, sure: int) -> None:
        if sure == 0:
            self.homes.all(lambda ledger: ledger.cancel(JOB, GivenUpWhy.CANCELLED, "cancelled"))

    @rule(kind=st.sampled_from(["claim", "beat", "fail", "commit"]), token=st.sampled_from("ab"))
    def finalise(self, kind: str, token: str) -> None:
        self.homes.fin(kind, token)

    @rule()
    def create_again(self) -> None:
        job = NewJob(JOB, self.homes.items, self.homes.terms, b"{}", 0.0)
        assert not self.homes.all(lambda ledger: ledger.create(job, blocks_of(1, 1)))

    @rule(sure=st.integers(0, 5), bits=share)
    def the_store_is_lost_and_the_job_created_again(self, sure: int, bits: int) -> None:
        if sure:
            return
        parts = self.homes.all(lambda ledger: ledger.parts(JOB, 0, 1_000))
        known = [item for part in parts for item in items_of(part.items)]
        known = [item for at, item in enumerate(known) if bits >> at & 1]
        self.homes.begin_epoch(spans_of([*items_of(self.homes.base), *known]))

    @invariant()
    def books_add_up(self) -> None:
        self.homes.check()

    def teardown(self) -> None:
        if not hasattr(self, "homes"):
            return
        try:
            quiet_end(self.homes)
        finally:
            self.homes.close()
            self.directory.cleanup()

    def row(self, claim: Claim) -> ChunkRow | None:
        """The chunk as it stands; None if the claim is of an earlier epoch."""
        return self.homes.chunks[claim.chunk_id] if claim.epoch == self.homes.epoch else None

    @staticmethod
    def current(claim: Claim, chunk: ChunkRow | None) -> bool:
        return (
            chunk is not None and chunk.state is ChunkState.RUNNING and chunk.token == claim.token
        )

    def pick(self, data: st.DataObject) -> Held:
        return data.draw(st.sampled_from(self.held[-6:]))


class MemoryMachine(LedgerMachine):
    with_sqlite = False


QUICK = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
MANY = settings(QUICK, max_examples=150, stateful_step_count=40)


def all_homes(server: RedisServer, defect: str = "") -> Any:
    return type("AllHomes", (LedgerMachine,), {"server": server, "defect": defect})


def test_all_homes_agree_step_by_step_and_their_books_add_up(redis_server: RedisServer) -> None:
    run_machine(all_homes(redis_server), settings=QUICK)


def test_the_rules_keep_the_books_whatever_happens() -> None:
    run_machine(MemoryMachine, settings=MANY)


@pytest.mark.deep
def test_all_homes_agree_over_many_schedules(redis_server: RedisServer) -> None:
    many = settings(QUICK, max_examples=1_000, stateful_step_count=60)
    run_machine(all_homes(redis_server), settings=many)


@pytest.mark.deep
def test_the_rules_keep_the_books_over_very_many_schedules() -> None:
    many = settings(QUICK, max_examples=20_000, stateful_step_count=60)
    run_machine(MemoryMachine, settings=many)
