"""What the programs of the matrix are told: JSON in the environment."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from proxywell.config.schema import RefreshSettings
from tests.services.matrix.scripted import CHUNK, Script

TOLD_IN: Final = "PROXYWELL_MATRIX"
JOB: Final = "j1"
QUICK: Final = RefreshSettings(lease_s=2.0, beat_s=0.5, chunk_size=CHUNK)


@dataclass(frozen=True)
class Orders:
    """One program's part.

    Attributes:
        url: The Redis, perhaps through a forwarder.
        script: How candidates are checked, and where that is logged.
        state: The state directory of a waiter.
        outcome: Where a waiter writes what came of it.
        children: Of a worker.
        job: The job's id.
        items: Of the job that a waiter creates; 0: it is there already.
        refresh: Terms of a job, and a worker's beat.
        answer_s: Of every call to Redis.
        bound_s: Longest wait; None: by the job's own terms.
        defect: Lua that takes the place of a rule.
        pool: How the pool fails: see ``waiter.ODD_POOLS``.
        dies: Where a waiter kills itself: see ``waiter.DEATHS``.
        cancels: The waiter cancels the job instead of waiting.
        holds: The waiter says in ``HOLDS.ready`` that it is about to create the job, and waits
            until there is a file of this name.
        chord: Which settings the comparison has: see ``chord.PRACTICES``.
        chord_settings: More of them.
    """

    url: str
    script: Script
    state: str = ""
    outcome: str = ""
    children: int = 8
    job: str = JOB
    items: int = 0
    refresh: RefreshSettings = QUICK
    answer_s: float = 2.0
    bound_s: float | None = None
    defect: str = ""
    pool: str = ""
    dies: str = ""
    cancels: bool = False
    holds: str = ""
    chord: str = ""
    chord_settings: dict[str, float] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """For the program that is to follow them."""
        return {**os.environ, TOLD_IN: msgspec.json.encode(self).decode()}

    def hold(self) -> None:
        """Wait to be let go, where that was ordered."""
        if self.holds:
            Path(f"{self.holds}.ready").touch()
            while not Path(self.holds).exists():  # ends with this process at the latest
                time.sleep(0.001)

    @classmethod
    def told(cls) -> Orders:
        """Those of this process."""
        return msgspec.json.decode(os.environ[TOLD_IN], type=cls)


@dataclass(frozen=True)
class Outcome:
    """What a waiter says at its end.

    Attributes:
        report: The refresh report, as a command prints it; None if there is none.
        error: What was raised instead.
        at_s: When it knew, on the machine's monotonic clock.
    """

    report: dict[str, object] | None = None
    error: str | None = None
    at_s: float = 0.0
