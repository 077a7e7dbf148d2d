"""The pool's file under bad luck: newer, truncated, foreign, locked, full, out of reach."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxywell.config.schema import PoolSettings
from proxywell.errors import (
    DiskFullError,
    StateError,
    StoreBusyError,
    StoreDamagedError,
    StoreTooNewError,
    UsageError,
)
from proxywell.pool import store as storing
from proxywell.pool.pool import Pool
from proxywell.pool.store import FILE_NAME, LADDER, Store
from tests.pool_makers import SetClock, candidate, endpoint, failed, passed

READS = [True, False]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A state directory whose pool holds members and rejections."""
    with Pool.open(tmp_path, PoolSettings(), SetClock()) as pool:
        pool.record("a", 1, [(n, candidate(n), passed(endpoint(n))) for n in range(400)])
        pool.record("a", 1, [(n, candidate(n), failed(endpoint(n))) for n in range(400, 2_000)])
        pool.seal("a", 1)
    return tmp_path


@pytest.fixture
def other(filled: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection."""
    connection = sqlite3.connect(filled / FILE_NAME, isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize("read_only", READS)
def test_a_file_of_a_later_version_is_refused_and_left_alone(
    filled: Path, other: sqlite3.Connection, read_only: bool
) -> None:
    other.execute(f"PRAGMA user_version={len(LADDER) + 1}")
    with pytest.raises(StoreTooNewError, match=r"written by a later proxywell.*update proxywell"):
        Store(filled / FILE_NAME, read_only=read_only)
    assert other.execute("SELECT count(*) FROM member").fetchone() == (400,)


@pytest.mark.parametrize("read_only", READS)
def test_an_older_file_climbs_the_ladder_and_keeps_what_is_in_it(
    filled: Path, read_only: bool
) -> None:
    longer = (*LADDER, "CREATE TABLE later (x); INSERT INTO later SELECT count(*) FROM member")
    for _ in range(2):
        store = Store(filled / FILE_NAME, read_only=read_only, ladder=longer)
        with store.reading() as reader:
            assert reader.execute("SELECT x FROM later").fetchone() == (400,)
            assert reader.execute("PRAGMA user_version").fetchone() == (len(longer),)
        store.close()


def test_a_step_of_the_ladder_that_fails_leaves_the_old_version(filled: Path) -> None:
    broken = (*LADDER, "CREATE TABLE later (x); CREATE TABLE member (x)")
    with pytest.raises(StateError, match="table member already exists"):
        Store(filled / FILE_NAME, ladder=broken)
    store = Store(filled / FILE_NAME)
    with store.reading() as reader:
        names = {name for (name,) in reader.execute("SELECT name FROM sqlite_schema")}
    store.close()
    assert "later" not in names


@pytest.mark.parametrize("read_only", READS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_said_to_be_damaged_with_what_to_do(
    filled: Path, share: float, read_only: bool
) -> None:
    file = filled / FILE_NAME
    os.truncate(file, int(file.stat().st_size * share))
    with (
        pytest.raises(StoreDamagedError, match=r"is damaged .*move it away and run `proxywell ref"),
        Pool.open(filled, PoolSettings(), read_only=read_only) as pool,
    ):
        pool.members()


@pytest.mark.parametrize("read_only", READS)
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, read_only: bool) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(b"PK\x03\x04" * 5_000)
    with pytest.raises(StoreDamagedError, match="is damaged"):
        Store(file, read_only=read_only)
    assert file.read_bytes() == b"PK\x03\x04" * 5_000
    file.unlink()
    foreign = sqlite3.connect(file)
    foreign.execute("CREATE TABLE songs (title)")
    foreign.close()
    with pytest.raises(StoreDamagedError, match="is a database, but not a pool"):
        Store(file, read_only=read_only)


def test_a_byte_flipped_in_a_row_is_found_when_it_is_read(filled: Path) -> None:
    file = filled / FILE_NAME
    data = bytearray(file.read_bytes())
    for at in range(8_192, len(data), 4_096):
        data[at : at + 64] = b"\xff" * 64
    file.write_bytes(data)
    with (
        pytest.raises(StoreDamagedError, match="is damaged"),
        Pool.open(filled, PoolSettings()) as pool,
    ):
        pool.members()


def test_a_writer_that_keeps_the_file_is_waited_for_and_then_named(
    filled: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "BUSY_S", 0.05)
    with Pool.open(filled, PoolSettings(), SetClock()) as pool:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="another process has held it"):
            pool.record("b", 1, [(0, candidate(0), failed(endpoint(0)))])
        assert len(pool.members()) == 400  # readers do not wait
        other.execute("ROLLBACK")
        pool.record("b", 1, [(0, candidate(0), failed(endpoint(0)))])
        assert pool.seal("b", 1).dropped == 1


def test_a_full_disk_is_said_and_nothing_is_half_written(filled: Path) -> None:
    told = [(n, candidate(n, "s"), passed(endpoint(n))) for n in range(3_000, 5_000)]
    with Pool.open(filled, PoolSettings(), SetClock()) as pool:
        writer = pool._store._writer
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count={pages + 5}")
        with pytest.raises(DiskFullError, match="no space is left; make room"):
            pool.record("b", 1, told)
        assert len(pool.members()) == 400
        writer.execute("PRAGMA max_page_count=1000000")
        pool.record("b", 1, told)  # told again when there is room: nothing was marked as told
        assert pool.seal("b", 1).added == 2_000


def test_the_file_is_private_even_where_it_was_not(tmp_path: Path) -> None:
    place = tmp_path / "state"
    Store(place / FILE_NAME).close()
    assert stat.S_IMODE((place / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    (place / FILE_NAME).chmod(0o644)
    store = Store(place / FILE_NAME)
    with store.transaction() as writer:
        writer.execute("INSERT INTO job (job_id, told_at) VALUES ('a', 0)")
    companions = list(place.iterdir())
    assert len(companions) == 3
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in companions)
    store.close()


def test_what_was_written_stays_when_another_process_closes_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / FILE_NAME)
    Store(tmp_path / FILE_NAME).close()
    count = (
        "import sys, pathlib; from proxywell.pool.store import Store;"
        "store = Store(pathlib.Path(sys.argv[1]));"
        "reader = store.reading().__enter__();"
        "print(reader.execute('SELECT count(*) FROM job').fetchone()[0]); store.close()"
    )

    def seen_elsewhere() -> int:
        command = [sys.executable, "-c", count, str(tmp_path / FILE_NAME)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert seen_elsewhere() == 0
    with store.transaction() as writer:
        writer.execute("INSERT INTO job (job_id, told_at) VALUES ('a', 0)")
    assert seen_elsewhere() == 1
    store.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot be opened for writing.*--state DIR"):
        Store(tmp_path / "file" / FILE_NAME)
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StateError, match="cannot be opened"):
        Store(tmp_path / FILE_NAME)
    with pytest.raises(StateError, match="cannot be opened"):
        Store(tmp_path / FILE_NAME, read_only=True)


def test_a_path_with_the_signs_of_a_uri_in_it_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "a?mode=ro#%20" / FILE_NAME
    Store(file).close()
    assert file.is_file()


def test_a_backup_onto_a_full_disk_names_the_copy_and_leaves_none(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(sqlite3.Connection):
        def backup(self, *_: object, **__: object) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *where, **how: connect(*where, factory=Full, **how)
    )
    target = tmp_path / "copy.sqlite"
    with (
        Pool.open(filled, PoolSettings(), SetClock(), read_only=True) as pool,
        pytest.raises(DiskFullError, match=r"copy\.sqlite cannot be written: no space is left"),
    ):
        pool.back_up(target)
    assert not target.exists()


def test_a_state_directory_that_is_a_file_is_no_empty_pool(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="is a file; name a directory with --state"):
        Pool.open(tmp_path / "state", PoolSettings(), SetClock(), read_only=True)


def test_a_backup_opens_elsewhere_and_never_replaces_a_file(filled: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Pool.open(filled, PoolSettings(), SetClock(), read_only=True) as pool:
        size_bytes = pool.back_up(elsewhere / FILE_NAME)
        with pytest.raises(UsageError, match="exists"):
            pool.back_up(elsewhere / FILE_NAME)
        with pytest.raises(UsageError, match="cannot be made"):
            pool.back_up(tmp_path / "nowhere" / FILE_NAME)
        before = pool.members()
    assert [file.name for file in elsewhere.iterdir()] == [FILE_NAME]
    assert (elsewhere / FILE_NAME).stat().st_size == size_bytes
    assert stat.S_IMODE((elsewhere / FILE_NAME).stat().st_mode) == 0o600
    with Pool.open(elsewhere, PoolSettings(), SetClock()) as copy:
        assert copy.members() == before
        assert copy.sealed("a", 1) is not None


def test_closing_works_twice(tmp_path: Path) -> None:
    store = Store(tmp_path / FILE_NAME)
    store.close()
    store.close()
