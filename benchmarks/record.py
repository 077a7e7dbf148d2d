"""Keep what a benchmark measured, with the date, the commit and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

Figure: TypeAlias = float | int | str | None
Figures: TypeAlias = Mapping[str, Figure]

RECORDS = Path(__file__).parent / "records"


class Machine(msgspec.Struct, frozen=True):
    """What the figures depend on; nothing that names the machine or its owner."""

    cpu: str
    cores: int
    system: str
    python: str


class Record(msgspec.Struct, frozen=True):
    """One benchmark, once.

    Attributes:
        bench: The module's name without ``bench_``.
        date: UTC.
        commit: Short hash, with ``+`` behind it when the tree had changes.
        figures: By name; a name ends in its unit.
        budgets: Most that a figure may be, for those that have a budget.
    """

    bench: str
    date: datetime
    commit: str
    machine: Machine
    figures: Figures
    budgets: Mapping[str, float]


def keep(bench: str, figures: Figures, *, budgets: Mapping[str, float] | None = None) -> Path:
    """Write one record; a later one of the same day takes its place.

    Args:
        bench: The module's name without ``bench_``.
        figures: What was measured, by name.
        budgets: Most that a figure may be.

    Returns:
        The file written.

    Raises:
        OSError: The records cannot be written.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    record = Record(bench, now, commit(), machine(), figures, budgets or {})
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{bench}-{now:%Y-%m-%d}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    return path


def machine() -> Machine:
    """Describe this machine as far as speed depends on it."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def commit() -> str:
    """Say which commit this tree is: its short hash, with ``+`` behind it if there are changes."""
    root = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=root, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root, capture_output=True, text=True, check=True, timeout=10,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+" if changes else "")
