"""A job in a private Redis and a real worker process, driven by the test as a waiter would."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from proxywell.config.schema import RefreshSettings
from proxywell.refresh.books import JobRow, JobState, Terms
from proxywell.refresh.engines.celery import CeleryEngine, RedisBell
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.plan import blocks
from proxywell.refresh.ports import NewJob
from proxywell.refresh.report import Dossier
from tests.network.refresh_fakes import Habits, candidates
from tests.services import scripted_worker
from tests.services.redis_server import RedisServer

JOB = "j1"
QUICK = RefreshSettings(lease_s=2.0, beat_s=0.5)
TERMS = Terms(
    lease_s=2.0,
    attempt_hard_s=60.0,
    attempts_max=8,
    errors_max=2,
    blames_max=2,
    fan=8,
    stalled_s=30.0,
    chunk_size=8,
    min_count=2,
    want=None,
    floor_s=600.0,
    cap_s=2_400.0,
    time_per_chunk_s=90.0,
)


class Driven:
    """A waiter for one job: ticks and rings until something is reached, within a bound."""

    def __init__(self, address: RedisAddress, *, rings: bool = True) -> None:
        self.address = address
        self.rings = rings
        self.ledger = RedisLedger(address)
        self.engine = CeleryEngine(JOB, address)
        self.bell = RedisBell(address, self.ledger.events_key(JOB))

    def create(self, items: int, terms: Terms = TERMS, *, rings: bool = True) -> None:
        spec = msgspec.json.encode(Dossier(engine="celery"))
        job = NewJob(JOB, items, terms, spec, time.time())
        assert self.ledger.create(job, blocks(candidates(items), terms.chunk_size))
        if rings and self.rings:
            self.engine.ring(items // terms.chunk_size)

    def until(self, reached: Callable[[JobRow], bool], *, bound_s: float = 30.0) -> JobRow:
        end_s = time.monotonic() + bound_s
        while time.monotonic() < end_s:
            tick = self.ledger.tick(JOB)
            if self.rings:
                self.engine.ring(tick.ring)
            if reached(tick.job):
                return tick.job
            self.bell.wait(0.25)
        raise AssertionError(f"not reached within {bound_s:g} s: {self.ledger.status(JOB)}")

    def until_closed(self, *, bound_s: float = 30.0) -> JobRow:
        return self.until(lambda job: job.state is not JobState.OPEN, bound_s=bound_s)

    def close(self) -> None:
        self.engine.stop()
        self.bell.close()
        self.ledger.close()


def driven(server: RedisServer, *, rings: bool = True) -> AbstractContextManager[Driven]:
    return driven_at(server.address(), rings=rings)


@contextmanager
def driven_at(address: RedisAddress, *, rings: bool = True) -> Iterator[Driven]:
    waiter = Driven(address, rings=rings)
    try:
        yield waiter
    finally:
        waiter.close()


def worker(
    server: RedisServer,
    habits: Habits,
    log: Path,
    *,
    workers: int = 2,
    refresh: RefreshSettings = QUICK,
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return worker_at(server.url, habits, log, workers=workers, refresh=refresh)


@contextmanager
def worker_at(
    url: str,
    habits: Habits,
    log: Path,
    *,
    workers: int = 2,
    refresh: RefreshSettings = QUICK,
    before: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process; ``before`` are the words of a program that becomes it."""
    process = scripted_worker.start(
        url, habits, workers=workers, refresh=refresh, log=log, before=before
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5.0)


def children_of(pid: int) -> list[int]:
    """Direct children, as Linux tells them."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]
