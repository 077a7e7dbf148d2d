"""Tell of a ledger that is out of reach once, and once that it is there again."""

from __future__ import annotations

import time

from proxywell.errors import ProxywellError
from proxywell.telemetry.events import LedgerTroubled, emit
from proxywell.telemetry.work import LedgerReached


class Outage:
    """What one thread meets at its ledger; for that thread.

    Args:
        job_id: Whose books; empty: those of all jobs.
    """

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._from_s: float | None = None

    def met(self, error: ProxywellError) -> None:
        """A step failed; it will be tried again."""
        if self._from_s is None:
            self._from_s = time.monotonic()
            emit(LedgerTroubled(job_id=self._job_id, reason=str(error)))

    def over(self) -> None:
        """A step was done."""
        if self._from_s is not None:
            away_s = round(time.monotonic() - self._from_s, 1)
            self._from_s = None
            emit(LedgerReached(job_id=self._job_id, away_s=away_s))
