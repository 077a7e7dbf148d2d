"""Time as something that is handed in, so that rules stay pure and tests never sleep."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, both in seconds."""

    def now_s(self) -> float:
        """Seconds since the epoch: for people and stores; it may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back: for deadlines and durations."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()
