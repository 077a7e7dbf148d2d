"""How a member's history lies in a row of the pool's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from proxywell.pool.member_state import History
from proxywell.pool.score import Tally

HISTORY_COLUMNS: Final = (
    "passed, tried, tallied_at, passed_last, last_at, last_ok_at, failures_in_row, "
    "failing_since, times_checked, times_passed, latencies_ms, frozen_at, barred_why"
)

_decode_latencies = msgspec.json.Decoder(tuple[float, ...]).decode


def history_of(row: Sequence[Any]) -> History:
    """Read a history from the values of ``HISTORY_COLUMNS``."""
    return History(
        tally=Tally(row[0], row[1], row[2]),
        passed_last=bool(row[3]),
        last_at_s=row[4],
        last_ok_at_s=row[5],
        failures_in_row=row[6],
        failing_since_s=row[7],
        times_checked=row[8],
        times_passed=row[9],
        latencies_ms=_decode_latencies(row[10]),
        frozen_at_s=row[11],
        barred_why=row[12],
    )


def history_values(history: History) -> tuple[object, ...]:
    """The values for ``HISTORY_COLUMNS``."""
    return (
        history.tally.passed,
        history.tally.tried,
        history.tally.at_s,
        history.passed_last,
        history.last_at_s,
        history.last_ok_at_s,
        history.failures_in_row,
        history.failing_since_s,
        history.times_checked,
        history.times_passed,
        msgspec.json.encode(history.latencies_ms).decode(),
        history.frozen_at_s,
        history.barred_why,
    )
