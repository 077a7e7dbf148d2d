from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from proxywell.config.schema import PoolSettings
from proxywell.model.report import GivenUpWhy, Outcome, RefreshReport
from proxywell.pool.pool import Pool
from proxywell.refresh.books import ChunkRow, JobState, Worker
from proxywell.refresh.clerk import Clerk
from proxywell.refresh.engines.celery import ClockBell
from proxywell.refresh.holding import Holding, candidates_of
from proxywell.refresh.ledgers.sqlite import BUSY_MS, SqliteLedger, open_ledger
from proxywell.refresh.ledgers.sqlite_rows import SqliteBooks
from proxywell.refresh.plan import blocks
from proxywell.refresh.ports import NewJob
from proxywell.refresh.report import Dossier
from proxywell.refresh.spans import items_of
from tests.contract.ledger_world import JOB, TERMS
from tests.network.refresh_fakes import FakePool, Habits, candidates, number
from tests.network.refresh_process import CHUNK, SETTINGS
from tests.network.test_refresh_run import balanced

COUNT = 2_000
ROOT = Path(__file__).parents[2]
INTERRUPTED = (-signal.SIGINT, 1, 130)


class Victim:
    """A refresh job in a process of its own."""

    def __init__(
        self, state: Path, *, workers: int = 1, sockets: int = 30, lease_s: float = 2.0
    ) -> None:
        self.log = state / "verdicts.log"
        self.log.touch()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.network.refresh_process",
                *(str(state), str(COUNT), str(workers), str(self.log), str(sockets)),
                str(lease_s),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.job_id = self.process.stdout.readline().strip()
        assert self.job_id, "the process ended before it had a job"

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def verdicts(self) -> list[tuple[int, int]]:
        lines = self.log.read_text(encoding="ascii").splitlines()
        return [(int(item), int(pid)) for item, pid in (line.split() for line in lines)]


def settled_items(state: Path, job_id: str) -> set[int]:
    ledger = open_ledger(state)
    parts = ledger.parts(job_id, 0, 100_000)
    ledger.close()
    return {item for part in parts for item in items_of(part.items)}


def resume(state: Path, job_id: str, log: Path | None = None, workers: int = 1) -> RefreshReport:
    habits = Habits(delay_s=0.001, sockets=500, log=None if log is None else str(log))
    with (
        Pool.open(state, PoolSettings()) as pool,
        habits.room(state, SETTINGS, pool, workers=workers) as room,
    ):
        return room.wait_for(job_id, bound_s=60)


def chunk_rows(state: Path, job_id: str) -> list[ChunkRow]:
    ledger = SqliteLedger(state / "ledger.sqlite")
    rows = SqliteBooks(ledger._db, job_id)._rows("1")
    ledger.close()
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_a_job_killed_at_random_is_finished_by_a_new_process(tmp_path: Path, seed: int) -> None:
    victim = Victim(tmp_path, workers=1 + seed % 2)
    time.sleep(random.Random(seed).uniform(0.0, 1.2))
    victim.end(signal.SIGKILL)
    settled = settled_items(tmp_path, victim.job_id)
    again = tmp_path / "again.log"
    again.touch()
    began_s = time.monotonic()
    report = resume(tmp_path, victim.job_id, again)
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)
    assert report.items.checked == COUNT
    assert report.verdicts.working == report.pool.after == COUNT // 20
    assert time.monotonic() - began_s < 15
    redone = {int(line.split()[0]) for line in again.read_text(encoding="ascii").splitlines()}
    positions = numbers_by_item(tmp_path, victim.job_id)
    assert not redone & {positions[item] for item in settled}, "what was done was done again"
    assert {row.blamed for row in chunk_rows(tmp_path, victim.job_id)} == {0}


def numbers_by_item(state: Path, job_id: str) -> dict[int, int]:
    ledger = open_ledger(state)
    blocks = ledger.blocks(job_id, (0, COUNT))
    ledger.close()
    return {item: number(candidate) for item, candidate in candidates_of((0, COUNT), blocks)}


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(20))
def test_many_killings_of_one_job_still_end_in_full_accounting(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    victim = Victim(tmp_path, workers=1 + seed % 2, sockets=20)
    time.sleep(draw.uniform(0.0, 2.0))
    victim.end(signal.SIGKILL)
    report = resume(tmp_path, victim.job_id, workers=1 + draw.randrange(2))
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)
    assert report.items.checked == COUNT


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    victim = Victim(tmp_path, workers=2)
    end_s = time.monotonic() + 10
    while len({pid for _, pid in victim.verdicts()}) < 2 and time.monotonic() < end_s:
        time.sleep(0.05)
    children = {pid for _, pid in victim.verdicts()}
    assert len(children) == 2
    victim.end(signal.SIGKILL)
    end_s = time.monotonic() + 5
    while any(is_running(pid) for pid in children) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in children)


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_releases_everything_and_leaves_the_job_open(
    tmp_path: Path, workers: int
) -> None:
    victim = working(tmp_path, workers)
    assert victim.end(signal.SIGINT) in INTERRUPTED
    assert_released(tmp_path, victim.job_id)


def test_what_is_given_back_to_a_locked_ledger_is_given_back_once_it_is_free(
    tmp_path: Path,
) -> None:
    ledger = open_ledger(tmp_path)
    job = NewJob(JOB, 9, TERMS, b"{}", 0.0)
    ledger.create(job, blocks(candidates(9), TERMS.chunk_size))
    clerk = Clerk(
        JOB, Worker("n", "n/1"), open_ledger=lambda: open_ledger(tmp_path), beat_s=60.0,
        bell=ClockBell(), listener=NoListener(),
    )  # fmt: skip
    clerk.start()
    assert isinstance(clerk.claim().result(10), Holding)
    other = sqlite3.connect(
        tmp_path / "ledger.sqlite", timeout=10, isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(BUSY_MS / 1000 + 1, other.execute, ["COMMIT"])  # after the first try
    release.start()
    assert clerk.leave(60)
    release.join()
    other.close()
    assert ledger.status(JOB).running == 0
    ledger.close()


class NoListener:
    def stop(self, holding: Holding) -> None:
        raise AssertionError("a lease was lost")

    def drain(self) -> None:
        raise AssertionError("nobody drains")

    def broken(self, error: BaseException) -> None:
        raise error


def working(state: Path, workers: int) -> Victim:
    """A process that has checked something; its leases outlast every stall of a busy machine."""
    victim = Victim(state, workers=workers, lease_s=25)
    end_s = time.monotonic() + 30
    while not victim.verdicts() and time.monotonic() < end_s:
        time.sleep(0.05)
    assert victim.verdicts()
    return victim


def assert_released(state: Path, job_id: str) -> None:
    ledger = open_ledger(state)
    job = ledger.status(job_id)
    assert job.state is JobState.OPEN
    assert (job.running, job.rescued, ledger.nodes(job_id)) == (0, 0, frozenset())
    ledger.close()
    report = resume(state, job_id)
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)


class Run:
    """A job with two child workers, carried by a thread of this process."""

    def __init__(self, state: Path, habits: Habits, *, count: int = COUNT) -> None:
        self.room = habits.room(state, SETTINGS, FakePool(), workers=2)
        self.job_id = self.room.create(candidates(count), Dossier(), size=CHUNK)
        self.report: RefreshReport | None = None
        self.thread = threading.Thread(target=self._carry)
        self.thread.start()

    def _carry(self) -> None:
        self.report = self.room.wait_for(self.job_id, bound_s=90)

    def ended(self) -> RefreshReport:
        self.thread.join(100)
        self.room.close()
        assert self.report is not None
        return self.report


def test_a_child_killed_with_ten_chunks_costs_only_their_unreported_rest(tmp_path: Path) -> None:
    run = Run(tmp_path, Habits(delay_s=0.3, sockets=200))
    ledger = open_ledger(tmp_path)
    end_s = time.monotonic() + 15
    victim, held = "", 0
    while held < 10 and time.monotonic() < end_s:
        holders = Counter(lease.holder for lease in ledger.leases(run.job_id))
        victim, held = holders.most_common(1)[0] if holders else ("", 0)
        time.sleep(0.02)
    assert held >= 10
    place = victim.rpartition("/")[2].partition(".")[0]
    children = {child.name: child.pid for child in multiprocessing.active_children()}
    pid = children[f"proxywell worker {place}"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    report = run.ended()
    ledger.close()
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)
    assert report.chunks.rescued >= 10, "the report says how many ran again"
    assert report.chunks.split == 0
    assert {row.blamed for row in chunk_rows(tmp_path, run.job_id)} == {0}, "nobody is to blame"


def test_a_candidate_that_kills_its_worker_is_given_up_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, Habits(delay_s=0.01, sockets=40, deadly=frozenset({123})), count=400)
    report = run.ended()
    assert report.outcome is Outcome.PARTIAL
    assert balanced(report)
    assert report.items.given_up == report.items.given_up_why[GivenUpWhy.POISON] == 1
    assert report.items.checked == 399
    assert report.poison == ["socks5://10.0.0.123:1080"]
    again = Run(tmp_path, Habits(delay_s=0.01, sockets=40, deadly=frozenset({123})), count=400)
    report = again.ended()
    assert report.outcome is Outcome.COMPLETE
    assert report.items.planned == report.items.checked == 399
    assert report.candidates.refused == {"poison": 1}
    assert report.poison == []
