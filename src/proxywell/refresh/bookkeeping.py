"""What every rule does to the books: move a chunk, count, close, look at the time. Pure."""

from __future__ import annotations

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    Books,
    ChunkRow,
    ChunkState,
    Facts,
    JobRow,
    JobState,
    LedgerEvent,
)
from proxywell.refresh.spans import Spans, count

FINAL = frozenset({ChunkState.DONE, ChunkState.FAILED, ChunkState.LOST, ChunkState.SPLIT})
PAUSE_SHARE = 0.75  # of a lease: nobody reached the books for so long, so silence says nothing
PEAK_WINDOW_S = 60.0
_INSTANTS = (
    "created_s",
    "deadline_s",
    "cap_s",
    "alive_s",
    "claimed_s",
    "rung_s",
    "peak_since_s",
    "first_working_s",
    "usable_s",
    "closed_s",
    "finalised_s",
    "fin_until_s",
)


class Bookkeeping:
    """The entries that rules make. One object is one step at one instant.

    Args:
        job: The job's line; changed in place, written back by the home.
        books: The job's chunks.
        now_s: On the home's own clock.
        boot: What that clock counts from.
    """

    def __init__(self, job: JobRow, books: Books, now_s: float, boot: str = "") -> None:
        self.job = job
        self.books = books
        self.now_s = now_s
        self.boot = boot

    def _add(
        self,
        items: Spans,
        place: int,
        *,
        patient: bool = False,
        parent: int | None = None,
        blamed: int = 0,
        suspect: bool = False,
    ) -> None:
        chunk = ChunkRow(
            id=self.job.next_chunk,
            state=ChunkState.READY,
            items=items,
            place=place,
            patient=patient,
            parent=parent,
            blamed=blamed,
            suspect=suspect,
        )
        self.job.next_chunk += 1
        self.job.chunks += 1
        self.job.ready += 1
        self.books.put(chunk)

    def _finish(self, chunk: ChunkRow) -> None:
        self.job.chunks_done += 1
        self._move(chunk, ChunkState.DONE)
        self._event("done", chunk)

    def _give_up(self, chunk: ChunkRow, state: ChunkState, why: GivenUpWhy, detail: str) -> None:
        self.job.given_up[why] = self.job.given_up.get(why, 0) + count(chunk.items)
        self.job.chunks_given_up += 1
        chunk.why = why
        self._move(chunk, state)
        first, items = chunk.items[0], count(chunk.items)
        self._event("given_up", chunk, why=why, detail=detail, items=items, item=first)

    def _weigh(self) -> None:
        """After news: usable, enough, closed; all in the step that brought the news."""
        job = self.job
        if job.state is not JobState.OPEN:
            return
        if job.usable_s is None and job.working >= job.terms.min_count:
            job.usable_s = self.now_s
            self._event("usable", working=job.working)
        if job.open and job.terms.want is not None and job.working >= job.terms.want:
            self._end(GivenUpWhy.ENOUGH, "enough", None)
        elif not job.open:
            self._close()

    def _end(self, items_why: GivenUpWhy, why: str, detail: str | None) -> None:
        """Give up every open chunk in one step, and close."""
        chunks, items = self.books.open_chunks()
        self.books.end_all(items_why)
        job = self.job
        job.given_up[items_why] = job.given_up.get(items_why, 0) + items
        job.chunks_given_up += chunks
        job.ready = job.running = 0
        job.why, job.detail = why, detail
        self._close()

    def _close(self) -> None:
        self.job.state, self.job.closed_s = JobState.CLOSED, self.now_s
        self._event("closed", why=self.job.why or "")

    def _arrive(self) -> None:
        """Look at when the books were last reached, before silence is held against anybody.

        If nobody came for most of a lease, the books were away and not the workers: every
        lease gets a fresh term, and nobody could say that he is there. If nobody came for so
        long that the job was left alone (its process died and a new one goes on), that time does
        not count against its deadline. If the clock began anew (the machine did), every lease is
        over. If it was put back, what was noted goes back with it, or nothing would be due
        before it is what it was.
        """
        job = self.job
        away_s = self.now_s - job.seen_s
        if job.boot != self.boot:
            self._skip(away_s)
            self.books.renew_all(self.now_s)
            job.boot = self.boot
        elif job.state is JobState.OPEN and away_s > job.terms.lease_s * PAUSE_SHARE:
            self.books.renew_all(self.now_s + job.terms.lease_s)
            if away_s > job.terms.stalled_s:
                self._skip(away_s)
            else:
                job.alive_s += away_s
        elif job.state is not JobState.DONE and away_s < -job.terms.lease_s:
            self.books.renew_all(self.now_s + job.terms.lease_s)
            self._skip(away_s)
        job.seen_s = self.now_s

    def _skip(self, moved_s: float) -> None:
        """As if this time had not passed."""
        move_instants(self.job, moved_s)

    def _is_final(self, chunk: ChunkRow) -> bool:
        return chunk.state in FINAL

    def _holds(self, chunk: ChunkRow, token: str) -> bool:
        return chunk.state is ChunkState.RUNNING and chunk.token == token

    def _line(self, chunk_id: int) -> ChunkRow:
        chunk = self.books.chunk(chunk_id)
        assert chunk is not None, "the books name a chunk that they do not hold"
        return chunk

    def _move(self, chunk: ChunkRow, state: ChunkState) -> None:
        """The one place where a chunk changes its state, so that the counters agree."""
        job = self.job
        job.ready += (state is ChunkState.READY) - (chunk.state is ChunkState.READY)
        job.running += (state is ChunkState.RUNNING) - (chunk.state is ChunkState.RUNNING)
        chunk.state = state
        if self.now_s - job.peak_since_s > PEAK_WINDOW_S:
            job.peak_before, job.peak, job.peak_since_s = job.peak, 0, self.now_s
        job.peak = max(job.peak, job.running)
        self.books.put(chunk)

    def _event(self, kind: str, chunk: ChunkRow | None = None, **facts: int | float | str) -> None:
        self.job.events += 1
        told: Facts = facts
        self.books.add_event(
            LedgerEvent(
                self.job.events, self.now_s, kind, None if chunk is None else chunk.id, told
            )
        )


def move_instants(job: JobRow, moved_s: float) -> None:
    """Move every instant of a line but ``seen_s``, in place."""
    for name in _INSTANTS:
        instant = getattr(job, name)
        if instant is not None:
            setattr(job, name, instant + moved_s)
