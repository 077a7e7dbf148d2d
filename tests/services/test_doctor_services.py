from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from proxywell.cli import doctor_services
from proxywell.cli.doctor_services import CHECKS, redis_is_well
from proxywell.cli.findings import Finding, Patient, State
from proxywell.config.schema import RedisSettings, Settings
from proxywell.config.secret import Secret
from proxywell.orchestrator.place import OwnerLock, ServerPlace
from proxywell.orchestrator.services import running
from proxywell.refresh.books import Worker
from proxywell.refresh.engines.node import node_name
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ports import Block, NewJob
from tests.contract.ledger_world import TERMS
from tests.services.orchestrated import WORKER
from tests.services.redis_server import RedisServer

SECRET = "hunter2"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(aof=True) as server:
        yield server


@pytest.fixture(autouse=True)
def _a_busy_machine_is_not_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_services, "SLOW_MS", 1_000.0)


def patient(url: str | None, state: Path, answer_s: float = 2.0) -> Patient:
    redis = RedisSettings(url=None if url is None else Secret(url), answer_s=answer_s)
    return Patient(Settings(redis=redis), None, state)


def examined(url: str | None, state: Path, answer_s: float = 2.0) -> dict[str, Finding]:
    found = list(redis_is_well(patient(url, state, answer_s)))
    assert SECRET not in repr(found)
    assert all(one.remedy for one in found if one.state is not State.WELL)
    return {one.check: one for one in found}


def troubles(found: dict[str, Finding]) -> dict[str, State]:
    return {name: one.state for name, one in found.items() if one.state is not State.WELL}


def test_a_server_as_it_should_be_has_no_trouble(server: RedisServer, tmp_path: Path) -> None:
    found = examined(server.url, tmp_path)
    assert troubles(found) == {}
    assert found["redis"].said.startswith(("Redis", "Valkey"))
    assert found["workers"].said == "none; a refresh starts its own"
    assert "open jobs" not in found


@pytest.mark.parametrize(
    ("settings", "check"),
    [
        (["maxmemory-policy", "allkeys-lru"], "redis policy"),
        (["appendonly", "no"], "redis disk"),
    ],
)
def test_a_setting_that_endangers_jobs_is_named(
    server: RedisServer, tmp_path: Path, settings: list[str], check: str
) -> None:
    server.call("CONFIG", "SET", *settings)
    assert troubles(examined(server.url, tmp_path)) == {check: State.WEAK}


def test_a_server_that_is_nearly_full_is_told(server: RedisServer, tmp_path: Path) -> None:
    for number in range(30):  # one large value would leave its buffer in the figure for a while
        server.call("SET", f"other:{number}", b"x" * 2**20)
    used = int(re.findall(rb"used_memory:(\d+)", server.call("INFO", "memory"))[0])
    server.call("CONFIG", "SET", "maxmemory", int(used * 1.05))
    assert troubles(examined(server.url, tmp_path)) == {"redis memory": State.WEAK}


def test_a_full_server_is_told_with_what_to_do(server: RedisServer, tmp_path: Path) -> None:
    server.call("CONFIG", "SET", "maxmemory", "1")
    (finding,) = examined(server.url, tmp_path).values()
    assert finding.state is State.FAILED
    assert "is full" in finding.said
    assert "maxmemory" in str(finding.remedy)


def test_a_replica_that_takes_no_writes_is_told(server: RedisServer, tmp_path: Path) -> None:
    with RedisServer(tcp=True) as primary:
        server.call("REPLICAOF", "127.0.0.1", primary.port)
        (finding,) = examined(server.url, tmp_path).values()
        assert finding.state is State.FAILED
        assert "replica" in finding.said
        server.call("CONFIG", "SET", "replica-read-only", "no")
        until_s = time.monotonic() + 10
        while b"master_link_status:up" not in server.call("INFO", "replication"):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        assert troubles(examined(server.url, tmp_path)) == {"redis role": State.WEAK}


def test_a_password_a_permission_and_tls_that_are_missing_are_told(tmp_path: Path) -> None:
    with RedisServer(tcp=True, password=SECRET) as closed:
        (finding,) = examined(f"redis://127.0.0.1:{closed.port}", tmp_path).values()
        assert (finding.state, "password" in finding.said) == (State.FAILED, True)
        closed.call("ACL", "SETUSER", "well", "on", f">{SECRET}", "~*", "+@all", "-evalsha")
        url = f"redis://well:{SECRET}@127.0.0.1:{closed.port}"
        (finding,) = examined(url, tmp_path).values()
        assert (finding.state, "well" in finding.said) == (State.FAILED, True)
        assert "ACL SETUSER well" in str(finding.remedy)
        closed.call("ACL", "SETUSER", "well", "+@all", "-info")
        assert troubles(examined(url, tmp_path)) == {"redis": State.WEAK}
    with RedisServer(tls=True) as tls:
        (finding,) = examined(f"redis://127.0.0.1:{tls.port}", tmp_path).values()
        assert (finding.state, "TLS only" in finding.said) == (State.FAILED, True)
        assert "rediss://" in str(finding.remedy)


def test_what_is_no_redis_nothing_and_silent_is_told_within_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        asked_s = time.monotonic()
        (finding,) = examined(f"redis://127.0.0.1:{port}", tmp_path, answer_s=60.0).values()
        assert time.monotonic() - asked_s < 2 * doctor_services.PATIENCE_S + 5
        assert finding.state is State.FAILED
    (finding,) = examined(f"redis://127.0.0.1:{port}", tmp_path).values()
    assert (finding.state, "cannot be reached" in finding.said) == (State.FAILED, True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("reddis://127.0.0.1", "did you mean redis?"),
        ("redis://127.0.0.1:port", "not a number"),
        ("redis://198.51.100.7", "without TLS"),
    ],
)
def test_an_error_in_the_url_is_told(tmp_path: Path, url: str, said: str) -> None:
    (finding,) = examined(url, tmp_path).values()
    assert finding.state is State.FAILED
    assert said in f"{finding.said}; {finding.remedy}"


def test_workers_their_versions_and_open_jobs_are_told(server: RedisServer, tmp_path: Path) -> None:
    ledger = RedisLedger(server.address())
    ledger.node_beat(node_name(version("proxywell")), "", term_s=60.0)
    ledger.node_beat("elsewhere/1:2:3:0.0.1-abcdef", "", term_s=60.0)
    blocks = [Block(at, at + 1, b"body") for at in range(3)]
    ledger.create(NewJob("job-1", 3, TERMS, b"", time.time()), blocks)
    ledger.claim("job-1", Worker("n", "n/1"), "token")
    found = examined(server.url, tmp_path)
    assert found["workers"].state is State.WEAK
    assert "1 of 0.0.1" in found["workers"].said
    assert "elsewhere" in str(found["workers"].remedy)
    assert found["open jobs"].said.startswith("1; oldest job-1, ")
    assert "2 chunks ready, 1 running, oldest beat 0 s ago" in found["open jobs"].said
    ledger.close()


def test_a_private_server_is_examined_while_somebody_looks_after_it(tmp_path: Path) -> None:
    with running(Settings(), tmp_path, workers=1, worker_program=WORKER) as services:
        found = examined(None, tmp_path)
        assert str(ServerPlace(tmp_path).socket) in found["redis"].said
        assert found["redis disk"].state is State.WELL
        assert services.failure() is None
    at_rest = examined(None, tmp_path)
    assert "at rest" in at_rest["services"].said
    assert troubles(at_rest) == {}


def test_what_is_left_in_the_services_directory_is_told(tmp_path: Path) -> None:
    assert examined(None, tmp_path) == {}
    place = ServerPlace(tmp_path)
    place.make_for_server()
    place.set_data_aside()
    assert "could not read" in examined(None, tmp_path)["services"].said
    place.damaged.rmdir()
    left = OwnerLock(place.server_lock)
    assert left.take()
    finding = examined(None, tmp_path)["services"]
    assert finding.state is State.WEAK
    assert f"fuser {place.server_lock}" in str(finding.remedy)
    left.let_go()


def test_the_command_says_it_as_an_object_too(server: RedisServer, tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "proxywell", "doctor", "--state", str(tmp_path), "--output", "json"],
        env={**os.environ, "PROXYWELL_REDIS__URL": server.url},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    findings = {one["check"]: one for one in json.loads(said.stdout)}
    assert {"celery engine", "redis", "redis memory", "redis disk", "workers"} <= findings.keys()
    assert findings["redis"]["state"] == "well"


def test_without_the_extra_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_services, "is_installed", lambda: False)
    found = [one for check in CHECKS for one in check(patient("redis://127.0.0.1:1", tmp_path))]
    assert [one.check for one in found] == ["celery engine"]
