"""Both engines on one state directory: what else carries a job on, who waits, what is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxywell.refresh.ledgers.redis import RedisLedger
from tests.acceptance.command import Home, Report, assert_balanced, job_id_in
from tests.acceptance.test_interrupted import HASTY
from tests.network.lab_client import Served
from tests.services.redis_server import RedisServer, needed_binary

END_S = 90.0
CELERY = ("refresh", "--engine", "celery")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    needed_binary()
    with RedisServer(tcp=True) as made:
        yield made


@contextmanager
def worker(home: Home, server: RedisServer, workers: int = 1) -> Iterator[None]:
    process = home.start("worker", "--workers", str(workers), more=at(server))
    try:
        until(lambda: bool(nodes(server)))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=END_S)


def at(server: RedisServer) -> dict[str, str]:
    return {"PROXYWELL_REDIS__URL": server.url}


def nodes(server: RedisServer) -> frozenset[str]:
    with contextlib.closing(RedisLedger(server.address())) as ledger:
        return ledger.nodes("")


def until(reached: Callable[[], bool], limit_s: float = 30.0) -> None:
    end_s = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < end_s, f"not reached within {limit_s:g} s"
        time.sleep(0.05)


def begun(home: Home, server: RedisServer, *more: str) -> tuple[subprocess.Popen[str], str]:
    """A refresh of which a quarter is checked, and its job."""
    arguments = (*CELERY, "--chunk-size", "15", "--output", "json", *more)
    process = home.start(*arguments, more={**at(server), **HASTY})
    assert process.stderr is not None
    while "Refresh job" not in (line := process.stderr.readline()):
        assert line, "it ended before it named its job"
    job_id = job_id_in(line)
    with contextlib.closing(RedisLedger(server.address())) as ledger:
        until(lambda: any(job.job_id == job_id and job.checked >= 60 for job in ledger.jobs()))
    return process, job_id


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """What it said on stderr."""
    out, said = process.communicate(timeout=END_S)
    assert process.returncode == status, (out, said)
    assert "Traceback" not in said, said
    return said


def assert_all_checked_once(home: Home, report: Report, lab: Served) -> None:
    assert_balanced(report)
    assert report["outcome"] == "complete"
    assert report["items"]["checked"] == report["items"]["planned"] == len(lab.proxies)
    members = home.members()
    assert len(members) == report["verdicts"]["working"] == report["pool"]["after"]
    assert {one["times_checked"] for one in members} == {1}


# --- which engine


def test_a_job_of_either_engine_is_listed_shown_waited_for_and_over(
    home: Home, server: RedisServer, short_list: str
) -> None:
    local = home.run("refresh", "--source", short_list, "--output", "json").json
    with worker(home, server):
        given = (*CELERY, "--source", short_list, "--output", "json")
        celery = home.run(*given, more=at(server)).json
    assert (local["engine"], celery["engine"]) == ("local", "celery")
    assert [local["outcome"], celery["outcome"]] == ["complete", "complete"]
    server.kill()
    assert home.jobs() == [celery, local]
    for report in (local, celery):  # over: nobody need be asked any more
        waited = home.run("job", "wait", report["job_id"], "--output", "json")
        assert (waited.status, waited.json) == (0, report), waited.err
        cancelled = home.run("job", "cancel", report["job_id"], "--output", "json")
        assert (cancelled.status, cancelled.json) == (0, report), cancelled.err


def test_without_the_extra_the_celery_engine_says_so(home: Home, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'celery' else found(name, *more)\n"
    )
    done = home.run(*CELERY, more={"PYTHONPATH": str(hidden)})
    assert done.status == 2
    assert "pip install 'proxywell[distributed]'" in done.sentence
    assert len(done.err.splitlines()) == 1
    assert home.jobs() == []


# --- --wait usable


def test_usable_is_waited_for_only_where_something_else_carries_the_job_on(
    home: Home, server: RedisServer
) -> None:
    for engine, more, advice in (
        ("local", {}, "--want N"),
        ("celery", {}, "set redis.url"),
        ("celery", at(server), "`proxywell worker`"),
    ):
        done = home.run("refresh", "--engine", engine, "--wait", "usable", more=more)
        assert done.status == 2
        assert advice in done.sentence
        assert "--want N" in done.sentence
    assert home.jobs() == []


def test_a_job_that_is_usable_goes_on_without_its_waiter(
    home: Home, server: RedisServer, lab: Served
) -> None:
    with worker(home, server):
        given = (*CELERY, "--wait", "usable", "--min-count", "3", "--chunk-size", "15")
        usable = home.run(*given, "--output", "json", more={**at(server), **HASTY})
        assert (usable.status, usable.json["outcome"]) == (0, "usable"), usable.err
        assert usable.json["verdicts"]["working"] >= 3
        assert usable.json["items"]["pending"] > 0
        job_id = usable.json["job_id"]
        waited = home.run("job", "wait", job_id, "--output", "json", more=at(server))
    assert waited.status == 0, waited.err
    assert_all_checked_once(home, waited.json, lab)


# --- who waits


@pytest.mark.deep
def test_after_ctrl_c_the_workers_go_on_and_a_later_wait_reports(
    home: Home, server: RedisServer, lab: Served
) -> None:
    with worker(home, server):
        process, job_id = begun(home, server)
        os.killpg(process.pid, signal.SIGINT)
        assert f"proxywell job wait {job_id}" in ended(process, 130)
        with contextlib.closing(RedisLedger(server.address())) as ledger:
            until(lambda: ledger.status(job_id).pending == 0)
        forgotten = home.run("job", "wait", job_id)
        assert forgotten.status == 2
        assert "set redis.url" in forgotten.sentence
        waited = home.run("job", "wait", job_id, "--output", "json", more=at(server))
    assert waited.status == 0, waited.err
    assert_all_checked_once(home, waited.json, lab)


def test_two_waiters_report_the_same(home: Home, server: RedisServer, lab: Served) -> None:
    with worker(home, server):
        process, job_id = begun(home, server)
        waited = home.run("job", "wait", job_id, "--output", "json", more=at(server))
        ended(process)
    assert waited.status == 0, waited.err
    assert_all_checked_once(home, waited.json, lab)


@pytest.mark.deep
def test_a_job_is_cancelled_from_elsewhere_and_where_its_server_is_gone(
    home: Home, server: RedisServer
) -> None:
    with worker(home, server):
        process, job_id = begun(home, server)
        cancelled = home.run("job", "cancel", job_id, "--output", "json", more=at(server))
        ended(process, 3)
        assert (cancelled.status, cancelled.json["outcome"]) == (0, "cancelled")
        assert_balanced(cancelled.json)
        process, job_id = begun(home, server)
        process.kill()
        process.communicate(timeout=END_S)
    server.kill()
    alone = home.run("job", "cancel", job_id, "--output", "json")
    assert (alone.status, alone.json["outcome"]) == (0, "cancelled"), alone.err
    assert_balanced(alone.json)
    assert alone.json["items"]["checked"] > 0


# --- what is lost


def test_a_server_that_is_emptied_costs_no_candidate(
    home: Home, server: RedisServer, lab: Served
) -> None:
    with worker(home, server):
        process, _ = begun(home, server)
        server.call("FLUSHALL")
        said = ended(process)
    assert said.count("The server had lost job") == 1
    assert_all_checked_once(home, home.jobs()[0], lab)


def test_waiter_and_data_are_lost_and_a_new_waiter_goes_on(
    home: Home, server: RedisServer, lab: Served
) -> None:
    with worker(home, server):
        process, job_id = begun(home, server)
        process.kill()
        process.communicate(timeout=END_S)
        server.call("FLUSHALL")
        waited = home.run("job", "wait", job_id, "--output", "json", more=at(server))
    assert waited.status == 0, waited.err
    assert_all_checked_once(home, waited.json, lab)


@pytest.mark.deep
def test_a_server_that_comes_back_empty_is_told_of_once(
    home: Home, server: RedisServer, lab: Served
) -> None:
    with worker(home, server):
        process, _ = begun(home, server)
        server.kill()
        time.sleep(3.0)
        server.start()
        said = ended(process)
    assert said.count("waits for its server") == 1
    assert said.count("answers again") == 1
    assert_all_checked_once(home, home.jobs()[0], lab)


@pytest.mark.deep
def test_a_server_that_stays_away_ends_the_job_at_its_bound(
    home: Home, server: RedisServer
) -> None:
    with worker(home, server):
        process, _ = begun(home, server, "--deadline-s", "10")
        server.kill()
        began_s = time.monotonic()
        ended(process, 3)
        assert time.monotonic() - began_s < 10 + 30 + 10
    report = home.jobs()[0]
    assert_balanced(report)
    assert report["outcome"] == "timed_out"
    assert report["items"]["checked"] > 0
    assert len(home.members()) == report["verdicts"]["working"]
