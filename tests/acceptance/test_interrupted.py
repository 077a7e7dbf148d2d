"""A refresh that ends before its time: by Ctrl-C, by ``kill -9``; and two at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from tests.acceptance.command import Home, assert_balanced, job_id_in
from tests.network.lab_client import Served

END_S = 60.0
# silent proxies are not waited for as long as elsewhere, or every round would take ten seconds;
# a lease outlasts every stall of a busy machine: whose process is gone, that is seen without it
HASTY = {
    "PROXYWELL_REFRESH__LEASE_S": "25",
    "PROXYWELL_CHECKING__ANSWER_SOFT_S": "1",
    "PROXYWELL_CHECKING__ANSWER_HARD_S": "2",
    "PROXYWELL_CHECKING__CONNECT_SOFT_S": "0.7",
    "PROXYWELL_CHECKING__CONNECT_HARD_S": "1.4",
}


def started(home: Home, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A refresh that has begun to check, and its job."""
    process = home.start("refresh", "--chunk-size", "20", *arguments, more=HASTY)
    assert process.stderr is not None
    job_id = job_id_in(process.stderr.readline())
    while " candidates in " not in (line := process.stderr.readline()):
        assert line, "it ended before it began to check"
    return process, job_id


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.deep), "2"])
def test_after_ctrl_c_the_job_goes_on_where_it_stopped(home: Home, workers: str) -> None:
    process, job_id = started(home, "--workers", workers)
    time.sleep(0.7)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, said = process.communicate(timeout=END_S)
    assert process.returncode == 130, said
    assert f"proxywell job wait {job_id}" in said
    assert "Traceback" not in said, said.partition("Traceback")[2][-1500:]
    before = home.run("job", "show", job_id, "--output", "json").json
    assert before["outcome"] is None
    assert before["items"]["pending"] > 0
    assert_complete(home, job_id)


def assert_complete(home: Home, job_id: str, *, deaths: int = 1) -> None:
    """``job wait`` ends the job, and nothing was lost, doubled or done again."""
    begun = home.run("job", "show", job_id, "--output", "json").json
    done_before = begun["chunks"]["done"] if deaths == 1 else 0
    waited = home.run("job", "wait", job_id, "--output", "json")
    report = waited.json
    assert (waited.status, report["outcome"]) == (0, "complete"), waited.err
    assert_balanced(report)
    assert report["items"]["checked"] == report["items"]["planned"]
    chunks = report["chunks"]
    again = chunks["attempts"] - chunks["planned"] - chunks["split"]
    assert 0 <= again <= deaths * (chunks["planned"] - done_before)
    members = home.members()
    assert len(members) == report["verdicts"]["working"] == report["pool"]["after"]
    assert {one["times_checked"] for one in members} == {1}
    assert home.jobs() == [report]


def kill_and_wait(home: Home, seed: int) -> None:
    draw = random.Random(seed)
    workers = draw.choice(["1", "1", "2"])
    process, job_id = started(home, "--workers", workers)
    time.sleep(draw.uniform(0, 2.5))
    process.kill()
    process.communicate(timeout=END_S)
    assert_complete(home, job_id)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_job_that_was_killed_is_finished_by_job_wait(home: Home, seed: int) -> None:
    kill_and_wait(home, seed)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_job_that_was_killed_at_any_instant_is_finished_by_job_wait(
    home: Home, seed: int
) -> None:
    kill_and_wait(home, seed)


@pytest.mark.deep
def test_a_job_that_was_killed_while_it_read_lists_is_begun_anew_by_job_wait(home: Home) -> None:
    os.mkfifo(home.directory / "slow.txt")  # nobody writes into it: reading takes for ever
    process = home.start("refresh", "--source", "slow.txt")
    assert process.stderr is not None, "it was asked for"
    job_id = job_id_in(process.stderr.readline())
    process.kill()
    process.communicate(timeout=END_S)
    (home.directory / "slow.txt").unlink()
    home.write("slow.txt", "127.0.0.9:9\n")
    waited = home.run("job", "wait", job_id, "--output", "json")
    assert waited.status == 0, waited.err
    assert waited.json["job_id"] == job_id
    assert (waited.json["outcome"], waited.json["items"]["checked"]) == ("complete", 1)
    assert home.jobs() == [waited.json]
    assert not list((home.state / "begun").iterdir())


def test_a_job_whose_waiter_was_killed_too_is_finished_by_the_next(home: Home) -> None:
    process, job_id = started(home)
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=END_S)
    waiter = home.start("job", "wait", job_id)
    time.sleep(2.2)
    waiter.kill()
    waiter.communicate(timeout=END_S)
    assert_complete(home, job_id, deaths=2)


def test_a_job_can_be_cancelled_and_keeps_what_was_checked(home: Home) -> None:
    process, job_id = started(home)
    time.sleep(0.7)
    cancelled = home.run("job", "cancel", job_id, "--output", "json")
    out, said = process.communicate(timeout=END_S)
    assert cancelled.status == 0
    report = cancelled.json
    assert report["outcome"] == "cancelled"
    assert_balanced(report)
    assert report["items"]["given_up_why"]["cancelled"] == report["items"]["given_up"] > 0
    assert process.returncode == 3, said
    assert "cancelled" in out


def test_two_refreshes_on_one_state_are_two_jobs_side_by_side(home: Home, lab: Served) -> None:
    one, other = (home.start("refresh", "--output", "json", more=HASTY) for _ in range(2))
    for process in (one, other):
        _, said = process.communicate(timeout=END_S)
        assert process.returncode == 0, said
    reports = home.jobs()
    assert len({report["job_id"] for report in reports}) == 2
    for report in reports:
        assert report["outcome"] == "complete"
        assert_balanced(report)
        assert report["items"]["checked"] == len(lab.proxies)
    honest = {(one["host"], one["port"]) for one in lab.proxies if one["working"]}
    members = {(one["host"], one["port"]): one for one in home.members()}
    assert honest <= members.keys()
    assert {members[place]["times_checked"] for place in honest} == {2}
