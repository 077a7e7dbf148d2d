"""What a shift's clerk does when its job is not in the ledger any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from proxywell.refresh.books import NoClaim, Worker
from proxywell.refresh.clerk import Clerk
from proxywell.refresh.engines.celery import ClockBell
from proxywell.refresh.holding import Holding
from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.plan import blocks
from proxywell.refresh.ports import NewJob
from tests.contract.ledger_world import JOB, TERMS
from tests.network.refresh_fakes import candidates

LIMIT_S = 10.0


class Listener:
    """The shift: remembers what it is told."""

    def __init__(self) -> None:
        self.stopped: list[Holding] = []
        self.troubles: list[BaseException] = []
        self.news = threading.Event()

    def stop(self, holding: Holding) -> None:
        self.stopped.append(holding)
        self.news.set()

    def drain(self) -> None: ...

    def broken(self, error: BaseException) -> None:
        self.troubles.append(error)
        self.news.set()


@pytest.fixture
def ledger() -> MemoryLedger:
    made = MemoryLedger(lambda: 0.0)
    made.create(NewJob(JOB, 9, TERMS, b"{}", 0.0), blocks(candidates(9), TERMS.chunk_size))
    return made


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def clerk(ledger: MemoryLedger, listener: Listener) -> Iterator[Clerk]:
    made = Clerk(
        JOB,
        Worker("n", "n/1"),
        open_ledger=lambda: ledger,
        beat_s=0.02,
        bell=ClockBell(),
        listener=listener,
    )
    made.start()
    yield made
    assert made.leave(LIMIT_S)
    assert listener.troubles == []


def test_a_job_that_was_lost_is_closed_for_whoever_claims(
    ledger: MemoryLedger, clerk: Clerk
) -> None:
    assert isinstance(clerk.claim().result(LIMIT_S), Holding)
    ledger._jobs.clear()
    assert clerk.claim().result(LIMIT_S) is NoClaim.CLOSED


def test_what_was_held_of_a_lost_job_is_dropped_with_the_next_beat(
    ledger: MemoryLedger, clerk: Clerk, listener: Listener
) -> None:
    held = clerk.claim().result(LIMIT_S)
    ledger._jobs.clear()
    assert listener.news.wait(LIMIT_S)
    assert listener.stopped == [held]


def test_what_is_reported_of_a_lost_job_is_nobodys(
    ledger: MemoryLedger, clerk: Clerk, listener: Listener
) -> None:
    held = clerk.claim().result(LIMIT_S)
    other = clerk.claim().result(LIMIT_S)
    assert isinstance(held, Holding)
    ledger._jobs.clear()
    clerk.submit(held)
    assert listener.news.wait(LIMIT_S)
    assert other in listener.stopped
    ledger.create(NewJob(JOB, 9, TERMS, b"{}", 0.0, epoch=2), blocks(candidates(9), 3))
    again = clerk.claim().result(LIMIT_S)
    assert isinstance(again, Holding)
    assert again.claim.epoch == 2
