"""How long a person waits for the first line of a command.

The least of many runs: the rest of the machine can only add to it. Bytecode is kept between
runs, as it is for everybody who calls the command a second time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.record import Figures

BUDGETS = {"help_ms": 120.0, "random_ms": 150.0}
RUNS = 20
KEEPING = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run() -> Figures:
    """Milliseconds from start to exit: Python alone, ``--help``, ``random`` on an empty pool."""
    with tempfile.TemporaryDirectory() as state:
        return {
            "python_ms": _least_ms([sys.executable, "-c", "pass"]),
            "help_ms": _least_ms([sys.executable, "-m", "proxywell", "--help"]),
            "random_ms": _least_ms([sys.executable, "-m", "proxywell", "random", "--state", state]),
            "runs": RUNS,
        }


def _least_ms(command: list[str]) -> float:
    return 1_000 * min(_once_s(command) for _ in range(RUNS))


def _once_s(command: list[str]) -> float:
    started = time.perf_counter()
    ended = subprocess.run(command, env=KEEPING, capture_output=True, check=False, timeout=30)
    took = time.perf_counter() - started
    if b"Traceback" in ended.stderr:
        raise RuntimeError(f"{command} broke: {ended.stderr.decode()[-500:]}")
    return took
