"""The waiter's journal: the SQLite ledger, with copies of jobs whose books are on a server.

A copy has the same tables. One line more says of which epoch it was read, and how far. Chunks are
not copied: what no part has settled is what is missing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.bookkeeping import move_instants
from proxywell.refresh.books import ChunkRow, ChunkState, JobRow, JobState, LedgerEvent, Part
from proxywell.refresh.holding import candidates_of
from proxywell.refresh.ledgers.sqlite import SqliteLedger, ledger_file
from proxywell.refresh.ledgers.sqlite_rows import INSERT_CHUNK, columns
from proxywell.refresh.packing import unpack_verdicts
from proxywell.refresh.ports import Block, NewJob
from proxywell.refresh.spans import Spans, count, minus

_PARTS_AT_ONCE = 200
_BLOCKS_AT_ONCE = 200

_pack = msgspec.msgpack.Encoder().encode
_spans = msgspec.msgpack.Decoder(tuple[int, ...]).decode


class Cursor(Struct, frozen=True):
    """How far a job's books on the server were read.

    Attributes:
        epoch: Of the books there.
        part: Sequence number of the last part that was read.
        event: Sequence number of the last event that was read.
        mark: Of that last part, by which it is known again.
        is_home: The job came home: its books are here now, the server is asked no more.
        is_told: The server knows that, or has none of the job.
    """

    epoch: int
    part: int = 0
    event: int = 0
    mark: int = 0
    is_home: bool = False
    is_told: bool = False


class Ending(NamedTuple):
    """How a job is ended: as ``LedgerRules.cancel`` takes it."""

    items_why: GivenUpWhy
    why: str
    detail: str | None = None


def mark(part: Part) -> int:
    """What tells a part from another one with the same number, after a server went back in time."""
    return zlib.crc32(part.body, zlib.crc32(_pack((part.chunk_id, part.items))))


class Journal(SqliteLedger):
    """All jobs of one state directory, and copies of those that live on a server.

    For the arguments see ``SqliteLedger``.
    """

    def keep(self, job: NewJob, blocks: Iterable[Block]) -> bool:
        """Begin a copy, before the job is on the server; False if there is such a job."""
        if job.job_id in {line.job_id for line in self.jobs()}:
            return False
        with self._transaction():  # before the job, so that it is never taken for one of ours
            self._put_cursor(job.job_id, Cursor(job.epoch))
        if not self.create(job, blocks):
            return False
        with self._lasting():
            for table in ("chunk", "event"):
                self._db.execute(f"DELETE FROM {table} WHERE job = ?", (job.job_id,))  # noqa: S608
        return True

    def forget(self, job_id: str) -> None:
        """Drop a copy whose job no server would take."""
        with self._transaction():
            self._db.execute("DELETE FROM job WHERE id = ?", (job_id,))
            self._db.execute("DELETE FROM copy WHERE job = ?", (job_id,))
        self._drop_rows(job_id)

    def cursor(self, job_id: str) -> Cursor | None:
        """How far a copy was read; None for a job that was always here."""
        return self.copies(job_id).get(job_id)

    def copies(self, job_id: str | None = None) -> dict[str, Cursor]:
        """All copies, or the one."""
        with self._sentences():
            rows = self._db.execute(
                "SELECT job, epoch, part, event, mark, is_home, is_told FROM copy"
                " WHERE ? IS NULL OR job = ?",
                (job_id, job_id),
            ).fetchall()
        return {
            job: Cursor(epoch, part, event, last, bool(is_home), bool(is_told))
            for job, epoch, part, event, last, is_home, is_told in rows
        }

    def append(
        self,
        line: JobRow,
        read: Cursor,
        parts: Sequence[Part] = (),
        events: Sequence[LedgerEvent] = (),
        *,
        whole: bool = True,
        summary: bytes | None = None,
    ) -> JobRow | None:
        """Take in what was read on the server, in one step.

        Args:
            line: The job's line there, with the server's instants and sequence numbers.
            read: The cursor behind which it was read.
            parts: What was settled.
            events: What happened.
            whole: All that the line knows of is here now; else the line stays as it was kept, so
                that its figures are those of the parts that it counts.
            summary: What a finalisation kept there.

        Returns:
            The line as it is kept: instants on our clock, sequence numbers ours. None, and nothing
            was taken, if somebody else moved the cursor, or the job is final here.
        """
        job_id = line.job_id
        with self._transaction():
            before = self.status(job_id)
            if self.cursor(job_id) != read or before.state is JobState.DONE:
                return None
            shift_s = self._clock() - line.seen_s
            self._append_parts(job_id, parts)
            self._append_events(job_id, events, shift_s)
            now = replace(
                read,
                part=parts[-1].seq if parts else read.part,
                mark=mark(parts[-1]) if parts else read.mark,
                event=events[-1].seq if events else read.event,
            )
            if now != read:
                self._put_cursor(job_id, now)
            if not whole:
                return before
            kept = replace(
                line,
                boot=self._boot,
                seen_s=self._clock(),
                parts=self._last("part", job_id),
                events=self._last("event", job_id),
            )
            move_instants(kept, shift_s)
            if before.epoch < line.epoch:  # what is known already happened when it happened
                kept.usable_s = before.usable_s or kept.usable_s
                kept.first_working_s = before.first_working_s or kept.first_working_s
            self._put_line(kept)
            if summary is not None:
                self._keep_summary(job_id, summary)
        return kept

    def next_epoch(self, job_id: str, read: Cursor, beyond: int = 0) -> NewJob | None:
        """What makes the job exist again on a server that has lost it.

        Args:
            job_id: The job.
            read: The cursor of the books that the server has lost.
            beyond: An epoch that the server knows; the new one is later.

        Returns:
            The job with what is settled; None if somebody else has moved the cursor meanwhile.
        """
        line, settled, working = self.status(job_id), self.settled(job_id), self.working(job_id)
        epoch = max(read.epoch, beyond) + 1
        with self._lasting():  # or a loss of power would let the server be ahead of us
            if self.cursor(job_id) != read or read.is_home:
                return None
            self._put_cursor(job_id, Cursor(epoch))
        return NewJob(
            job_id,
            line.items,
            line.terms,
            self.spec(job_id),
            line.created_at_s,
            epoch=epoch,
            settled=settled,
            working=working,
            age_s=self._age_s(line),
        )

    def come_home(self, job_id: str, *, told: bool, end: Ending | None = None) -> bool:
        """Let the job's books be here from now on; what is not settled is open, as one chunk.

        A job that was closed and of which nothing is missing stays closed.

        Args:
            job_id: The job.
            told: Whether the server has nothing of it any more.
            end: Close what is open in the same step.

        Returns:
            False if somebody else has moved the cursor meanwhile.
        """
        read = self.cursor(job_id)
        if read is None or read.is_home:
            return True
        missing, working = self.missing(job_id), self.working(job_id)
        with self._lasting():
            if self.cursor(job_id) != read:
                return False
            self._put_cursor(job_id, replace(read, is_home=True, is_told=told))
            line = self.status(job_id)
            if line.state is JobState.DONE:
                return True
            now_s = self._clock()
            line = replace(line, boot=self._boot, seen_s=now_s, alive_s=now_s, fin_token=None)
            if line.state is not JobState.OPEN and count(missing) == line.items_given_up:
                self._put_line(replace(line, state=JobState.CLOSED))
                return True
            self._put_line(_opened_again(line, missing, working))
            if missing:
                chunk = ChunkRow(line.next_chunk, ChunkState.READY, missing, place=0)
                self._db.execute("DELETE FROM chunk WHERE job = ?", (job_id,))
                self._db.execute(INSERT_CHUNK, (job_id, chunk.id, *columns(chunk)))
            with self._opened(job_id) as rules:
                if end is None:
                    rules.tick(frozenset())
                else:
                    rules.cancel(*end)
        return True

    def is_complete(self, job_id: str) -> bool:
        """Whether the job was closed, and all that it knows of its items is here."""
        line = self.status(job_id)
        settled = count(self.settled(job_id))
        return line.state is not JobState.OPEN and settled == line.items - line.items_given_up

    def was_told(self, job_id: str) -> None:
        """The server has given up its books of a job that came home."""
        with self._transaction():
            self._db.execute("UPDATE copy SET is_told = 1 WHERE job = ?", (job_id,))

    def settled(self, job_id: str) -> Spans:
        """All items that a part has settled."""
        with self._sentences():
            rows = self._db.execute("SELECT items FROM part WHERE job = ?", (job_id,))
            ranges = sorted(_pairs(rows))
        flat: list[int] = []
        for lo, hi in ranges:
            if flat and flat[-1] == lo:
                flat[-1] = hi
            else:
                flat += (lo, hi)
        return tuple(flat)

    def missing(self, job_id: str) -> Spans:
        """All items that no part has settled."""
        items = self.status(job_id).items
        return minus((0, items), self.settled(job_id)) if items else ()

    def working(self, job_id: str) -> int:
        """How many of the settled items work."""
        after = found = 0
        while parts := self.parts(job_id, after, _PARTS_AT_ONCE):  # ends behind the last part
            after = parts[-1].seq
            for part in parts:
                of_part = dict(candidates_of(part.items, self.blocks(job_id, part.items)))
                found += sum(
                    verdict.working for _, _, verdict in unpack_verdicts(part.body, of_part)
                )
        return found

    def all_blocks(self, job_id: str) -> Iterator[Block]:
        """Every block, rising, without holding the file between two of them."""
        lo, items = 0, self.status(job_id).items
        while lo < items:
            with self._sentences():
                rows = self._db.execute(
                    "SELECT lo, hi, body FROM block WHERE job = ? AND lo >= ? ORDER BY lo LIMIT ?",
                    (job_id, lo, _BLOCKS_AT_ONCE),
                ).fetchall()
            for row in rows:
                yield Block(*row)
            lo = rows[-1][1] if rows else items

    # --- one step's parts

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        """One step that survives a loss of power from its return on, and all before it too."""
        with self._sentences():
            self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._transaction():
                yield
        finally:
            with self._sentences():
                self._db.execute("PRAGMA synchronous = NORMAL")

    def _append_parts(self, job_id: str, parts: Sequence[Part]) -> None:
        first = self._last("part", job_id) + 1
        self._db.executemany(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?)",
            [
                (job_id, seq, part.chunk_id, _pack(part.items), part.body)
                for seq, part in enumerate(parts, first)
            ],
        )

    def _append_events(self, job_id: str, events: Sequence[LedgerEvent], shift_s: float) -> None:
        first = self._last("event", job_id) + 1
        self._db.executemany(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)",
            [
                (job_id, seq, one.at_s + shift_s, one.kind, one.chunk_id, _pack(one.facts))
                for seq, one in enumerate(events, first)
            ],
        )

    def _age_s(self, line: JobRow) -> float:
        """How long ago a job began, without time in which it was left alone: see ``_arrive``."""
        away_s = self._clock() - line.seen_s
        alone = line.boot != self._boot or away_s > line.terms.stalled_s
        return max(0.0, line.seen_s - line.created_s + (0.0 if alone else away_s))

    def _put_cursor(self, job_id: str, cursor: Cursor) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO copy VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                job_id,
                cursor.epoch,
                cursor.part,
                cursor.event,
                cursor.mark,
                int(cursor.is_home),
                int(cursor.is_told),
            ),
        )

    def _put_line(self, line: JobRow) -> None:
        self._db.execute("UPDATE job SET body = ? WHERE id = ?", (_pack(line), line.job_id))

    def _last(self, table: str, job_id: str) -> int:
        row = self._db.execute(
            f"SELECT max(seq) FROM {table} WHERE job = ?",  # noqa: S608 - our own names
            (job_id,),
        ).fetchone()
        return int(row[0] or 0)


def open_journal(state_dir: Path) -> Journal:
    """Open the journal of a state directory, creating both where they are missing.

    Raises:
        StateError: The directory or file cannot be made, read or written.
    """
    return Journal(ledger_file(state_dir))


def _opened_again(line: JobRow, missing: Spans, working: int) -> JobRow:
    """The line of a job of which one chunk holds what is missing."""
    open_chunks = int(bool(missing))
    return replace(
        line,
        state=JobState.OPEN,
        why=None,
        detail=None,
        closed_s=None,
        given_up={},
        checked=line.items - count(missing),
        working=working,
        ready=open_chunks,
        running=0,
        chunks=line.chunks_done + open_chunks,
        chunks_given_up=0,
        next_chunk=line.next_chunk + open_chunks,
    )


def _pairs(rows: Iterable[tuple[bytes]]) -> Iterator[tuple[int, int]]:
    for (packed,) in rows:
        spans = _spans(packed)
        yield from zip(spans[::2], spans[1::2], strict=True)
