"""What the pool costs: recording a large refresh, choosing, and reading a long history.

One job tells 250 000 candidates, 4 % of them working, in chunks of 1 000, and seals; a second
job tells the same ones again. Then the best of several rounds: choosing among the 10 000
members, in memory and as a process that asks once, with and without a million checks in the
file.
"""

from __future__ import annotations

import gc
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.record import Figures
from proxywell.config.schema import PoolSettings
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.verdict import Anonymity, CheckState, CheckStep, Verdict
from proxywell.pool.pool import Pool
from proxywell.pool.selection import MemberFilter

BUDGETS = {"record_and_seal_s": 3.0, "again_record_and_seal_s": 3.0, "choose_us": 20.0}
CANDIDATES = 250_000
CHUNK = 1_000
WORKING_ONE_IN = 25
MILLION = 1_000_000
WISH = MemberFilter()

Item = tuple[int, Candidate, Verdict]


def run() -> Figures:
    """Seconds for a refresh of 250 000, microseconds per choice among 10 000 members."""
    draw = random.Random(1)
    places = draw.sample(range(CANDIDATES), CANDIDATES)
    items = [_item(number, place, draw) for number, place in enumerate(places)]
    gc.collect()
    gc.freeze()  # a refresh does not hold all its verdicts at one time
    with tempfile.TemporaryDirectory() as place:
        state = Path(place)
        with Pool.open(state, PoolSettings()) as pool:
            first = _refresh(pool, "first", items)
            second = _refresh(pool, "second", items)
            started = time.perf_counter()
            pool.choose(WISH, 1, draw.random)
            reading_ms = 1_000 * (time.perf_counter() - started)
            choose_us = _least_us(lambda: pool.choose(WISH, 1, draw.random), rounds=5, times=2_000)
        once_us = _asked_once_us(state, draw)
        with Pool.open(state, PoolSettings()) as pool:
            _make_history(pool, items)
        long_us = _asked_once_us(state, draw)
    return {
        "record_and_seal_s": sum(first),
        "seal_s": first[1],
        "again_record_and_seal_s": sum(second),
        "rows_per_s": CANDIDATES / sum(first),
        "read_10_000_members_ms": reading_ms,
        "choose_us": choose_us,
        "open_and_choose_once_ms": once_us / 1_000,
        "open_and_choose_once_after_1e6_checks_ms": long_us / 1_000,
    }


def _refresh(pool: Pool, job: str, items: list[Item]) -> tuple[float, float]:
    started = time.perf_counter()
    for start in range(0, len(items), CHUNK):
        pool.record(job, 1, items[start : start + CHUNK])
    recorded = time.perf_counter()
    pool.seal(job, 1)
    return recorded - started, time.perf_counter() - recorded


def _make_history(pool: Pool, items: list[Item]) -> None:
    checks = [(candidate, verdict) for _, candidate, verdict in items if verdict.working]
    for _ in range(MILLION // len(checks)):
        pool.observe(checks, origin="bench")


def _asked_once_us(state: Path, draw: random.Random) -> float:
    def once() -> None:
        with Pool.open(state, PoolSettings(), read_only=True) as pool:
            pool.choose_once(WISH, 1, draw.random)

    return _least_us(once, rounds=10, times=1)


def _least_us(act: Callable[[], object], *, rounds: int, times: int) -> float:
    least = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(times):
            act()
        least = min(least, time.perf_counter() - started)
    return 1e6 * least / times


def _item(number: int, place: int, draw: random.Random) -> Item:
    """One item of a job: they are numbered in the order of the plan, at addresses all over."""
    address = 0x01000000 + place
    host = ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
    whom = Endpoint(host, 8080)
    works = number % WORKING_ONE_IN == 0
    names = ("reach", "handshake", "judge", "second", "https", "anonymity")
    if works:
        steps = tuple(
            CheckStep(name, CheckState.PASSED, None, "proxywell:http://127.0.0.1:1", 90.0)
            for name in names
        )
    else:
        steps = (
            CheckStep("reach", CheckState.FAILED, "connect_timeout", None, 8_000.0),
            *(CheckStep(name, CheckState.SKIPPED) for name in names[1:]),
        )
    protocol = Protocol.SOCKS5 if works else Protocol.HTTP
    verdict = Verdict(
        proxy=whom.url(protocol),
        host=host,
        port=whom.port,
        protocol=protocol,
        protocols=(protocol,) if works else (),
        working=works,
        checked_at=datetime.now(UTC),
        failure=None if works else FailureKind.CONNECT_TIMEOUT,
        blame=None if works else Blame.PROXY,
        anonymity=Anonymity.ELITE if works else Anonymity.UNKNOWN,
        exit_ip=host if works else None,
        latency_ms=draw.uniform(100, 9_000) if works else None,
        checks=steps,
    )
    return number, Candidate(whom, (), ("list",)), verdict
