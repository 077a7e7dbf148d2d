"""Between a refresh job and the pool: the verdicts that pass are counted for their sources."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from proxywell.model.candidate import Candidate
from proxywell.model.clock import Clock
from proxywell.model.report import PoolChange, SourceReport
from proxywell.model.verdict import Verdict
from proxywell.sources.harvest import HarvestCounter
from proxywell.sources.yields import YieldBook


class VerdictKeeper(Protocol):
    """Where verdicts go in truth: the pool."""

    def record(
        self, job_id: str, epoch: int, verdicts: Iterable[tuple[int, Candidate, Verdict]]
    ) -> None:
        """Keep verdicts; telling one again changes nothing."""
        ...

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        """Write that the job is finalised; again changes nothing."""
        ...

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        """The change that was sealed; None if it was not."""
        ...


class HarvestingSink:
    """The pool, as a refresh job writes to it; on the way, what each source gave is counted.

    Args:
        keeper: Where verdicts go.
        book: Where the harvests go, once, when the job is sealed.
        known: Keys of the endpoints that the pool knew before the job.
        clock: The time, for the book.
    """

    def __init__(
        self, keeper: VerdictKeeper, book: YieldBook, *, known: Collection[str], clock: Clock
    ) -> None:
        self._keeper, self._book, self._clock = keeper, book, clock
        self._known = frozenset(known)
        self._counter = HarvestCounter()

    def saw_lists(self, reports: Iterable[SourceReport]) -> None:
        """Count the lists that the job was made of; one that could not be read says nothing."""
        for report in reports:
            if report.read or report.error is None:
                self._counter.saw_list(report.source, report.read)

    def record(
        self, job_id: str, epoch: int, verdicts: Iterable[tuple[int, Candidate, Verdict]]
    ) -> None:
        """Keep verdicts of a job, and count them for their sources."""
        told = list(verdicts)
        self._keeper.record(job_id, epoch, told)
        for _, candidate, verdict in told:
            new = verdict.working and candidate.endpoint.key not in self._known
            self._counter.saw_verdict(candidate, verdict, new=new)

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        """Seal the job, and write its harvests into the book if nobody sealed it before."""
        first = self._keeper.sealed(job_id, epoch) is None
        change = self._keeper.seal(job_id, epoch)
        if first:
            self._book.record(self._counter.harvests(), now_s=self._clock.now_s())
        return change

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        """The change that was sealed; None if it was not."""
        return self._keeper.sealed(job_id, epoch)
