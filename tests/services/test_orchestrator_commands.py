from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from proxywell.config.schema import Settings
from proxywell.orchestrator.place import ServerPlace
from proxywell.orchestrator.services import running
from proxywell.refresh.ledgers.redis import RedisLedger
from tests.services.commands import (
    Command,
    answers,
    ask,
    groups,
    mains,
    of,
    processes_of,
)
from tests.services.orchestrated import WORKER
from tests.services.test_orchestrator_children import exists, until


def test_a_second_command_uses_what_the_first_one_started(
    state: Path, command: type[Command]
) -> None:
    address = command(state).ready()
    ledger = RedisLedger(address)
    until(lambda: ledger.nodes(""))
    before = processes_of(state).keys()
    with running(Settings(), state, workers=2, worker_program=WORKER) as services:
        assert services.address.url == address.url
        time.sleep(1.0)
        assert processes_of(state).keys() == before
        assert services.failure() is None
    assert processes_of(state).keys() == before  # they were not its own to stop
    ledger.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_second_command_takes_over_when_the_first_one_ends(
    state: Path, command: type[Command], how: signal.Signals
) -> None:
    first = command(state)
    first.ready()
    with running(Settings(), state, workers=2, worker_program=WORKER) as services:
        until(lambda: mains(services))
        ask(services.address, "SET", "kept", "yes")
        old = processes_of(state).keys()
        first.end(how)
        until(lambda: not any(exists(pid) for pid in old))
        until(lambda: answers(services.address))
        assert ask(services.address, "GET", "kept") == b"yes"
        until(lambda: mains(services))
        assert services.failure() is None


def test_many_commands_at_once_have_one_server(state: Path, command: type[Command]) -> None:
    commands = [command(state) for _ in range(4)]
    assert len({one.ready().url.reveal() for one in commands}) == 1
    of(state, "redis")
    random.Random(4).shuffle(commands)
    for one in commands[:-1]:
        one.end(signal.SIGKILL)
    until(lambda: answers(ServerPlace(state).address("proxywell", 1.0)))
    assert commands[-1].leave() == 0
    assert processes_of(state) == {}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_stops_everything_in_order(
    state: Path, command: type[Command], how: signal.Signals
) -> None:
    one = command(state)
    address = one.ready()
    ledger = RedisLedger(address)
    until(lambda: ledger.nodes(""))
    ledger.close()
    assert one.end(how) == 130
    assert processes_of(state) == {}
    assert "bye bye" in ServerPlace(state).log.read_text()


def kill_at(state: Path, after_s: float) -> None:
    """Kill a command at an instant of its life; nothing may be left, and all can begin again."""
    one = Command(state)
    time.sleep(after_s)
    seen = processes_of(state)
    one.end(signal.SIGKILL)
    until(lambda: not processes_of(state), 5.0)
    until(lambda: not seen.keys() & groups())
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        assert answers(services.address)


@pytest.mark.parametrize("after_s", [0.3, 0.45, 0.6, 0.8, 1.2, 2.5])
def test_nothing_is_left_of_a_command_that_is_killed(state: Path, after_s: float) -> None:
    kill_at(state, after_s)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_left_at_any_instant(state: Path, seed: int) -> None:
    kill_at(state, random.Random(seed).uniform(0.2, 1.6))


def interrupted_while_it_stops(state: Path) -> float:
    """Leave services whose worker does not obey, with an interrupt in the middle; how long ago."""
    words = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    stubborn = (sys.executable, "-c", words)
    begun_s = 0.0
    try:
        with running(Settings(), state, workers=1, worker_program=stubborn):
            until(lambda: len(processes_of(state)) == 2)
            time.sleep(0.5)
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            begun_s = time.monotonic()
    except KeyboardInterrupt:
        return time.monotonic() - begun_s
    raise AssertionError("it was not interrupted")


def test_a_second_interrupt_waits_for_nobody(state: Path) -> None:
    assert interrupted_while_it_stops(state) < 5.0
    assert processes_of(state) == {}
