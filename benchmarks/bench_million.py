"""A million candidates: put in order, cut, written to the ledger; time, memory, longest lock."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from benchmarks.record import Figures
from proxywell.config.schema import RefreshSettings
from proxywell.errors import StoreBusyError
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.refresh.ledgers.sqlite import open_ledger
from proxywell.refresh.report import Dossier
from proxywell.refresh.run import RefreshRoom

BUDGETS = {"plan_and_create_s": 60.0, "peak_mb": 600.0, "longest_lock_ms": 50.0}
COUNT = 1_000_000


def run() -> Figures:
    """Plan a million in a process of its own, so that its peak memory is its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_million"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    figures: Figures = msgspec.json.decode(ran.stdout)
    return figures


def main() -> None:
    """Make candidates, plan them, and see how long another connection waits for a write."""
    candidates = _made()
    before_mb = _peak_mb()
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory)
        with RefreshRoom(state, RefreshSettings(), sink=None) as room:
            neighbour = _Neighbour(state)
            begun_s = time.perf_counter()
            room.create(candidates, Dossier(), yields={"list-1": 0.1})
            took_s = time.perf_counter() - begun_s
            longest_s = neighbour.stop()
        size_mb = sum(path.stat().st_size for path in state.glob("ledger*")) / 2**20
    figures = {
        "candidates": COUNT,
        "plan_and_create_s": took_s,
        "peak_before_mb": before_mb,
        "peak_mb": _peak_mb(),
        "ledger_mb": size_mb,
        "longest_lock_ms": longest_s * 1_000,
    }
    sys.stdout.write(msgspec.json.encode(figures).decode())


def _made() -> list[Candidate]:
    sources = [("list-1",), ("list-2",), ("list-1", "list-2")]
    hints: list[tuple[Protocol, ...]] = [(Protocol.SOCKS5,), (Protocol.HTTP,), ()]
    return [
        Candidate(
            Endpoint(f"{1 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.9", 1080 + n % 7),
            hints[n % 3],
            sources[n % 5 % 3],
        )
        for n in range(COUNT)
    ]


class _Neighbour:
    """Another job's worker in its own process; notes how long it had to wait for a write."""

    def __init__(self, state: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bench_million", str(state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has begun

    def stop(self) -> float:
        """End it; the longest wait in seconds."""
        longest_s, _ = self._process.communicate("", timeout=10)
        return float(longest_s)


def _beat_until_told(state: Path) -> None:
    ledger = open_ledger(state)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    longest_s = 0.0
    print("begun", flush=True)
    while not over.is_set():
        begun_s = time.perf_counter()
        with contextlib.suppress(StoreBusyError):
            ledger.node_beat("neighbour", "", term_s=4.0)
        longest_s = max(longest_s, time.perf_counter() - begun_s)
        over.wait(0.002)
    ledger.close()
    print(longest_s)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _beat_until_told(Path(sys.argv[1]))
    else:
        main()
