"""What only the ledger that is a file can do: outlive a boot, be locked, foreign or full."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxywell.errors import StateError, StoreBusyError, UnknownJobError
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import Claim, Settled, SubmitAnswer
from proxywell.refresh.ledgers.sqlite import SqliteLedger, open_ledger
from proxywell.refresh.ports import Block, NewJob
from tests.contract.ledger_steps import ONE, claim, create
from tests.contract.ledger_world import JOB, TERMS, Clock, all_chunks, blocks_of

FIRST_VERSION = Path(__file__).parents[1] / "data" / "ledger_v1.sql"


def test_a_new_boot_ends_all_leases_and_keeps_the_rest_of_the_deadline(tmp_path: Path) -> None:
    clock = Clock()
    before = SqliteLedger(tmp_path / "l", clock=clock, boot="b1")
    create(before, 3)
    claim(before, ONE, "a")
    before.node_beat("n1", "", term_s=1e6)
    before.close()
    clock.now_s = 5.0  # the clock began anew
    after = SqliteLedger(tmp_path / "l", clock=clock, boot="b2")
    job = after.tick(JOB).job
    assert (job.ready, job.running) == (1, 0)
    assert job.deadline_s == pytest.approx(605)
    assert all_chunks(after)[0].blamed == 0
    after.close()


def test_a_creation_that_never_ended_left_no_job_and_is_swept(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", clock=Clock())

    def broken() -> Iterator[Block]:
        yield from blocks_of(900, 1)
        raise OSError("the list went away")

    with pytest.raises(OSError, match="went away"):
        ledger.create(NewJob(JOB, 900, TERMS, b"{}", 0.0), broken())
    with pytest.raises(UnknownJobError):
        ledger.status(JOB)
    assert ledger._db.execute("SELECT count(*) FROM block").fetchone()[0] > 0
    ledger.sweep(7_200.0)
    assert ledger._db.execute("SELECT count(*) FROM block").fetchone()[0] == 0
    ledger.close()


def test_a_file_of_the_first_version_is_brought_to_this_one_with_its_jobs(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l") as db:
        db.executescript(FIRST_VERSION.read_text(encoding="utf-8"))
    db.close()
    SqliteLedger(tmp_path / "l", clock=Clock(), boot="b1").close()
    ledger = SqliteLedger(tmp_path / "l", clock=Clock(), boot="b1")
    (job,) = ledger.jobs()
    assert (job.job_id, job.checked, job.ready) == ("20261101-080000-0a1b2c", 3, 1)
    assert [event.kind for event in ledger.events(job.job_id, 0, 9)] == [
        "created", "claimed", "settled", "done",
    ]  # fmt: skip
    held = ledger.claim(job.job_id, ONE, "b")
    assert isinstance(held, Claim)
    told = Settled(held.items)
    assert ledger.submit(job.job_id, held.chunk_id, "b", 1, told) is SubmitAnswer.CLOSED
    new = SqliteLedger(tmp_path / "new", clock=Clock(), boot="b1")
    assert tables_of(ledger) == tables_of(new), "a new file and an old one differ"
    ledger.close()
    new.close()


def tables_of(ledger: SqliteLedger) -> set[str]:
    with ledger.transaction() as db:
        rows = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {" ".join(sql.split()) for (sql,) in rows}


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateError, match="later proxywell"):
        open_ledger(tmp_path)


def test_what_is_no_ledger_is_said(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"junk" * 5_000)
    with pytest.raises(StateError, match="not a ledger"):
        open_ledger(tmp_path)


def test_a_state_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="--state"):
        open_ledger(tmp_path / "file" / "state")


def test_a_locked_ledger_is_said_and_the_step_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxywell.refresh.ledgers.sqlite.BUSY_MS", 50)
    ledger = open_ledger(tmp_path)
    create(ledger, 3)
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match="locked"):
        ledger.claim(JOB, ONE, "a")
    other.execute("ROLLBACK")
    other.close()
    claim(ledger, ONE, "a")
    ledger.close()


def test_the_book_is_its_owners_alone_since_candidates_may_have_credentials(tmp_path: Path) -> None:
    (tmp_path / "l").touch(0o644)
    ledger = SqliteLedger(tmp_path / "l", clock=Clock())
    create(ledger, 3)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("l*")} == {0o600}
    ledger.close()


def test_what_was_answered_stays_when_another_process_closes_the_book(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    create(ledger, 3)
    open_ledger(tmp_path).close()  # as a worker on a thread of its own does
    look = (
        "import sys, pathlib; from proxywell.refresh.ledgers.sqlite import open_ledger;"
        "ledger = open_ledger(pathlib.Path(sys.argv[1]));"
        "print(ledger.tick(sys.argv[2]).job.state); ledger.close()"
    )

    def seen_elsewhere() -> str:
        command = [sys.executable, "-c", look, str(tmp_path), JOB]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert seen_elsewhere() == "open"
    assert ledger.cancel(JOB, GivenUpWhy.CANCELLED, "cancelled")
    assert seen_elsewhere() == "closed"
    ledger.close()


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    told = Settled((0, 3), (0, 1), bytes(200_000))
    with pytest.raises(StateError, match="disk is full"):
        ledger.submit(JOB, held.chunk_id, "a", 1, told)
    job = ledger.status(JOB)
    assert (job.checked, job.running) == (0, 1)
    big = [Block(at, at + 1, bytes(100_000)) for at in range(50)]
    with pytest.raises(StateError, match="disk is full"):
        ledger.create(NewJob("big", 50, TERMS, b"{}", 0.0), big)
    assert [job.job_id for job in ledger.jobs()] == [JOB]
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    assert ledger.submit(JOB, held.chunk_id, "a", 1, told) is SubmitAnswer.CLOSED
    ledger.close()
