"""A refresh with the Celery engine as a user runs it, on a machine where nothing runs."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time

import pytest

from tests.acceptance.command import Home
from tests.services.commands import processes_of
from tests.services.redis_server import needed_binary
from tests.services.test_orchestrator_children import until

LEFT_S = 5.0  # a process of a command that was killed may live so long
CELERY = ("refresh", "--engine", "celery", "--workers", "2", "--source")


@pytest.fixture(autouse=True)
def _nothing_is_left(home: Home) -> None:
    needed_binary()


def nothing_is_left(home: Home) -> None:
    until(lambda: not processes_of(home.state), LEFT_S)


def kill(process: subprocess.Popen[str]) -> str:
    """SIGKILL; what it had said on stderr."""
    process.send_signal(signal.SIGKILL)
    return process.communicate(timeout=30)[1]


def test_with_nothing_running_all_is_brought_up_and_ended(home: Home, short_list: str) -> None:
    done = home.run(*CELERY, short_list, "--output", "json")
    assert done.status == 0, done.err
    report = done.json
    assert (report["outcome"], report["engine"]) == ("complete", "celery")
    assert report["items"]["checked"] == report["items"]["planned"] == 10
    assert report["verdicts"]["working"] == 7
    nothing_is_left(home)
    doctor = home.run("doctor")
    assert "the private server is at rest" in doctor.out


def killed_and_taken_up(home: Home, short_list: str, after_s: float) -> None:
    """Kill it so long after its first service was started, while others start or work."""
    process = home.start(*CELERY, short_list)
    until(lambda: processes_of(home.state))
    time.sleep(after_s)
    said = kill(process)
    nothing_is_left(home)
    named = re.search(r"Refresh job (\S+?):", said)
    if named is None:
        return  # killed before it had begun
    done = home.run("job", "wait", named[1], "--output", "json")
    assert done.status == 0, done.err
    assert done.json["items"]["checked"] == done.json["items"]["planned"] == 10
    assert done.json["outcome"] == "complete"
    nothing_is_left(home)


@pytest.mark.parametrize("after_s", [0.0, 0.6, 2.5])
def test_a_command_that_is_killed_leaves_nothing_and_its_job_goes_on(
    home: Home, short_list: str, after_s: float
) -> None:
    killed_and_taken_up(home, short_list, after_s)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(15))
def test_a_command_that_is_killed_at_any_instant_leaves_nothing(
    home: Home, short_list: str, seed: int
) -> None:
    killed_and_taken_up(home, short_list, random.Random(seed).uniform(0.0, 5.0))


def test_an_interrupt_ends_the_services_too(home: Home, short_list: str) -> None:
    process = home.start(*CELERY, short_list)
    until(lambda: len(processes_of(home.state)) > 3)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode in {0, 130}, said
    nothing_is_left(home)


def test_two_commands_on_one_state_directory_share_one_server(home: Home, short_list: str) -> None:
    first = home.start(*CELERY, short_list)
    second = home.start(*CELERY, short_list)
    servers = set()
    while first.poll() is None or second.poll() is None:  # ends: their runs have a bound
        running = processes_of(home.state).items()
        now = {pid for pid, words in running if words.split(" ")[0].endswith("-server")}
        assert len(now) <= 1
        servers |= now
        time.sleep(0.1)
    for process in (first, second):
        said = process.communicate()[1]
        assert process.returncode == 0, said
    assert servers
    nothing_is_left(home)
