"""The two engines on one fleet: what Celery and Redis cost beside the local engine.

The lab's realistic fleet is refreshed by turns with ``--engine local --workers 2`` and with
``--engine celery``, whose two worker processes already run at a private Redis, as they do where
jobs follow each other. What the whole command takes is compared: reading, planning, checking,
finalising. Then once with nothing running: how much longer it takes to bring up server and
workers, and to stop them.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks.bench_refresh import PROXYWELL, environment_of, lab, report_of
from benchmarks.record import Figures
from proxywell.refresh.ledgers.redis import RedisLedger
from tests.services.redis_server import RedisServer

BUDGETS = {"celery_to_local": 1.3}
CANDIDATES, WORKERS, TURNS = 4_000, 2, 3
LAB_S = 1_200
SERVICES_S = 30.0  # for a worker to be there, or to end


def run() -> Figures:
    """Seconds of wall time, medians of the turns."""
    took_s: dict[str, list[float]] = {"local": [], "celery": []}
    reports = []
    with lab("realistic", "--candidates", str(CANDIDATES), limit_s=LAB_S) as offer:
        with RedisServer() as server, _worker(offer, server):
            for turn in range(TURNS):
                for engine in list(took_s)[:: -1 if turn % 2 else 1]:
                    began_s = time.monotonic()
                    reports.append(_refreshed(offer, engine, server.url))
                    took_s[engine].append(time.monotonic() - began_s)
        began_s = time.monotonic()
        reports.append(_refreshed(offer, "celery", None))
        alone_s = time.monotonic() - began_s
    items = [report["items"] for report in reports]
    assert all(one == items[0] for one in items), "an engine left candidates out"
    local_s, celery_s = median(took_s["local"]), median(took_s["celery"])
    return {
        "candidates": items[0]["planned"],
        "workers": WORKERS,
        "working": reports[-1]["verdicts"]["working"],
        "local_s": local_s,
        "celery_s": celery_s,
        "celery_to_local": celery_s / local_s,
        "celery_with_its_services_s": alone_s,
    }


def _refreshed(offer: dict[str, Any], engine: str, url: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as state:
        options = ("--engine", engine, "--workers", str(WORKERS))
        here = {} if url is None else {"PROXYWELL_REDIS__URL": url}
        lists = [one["url"] for one in offer["lists"]]
        report, _ = report_of(offer, lists, state, options, here)
    return report


@contextmanager
def _worker(offer: dict[str, Any], server: RedisServer) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as state:
        process = subprocess.Popen(
            [*PROXYWELL, "worker", "--workers", str(WORKERS), "--state", state],
            env={**environment_of(offer), "PROXYWELL_REDIS__URL": server.url},
            stderr=subprocess.DEVNULL,
        )
        try:
            _until_it_is_there(server)
            yield
        finally:
            process.terminate()
            process.wait(SERVICES_S)


def _until_it_is_there(server: RedisServer) -> None:
    end_s = time.monotonic() + SERVICES_S
    ledger = RedisLedger(server.address())
    try:
        while not ledger.nodes(""):
            assert time.monotonic() < end_s, "no worker came"
            time.sleep(0.05)
    finally:
        ledger.close()
