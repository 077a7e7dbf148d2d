"""The tables of the SQLite ledger, and the lines of one job as rows of them."""

from __future__ import annotations

import sqlite3

import msgspec

from proxywell.refresh.books import Among, ChunkRow, ChunkState, Company, LedgerEvent, Part
from proxywell.refresh.spans import count

# Each step brings a file of the version before to the next one; a new file takes them all.
SCHEMA_STEPS = (
    """
CREATE TABLE job (id TEXT PRIMARY KEY, created_at REAL NOT NULL, body BLOB NOT NULL,
  spec BLOB NOT NULL, summary BLOB);
CREATE TABLE staged (job TEXT PRIMARY KEY, since_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE block (job TEXT NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL,
  body BLOB NOT NULL);
CREATE UNIQUE INDEX block_by_lo ON block (job, lo);
CREATE TABLE chunk (job TEXT NOT NULL, id INTEGER NOT NULL, state INTEGER NOT NULL,
  suspect INTEGER NOT NULL, alone INTEGER NOT NULL, place INTEGER NOT NULL,
  holder TEXT NOT NULL, until_s REAL NOT NULL, items INTEGER NOT NULL, why TEXT,
  body BLOB NOT NULL);
CREATE UNIQUE INDEX chunk_by_id ON chunk (job, id);
CREATE INDEX chunk_ready ON chunk (job, suspect, place, id) WHERE state = 0;
CREATE INDEX chunk_lease ON chunk (job, until_s, id) WHERE state = 1;
CREATE INDEX chunk_held ON chunk (job, holder) WHERE state = 1;
CREATE TABLE part (job TEXT NOT NULL, seq INTEGER NOT NULL, chunk INTEGER NOT NULL,
  items BLOB NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX part_by_seq ON part (job, seq);
CREATE TABLE event (job TEXT NOT NULL, seq INTEGER NOT NULL, at_s REAL NOT NULL,
  kind TEXT NOT NULL, chunk INTEGER, facts BLOB NOT NULL, PRIMARY KEY (job, seq)) WITHOUT ROWID;
CREATE TABLE node (name TEXT PRIMARY KEY, boot TEXT NOT NULL, job TEXT NOT NULL,
  until_s REAL NOT NULL, draining INTEGER NOT NULL) WITHOUT ROWID
""",
    """
CREATE TABLE poison (place TEXT PRIMARY KEY, job TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID
""",
    """
CREATE TABLE copy (job TEXT PRIMARY KEY, epoch INTEGER NOT NULL, part INTEGER NOT NULL,
  event INTEGER NOT NULL, mark INTEGER NOT NULL, is_home INTEGER NOT NULL,
  is_told INTEGER NOT NULL) WITHOUT ROWID
""",
    """
CREATE TABLE meter (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE metered (job TEXT PRIMARY KEY) WITHOUT ROWID
""",
)
INSERT_CHUNK = "INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS = "body, state, until_s, why"

_pack = msgspec.msgpack.Encoder().encode
_chunk_row = msgspec.msgpack.Decoder(ChunkRow).decode


class SqliteBooks:
    """The lines of one job as rows, inside a transaction that the ledger opened."""

    def __init__(self, db: sqlite3.Connection, job_id: str) -> None:
        self._db = db
        self._job = job_id

    def chunk(self, chunk_id: int) -> ChunkRow | None:
        """One line; None if there is none."""
        found = self._rows("id = ?", chunk_id)
        return found[0] if found else None

    def put(self, chunk: ChunkRow) -> None:
        """Write a line, new or changed."""
        row = columns(chunk)
        changed = self._db.execute(
            "UPDATE chunk SET state = ?, suspect = ?, alone = ?, place = ?, holder = ?,"
            " until_s = ?, items = ?, why = ?, body = ? WHERE job = ? AND id = ?",
            (*row, self._job, chunk.id),
        )
        if not changed.rowcount:
            self._db.execute(INSERT_CHUNK, (self._job, chunk.id, *row))

    def first_ready(self, among: Among) -> ChunkRow | None:
        """The ready chunk with the lowest place and id, of those that bear no fewer others."""
        heads = []
        for kind in range(among + 1):
            where = "state = 0 AND suspect = ? ORDER BY place, id LIMIT 1"
            heads += self._rows(where, kind)
        return min(heads, key=lambda chunk: (chunk.place, chunk.id), default=None)

    def company(self, holder: str) -> Company:
        """What this holder holds now."""
        held, among, alone_id = self._db.execute(
            "SELECT count(*), coalesce(max(suspect), 0), max(CASE alone WHEN 1 THEN id END)"
            " FROM chunk WHERE job = ? AND holder = ? AND state = 1",
            (self._job, holder),
        ).fetchone()
        return Company(held, Among(among), alone_id)

    def overdue(self, now_s: float, limit: int) -> list[ChunkRow]:
        """Running chunks whose lease is over, longest first."""
        return self._rows("state = 1 AND until_s <= ? ORDER BY until_s, id LIMIT ?", now_s, limit)

    def renew_all(self, until_s: float) -> None:
        """Let every lease end at this instant."""
        self._db.execute(
            "UPDATE chunk SET until_s = ? WHERE job = ? AND state = 1", (until_s, self._job)
        )

    def open_chunks(self) -> tuple[int, int]:
        """Chunks ready or running, and the items in them."""
        chunks, items = self._db.execute(
            "SELECT count(*), coalesce(sum(items), 0) FROM chunk WHERE job = ? AND state <= 1",
            (self._job,),
        ).fetchone()
        return chunks, items

    def end_all(self, why: str) -> None:
        """Make every chunk that is ready or running LOST, for this reason."""
        self._db.execute(
            "UPDATE chunk SET state = ?, why = ? WHERE job = ? AND state <= 1",
            (int(ChunkState.LOST), str(why), self._job),
        )

    def add_part(self, part: Part) -> None:
        """Append verdicts."""
        self._db.execute(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?)",
            (self._job, part.seq, part.chunk_id, _pack(part.items), part.body),
        )

    def add_event(self, event: LedgerEvent) -> None:
        """Append an event."""
        self._db.execute(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)",
            (self._job, event.seq, event.at_s, event.kind, event.chunk_id, _pack(event.facts)),
        )

    def running(self) -> list[ChunkRow]:
        """Running chunks by number."""
        return self._rows("state = 1 ORDER BY id")

    def _rows(self, where: str, *values: float) -> list[ChunkRow]:
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM chunk WHERE job = ? AND {where}",  # noqa: S608 - our own text
            (self._job, *values),
        )
        return [_as_chunk(*row) for row in rows]


def columns(chunk: ChunkRow) -> tuple[object, ...]:
    """A line as the columns behind job and id, in the order of the table."""
    return (
        int(chunk.state),
        int(chunk.among),
        int(chunk.alone),
        chunk.place,
        chunk.holder,
        chunk.until_s,
        count(chunk.items),
        chunk.why,
        _pack(chunk),
    )


def _as_chunk(body: bytes, state: int, until_s: float, why: str | None) -> ChunkRow:
    """The columns decide: steps on all chunks at once change only them."""
    chunk = _chunk_row(body)
    chunk.state, chunk.until_s, chunk.why = ChunkState(state), until_s, why
    return chunk
