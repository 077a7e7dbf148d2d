"""A job in one or more homes at once, driven step by step; every answer is compared."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count as count_from
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from proxywell.refresh.books import (
    ChunkRow,
    ChunkState,
    Claim,
    FinAnswer,
    JobRow,
    JobState,
    Settled,
    SubmitAnswer,
    Terms,
    Tick,
    Worker,
)
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ledger import LAST_PLACE, LAST_TRIES, MOST_HELD
from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.ledgers.redis import RedisLedger, rule_book
from proxywell.refresh.ledgers.sqlite import SqliteLedger
from proxywell.refresh.ledgers.sqlite_rows import SqliteBooks
from proxywell.refresh.ports import Block, Ledger, NewJob
from proxywell.refresh.spans import Spans, common, count, items_of, spans_of
from tests.services.redis_server import RedisServer

T = TypeVar("T")
JOB = "j1"
TERMS = Terms(
    lease_s=5.0,
    attempt_hard_s=40.0,
    attempts_max=4,
    errors_max=2,
    blames_max=2,
    fan=2,
    stalled_s=60.0,
    chunk_size=3,
    min_count=2,
    want=None,
    floor_s=600.0,
    cap_s=2_400.0,
    time_per_chunk_s=90.0,
)


class Clock:
    """The time of every home; a Redis server is told of it under a key of its own."""

    def __init__(self) -> None:
        self._now_s = 1_000.0
        self._redis: tuple[RedisServer, str] | None = None

    def __call__(self) -> float:
        return self._now_s

    @property
    def now_s(self) -> float:
        return self._now_s

    @now_s.setter
    def now_s(self, now_s: float) -> None:
        self._now_s = now_s
        if self._redis is not None:
            server, key = self._redis
            server.call("SET", key, repr(now_s))

    def shown_by(self, server: RedisServer, key: str) -> str:
        self._redis = server, key
        self.now_s = self._now_s
        return key


_serials = count_from(1)


def redis_ledger(server: RedisServer, clock: Clock, defect: str = "") -> RedisLedger:
    """A home of its own on a server that others use as well."""
    prefix = f"t{next(_serials)}"
    key = clock.shown_by(server, f"{prefix}:clock")
    address = server.address(prefix, answer_s=30.0)  # time is simulated, and machines are busy
    return RedisLedger(address, clock_key=key, rules=rule_book(defect))


def blocks_of(items: int, size: int) -> list[Block]:
    return [Block(lo, min(lo + size, items), f"{lo}".encode()) for lo in range(0, items, size)]


def works(item: int) -> bool:
    return item % 3 == 0


def settled(items: list[int]) -> Settled:
    good = [item for item in items if works(item)]
    return Settled(spans_of(items), spans_of(good), b"v")


def all_chunks(ledger: Ledger) -> dict[int, ChunkRow]:
    """Every line; a lease's end is told only where there is a lease, for else it says nothing."""
    rows = _rows(ledger)
    return {
        number: row if row.state is ChunkState.RUNNING else replace(row, until_s=0.0)
        for number, row in rows.items()
    }


def _rows(ledger: Ledger) -> dict[int, ChunkRow]:
    if isinstance(ledger, MemoryLedger):
        return dict(ledger._jobs[JOB].books.chunks)
    if isinstance(ledger, RedisLedger):
        return redis_chunks(ledger)
    assert isinstance(ledger, SqliteLedger)
    return {row.id: row for row in SqliteBooks(ledger._db, JOB)._rows("1 ORDER BY id")}


def redis_chunks(ledger: RedisLedger) -> dict[int, ChunkRow]:
    """The lines as any client of the server finds them."""
    rows = ledger._link.call("HGETALL", ledger.key(JOB, "chunk"))
    ended = msgspec.msgpack.decode(ledger._link.call("HGET", ledger.key(JOB, "job"), "line"))
    leases = ledger._link.call("ZRANGE", ledger.key(JOB, "lease"), 0, -1, "WITHSCORES")
    until_s = {int(chunk): float(end) for chunk, end in zip(leases[::2], leases[1::2], strict=True)}
    chunks = {}
    for raw in rows[1::2]:
        found = msgspec.msgpack.decode(raw)
        found["items"], found["state"] = tuple(found.get("items", ())), ChunkState(found["state"])
        if "before_loss" in found:
            found["before_loss"] = tuple(found["before_loss"])
        chunk = ChunkRow(**found)
        if chunk.state is ChunkState.RUNNING and chunk.id in until_s:
            chunk.until_s = until_s[chunk.id]
        if chunk.state <= ChunkState.RUNNING and "ended" in ended:
            chunk.state, chunk.why = ChunkState.LOST, ended["ended"]
        chunks[chunk.id] = chunk
    return dict(sorted(chunks.items()))


class Homes:
    """The same steps on every home; different answers are an error."""

    def __init__(
        self,
        *,
        items: int = 9,
        terms: Terms = TERMS,
        path: Path | None = None,
        rules: type[LedgerRules] = LedgerRules,
        server: RedisServer | None = None,
        defect: str = "",
        memory: bool = True,
    ) -> None:
        self.clock = Clock()
        self.items = items
        self.terms = terms
        self.ledgers: list[Ledger] = [MemoryLedger(self.clock, rules)] if memory else []
        if path is not None:
            self.ledgers.append(SqliteLedger(path, clock=self.clock, boot="", rules=rules))
        if server is not None:
            self.ledgers.append(redis_ledger(server, self.clock, defect))
        self.job_before: JobRow | None = None
        self.epoch = 0
        self.base: Spans = ()  # settled in earlier epochs
        self.begin_epoch(())

    def begin_epoch(self, settled: Spans) -> None:
        """Create the job, anew if it was there, with what is known to be settled."""
        began_s = self.job_before.created_s if self.job_before else self.clock.now_s
        self.epoch += 1
        self.base = settled
        self.finals: dict[int, ChunkRow] = {}
        self.commits: list[str] = []
        self.fin_token: str | None = None
        self.job_before = None
        job = NewJob(
            JOB,
            self.items,
            self.terms,
            b"{}",
            0.0,
            epoch=self.epoch,
            settled=settled,
            working=count(common(settled, self._working())),
            age_s=self.clock.now_s - began_s,
        )
        blocks = blocks_of(self.items, self.terms.chunk_size)
        assert self.all(lambda ledger: ledger.create(job, blocks))

    def _working(self) -> Spans:
        return spans_of(filter(works, range(self.items)))

    def all(self, step: Callable[[Ledger], T]) -> T:
        answers = [step(ledger) for ledger in self.ledgers]
        assert all(answer == answers[0] for answer in answers), f"homes disagree: {answers}"
        return answers[0]

    def close(self) -> None:
        for ledger in self.ledgers:
            ledger.close()

    @property
    def redis(self) -> RedisLedger:
        ledger = self.ledgers[-1]
        assert isinstance(ledger, RedisLedger), "there is no server in this world"
        return ledger

    @property
    def job(self) -> JobRow:
        return self.ledgers[0].status(JOB)

    @property
    def chunks(self) -> dict[int, ChunkRow]:
        return all_chunks(self.ledgers[0])

    # --- steps with an oracle beside them

    def claim(self, worker: Worker, token: str) -> Claim | None:
        answer = self.all(lambda ledger: ledger.claim(JOB, worker, token))
        return answer if isinstance(answer, Claim) else None

    def tick(self) -> Tick:
        before, chunks = self.job, self.chunks
        alive = self.all(lambda ledger: ledger.nodes(JOB))
        tick = self.all(lambda ledger: ledger.tick(JOB))
        after = self.chunks
        paused = self.clock.now_s - before.seen_s > 0.75 * self.terms.lease_s
        for number, chunk in chunks.items():
            if chunk.state is not ChunkState.RUNNING:
                continue
            now = after[number]
            if tick.job.state is JobState.OPEN and paused:
                assert now.state is ChunkState.RUNNING, "a pause of the books was taken for a loss"
            if chunk.node not in alive:
                assert now.blamed == chunk.blamed, "a chunk was blamed for its node's death"
        if tick.job.state is JobState.OPEN:
            assert self.clock.now_s < tick.job.deadline_s, "the deadline passed by unheeded"
        return tick

    def speak(
        self,
        chunk_id: int,
        token: str,
        step: Callable[[Ledger], T],
        *,
        or_ready: bool = True,
    ) -> T:
        """A step of a holder; if it is not the current one, nothing but counters may change."""
        chunk = self.chunks.get(chunk_id)
        known = chunk is not None and chunk.token == token
        current = known and chunk is not None and chunk.state is ChunkState.RUNNING
        may_return = or_ready and known and chunk is not None and chunk.state is ChunkState.READY
        before, chunks = self.job, self.chunks
        answer = self.all(step)
        if not current and not may_return:
            after = self.job
            fenced = replace(after, stale=before.stale, seen_s=before.seen_s, events=before.events)
            moved = {name for name in before.__struct_fields__ if name not in _MOVED_BY_ABSENCE}
            for name in moved:
                assert getattr(fenced, name) == getattr(before, name), f"obeyed a stranger: {name}"
            for number, row in self.chunks.items():
                assert replace(row, until_s=0) == replace(chunks[number], until_s=0)
        return answer

    def fin(self, kind: str, token: str) -> FinAnswer:
        steps: dict[str, Callable[[Ledger], FinAnswer]] = {
            "claim": lambda ledger: ledger.fin_claim(JOB, token),
            "beat": lambda ledger: ledger.fin_beat(JOB, token),
            "fail": lambda ledger: ledger.fin_fail(JOB, token, "raised"),
            "commit": lambda ledger: ledger.fin_commit(JOB, token, b"{}"),
        }
        before = self.job
        answer = self.all(steps[kind])
        if answer is FinAnswer.OK and kind == "claim":
            self.fin_token = token
        elif answer is FinAnswer.OK:
            assert before.state is JobState.FINALISING
            assert token == self.fin_token, f"{kind} with a token that is not the last claim's"
            if kind == "commit":
                self.commits.append(token)
        return answer

    # --- invariants

    def check(self) -> None:
        job = self.all(lambda ledger: ledger.status(JOB))
        chunks = self.all(all_chunks)
        parts = self.all(lambda ledger: ledger.parts(JOB, 0, 10_000))
        self.all(lambda ledger: ledger.leases(JOB))
        self.all(lambda ledger: ledger.events(JOB, 0, 10_000))
        self._every_item_is_in_one_place(chunks, [self.base, *(part.items for part in parts)])
        self._counters_agree(job, chunks)
        self._final_is_final(job, chunks)
        self._holders_are_fenced(chunks)
        settled = [self.base, *(part.items for part in parts)]
        working = sum(count(common(items, self._working())) for items in settled)
        assert job.working == working, "working items were not counted once each"
        assert job.checked == sum(count(items) for items in settled)
        if job.state is JobState.OPEN or job.usable_s is not None:
            assert (job.usable_s is not None) == (job.working >= self.terms.min_count)
        events = self.ledgers[0].events(JOB, 0, 10_000)
        assert sum(event.kind == "usable" for event in events) <= 1, "usable was told twice"
        assert len(self.commits) <= 1

    def _every_item_is_in_one_place(self, chunks: dict[int, ChunkRow], parts: list[Spans]) -> None:
        places = [item for spans in parts for item in items_of(spans)]
        for chunk in chunks.values():
            if chunk.state in (ChunkState.SPLIT, ChunkState.DONE):
                assert not chunk.items
            places += items_of(chunk.items)
        assert sorted(places) == list(range(self.items)), "items are missing, or there twice"

    def _counters_agree(self, job: JobRow, chunks: dict[int, ChunkRow]) -> None:
        states = [chunk.state for chunk in chunks.values()]
        assert job.ready == states.count(ChunkState.READY)
        assert job.running == states.count(ChunkState.RUNNING)
        assert job.chunks_done == states.count(ChunkState.DONE)
        given_up = states.count(ChunkState.FAILED) + states.count(ChunkState.LOST)
        assert job.chunks_given_up == given_up
        assert job.chunks == len(states) - states.count(ChunkState.SPLIT)
        assert (job.state is JobState.OPEN) == (job.open > 0), "open chunks and state disagree"
        lost = [chunk for chunk in chunks.values() if chunk.state in _GIVEN_UP]
        assert sum(job.given_up.values()) == sum(count(chunk.items) for chunk in lost)
        if job.state is not JobState.OPEN:
            assert job.checked + sum(job.given_up.values()) == self.items
        for chunk in lost:
            if chunk.why == "poison":
                assert count(chunk.items) == 1
                tries = chunk.blamed - self.terms.blames_max
                assert tries == LAST_TRIES, "given up without its last tries"
        for chunk in chunks.values():
            if chunk.state in (ChunkState.READY, ChunkState.RUNNING):
                accused = chunk.place >= LAST_PLACE and count(chunk.items) <= 1
                assert accused or chunk.blamed < self.terms.blames_max, "to be split or given up"
                attempts_max = self.terms.attempts_max + accused * LAST_TRIES
                assert chunk.attempt - chunk.excused <= attempts_max, "tried without end"

    def _final_is_final(self, job: JobRow, chunks: dict[int, ChunkRow]) -> None:
        for number, chunk in self.finals.items():
            assert chunks[number] == chunk, "a final chunk changed"
        for number, chunk in chunks.items():
            if chunk.state not in (ChunkState.READY, ChunkState.RUNNING):
                self.finals[number] = chunk
        before = self.job_before
        if before is not None and before.state is not JobState.OPEN:
            assert job.state is not JobState.OPEN
        if before is not None and before.state is JobState.DONE:
            assert replace(job, stale=0, seen_s=0) == replace(before, stale=0, seen_s=0)
        self.job_before = job

    def _holders_are_fenced(self, chunks: dict[int, ChunkRow]) -> None:
        running = [chunk for chunk in chunks.values() if chunk.state is ChunkState.RUNNING]
        tokens = [chunk.token for chunk in running]
        assert len(set(tokens)) == len(tokens)
        assert None not in tokens
        for chunk in running:
            company = [other for other in running if other.holder == chunk.holder]
            assert len(company) <= MOST_HELD[chunk.among], "held among more than it may be"
            assert not chunk.alone or len(company) == 1


_GIVEN_UP = (ChunkState.FAILED, ChunkState.LOST)
_MOVED_BY_ABSENCE = {
    "stale", "seen_s", "events", "created_s", "deadline_s", "cap_s", "alive_s", "claimed_s",
    "rung_s", "peak_since_s", "first_working_s", "usable_s", "closed_s", "finalised_s",
    "fin_until_s",
}  # fmt: skip


def quiet_end(homes: Homes, *, bound_s: float = 300.0) -> None:
    """Faults are over: one good worker that comes when rung must bring the job to its end."""
    worker = Worker("n-good", "h-good")
    end_s = homes.clock.now_s + bound_s
    serial = 0
    while homes.job.state is not JobState.DONE:
        assert homes.clock.now_s < end_s, "the job does not end although all faults are over"
        homes.clock.now_s += 1.0
        homes.all(lambda ledger: ledger.node_beat("n-good", "", term_s=3.75))
        tick = homes.tick()
        while tick.ring and (serial := serial + 1):
            claim = homes.claim(worker, f"good-{serial}")
            if claim is None:
                break
            answer = homes.all(_whole_submit(claim))
            assert answer in (SubmitAnswer.OK, SubmitAnswer.CLOSED)
            homes.check()
        if tick.job.state is not JobState.OPEN and homes.fin("claim", f"f{serial}") == "ok":
            for token in ("stranger", f"f{serial}", f"f{serial}"):  # only the second one counts
                homes.fin("commit", token)
        serial += 1
        homes.check()
    job = homes.job
    assert job.checked + sum(job.given_up.values()) == homes.items
    assert "deadline" not in job.given_up, "nobody was slow, yet the deadline ended it"


def _whole_submit(claim: Claim) -> Callable[[Ledger], Any]:
    body = settled(list(items_of(claim.items)))
    return lambda ledger: ledger.submit(JOB, claim.chunk_id, claim.token, claim.epoch, body)
