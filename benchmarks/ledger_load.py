"""What the ledger benches do to their home: carry 10 000 chunks, and close many small jobs."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from benchmarks.record import Figures
from proxywell.refresh.books import Beat, Claim, JobState, Settled, Terms, Worker
from proxywell.refresh.ports import Bell, Block, Ledger, NewJob
from proxywell.refresh.spans import items_of, spans_of

BUDGETS = {"ledger_ms_a_chunk": 1.0, "closing_to_waiter_p99_ms": 50.0, "longest_step_ms": 50.0}

CHUNKS, SIZE, HELD = 10_000, 100, 20
CLOSINGS = 200
WORKER = Worker("node", "node/1")
TERMS = Terms(
    lease_s=5.0, attempt_hard_s=300.0, attempts_max=8, errors_max=2, blames_max=2, fan=8,
    stalled_s=30.0, chunk_size=SIZE, min_count=10, want=None, floor_s=600.0, cap_s=86_400.0,
    time_per_chunk_s=90.0,
)  # fmt: skip


class Home(NamedTuple):
    """How the benches reach one kind of home.

    Attributes:
        ledger: Opens it, on the thread that uses it.
        waiter: The bell of who waits for a job.
        worker: The bell of who works on it.
    """

    ledger: Callable[[], Ledger]
    waiter: Callable[[str], Bell]
    worker: Callable[[], Bell]


class Stopwatch:
    """Adds up what ledger steps take, and remembers the longest; a context around each."""

    def __init__(self) -> None:
        self.total_s = self.longest_s = self._begun_s = 0.0

    def __enter__(self) -> None:
        self._begun_s = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        took_s = time.perf_counter() - self._begun_s
        self.total_s += took_s
        self.longest_s = max(self.longest_s, took_s)


def measure(home: Home) -> Figures:
    """Carry 10 000 chunks of 100 through claim, beat, submit and tick; then close many jobs."""
    watch = Stopwatch()
    create_s = create(home, "bench")
    carry(home, "bench", lambda: watch)
    known_ms = sorted(close(home, serial) * 1_000 for serial in range(CLOSINGS))
    return {
        "ledger_ms_a_chunk": (watch.total_s + create_s) * 1_000 / CHUNKS,
        "creation_s": create_s,
        "longest_step_ms": watch.longest_s * 1_000,
        "closing_to_waiter_p50_ms": statistics.median(known_ms),
        "closing_to_waiter_p99_ms": known_ms[int(0.99 * len(known_ms))],
    }


def create(home: Home, job_id: str) -> float:
    """Create a job of a million items; seconds that it took."""
    ledger = home.ledger()
    body = bytes(24 * SIZE)
    blocks = (Block(at * SIZE, (at + 1) * SIZE, body) for at in range(CHUNKS))
    begun_s = time.perf_counter()
    ledger.create(NewJob(job_id, CHUNKS * SIZE, TERMS, b"{}", time.time()), blocks)
    took_s = time.perf_counter() - begun_s
    ledger.close()
    return took_s


def carry(home: Home, job_id: str, watch: Callable[[], AbstractContextManager[None]]) -> None:
    """One worker with twenty chunks at a time, until the job is closed."""
    ledger = home.ledger()
    serial = 0
    state_now = JobState.OPEN
    while state_now is JobState.OPEN:
        held = []
        for _ in range(HELD):
            serial += 1
            with watch():
                claim = ledger.claim(job_id, WORKER, f"t{serial}")
            if isinstance(claim, Claim):
                held.append(claim)
        halves = [_half(claim) for claim in held]
        with watch():
            ledger.beat(job_id, WORKER, halves)
        for claim in held:
            with watch():
                _submit(ledger, job_id, claim)
        with watch():
            state_now = ledger.tick(job_id).job.state
    ledger.close()


def close(home: Home, serial: int) -> float:
    """Submit a last chunk while a waiter on another thread waits; seconds until it knows."""
    job_id = f"closing-{serial}"
    ledger = home.ledger()
    ledger.create(NewJob(job_id, 1, TERMS, b"{}", time.time()), [Block(0, 1, b"x")])
    claim = ledger.claim(job_id, WORKER, "t")
    assert isinstance(claim, Claim)
    known_s: list[float] = []
    listening = threading.Event()

    def wait() -> None:
        mine, bell = home.ledger(), home.waiter(job_id)
        listening.set()
        while mine.status(job_id).state is JobState.OPEN:
            bell.wait(0.5)
        known_s.append(time.perf_counter())
        bell.close()
        mine.close()

    waiter = threading.Thread(target=wait)
    waiter.start()
    listening.wait(5)
    time.sleep(0.002)
    bell = home.worker()
    ledger.submit(job_id, claim.chunk_id, "t", 1, Settled((0, 1), (), b"v"))
    closed_s = time.perf_counter()
    bell.ring()
    waiter.join(5)
    bell.close()
    ledger.close()
    return known_s[0] - closed_s


def _half(claim: Claim) -> Beat:
    items = list(items_of(claim.items))[: SIZE // 2]
    told = Settled(spans_of(items), spans_of(items[:1]), bytes(8 * len(items)))
    return Beat(claim.chunk_id, claim.token, told)


def _submit(ledger: Ledger, job_id: str, claim: Claim) -> None:
    told = Settled(claim.items, (), bytes(4 * SIZE))
    ledger.submit(job_id, claim.chunk_id, claim.token, claim.epoch, told)
