"""What a refresh job needs from other rooms; ``app.py`` joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from proxywell.model.candidate import Candidate
from proxywell.model.report import PoolChange
from proxywell.model.verdict import Verdict


class Running(Protocol):
    """A candidate that is being checked."""

    def cancel(self) -> None:
        """Stop; ``done`` is not called any more. Works twice, and after the end."""
        ...


class CandidateChecker(Protocol):
    """What a shift needs from the checking room. All calls on the loop's own thread."""

    def room(self) -> int:
        """How many candidates more can be started before sockets run short; 0 when full."""
        ...

    def start(
        self, candidate: Candidate, *, patient: bool, done: Callable[[Verdict | None], None]
    ) -> Running:
        """Check one candidate; ``done`` is called exactly once, later, unless cancelled.

        Args:
            candidate: Whom to check.
            patient: Use the hard time-outs and never defer.
            done: Gets the verdict, or None when the candidate was deferred (someone waited
                for its socket; it wants a patient check later). Never None when patient.
        """
        ...


class VerdictSink(Protocol):
    """What finalisation needs from the pool. All calls may be repeated without effect."""

    def record(
        self, job_id: str, epoch: int, verdicts: Iterable[tuple[int, Candidate, Verdict]]
    ) -> None:
        """Keep verdicts as they come; an item of a job is counted once, however often told."""
        ...

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        """Write ``finalised(job, epoch)`` with all that belongs to it, in one transaction."""
        ...

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        """The change that was sealed; None if it was not."""
        ...
