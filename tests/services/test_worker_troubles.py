"""A real worker that cannot check, whose children die or hang, and whose doorbells are odd."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as with_terms

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.engines.celery import DOORBELL, doorbell_app, ring
from tests.network.refresh_fakes import Habits
from tests.services.redis_server import RedisServer
from tests.services.test_worker import assert_all_checked, busy, main_of
from tests.services.worked import JOB, QUICK, TERMS, Driven, children_of, driven, worker

STEADY = Habits(delay_s=0.05, sockets=16)
LONG_LEASE = with_terms(TERMS, lease_s=60.0, attempt_hard_s=300.0)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as made:
        yield made


@pytest.fixture
def waiter(server: RedisServer) -> Iterator[Driven]:
    with driven(server) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.mark.parametrize(
    ("habits", "sentence"),
    [
        (Habits(no_judge=True), "no judge answers; name one with --judge"),
        (Habits(crashes=True), "worker processes end before they hold any work"),
    ],
    ids=["no-judge", "dies"],
)
def test_a_waiter_is_told_when_nobody_can_check(
    server: RedisServer, waiter: Driven, log: Path, habits: Habits, sentence: str
) -> None:
    waiter.create(48)
    with worker(server, habits, log) as process:
        waiter.until(lambda _: waiter.engine.failure() is not None, bound_s=60.0)
        assert sentence in str(waiter.engine.failure())
        assert waiter.ledger.status(JOB).attempts == 0
        assert process.poll() is None
    assert "[ERROR]" not in log.read_text()


def test_a_bug_of_ours_ends_a_shift_is_told_as_one_and_ends_the_wait(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(48)
    with worker(server, Habits(buggy=True), log) as process:
        main = main_of(process.pid)
        waiter.until(lambda _: waiter.engine.failure() is not None, bound_s=60.0)
        assert "RuntimeError: no room for anybody" in str(waiter.engine.failure())
        assert main_of(process.pid) == main
    assert f"[ERROR] a shift of job {JOB} ended by a bug of ours" in said(log)


def test_one_worker_without_a_judge_does_not_end_a_job_that_another_works_on(
    server: RedisServer, waiter: Driven, log: Path, tmp_path: Path
) -> None:
    waiter.create(96)
    with worker(server, Habits(no_judge=True), log, workers=1):
        waiter.until(lambda _: "cannot check for job" in said(log))
        with worker(server, replace(STEADY, delay_s=0.5), tmp_path / "able.log", workers=1):
            assert_all_checked(waiter.until_closed(), 96)
            assert waiter.engine.failure() is None


def test_what_a_killed_child_held_runs_again_at_once_and_not_when_its_lease_is_over(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(96, LONG_LEASE)
    with worker(server, replace(STEADY, delay_s=0.4), log) as process:
        waiter.until(busy)
        holder = waiter.ledger.leases(JOB)[0].holder
        victim = int(holder.rpartition("/")[2].partition(".")[0])
        assert victim in children_of(main_of(process.pid))
        os.kill(victim, signal.SIGKILL)
        job = waiter.until_closed(bound_s=40.0)
    assert_all_checked(job, 96)
    assert job.rescued > 0
    assert f"Child {victim} ended at job {JOB} (signal 9 (SIGKILL)); taken back:" in said(log)
    assert "[ERROR]" not in said(log)


def test_a_check_that_hangs_is_found_and_the_worker_goes_on(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(64)
    habits = replace(STEADY, spins=frozenset({7}))
    with worker(server, habits, log, refresh=with_terms(QUICK, hang_s=1.0)):
        job = waiter.until_closed(bound_s=60.0)
    assert (job.checked, job.given_up) == (63, {GivenUpWhy.POISON: 1})
    assert "hung for" in said(log)
    assert "[ERROR]" not in said(log)


def test_a_child_ends_with_its_main_also_in_the_middle_of_a_shift(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(96)
    with worker(server, replace(STEADY, delay_s=30.0), log) as process:
        waiter.until(lambda job: job.running >= 2)
        main = main_of(process.pid)
        left = children_of(main)
        os.kill(main, signal.SIGKILL)
        end_s = time.monotonic() + 5.0
        while any(runs(pid) for pid in left) and time.monotonic() < end_s:
            time.sleep(0.02)
        assert not [pid for pid in left if runs(pid)]


def test_a_second_interrupt_ends_a_worker_that_does_not_drain(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(96)
    with worker(server, replace(STEADY, spins=frozenset(range(96))), log) as process:
        waiter.until(lambda job: job.running >= 2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5.0) == 1


def test_doorbells_that_come_doubled_cost_nothing(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(96)
    app = doorbell_app(server.address())
    ring(app, JOB, 200)
    app.close()
    with worker(server, STEADY, log):
        job = waiter.until_closed()
    assert_all_checked(job, 96)
    assert job.attempts == job.chunks


def test_doorbells_that_are_all_lost_delay_a_job_by_one_look(
    server: RedisServer, log: Path
) -> None:
    with driven(server, rings=False) as waiter, worker(server, STEADY, log) as process:
        main_of(process.pid)
        waiter.create(96)
        app = doorbell_app(server.address())
        app.send_task(DOORBELL, args=(JOB,), expires=-3_600.0)  # by the clock of whoever rang
        app.close()
        assert_all_checked(waiter.until_closed(bound_s=30.0), 96)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: message[: len(message) // 2],
        lambda message: message.replace(b"proxywell.refresh.doorbell", b"os.system"),
        lambda message: message.replace(b"application/json", b"application/x-python-serialize"),
    ],
    ids=["truncated", "another-task", "pickle"],
)
def test_a_spoilt_doorbell_is_ignored_with_a_remark_and_nothing_is_executed(
    server: RedisServer, waiter: Driven, log: Path, spoil: Callable[[bytes], bytes]
) -> None:
    queue = "proxywell:broker:proxywell.refresh"
    app = doorbell_app(server.address())
    ring(app, JOB)
    app.close()
    message = server.call("RPOP", queue)
    assert isinstance(message, bytes)
    with worker(server, STEADY, log) as process:
        main = main_of(process.pid)
        server.call("LPUSH", queue, spoil(message))
        waiter.create(96)
        assert_all_checked(waiter.until_closed(), 96)
        assert main_of(process.pid) == main
    assert "[WARNING]" in said(log)
    assert "[ERROR]" not in said(log)


def said(log: Path) -> str:
    return log.read_text(encoding="utf-8")


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
