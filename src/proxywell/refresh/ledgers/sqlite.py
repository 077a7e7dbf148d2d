"""The SQLite ledger: the rules on a file, for any number of processes on one machine.

A step loads the few rows that its rule touches, lets the rule run, and writes them back, in one
``BEGIN IMMEDIATE`` transaction. WAL with ``synchronous=NORMAL``: a power cut may lose the last
steps, whose chunks then run again; a killed process loses nothing that was answered.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from proxywell.config.places import make_private
from proxywell.errors import (
    DiskFullError,
    StateError,
    StoreBusyError,
    StoreDamagedError,
    StoreTooNewError,
)
from proxywell.refresh.books import JobRow, Lease, LedgerEvent, Part
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ledgers.ruled import (
    STAGE_ROWS,
    Keep,
    RuledLedger,
    first_chunks,
    keep,
    new_line,
    stages,
    unknown_job,
)
from proxywell.refresh.ledgers.sqlite_rows import INSERT_CHUNK, SCHEMA_STEPS, SqliteBooks, columns
from proxywell.refresh.ports import Block, NewJob
from proxywell.refresh.spans import Spans

FILE_NAME = "ledger.sqlite"
BUSY_MS = 2_000
SETTLE_S = 0.005
STAGED_KEPT_S = 3_600.0  # what a creation that never ended left behind
SCHEMA_VERSION = len(SCHEMA_STEPS)
_OF_A_JOB = ("part", "block", "event", "chunk")

_pack = msgspec.msgpack.Encoder().encode
_job_row = msgspec.msgpack.Decoder(JobRow).decode
_spans = msgspec.msgpack.Decoder(tuple[int, ...]).decode
_facts = msgspec.msgpack.Decoder(dict[str, int | float | str]).decode


def boot_clock_s() -> float:
    """Seconds since the machine started, asleep or not; the same in every process."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def boot_id() -> str:
    """What tells one run of the machine from the next; empty where there is no such thing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class SqliteLedger(RuledLedger):
    """All jobs of one state directory.

    Args:
        path: The file; its directory must exist.
        clock: Seconds that never go back, the same for all processes that share the file.
        boot: What the clock counts from; another one in the file ends all leases.
        rules: The rule book; another one only to show that a defect is found.

    Raises:
        StateError: The file cannot be opened, is not ours, or is of a later version.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = boot_clock_s,
        boot: str | None = None,
        rules: type[LedgerRules] = LedgerRules,
    ) -> None:
        self.path = path
        self._clock = clock
        self._boot = boot_id() if boot is None else boot
        self._rules = rules
        with suppress(OSError):  # what is wrong with the place is SQLite's to say, a moment later
            make_private(path)  # candidates in it may have credentials
        with self._sentences():
            self._db = sqlite3.connect(
                path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
        try:
            self._set_up()
        except BaseException:
            self._db.close()
            raise

    def create(self, job: NewJob, blocks: Iterable[Block]) -> bool:
        """Write the items in stages, then the line that makes the job exist.

        What an earlier epoch wrote is dropped first, its line before all.
        """
        with self._transaction():
            found = self._db.execute("SELECT body FROM job WHERE id = ?", (job.job_id,)).fetchone()
            if found and _job_row(found[0]).epoch >= job.epoch:
                return False
            self._db.execute("DELETE FROM job WHERE id = ?", (job.job_id,))
            self._db.execute(
                "INSERT OR REPLACE INTO staged VALUES (?, ?)", (job.job_id, job.created_at_s)
            )
        self._drop_rows(job.job_id)
        chunks = 0
        for stage in stages(first_chunks(blocks, job.settled)):
            with self._transaction():
                for block, chunk in stage:
                    self._db.execute(
                        "INSERT INTO block VALUES (?, ?, ?, ?)",
                        (job.job_id, block.lo, block.hi, block.body),
                    )
                    if chunk is not None:
                        self._db.execute(INSERT_CHUNK, (job.job_id, chunk.id, *columns(chunk)))
                        chunks += 1
        line = new_line(job, chunks, self._clock())
        with self._transaction():
            self._db.execute(
                "INSERT INTO job VALUES (?, ?, ?, ?, NULL)",
                (job.job_id, job.created_at_s, _pack(line), job.spec),
            )
            self._db.execute("DELETE FROM staged WHERE job = ?", (job.job_id,))
            with self._opened(job.job_id) as rules:
                rules.create()
        return True

    def blocks(self, job_id: str, spans: Spans) -> list[Block]:
        """The blocks that hold these items, rising."""
        if not spans:
            return []
        with self._sentences():
            rows = self._db.execute(
                "SELECT lo, hi, body FROM block WHERE job = ? AND lo < ? AND lo >="
                " coalesce((SELECT max(lo) FROM block WHERE job = ? AND lo <= ?), 0) ORDER BY lo",
                (job_id, spans[-1], job_id, spans[0]),
            ).fetchall()
        return [Block(*row) for row in rows]

    def status(self, job_id: str) -> JobRow:
        """The line as it stands; changes nothing."""
        return _job_row(self._of_job(job_id, "body"))

    def spec(self, job_id: str) -> bytes:
        """What the caller gave at creation."""
        return bytes(self._of_job(job_id, "spec"))

    def summary(self, job_id: str) -> bytes | None:
        """What ``fin_commit`` kept; None before."""
        return self._of_job(job_id, "summary")

    def leases(self, job_id: str) -> list[Lease]:
        """All running attempts."""
        with self._sentences():
            held = SqliteBooks(self._db, job_id).running()
        return [Lease(chunk.id, chunk.token or "", chunk.node, chunk.holder) for chunk in held]

    def parts(self, job_id: str, after: int, limit: int) -> list[Part]:
        """Verdicts behind sequence number ``after``, in order, at most ``limit`` of them."""
        with self._sentences():
            rows = self._db.execute(
                "SELECT seq, chunk, items, body FROM part WHERE job = ? AND seq > ?"
                " ORDER BY seq LIMIT ?",
                (job_id, after, limit),
            ).fetchall()
        return [Part(seq, chunk, _spans(items), body) for seq, chunk, items, body in rows]

    def events(self, job_id: str, after: int, limit: int) -> list[LedgerEvent]:
        """Events behind sequence number ``after``, in order, at most ``limit`` of them."""
        with self._sentences():
            rows = self._db.execute(
                "SELECT seq, at_s, kind, chunk, facts FROM event WHERE job = ? AND seq > ?"
                " ORDER BY seq LIMIT ?",
                (job_id, after, limit),
            ).fetchall()
        return [
            LedgerEvent(seq, at_s, kind, chunk, _facts(facts))
            for seq, at_s, kind, chunk, facts in rows
        ]

    def jobs(self) -> list[JobRow]:
        """All jobs, newest first."""
        with self._sentences():
            rows = self._db.execute("SELECT body FROM job ORDER BY created_at DESC, id DESC")
            return [_job_row(body) for (body,) in rows]

    def node_beat(self, node: str, job_id: str, *, term_s: float, draining: bool = False) -> None:
        """Say that a main lives, for ``term_s`` from now; ``job_id`` empty: for all jobs."""
        row = (node, self._boot, job_id, self._clock() + term_s, int(draining))
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?)", row)

    def node_gone(self, node: str) -> None:
        """Forget a main that ended or is known to be gone."""
        with self._transaction():
            self._db.execute("DELETE FROM node WHERE name = ?", (node,))

    def nodes(self, job_id: str) -> frozenset[str]:
        """Mains that live, for this job."""
        with self._sentences():
            rows = self._db.execute(
                "SELECT name FROM node WHERE until_s > ? AND boot = ? AND job IN ('', ?)",
                (self._clock(), self._boot, job_id),
            )
            return frozenset(name for (name,) in rows)

    def sweep(self, now_s: float) -> None:
        """Drop what is past keeping, in short steps."""
        with self._sentences():
            staged = self._db.execute(
                "SELECT job FROM staged WHERE since_at < ?", (now_s - STAGED_KEPT_S,)
            ).fetchall()
        for (job_id,) in staged:
            self._drop_rows(job_id)
            with self._transaction():
                self._db.execute("DELETE FROM staged WHERE job = ?", (job_id,))
        for job in self.jobs():
            still = keep(job, now_s=now_s, clock_s=self._clock())
            if still is Keep.ALL:
                continue
            if still is Keep.NOTHING:
                with self._transaction():
                    self._db.execute("DELETE FROM job WHERE id = ?", (job.job_id,))
                    self._db.execute("DELETE FROM copy WHERE job = ?", (job.job_id,))
            self._drop_rows(job.job_id)
        with self._transaction():
            self._db.execute(
                "DELETE FROM node WHERE boot != ? OR until_s < ?",
                (self._boot, self._clock() - STAGED_KEPT_S),
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One atomic step on a table that stands beside the books of jobs.

        Raises:
            StateError: The file cannot be read or written.
        """
        with self._transaction():
            yield self._db

    def close(self) -> None:
        """Let go of the file; works twice."""
        self._db.close()

    # --- steps

    @contextmanager
    def _step(self, job_id: str) -> Iterator[LedgerRules]:
        with self._transaction(), self._opened(job_id) as rules:
            yield rules

    @contextmanager
    def _opened(self, job_id: str) -> Iterator[LedgerRules]:
        line = _job_row(self._of_job(job_id, "body"))
        rules = self._rules(line, SqliteBooks(self._db, job_id), self._clock(), self._boot)
        yield rules
        self._db.execute("UPDATE job SET body = ? WHERE id = ?", (_pack(rules.job), job_id))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._sentences():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn what SQLite says into a sentence: what, where, what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise _as_state_error(error, self.path) from error

    def _set_up(self) -> None:
        with self._sentences():
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise StoreTooNewError(
                    f"{self.path} was written by a later proxywell (ledger version {version}, this"
                    f" one knows {SCHEMA_VERSION}); use that version, or another --state directory"
                )
            self._use_wal()
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA journal_size_limit = 67108864")
            if version == SCHEMA_VERSION:
                return
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]  # now it is ours
            for step in SCHEMA_STEPS[version:]:
                for statement in step.split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {max(version, SCHEMA_VERSION)}")

    def _use_wal(self) -> None:
        """Change the journal, or find it changed; SQLite itself does not wait for this lock."""
        end_s = time.monotonic() + BUSY_MS / 1000
        while True:  # ends when it is done, or at end_s
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > end_s:
                    raise
                time.sleep(SETTLE_S)
            else:
                return

    def _of_job(self, job_id: str, column: str) -> bytes:
        with self._sentences():
            row = self._db.execute(
                f"SELECT {column} FROM job WHERE id = ?",  # noqa: S608 - our own text
                (job_id,),
            ).fetchone()
        if row is None:
            raise unknown_job(job_id, [job.job_id for job in self.jobs()])
        return row[0]  # type: ignore[no-any-return] # the schema says BLOB

    def _drop_rows(self, job_id: str) -> None:
        for table in _OF_A_JOB:
            key = "seq" if table in ("part", "event") else "lo" if table == "block" else "id"
            while True:  # ends when a step finds nothing more
                with self._transaction():
                    gone = self._db.execute(
                        f"DELETE FROM {table} WHERE job = ? AND {key} IN"  # noqa: S608 - ours
                        f" (SELECT {key} FROM {table} WHERE job = ? LIMIT ?)",
                        (job_id, job_id, STAGE_ROWS),
                    )
                if gone.rowcount < STAGE_ROWS:
                    break

    def _is_draining(self, node: str) -> bool:
        row = self._db.execute("SELECT draining FROM node WHERE name = ?", (node,)).fetchone()
        return bool(row and row[0])

    def _keep_summary(self, job_id: str, summary: bytes) -> None:
        self._db.execute("UPDATE job SET summary = ? WHERE id = ?", (summary, job_id))


def open_ledger(state_dir: Path) -> SqliteLedger:
    """Open the ledger of a state directory, creating both where they are missing.

    Raises:
        StateError: The directory or file cannot be made, read or written.
    """
    return SqliteLedger(ledger_file(state_dir))


def ledger_file(state_dir: Path) -> Path:
    """Where the ledger of a state directory is; the directory is made if it is missing.

    Raises:
        StateError: It cannot be made.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"the state directory {state_dir} cannot be made ({os.strerror(error.errno or 0)});"
            " name another one with --state"
        ) from error
    return state_dir / FILE_NAME


def _as_state_error(error: sqlite3.Error, path: Path) -> StateError:
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusyError(
            f"{path} stayed locked for {BUSY_MS / 1000:g} s; another program holds it:"
            " stop that program, or use another --state directory"
        )
    if name.startswith("SQLITE_FULL"):
        return DiskFullError(f"the disk is full: {path} cannot grow; free some space and run again")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StateError(
            f"{path} cannot be opened for writing; check its permissions and those of its"
            " directory, or name another one with --state"
        )
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return StoreDamagedError(
            f"{path} is damaged or is not a ledger; move it away (its jobs are lost, the pool"
            " is not) and run again"
        )
    return StateError(f"{path} failed ({error}); check the disk, or use another --state directory")
