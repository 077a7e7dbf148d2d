from __future__ import annotations

import multiprocessing
import os
import random
import signal
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
from proxywell.refresh.books import ChunkRow, JobState
from proxywell.refresh.holding import candidates_of
from proxywell.refresh.ledgers.sqlite import SqliteLedger, open_ledger
from proxywell.refresh.ledgers.sqlite_rows import SqliteBooks
from proxywell.refresh.report import Dossier
from proxywell.refresh.spans import items_of
from tests.network.refresh_fakes import FakePool, Habits, candidates, number
from tests.network.refresh_process import CHUNK, SETTINGS
from tests.network.test_refresh_run import balanced

COUNT = 2_000
ROOT = Path(__file__).parents[2]


class Victim:
    """A refresh job in a process of its own."""

    def __init__(self, state: Path, *, workers: int = 1, sockets: int = 30) -> None:
        self.log = state / "verdicts.log"
        self.log.touch()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.network.refresh_process",
                *(str(state), str(COUNT), str(workers), str(self.log), str(sockets)),
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
    # a disk that stalls for seconds may keep a release from being written; then leases run out
    assert any(interrupted(tmp_path / str(number), workers) for number in range(3))


def interrupted(directory: Path, workers: int) -> bool:
    """Whether an interrupted process left nothing held; its job is finished in any case."""
    directory.mkdir()
    victim = Victim(directory, workers=workers, sockets=30)
    end_s = time.monotonic() + 10
    while not victim.verdicts() and time.monotonic() < end_s:
        time.sleep(0.05)
    code = victim.end(signal.SIGINT)
    assert code in (-signal.SIGINT, 1, 130)
    ledger = open_ledger(directory)
    job = ledger.status(victim.job_id)
    assert job.state is JobState.OPEN
    released = (job.running, job.rescued, ledger.nodes(victim.job_id)) == (0, 0, frozenset())
    ledger.close()
    report = resume(directory, victim.job_id)
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)
    return released


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
