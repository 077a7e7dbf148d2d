"""The books of one job as values, and what of them the rules can tell apart.

Time is only whether a lease is over, or a bell was long ago. Names are only who is meant: a holder
that is gone has the same name and token as any other one. Counters that are for people are nought.
"""

from __future__ import annotations

from copy import copy
from operator import attrgetter
from typing import TypeAlias

from msgspec.structs import replace

from proxywell.refresh import ledger
from proxywell.refresh.bookkeeping import FINAL
from proxywell.refresh.books import (
    Among,
    ChunkRow,
    ChunkState,
    Company,
    JobRow,
    JobState,
    LedgerEvent,
    Part,
    Settled,
    Terms,
)
from proxywell.refresh.ledger import LAST_PLACE, LAST_TRIES
from proxywell.refresh.packing import pack_verdicts
from proxywell.refresh.plan import blocks
from proxywell.refresh.ports import NewJob
from proxywell.refresh.spans import Spans, count, items_of, spans_of
from tests.network.refresh_fakes import candidates, verdict_of, works

JOB = "modelled"
NOW_S = 100_000.0
LONG_S = 10_000.0
NODE, GONE = "n", "gone"
FIN_TOKEN, OLD_FIN_TOKEN = "current", "older"  # a finaliser's token, and one that was replaced
ITEMS = 3
POISON = 1
CANDIDATES = candidates(ITEMS)
BLOCKS = tuple(blocks(CANDIDATES, 2))
VERDICTS = [verdict_of(candidate) for candidate in CANDIDATES]
TERMS = Terms(
    lease_s=5.0, attempt_hard_s=20.0, attempts_max=50, errors_max=2, blames_max=2, fan=2,
    stalled_s=30.0, chunk_size=2, min_count=1, want=None,
    floor_s=1e9, cap_s=1e9, time_per_chunk_s=10.0,
)  # fmt: skip
NEW_JOB = NewJob(JOB, ITEMS, TERMS, b"{}", 0.0)
BLAMED_MOST = TERMS.blames_max + LAST_TRIES + 1  # the rules take more for as much
BELLS_MOST = 1  # whoever does not hear it hears the next one
FIN_FIELDS = ("state", "fin_token", "fin_until_s", "fin_fails", "fin_error")
NOBODY = "nobody"  # has the name and the token of all holders that are gone

Token: TypeAlias = tuple[int, int, bool]  # epoch, chunk, and whether the same holder has another

_packed: dict[Spans, Settled] = {}


def settled(items: Spans) -> Settled:
    """What a worker tells of these items; the same items give the same bytes."""
    if items not in _packed:
        told = [(item, CANDIDATES[item], VERDICTS[item]) for item in items_of(items)]
        good = spans_of(item for item, candidate, _ in told if works(candidate))
        _packed[items] = Settled(items, good, pack_verdicts(told))
    return _packed[items]


def token_of(holder: str, token: Token) -> str:
    """A token as the books have it; as unique as a nonce among those that anybody still has."""
    epoch, chunk, again = token
    return f"{holder}:{epoch}.{chunk}{'+' * again}"


class Book:
    """One job's line, chunks and parts; never changed once it is interned."""

    def __init__(
        self, job: JobRow, chunks: dict[int, ChunkRow], parts: tuple[Part, ...], base: Spans
    ) -> None:
        self.job, self.chunks, self.parts, self.base = job, chunks, parts, base
        self.told = (  # all that a waiter can see
            job.epoch, job.state, job.why, job.checked, job.working,
            tuple(sorted(job.given_up.items())), job.usable_s, job.fin_token, job.fin_until_s,
            job.fin_fails, job.fin_error, tuple((part.items, part.chunk_id) for part in parts),
            base,
        )  # fmt: skip
        self.key = (
            self.told, job.ready, job.running, job.chunks_done, job.chunks_given_up,
            job.next_chunk, job.bells, tuple(map(_line_of, chunks.values())),
        )  # fmt: skip
        self.told_as = -1  # the number of what a waiter can see
        self.ready = job.ready
        self.state = job.state
        self.finalises = job.state is JobState.FINALISING and job.fin_until_s > NOW_S
        self.leases = tuple(  # that are not over: chunk, and whether its holder is gone
            (row.id, row.holder == NOBODY)
            for row in chunks.values()
            if row.state is ChunkState.RUNNING and row.until_s > NOW_S
        )


_line_of = attrgetter(
    "id", "state", "items", "place", "blamed", "suspect", "alone", "token", "node", "holder",
    "until_s", "before_loss", "why", "shared",
)  # fmt: skip


class ModelBooks:
    """Implements ``Books`` on a book that others hold too: what is written is a new row."""

    def __init__(self, book: Book) -> None:
        self.chunks = dict(book.chunks)
        self.parts = book.parts
        self.changed: set[int] = set()

    def chunk(self, chunk_id: int) -> ChunkRow | None:
        return copy(self.chunks.get(chunk_id))

    def put(self, chunk: ChunkRow) -> None:
        self.chunks[chunk.id] = copy(chunk)
        self.changed.add(chunk.id)

    def first_ready(self, among: Among) -> ChunkRow | None:
        found = [
            row
            for row in self.chunks.values()
            if row.state is ChunkState.READY and row.among <= among
        ]
        return copy(min(found, key=lambda row: (row.place, row.id))) if found else None

    def company(self, holder: str) -> Company:
        held = [row for row in self._running() if row.holder == holder]
        alone = next((row.id for row in held if row.alone), None)
        return Company(len(held), max((row.among for row in held), default=Among.ANY), alone)

    def overdue(self, now_s: float, limit: int) -> list[ChunkRow]:
        late = [row for row in self._running() if row.until_s <= now_s]
        late.sort(key=lambda row: (row.until_s, row.id))
        return [copy(row) for row in late[:limit]]

    def renew_all(self, until_s: float) -> None:
        for row in self._running():
            self.put(replace(row, until_s=until_s))

    def open_chunks(self) -> tuple[int, int]:
        held = [row for row in self.chunks.values() if row.state <= ChunkState.RUNNING]
        return len(held), sum(count(row.items) for row in held)

    def end_all(self, why: str) -> None:
        for row in list(self.chunks.values()):
            if row.state <= ChunkState.RUNNING:
                self.put(replace(row, state=ChunkState.LOST, why=why))

    def add_part(self, part: Part) -> None:
        self.parts = (*self.parts, part)

    def add_event(self, event: LedgerEvent) -> None:
        """Events are for waking up and for people, never for accounting: the model has none."""

    def _running(self) -> list[ChunkRow]:
        return [row for row in self.chunks.values() if row.state is ChunkState.RUNNING]


def copied(job: JobRow) -> JobRow:
    return replace(job, given_up=dict(job.given_up), item_s=[])


def kept_line(job: JobRow) -> JobRow:
    """The line with what only counts for people, or only tells the time, put back."""
    job.rescued = job.split = job.attempts = job.stale = job.events = 0
    job.peak = job.peak_before = 0
    job.seen_s = job.alive_s = job.claimed_s = job.rung_s = job.peak_since_s = NOW_S
    job.created_s, job.deadline_s, job.cap_s = NOW_S, NOW_S + LONG_S, NOW_S + LONG_S
    job.ring_wait_s = 1.0
    job.item_s = []
    job.bells = min(job.bells, BELLS_MOST)
    job.usable_s = None if job.usable_s is None else NOW_S
    job.first_working_s = job.closed_s = job.finalised_s = None
    if job.fin_token is not None:
        job.fin_token = FIN_TOKEN
    if job.state is not JobState.FINALISING:
        job.fin_until_s = 0.0
    return job


def kept_chunk(row: ChunkRow) -> ChunkRow:
    """The chunk without what no rule will look at again, and what only limits attempts."""
    if row.state in FINAL:
        blamed = row.blamed if row.state is ChunkState.LOST else 0
        return ChunkRow(row.id, row.state, row.items, place=0, blamed=blamed, why=row.why)
    blamed = min(row.blamed, BLAMED_MOST)
    kept = ChunkRow(row.id, row.state, row.items, row.place, blamed=blamed, suspect=row.suspect)
    if row.state is ChunkState.RUNNING:
        kept.place = max(0, row.place // LAST_PLACE * LAST_PLACE)
        kept.alone, kept.until_s, kept.node = row.alone, row.until_s, row.node
        kept.token, kept.holder = row.token, row.holder
    elif row.before_loss is not None and row.holder != NOBODY:  # a late beat may take it back
        kept.token, kept.holder = row.token, row.holder
        kept.before_loss = (*row.before_loss[:2], 0)
    kept.since_s, kept.shared = NOW_S, min(row.shared, ledger.SHARED_ALONE - 1)
    return kept
