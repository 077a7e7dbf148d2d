"""Whether a judge is well, and how often it may be asked. Pure."""

from __future__ import annotations

FAILURES_TO_UNWELL = 2  # in a row: one lost packet is no illness
_BACK_OFF_FIRST_S = 30.0
_BACK_OFF_CAP_S = 900.0


class Health:
    """One judge's health as its direct requests show it.

    Unwell after two failures in a row, or after the first one ever; well again after one
    answer. A judge that says that it is asked too much (429, 5xx) is left alone for a time
    that doubles.

    Attributes:
        well: Whether it may be used.
        well_at_s: Instant of the latest answer; None before the first.
        failing_since_s: Instant of the first failure of the present row; None in health.
        leave_until_s: It is not asked before this instant.
    """

    def __init__(self) -> None:
        """Nothing is known yet, so it is not well."""
        self.well = False
        self.well_at_s: float | None = None
        self.failing_since_s: float | None = None
        self.leave_until_s = 0.0
        self._failures = 0
        self._back_off_s = _BACK_OFF_FIRST_S

    def answered(self, now_s: float) -> None:
        """It answered as a judge should."""
        self.well, self.well_at_s = True, now_s
        self.failing_since_s = None
        self._failures = 0
        self._back_off_s = _BACK_OFF_FIRST_S

    def failed(self, now_s: float, *, overloaded: bool = False) -> None:
        """It did not answer, or said something else.

        Args:
            now_s: The instant.
            overloaded: It asked to be left alone.
        """
        if self.failing_since_s is None:
            self.failing_since_s = now_s
        self._failures += 1
        if self.well_at_s is None or self._failures >= FAILURES_TO_UNWELL or overloaded:
            self.well = False
        if overloaded:
            self.leave_until_s = now_s + self._back_off_s
            self._back_off_s = min(2 * self._back_off_s, _BACK_OFF_CAP_S)

    @property
    def in_doubt(self) -> bool:
        """It failed, but not often enough to be called unwell."""
        return self.well and self._failures > 0


class TokenBucket:
    """At most ``rate_per_s`` requests a second over time, and a few at once."""

    def __init__(self, rate_per_s: float, *, burst: float | None = None) -> None:
        """Start full.

        Args:
            rate_per_s: Above zero.
            burst: Most requests at once; None: what two seconds allow, at least one.
        """
        self._rate_per_s = rate_per_s
        self._burst = max(1.0, 2 * rate_per_s if burst is None else burst)
        self._tokens = self._burst
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Take one if there is one."""
        if self._at_s is not None:
            gained = max(0.0, now_s - self._at_s) * self._rate_per_s
            self._tokens = min(self._burst, self._tokens + gained)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
