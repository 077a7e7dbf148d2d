"""A real worker on a real Redis: what it does with doorbells, signals and deaths."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxywell.refresh.books import JobRow, JobState
from tests.network.refresh_fakes import Habits
from tests.services.redis_server import RedisServer
from tests.services.worked import JOB, Driven, children_of, driven, worker

SLOW = Habits(delay_s=0.4, sockets=8)


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


def assert_all_checked(job: JobRow, items: int) -> None:
    assert job.state is JobState.CLOSED
    assert (job.checked, job.items_given_up, job.pending) == (items, 0, 0)


def main_of(process_pid: int) -> int:
    end_s = time.monotonic() + 10.0
    while time.monotonic() < end_s:
        mains = children_of(process_pid)
        if mains and children_of(mains[0]):
            return mains[0]
        time.sleep(0.02)
    raise AssertionError("the worker has no main with children")


def busy(job: JobRow) -> bool:
    return job.running >= 2 and job.chunks_done >= 1


def test_a_worker_closes_a_job_and_finalises_nothing(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(96)
    with worker(server, Habits(delay_s=0.02, sockets=32), log):
        job = waiter.until_closed()
    assert_all_checked(job, 96)
    assert job.finalised_s is None
    assert job.working == 5


def test_sigterm_gives_back_what_is_not_finished_and_blames_nobody(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(96)
    with worker(server, SLOW, log) as process:
        waiter.until(busy)
        process.send_signal(signal.SIGTERM)
        assert process.wait(8.0) == 0
        job = waiter.ledger.tick("j1").job
        assert job.running == 0, "a chunk was left with a worker that ended"
        assert job.rescued == 0
        assert not waiter.ledger.nodes("j1")
    with worker(server, SLOW, log):
        assert_all_checked(waiter.until_closed(), 96)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("whom", ["child", "main", "group"])
def test_whoever_dies_every_candidate_is_checked(
    server: RedisServer, waiter: Driven, log: Path, number: signal.Signals, whom: str
) -> None:
    waiter.create(96)
    with worker(server, SLOW, log) as process:
        waiter.until(busy)
        main = main_of(process.pid)
        victims = {"child": children_of(main)[:1], "main": [main]}.get(
            whom, [main, *children_of(main)]
        )
        for pid in victims:
            os.kill(pid, number)
        job = waiter.until_closed()
    assert_all_checked(job, 96)


def test_nothing_of_a_worker_is_left_when_it_is_killed(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    waiter.create(80)
    with worker(server, SLOW, log) as process:
        waiter.until(busy)
        main = main_of(process.pid)
        left = [main, *children_of(main)]
        process.kill()
        process.wait(5.0)
        end_s = time.monotonic() + 5.0
        while any(_runs(pid) for pid in left) and time.monotonic() < end_s:
            time.sleep(0.02)
        assert not [pid for pid in left if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize(
    "push",
    [
        lambda server: server.call("LPUSH", "proxywell:broker:proxywell.refresh", "no JSON at all"),
        lambda server: server.call(
            "LPUSH", "proxywell:broker:proxywell.refresh", b"\x80\x04K\x01."
        ),
        lambda server: server.call("LPUSH", "proxywell:broker:proxywell.refresh", "{}"),
    ],
    ids=["text", "pickle", "empty"],
)
def test_what_is_no_doorbell_is_not_executed_and_stops_nobody(
    server: RedisServer,
    waiter: Driven,
    log: Path,
    push: Callable[[RedisServer], object],
) -> None:
    with worker(server, Habits(delay_s=0.02, sockets=32), log) as process:
        main_of(process.pid)
        for _ in range(3):
            push(server)
        waiter.create(80)
        assert_all_checked(waiter.until_closed(), 80)
        assert process.poll() is None


def test_a_doorbell_for_a_job_that_is_not_there_is_ignored_with_a_remark(
    server: RedisServer, waiter: Driven, log: Path
) -> None:
    with worker(server, Habits(delay_s=0.02, sockets=32), log):
        for told in ("no-such-job", "../../etc", ""):
            _ring_with(waiter, told)
        waiter.create(80)
        assert_all_checked(waiter.until_closed(), 80)
    said = log.read_text()
    assert "there is no job no-such-job" in said
    assert "it names no job" in said
    assert "[ERROR]" not in said


def _ring_with(waiter: Driven, told: str) -> None:
    from proxywell.refresh.engines.celery import doorbell_app, ring

    app = doorbell_app(waiter.address)
    ring(app, told)
    app.close()


def test_one_doorbell_wakes_every_child(
    server: RedisServer, waiter: Driven, log: Path, tmp_path: Path
) -> None:
    checks = tmp_path / "checks"
    with worker(server, replace(SLOW, log=str(checks)), log, workers=3) as process:
        main_of(process.pid)
        waiter.create(240, rings=False)
        _ring_with(waiter, JOB)
        end_s = time.monotonic() + 20.0
        while waiter.ledger.status(JOB).state is JobState.OPEN and time.monotonic() < end_s:
            time.sleep(0.05)  # and without a tick, which would ring
    assert_all_checked(waiter.ledger.status(JOB), 240)
    assert len({line.split()[1] for line in checks.read_text().splitlines()}) == 3


@pytest.mark.parametrize(("tcp", "away_s"), [(True, 3.0), (False, 1.0)], ids=["tcp", "socket"])
def test_a_worker_survives_a_restart_of_redis_with_its_main_and_its_children(
    log: Path, *, tcp: bool, away_s: float
) -> None:
    """For three seconds shifts end in the outage, and doorbells in hand are begun in it."""
    with (
        RedisServer(aof=True, tcp=tcp) as kept,
        driven(kept) as other,
        worker(kept, SLOW, log) as process,
    ):
        other.create(96)
        other.engine.ring(64)
        other.until(busy)
        main = main_of(process.pid)
        children = children_of(main)
        kept.kill()
        time.sleep(away_s)
        kept.start()
        assert_all_checked(other.until_closed(bound_s=25.0), 96)
        assert main_of(process.pid) == main
        assert children_of(main) == children
    said = log.read_text()
    assert "[ERROR]" not in said
    assert "The books can be reached again" in said
    assert "DeprecationWarning" not in said


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_a_worker_works_at_a_server_that_wants_a_password(log: Path, *, tls: bool) -> None:
    with (
        RedisServer(tcp=True, tls=tls, password="se:cr@t") as closed,
        driven(closed) as other,
        worker(closed, Habits(delay_s=0.02, sockets=32), log),
    ):
        other.create(96)
        assert_all_checked(other.until_closed(), 96)
    assert "se:cr@t" not in log.read_text()
