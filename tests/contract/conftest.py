from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.ledgers.sqlite import SqliteLedger
from proxywell.refresh.ports import Ledger
from tests.contract.ledger_steps import Home
from tests.contract.ledger_world import Clock


@pytest.fixture(params=["memory", "sqlite"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    clock = Clock()
    ledger: Ledger
    if request.param == "memory":
        ledger = MemoryLedger(clock)
    else:
        ledger = SqliteLedger(tmp_path / "ledger.sqlite", clock=clock, boot="b1")
    yield ledger, clock
    ledger.close()
