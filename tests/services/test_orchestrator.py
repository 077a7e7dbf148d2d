from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import pytest

from proxywell.config.schema import RedisSettings, Settings
from proxywell.errors import StateError
from proxywell.orchestrator import health as health_room
from proxywell.orchestrator import workers as workers_room
from proxywell.orchestrator.place import ServerPlace
from proxywell.orchestrator.server import PrivateServer
from proxywell.orchestrator.services import running
from proxywell.orchestrator.workers import WorkerMain
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ports import Block, NewJob
from tests.contract.ledger_world import TERMS
from tests.services.commands import (
    QUICK,
    answers,
    ask,
    mains,
    of,
    pid_of,
    processes_of,
)
from tests.services.orchestrated import WORKER
from tests.services.test_orchestrator_children import exists, until


def test_what_is_missing_is_brought_up_and_nothing_is_left(state: Path) -> None:
    with running(Settings(), state, workers=2, worker_program=WORKER) as services:
        assert ask(services.address, "SET", "kept", "yes") == b"OK"
        until(lambda: mains(services))
        (main,) = mains(services)
        assert os.getpgid(pid_of(main)) == pid_of(main)
        assert len(processes_of(state)) == 2
        assert services.failure() is None
    assert processes_of(state) == {}
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        assert ask(services.address, "GET", "kept") == b"yes"


def test_its_files_are_for_the_owner_alone_and_it_keeps_every_write(state: Path) -> None:
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        place = ServerPlace(state)
        for directory in (place.home, place.server_home, place.data):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(place.socket.stat().st_mode) == 0o600
        told = ask(services.address, "INFO")
        assert b"aof_enabled:1" in told
        assert b"maxmemory_policy:noeviction" in told
        assert b"tcp_port:0" in told


def test_where_the_path_is_too_long_a_loopback_port_asks_for_a_password(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 30)
    state.mkdir()
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        address = services.address
        assert (address.scheme, address.host) == ("redis", "127.0.0.1")
        assert address.password is not None
        secret = address.password.reveal()
        assert answers(address)
        with pytest.raises(StateError, match="password"):
            ask(RedisAddress(scheme="redis", host="127.0.0.1", port=address.port), "PING")
        until(lambda: mains(services))
        assert not any(secret in words for words in processes_of(state).values())
        for file in ("access.json", "server.conf"):
            mode = (state / "services" / "redis" / file).stat().st_mode
            assert stat.S_IMODE(mode) == 0o600
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        assert services.address == address
    assert processes_of(state) == {}


def test_a_port_that_somebody_else_has_taken_is_left_to_them(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 30)
    state.mkdir()
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        port = services.address.port
    with (
        socket.create_server(("127.0.0.1", port)),
        running(Settings(), state, workers=1, worker_program=WORKER) as services,
    ):
        assert services.address.port != port
        assert answers(services.address)


def test_two_state_directories_do_not_disturb_each_other(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with running(Settings(), state, workers=1, worker_program=WORKER) as first:
        with running(Settings(), other, workers=1, worker_program=WORKER) as second:
            until(lambda: mains(first) and mains(second))
            assert not mains(first) & mains(second)
        assert processes_of(other) == {}
        assert answers(first.address)
        assert len(processes_of(state)) == 2


def test_a_server_that_is_killed_comes_back_where_it_was_with_its_data(state: Path) -> None:
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        ask(services.address, "SET", "kept", "yes")
        pid = of(state, "-server")
        os.kill(pid, signal.SIGKILL)
        until(lambda: not exists(pid))
        until(lambda: answers(services.address))
        assert ask(services.address, "GET", "kept") == b"yes"
        assert services.failure() is None


def test_a_worker_that_is_killed_is_replaced(state: Path) -> None:
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        until(lambda: mains(services))
        (old,) = mains(services)
        os.kill(pid_of(old), signal.SIGKILL)
        until(lambda: mains(services) - {old})
        assert services.failure() is None


def test_a_server_that_is_frozen_is_replaced(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrivateServer, "pace", QUICK)
    settings = Settings(redis=RedisSettings(answer_s=0.5))
    with running(settings, state, workers=1, worker_program=WORKER) as services:
        pid = of(state, "-server")
        os.kill(pid, signal.SIGSTOP)
        until(lambda: not exists(pid))
        until(lambda: answers(services.address))


def test_a_worker_that_is_frozen_is_replaced(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerMain, "pace", QUICK)
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        until(lambda: mains(services))
        (old,) = mains(services)
        os.kill(pid_of(old), signal.SIGSTOP)
        until(lambda: mains(services) - {old})
        until(lambda: not exists(pid_of(old)))


def test_a_worker_that_lives_and_takes_nothing_is_replaced(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerMain, "pace", QUICK)
    monkeypatch.setattr(workers_room, "IDLE_MAX_S", 0.5)
    monkeypatch.setattr(health_room, "WORK_LOOK_S", 0.2)
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        until(lambda: mains(services))
        (old,) = mains(services)
        time.sleep(QUICK.steady_s + 1.0)
        assert mains(services) == {old}  # nothing to do is no reason
        ledger = RedisLedger(services.address)
        job = NewJob("job-1", 1, TERMS, b"", time.time())
        ledger.create(job, [Block(0, 1, b"nobody takes this")])
        until(lambda: mains(services) - {old}, 30.0)
        ledger.close()


def test_data_that_the_server_cannot_read_is_set_aside(state: Path) -> None:
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        ask(services.address, "SET", "kept", "yes")
    for log in ServerPlace(state).data.rglob("*.aof*"):
        log.write_bytes(b"no log of any server")
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        assert answers(services.address)
    assert (state / "services" / "redis" / "data.damaged").is_dir()


def test_a_log_that_was_cut_short_is_read_as_far_as_it_goes(state: Path) -> None:
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        for number in range(50):
            ask(services.address, "SET", f"key-{number}", "x" * 100)
    (log,) = [*ServerPlace(state).data.rglob("*.incr.aof"), *ServerPlace(state).data.glob("*.aof")]
    os.truncate(log, log.stat().st_size - 50)
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        assert ask(services.address, "GET", "key-48") == b"x" * 100
    assert not (state / "services" / "redis" / "data.damaged").exists()


def test_a_worker_that_finds_its_settings_wrong_is_tried_once(state: Path) -> None:
    program = (sys.executable, "-c", "import sys; print('wrong use'); sys.exit(2)")
    with running(Settings(), state, workers=1, worker_program=program) as services:
        until(services.failure)
        error = services.failure()
        assert "the Celery worker ended with status 2: wrong use" in str(error)
        assert error is not None
        assert error.exit_status == 2


# --- the worker of the product


def test_the_real_worker_works_is_repaired_and_leaves_nothing(state: Path) -> None:
    with running(Settings(), state, workers=2) as services:
        until(lambda: mains(services), 60.0)
        (first,) = mains(services)
        session = os.getsid(pid_of(first))
        os.kill(pid_of(first), signal.SIGKILL)  # the command starts another main
        until(lambda: mains(services) - {first}, 60.0)
        (second,) = mains(services)
        assert os.getsid(pid_of(second)) == session
        os.kill(session, signal.SIGKILL)  # and we another command
        until(lambda: mains(services) - {second}, 60.0)
        (third,) = mains(services)
        assert os.getsid(pid_of(third)) != session
        until(lambda: not exists(pid_of(second)))
        assert services.failure() is None
    assert processes_of(state) == {}
