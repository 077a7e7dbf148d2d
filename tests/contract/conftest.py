from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.ledgers.sqlite import SqliteLedger
from proxywell.refresh.ports import Ledger
from tests.contract.ledger_steps import Home
from tests.contract.ledger_world import Clock, redis_ledger
from tests.services.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    clock = Clock()
    ledger: Ledger
    if request.param == "memory":
        ledger = MemoryLedger(clock)
    elif request.param == "sqlite":
        ledger = SqliteLedger(tmp_path / "ledger.sqlite", clock=clock, boot="b1")
    else:
        ledger = redis_ledger(request.getfixturevalue("redis_server"), clock)
    yield ledger, clock
    ledger.close()
