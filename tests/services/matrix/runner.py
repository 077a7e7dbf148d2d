"""Runs rows: one row, one phase, one draw, and what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.services.matrix import rows_hosts, rows_redis, rows_waiters, rows_workers
from tests.services.matrix.lab import RANDOM, Lab, TookTooLongError
from tests.services.matrix.oracle import Finding, examine
from tests.services.matrix.row import NOISE, Row
from tests.services.matrix.system import Ours

ROWS: tuple[Row, ...] = (
    *rows_workers.ROWS,
    *rows_redis.ROWS,
    *rows_waiters.ROWS,
    *rows_hosts.ROWS,
)
SAID_LINES = 30


@dataclass
class Run:
    """One row, once.

    Attributes:
        row: Its name.
        phase: ``random`` or ``aligned``.
        seed: Of instants and victims.
        wrong: Sentences; empty if everything was as it must be.
        bound_s: What was allowed from the fault to the end.
        end_s: From the fault to the end of every wait; None: not within the bound.
        again_s: The longest until a check that was lost with its process began again.
        finding: What was left behind; None if it did not end.
        notes: What was done, and when.
        said: The last lines of what the programs said.
    """

    row: str
    phase: str
    seed: int
    wrong: list[str] = field(default_factory=list)
    bound_s: float = 0.0
    end_s: float | None = None
    again_s: float | None = None
    finding: Finding | None = None
    notes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def told(self) -> str:
        """Everything, for people."""
        head = f"{self.row} ({self.phase}, seed {self.seed}): {'; '.join(self.wrong) or 'ok'}"
        return "\n".join([head, *self.notes, *(self.said if self.wrong else [])])


def row_of(name: str) -> Row:
    """The row with this name."""
    return next(row for row in ROWS if row.name == name)


def run(row: Row, *, phase: str = RANDOM, seed: int = 0, defect: str = "") -> Run:
    """Do what a row says to a private server, workers and waiter, and examine what is left.

    Args:
        row: The row.
        phase: When the fault falls: see ``Lab``.
        seed: Of the instant and the victims.
        defect: Lua that takes the place of a rule.
    """
    came = Run(row.name, phase, seed)
    ours = Ours(defect)
    with tempfile.TemporaryDirectory(prefix="pw-m-") as place:
        directory = Path(place)
        with Lab(directory, row.setup, ours, draw=Random(seed), phase=phase) as lab:
            try:
                row.begins(lab)
                row.strike(lab)
                came.bound_s = row.bound_s(lab.boot_s())
                came.end_s = lab.finish(came.bound_s)
            except TookTooLongError as error:
                lab.note(f"books: {ours.books(lab)}")
                came.wrong.append(str(error))
            else:
                came.again_s = lab.again_after_s()
                came.finding = examine(lab, ours, row.expected)
                came.wrong += came.finding.wrong
                if row.again_s is not None and (came.again_s or 0.0) > NOISE * row.again_s:
                    came.wrong.append(f"a lost check began again after {came.again_s:.1f} s")
            came.notes = lab.notes
        for log in ("waiter.log", "worker.log"):
            came.said += _last_lines(directory / log)
    return came


def _last_lines(log: Path) -> Sequence[str]:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [f"{log.name}: {line}" for line in lines[-SAID_LINES:]]
