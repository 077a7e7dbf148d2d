"""The SQLite ledger: time per chunk, the longest step, and how soon a waiter knows."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.ledger_load import BUDGETS, Home, measure
from benchmarks.record import Figures
from proxywell.refresh.bell import DatagramBell, Role
from proxywell.refresh.ledgers.sqlite import open_ledger

__all__ = ["BUDGETS", "run"]


def run() -> Figures:
    """On a file in the system's temporary directory."""
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory)
        return measure(
            Home(
                ledger=lambda: open_ledger(state),
                waiter=lambda _job_id: DatagramBell(state, Role.WAITER),
                worker=lambda: DatagramBell(state, Role.WORKER),
            )
        )
