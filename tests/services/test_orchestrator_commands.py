from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from proxywell.config.loader import load
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
from tests.services.redis_server import RedisServer
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
    of(state, "-server")
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


def test_a_worker_sees_the_settings_of_its_command_wherever_they_came_from(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "url"
    with RedisServer(tcp=True, password="hunter2") as server:
        secret.write_text(server.url)
        own = tmp_path / "own.toml"
        own.write_text("[refresh]\nlease_s = 7.5\n[checking]\nmax_sockets = 11\n")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "proxywell.toml").write_text("this is no settings file\n")
        monkeypatch.setenv("PROXYWELL_REDIS__URL_FILE", str(secret))
        monkeypatch.setenv("PROXYWELL_REFRESH__BEAT_S", "1.5")
        settings = load(own, {}, os.environ).settings
        shows = (sys.executable, "-c", SHOWS, str(tmp_path / "seen.json"))
        with running(settings, state, workers=1, worker_program=shows):
            until((tmp_path / "seen.json").exists)
        seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen == {"url": server.url, "lease_s": 7.5, "beat_s": 1.5, "max_sockets": 2_000}
    assert not any("hunter2" in file.read_text() for file in (state / "services").glob("*.*"))


SHOWS = """
import json, os, sys, time
from pathlib import Path
from proxywell.config.loader import load
settings = load(Path(sys.argv[sys.argv.index("--config") + 1]), {}, os.environ).settings
seen = {
    "url": settings.redis.url.reveal(),
    "lease_s": settings.refresh.lease_s,
    "beat_s": settings.refresh.beat_s,
    "max_sockets": settings.checking.max_sockets,
}
Path(sys.argv[1] + ".new").write_text(json.dumps(seen))
os.replace(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
