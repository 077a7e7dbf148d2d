"""The pool's file: opened, brought to this version's form, written by one at a time.

The file is SQLite in WAL mode, so that readers never wait for the writer. This module knows
tables and transactions; what is written into them is the business of ``recorder.py`` and
``roster.py``.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from proxywell.config.places import make_private
from proxywell.errors import (
    DiskFullError,
    StateError,
    StoreBusyError,
    StoreDamagedError,
    StoreTooNewError,
    UsageError,
)

FILE_NAME: Final = "pool.sqlite"
BUSY_S: Final = 10.0  # how long a writer waits for another one before it says so
_MARK: Final = 0x70787731  # "pxw1" in the header says that the file is a pool

# Step n brings a file of version n to version n + 1. A step that was published never changes.
LADDER: Final[tuple[str, ...]] = (
    """
    CREATE TABLE member (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        host TEXT NOT NULL,
        port INTEGER NOT NULL,
        protocols TEXT NOT NULL,
        anonymity TEXT NOT NULL,
        exit_ip TEXT,
        passed REAL NOT NULL,
        tried REAL NOT NULL,
        tallied_at REAL NOT NULL,
        passed_last INTEGER NOT NULL,
        last_at REAL NOT NULL,
        last_ok_at REAL,
        failures_in_row INTEGER NOT NULL,
        failing_since REAL,
        times_checked INTEGER NOT NULL,
        times_passed INTEGER NOT NULL,
        latencies_ms TEXT NOT NULL,
        frozen_at REAL,
        barred_why TEXT,
        joined_at REAL NOT NULL,
        sources TEXT NOT NULL,
        verdict BLOB NOT NULL
    );
    CREATE INDEX member_by_place ON member (host, port);
    CREATE TABLE job (
        id INTEGER PRIMARY KEY,
        job_id TEXT NOT NULL UNIQUE,
        added INTEGER NOT NULL DEFAULT 0,
        dropped INTEGER NOT NULL DEFAULT 0,
        told_at REAL NOT NULL
    );
    CREATE TABLE told (
        job INTEGER NOT NULL,
        block INTEGER NOT NULL,
        items BLOB NOT NULL,
        PRIMARY KEY (job, block)
    ) WITHOUT ROWID;
    CREATE TABLE finalised (
        job INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        change BLOB NOT NULL,
        sealed_at REAL NOT NULL,
        PRIMARY KEY (job, epoch)
    ) WITHOUT ROWID;
    CREATE TABLE checked (
        id INTEGER PRIMARY KEY,
        member INTEGER NOT NULL,
        at REAL NOT NULL,
        origin TEXT NOT NULL,
        item INTEGER,
        working INTEGER NOT NULL,
        failure TEXT,
        blame TEXT,
        latency_ms REAL,
        protocol TEXT,
        judge TEXT NOT NULL,
        exit_ip TEXT
    );
    CREATE INDEX checked_by_member ON checked (member, at);
    CREATE TABLE target (
        member INTEGER NOT NULL,
        name TEXT NOT NULL,
        passed REAL NOT NULL,
        tried REAL NOT NULL,
        tallied_at REAL NOT NULL,
        PRIMARY KEY (member, name)
    ) WITHOUT ROWID;
    CREATE TABLE rejection (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        protocol TEXT,
        failure TEXT,
        blame TEXT,
        at REAL NOT NULL,
        origin TEXT NOT NULL,
        barred_why TEXT,
        steps BLOB NOT NULL,
        sources TEXT NOT NULL
    );
    CREATE INDEX rejection_barred ON rejection (key) WHERE barred_why IS NOT NULL;
    CREATE TABLE rejected (
        key TEXT PRIMARY KEY,
        protocol TEXT,
        failure TEXT,
        blame TEXT,
        first_at REAL NOT NULL,
        last_at REAL NOT NULL,
        times INTEGER NOT NULL,
        origin TEXT NOT NULL,
        barred_why TEXT,
        steps BLOB NOT NULL,
        sources TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
)


class Store:
    """One open pool file: a connection that reads, one that writes, each used by one at a time.

    Args:
        path: The file; made with mode 0600 if it is not there.
        read_only: Never write. A file that is not there then reads as an empty pool.
        ladder: Steps from an empty file to this version's form.

    Raises:
        StoreBusyError, StoreDamagedError, StoreTooNewError, DiskFullError, StateError.
    """

    def __init__(
        self, path: Path, *, read_only: bool = False, ladder: Sequence[str] = LADDER
    ) -> None:
        self.path = path
        self.read_only = read_only
        self._ladder = ladder
        self._open: list[sqlite3.Connection] = []
        self._reading, self._writing = threading.RLock(), threading.RLock()
        with self._in_words("be opened"):
            try:
                self._open_connections()
            except BaseException:
                self.close()
                raise

    def _open_connections(self) -> None:
        if self.read_only:
            if self.path.parent.is_file():
                raise StateError(
                    f"state directory {self.path.parent} is a file; name a directory with --state"
                )
            if not self.path.exists():
                self._reader = self._connect(":memory:")
                self._climb(self._reader)
                return
            self._reader = self._connect(f"file:{_quoted(self.path)}?mode=ro")
            if self._version_of(self._reader) == len(self._ladder):
                return
        self._create_private()
        self._writer = self._connect(f"file:{_quoted(self.path)}?mode=rw")
        self._writer.execute("PRAGMA journal_size_limit=67108864")
        self._writer.execute("PRAGMA wal_autocheckpoint=8000")
        _enter_wal(self._writer)
        self._climb(self._writer)
        self._reader = self._connect(f"file:{_quoted(self.path)}?mode=ro")

    def _connect(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._open.append(connection)
        connection.execute("PRAGMA cache_size=-16000")
        return connection

    def _create_private(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_private(self.path)  # it may hold credentials
        except OSError as error:
            raise StateError(
                f"{self.path} cannot be opened for writing: {error.strerror}; "
                "name a directory of yours with --state DIR"
            ) from error

    def _version_of(self, connection: sqlite3.Connection) -> int:
        """The version of the file's form; refuses what is no pool and what is too new."""
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
        if mark != _MARK and (version or mark or tables):
            raise StoreDamagedError(
                f"{self.path} is a database, but not a pool of proxywell; "
                "move it away or name another directory with --state DIR"
            )
        if version > len(self._ladder):
            raise StoreTooNewError(
                f"{self.path} was written by a later proxywell (its form is {version}, "
                f"this one knows {len(self._ladder)}); update proxywell, or name another "
                "directory with --state DIR"
            )
        return version

    def _climb(self, connection: sqlite3.Connection) -> None:
        """Bring the file to this version's form, all steps in one transaction."""
        if self._version_of(connection) == len(self._ladder):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = self._version_of(connection)  # another process may have climbed meanwhile
            for step in self._ladder[version:]:
                for statement in step.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id={_MARK}")
            connection.execute(f"PRAGMA user_version={len(self._ladder)}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection that reads; what is read in one statement is consistent."""
        with self._reading, self._in_words("be read"):
            yield self._reader

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection that reads; all that is read within is of one instant."""
        with self.reading() as reader:
            reader.execute("BEGIN")
            try:
                yield reader
            finally:
                _roll_back(reader)

    @contextmanager
    def transaction(self, *, lasting: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend the connection that writes, for one transaction: all of it or nothing.

        Args:
            lasting: What was written survives a loss of power from the return on, and all
                transactions before it too; otherwise it survives the death of the process.

        Raises:
            StateError: One of its kinds, in words; nothing was written.
        """
        assert not self.read_only, "a pool that was opened for reading is written to"
        with self._writing, self._in_words("be written"):
            writer = self._writer
            writer.execute(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            except BaseException:
                _roll_back(writer)
                raise

    def version(self) -> int:
        """Tell a number that changes when another connection has written to the file."""
        with self.reading() as reader:
            return int(reader.execute("PRAGMA data_version").fetchone()[0])

    def back_up(self, target: Path) -> int:
        """Copy the pool, as it is at one instant, into a new file that opens elsewhere.

        Returns:
            Its size in bytes.

        Raises:
            UsageError: The target exists, or its directory does not.
            StateError: It cannot be written; nothing is left of it.
        """
        try:
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError as error:
            raise UsageError(f"{target} exists; name a file that does not") from error
        except OSError as error:
            raise UsageError(f"{target} cannot be made: {error.strerror}") from error
        try:
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                with self.reading() as reader:
                    _copy(reader, copy, target)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, no companions
            finally:
                copy.close()
            with target.open("rb") as written:
                os.fsync(written.fileno())
            return target.stat().st_size
        except (sqlite3.Error, OSError) as error:
            target.unlink(missing_ok=True)
            raise StateError(f"{target} cannot be written: {error}") from error
        except StateError:
            target.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Close the file; works twice."""
        with self._writing, self._reading:
            while self._open:
                with suppress(sqlite3.Error):
                    self._open.pop().close()

    @contextmanager
    def _in_words(self, doing: str) -> Iterator[None]:
        """Turn SQLite's errors into sentences that say what, where and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error, doing) from error

    def _explained(self, error: sqlite3.Error, doing: str) -> StateError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreBusyError(
                f"{self.path} cannot {doing}: another process has held it for "
                f"{BUSY_S:g} s; let that one finish, then try again"
            )
        if code == sqlite3.SQLITE_FULL:
            return DiskFullError(
                f"{self.path} cannot {doing}: no space is left; make room and run the command "
                "again, nothing was half-written"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return StoreDamagedError(
                f"{self.path} is damaged ({self._first_fault(error)}); move it away and run "
                "`proxywell refresh`, or put a copy made by `proxywell backup` in its place"
            )
        return StateError(
            f"{self.path} cannot {doing}: {error}; see who owns it and whether its disk is "
            "well, or name another directory with --state DIR"
        )

    def _first_fault(self, error: sqlite3.Error) -> str:
        """Ask SQLite what is wrong with the file; the error itself if it cannot say."""
        with suppress(sqlite3.Error):
            probe = sqlite3.connect(f"file:{_quoted(self.path)}?mode=ro", uri=True, timeout=1)
            try:
                found = str(probe.execute("PRAGMA quick_check(1)").fetchone()[0])
            finally:
                probe.close()
            if found != "ok":
                return " ".join(found.split())
        return str(error)


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; the switch does not wait by itself when several processes open at once."""
    until_s = time.monotonic() + BUSY_S
    while True:  # ends with the switch, or at until_s
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(0.02)
        else:
            return


def _copy(source: sqlite3.Connection, copy: sqlite3.Connection, target: Path) -> None:
    """Copy all of a database; only what is written can find its disk full."""
    try:
        source.backup(copy)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
            raise
        raise DiskFullError(
            f"{target} cannot be written: no space is left; make room, or name a file elsewhere"
        ) from error


def _roll_back(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):  # SQLite rolls back by itself when the disk is full
        connection.execute("ROLLBACK")


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
