"""The Redis ledger: time per chunk, how soon a waiter knows, the longest script in the server."""

from __future__ import annotations

import time

from benchmarks import ledger_load
from benchmarks.ledger_load import CHUNKS, TERMS, Home, create, measure
from benchmarks.record import Figures
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import Claim, Worker
from proxywell.refresh.engines.celery import ClockBell, RedisBell
from proxywell.refresh.ledgers.redis import RedisLedger
from tests.services.redis_server import RedisServer

BUDGETS = {
    **ledger_load.BUDGETS,
    "longest_script_ms": 50.0,
    "renewing_all_leases_ms": 50.0,
    "reaping_ms": 50.0,
    "ending_all_ms": 50.0,
}
HOLDERS = 200


def run() -> Figures:
    """On a private server behind a Unix socket that keeps every write of a second, as ours do."""
    options = ("--appendfsync", "everysec", "--slowlog-log-slower-than", "200")
    with RedisServer(aof=True, options=(*options, "--slowlog-max-len", "100000")) as server:
        address = server.address()
        home = Home(
            ledger=lambda: RedisLedger(address),
            waiter=lambda job_id: RedisBell(address, RedisLedger(address).events_key(job_id)),
            worker=ClockBell,
        )
        figures = dict(measure(home))
        figures["longest_script_ms"] = _longest_ms(server)
        return {**figures, **_all_at_once(server, home)}


def _all_at_once(server: RedisServer, home: Home) -> Figures:
    """Steps that touch every chunk of a million items: all of them leased, lost, ended."""
    create(home, "large")
    ledger = home.ledger()
    for serial in range(CHUNKS):
        worker = Worker("node", f"node/{serial % HOLDERS}")
        assert isinstance(ledger.claim("large", worker, f"t{serial}"), Claim)
    _longest_ms(server)
    time.sleep(TERMS.lease_s)  # nobody comes: every lease is renewed
    ledger.tick("large")
    renewing_ms = _longest_ms(server)
    for _ in range(6):
        time.sleep(1)  # somebody comes, and no holder: 250 are lost at a time
        ledger.tick("large")
    reaping_ms = _longest_ms(server)
    assert ledger.status("large").rescued > 0
    ledger.cancel("large", GivenUpWhy.CANCELLED, "cancelled")
    ending_ms = _longest_ms(server)
    ledger.close()
    return {
        "renewing_all_leases_ms": renewing_ms,
        "reaping_ms": reaping_ms,
        "ending_all_ms": ending_ms,
    }


def _longest_ms(server: RedisServer) -> float:
    """The longest script since the last time; 0 where all took less than the log's 0.2 ms."""
    entries = server.call("SLOWLOG", "GET", "-1")
    server.call("SLOWLOG", "RESET")
    took_us = [entry[2] for entry in entries if entry[3][0] == b"EVALSHA"]
    return max(took_us, default=0) / 1_000
