"""Whether a shift's loop still moves: counted by the loop, looked at by its clerk. Pure.

A check that keeps the loop (a bug of ours that some answer wakes) would hold a worker for ever,
while the clerk beats on. So the clerk looks whether the loop moves; if it does not, it hands back
what is held, so that the one candidate is found, and interrupts the loop.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

GRACE_S = 5.0  # from the interruption until the process is ended


class LoopHungError(BaseException):
    """A check kept the loop for too long.

    Not an ``Exception``: whoever takes those for a failed check must let this one through.
    """


class LoopThread(Protocol):
    """The thread on which a shift's loop runs, as another thread may act on it."""

    def interrupt(self) -> None:
        """Let what runs there just now raise ``LoopHungError``."""
        ...

    def end(self) -> None:
        """Interrupting did not help: end the process, or say that it cannot go on."""
        ...


class Remedy(Enum):
    """What is to be done about a loop."""

    FINE = auto()
    INTERRUPT = auto()
    END = auto()


class Standstill:
    """Says when a loop has stood still for too long.

    Time in which nobody looked counts at most as ``look_max_s``: a process that was stopped for an
    hour and goes on has not hung for an hour.

    Args:
        limit_s: Longest time between two moves.
        look_max_s: Longest time between two looks that counts in full.
        now_s: When it begins, on the clock of every look.
    """

    def __init__(self, limit_s: float, *, look_max_s: float, now_s: float) -> None:
        self._limit_s = limit_s
        self._look_max_s = look_max_s
        self._moves = self._seen = 0
        self._looked_s = now_s
        self._said = Remedy.FINE
        self.stood_s = 0.0

    def move(self) -> None:
        """The loop moves; called on its own thread."""
        self._moves += 1

    def look(self, now_s: float) -> Remedy:
        """Say what is to be done; INTERRUPT and END are said once for each standstill."""
        passed_s = min(now_s - self._looked_s, self._look_max_s)
        self._looked_s = now_s
        if self._moves != self._seen:
            self._seen, self.stood_s, self._said = self._moves, 0.0, Remedy.FINE
            return Remedy.FINE
        self.stood_s += passed_s
        due = Remedy.FINE
        if self._said is Remedy.FINE and self.stood_s > self._limit_s:
            due = Remedy.INTERRUPT
        elif self._said is Remedy.INTERRUPT and self.stood_s > self._limit_s + GRACE_S:
            due = Remedy.END
        if due is not Remedy.FINE:
            self._said = due
        return due
