"""A row of the matrix: what is there, what is done to it, how and when it must end.

Bounds are put together from the terms of the runs: a lease of 2 s (L), a tick of 0.5 s (T), a
second until somebody rings again (B), and what a program takes to start (S), measured in the run
itself. What is done on a busy machine may take twice as long: ``NOISE``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from proxywell.refresh.closing import TICK_S
from tests.services.matrix.lab import Lab, Setup
from tests.services.matrix.oracle import Expected
from tests.services.matrix.orders import QUICK

LEASE_S: Final = QUICK.lease_s
BELL_S: Final = 1.0
BOOT_S: Final = 4.0  # S on a quiet machine, with something to spare
RESCUE_S: Final = LEASE_S + TICK_S + BELL_S
WORK_S: Final = 3.5  # 40 chunks of half a second on 8 processes, and the seal
NOISE: Final = 2.0


def _nothing_missing() -> str | None:
    return None


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: For picking it.
        title: What is done, for the table.
        strike: Does it; returns when the fault is over.
        setup: What is there before.
        expected: How it must end.
        lasts_s: How long the fault itself lasts.
        recover_s: From the end of the fault until everybody works again, without starts.
        boots: How many programs have to start for that, one after the other.
        work_s: What there is to do then.
        again_s: A check that was lost with its process starts again within so much; None: not
            asked.
        quick: One of the selection that every test run does.
        chord: Also done to a plain chord.
        begins: Starts what is there before.
        missing: Says why it cannot be done here.
    """

    name: str
    title: str
    strike: Callable[[Lab], None]
    setup: Setup = field(default_factory=Setup)
    expected: Expected = field(default_factory=Expected)
    lasts_s: float = 0.0
    recover_s: float = RESCUE_S
    boots: int = 0
    work_s: float = WORK_S
    again_s: float | None = None
    quick: bool = False
    chord: bool = False
    begins: Callable[[Lab], object] = Lab.begin
    missing: Callable[[], str | None] = _nothing_missing

    def bound_s(self, boot_s: float = BOOT_S) -> float:
        """Longest time from the beginning of the fault to the end of every wait.

        Args:
            boot_s: What the first programs of the run took to start.
        """
        starts_s = self.boots * max(BOOT_S, boot_s)
        return self.lasts_s + NOISE * (self.recover_s + self.work_s + starts_s)
