"""The whole command: time to usable on the lab's hard fleet, and a million candidates end to end.

The hard fleet has 40 000 candidates, one in twenty of them works. It is refreshed twice with
2 000 sockets: first without history until half of the working ones are found, then, with what
that left in the pool, until 50 work. The million is read from files, vetted, planned and
written to the ledger; the job is given up as soon as it stands.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.record import Figures

BUDGETS = {
    "half_without_history_s": 25.0,
    "fifty_with_history_s": 5.0,
    "million_read_and_planned_s": 60.0,
    "million_peak_mb": 600.0,
}
SOCKETS = 2_000
FIFTY = 50
FILES, PER_FILE = 5, 200_000
LIMIT_S = 300
PROXYWELL = [sys.executable, "-m", "proxywell"]


def run() -> Figures:
    """Seconds until enough work, as the job's report tells them; peak memory of the command."""
    with lab("hard") as offer, tempfile.TemporaryDirectory() as state:
        half = offer["counts"]["groups"]["working"] // 2
        before = _refresh(offer, state, "--want", str(half))
        after = _refresh(offer, state, "--want", str(FIFTY))
        million = _million(offer)
    return {
        "candidates": before["items"]["planned"],
        "sockets": SOCKETS,
        "half": half,
        "first_working_s": before["timing_s"]["first_working"],
        "usable_s": before["timing_s"]["usable"],
        "half_without_history_s": before["timing_s"]["closed"],
        "fifty_with_history_s": after["timing_s"]["closed"],
        **million,
    }


@contextmanager
def lab(profile: str, *more: str, limit_s: int = LIMIT_S) -> Iterator[dict[str, Any]]:
    """The lab in a process of its own; what it offers."""
    command = [*PROXYWELL, "lab", "serve", "--profile", profile, "--output", "json", *more]
    process = subprocess.Popen([*command, "--seconds", str(limit_s)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None, "it was asked for"
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


def _refresh(offer: dict[str, Any], state: str, *options: str) -> dict[str, Any]:
    lists = [one["url"] for one in offer["lists"]]
    return report_of(offer, lists, state, options)[0]


def _million(offer: dict[str, Any]) -> Figures:
    """Loopback addresses, so that nobody would be met even if one were dialled."""
    with tempfile.TemporaryDirectory() as place:
        files = []
        for number in range(FILES):
            first = number * PER_FILE
            path = Path(place) / f"list-{number}.txt"
            addresses = range(first, first + PER_FILE)
            path.write_text(
                "".join(f"127.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}:9\n" for n in addresses)
            )
            files.append(str(path))
        report, peak_mb = report_of(offer, files, place + "/state", ("--deadline-s", "1"))
    return {
        "million": report["items"]["planned"],
        "million_read_s": report["timing_s"]["read"],
        "million_read_and_planned_s": report["timing_s"]["closed"] - 1.0,
        "million_peak_mb": peak_mb,
    }


def report_of(
    offer: dict[str, Any],
    lists: list[str],
    state: str,
    options: tuple[str, ...],
    more: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], float]:
    """What one refresh of these lists reports, and its peak memory in MB.

    Args:
        offer: What the lab offers.
        lists: Paths or URLs.
        state: The state directory.
        options: More of the command.
        more: More of its environment.
    """
    named = [word for place in lists for word in ("--source", place)]
    named += [word for judge in offer["judges"] for word in ("--judge", judge)]
    own = ["--state", state, "--allow-private", "--max-sockets", str(SOCKETS), "--output", "json"]
    process = subprocess.Popen(
        [*PROXYWELL, "refresh", *named, *own, *options],
        env={**environment_of(offer), **(more or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None, "it was asked for"
    said = process.stdout.read()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    report: dict[str, Any] = json.loads(said)
    return report, _megabytes(usage)


def environment_of(offer: dict[str, Any]) -> dict[str, str]:
    """The environment of a command that checks against this lab."""
    return {
        **os.environ,
        "PROXYWELL_CHECKING__SOURCE_ADDRESS": offer["source_address"],
        "PROXYWELL_JUDGE__CA_FILE": offer["ca_file"],
        "PROXYWELL_JUDGE__PUBLIC_KEYS": offer["public_key"],
        "PROXYWELL_SOURCES__MIN_INTERVAL_S": "0",
    }


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
