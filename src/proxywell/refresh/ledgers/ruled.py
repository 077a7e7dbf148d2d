"""A home that runs the pure rules: it only knows how to open the books for one atomic step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from enum import Enum, auto
from typing import ClassVar, TypeAlias

from proxywell.errors import UnknownJobError, suggestion
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    NOTHING,
    Beat,
    BeatAnswer,
    ChunkRow,
    ChunkState,
    Claim,
    FinAnswer,
    JobRow,
    JobState,
    NoClaim,
    Settled,
    SubmitAnswer,
    Tick,
    Worker,
)
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ports import Block, NewJob
from proxywell.refresh.spans import Spans, count, minus

BODIES_KEPT_S = 3_600.0  # after finalisation: the pool has them
UNCOLLECTED_KEPT_S = 7 * 86_400.0
LINE_KEPT_S = 30 * 86_400.0
STAGE_ROWS = 200  # blocks of a stage: some milliseconds, so that no step waits for a creation
STAGE_BYTES = 2 * 2**20

Planned: TypeAlias = tuple[Block, ChunkRow | None]


class Keep(Enum):
    """What of a job is still kept."""

    ALL = auto()
    LINE = auto()  # items and verdicts may go, the figures stay
    NOTHING = auto()


def keep(job: JobRow, *, now_s: float, clock_s: float) -> Keep:
    """Say what of a job is past keeping.

    Args:
        job: Its line.
        now_s: Seconds since the epoch.
        clock_s: The ledger's own clock, on which the line's instants are.
    """
    age_s = now_s - job.created_at_s
    if job.state is not JobState.DONE or job.fin_error is not None:
        return Keep.NOTHING if age_s > UNCOLLECTED_KEPT_S else Keep.ALL
    if age_s > LINE_KEPT_S:
        return Keep.NOTHING
    done_s = clock_s - (job.finalised_s or clock_s)
    return Keep.LINE if done_s > BODIES_KEPT_S or age_s > UNCOLLECTED_KEPT_S else Keep.ALL


class RuledLedger(ABC):
    """The steps of the port ``Ledger``, each as one rule on opened books."""

    rules: ClassVar[type[LedgerRules]] = LedgerRules

    @abstractmethod
    def _step(self, job_id: str) -> AbstractContextManager[LedgerRules]:
        """Open the books of a job for one step, and write back what the rule changed.

        All or nothing: if the block raises, nothing was changed.
        """

    @abstractmethod
    def nodes(self, job_id: str) -> frozenset[str]:
        """Mains that live, for this job."""

    @abstractmethod
    def _is_draining(self, node: str) -> bool:
        """Whether this main is leaving."""

    @abstractmethod
    def _keep_summary(self, job_id: str, summary: bytes) -> None:
        """Keep it in the step that is open."""

    def claim(self, job_id: str, worker: Worker, token: str) -> Claim | NoClaim:
        """See ``ChunkRules.claim``."""
        with self._step(job_id) as rules:
            return rules.claim(worker, token)

    def beat(self, job_id: str, worker: Worker, beats: Sequence[Beat]) -> list[BeatAnswer]:
        """See ``ChunkRules.beat``."""
        with self._step(job_id) as rules:
            return rules.beat(beats, draining=self._is_draining(worker.node))

    def submit(
        self,
        job_id: str,
        chunk_id: int,
        token: str,
        epoch: int,
        settled: Settled,
        *,
        deferred: Spans = (),
        error: str | None = None,
    ) -> SubmitAnswer:
        """See ``ChunkRules.submit``."""
        with self._step(job_id) as rules:
            return rules.submit(chunk_id, token, epoch, settled, deferred=deferred, error=error)

    def release(
        self, job_id: str, chunk_id: int, token: str, settled: Settled = NOTHING
    ) -> BeatAnswer:
        """See ``ChunkRules.release``."""
        with self._step(job_id) as rules:
            return rules.release(chunk_id, token, settled)

    def tick(self, job_id: str) -> Tick:
        """See ``LedgerRules.tick``."""
        with self._step(job_id) as rules:
            alive = self.nodes(job_id)
            ring = rules.tick(alive)
            return Tick(deepcopy(rules.job), ring, len(alive), rules.stalled())

    def expire(self, job_id: str, held: Sequence[tuple[int, str]]) -> int:
        """See ``LedgerRules.expire``."""
        with self._step(job_id) as rules:
            return rules.expire(held, self.nodes(job_id))

    def cancel(
        self, job_id: str, items_why: GivenUpWhy, why: str, detail: str | None = None
    ) -> bool:
        """See ``LedgerRules.cancel``."""
        with self._step(job_id) as rules:
            return rules.cancel(items_why, why, detail)

    def fin_claim(self, job_id: str, token: str) -> FinAnswer:
        """See ``LedgerRules.fin_claim``."""
        with self._step(job_id) as rules:
            return rules.fin_claim(token)

    def fin_beat(self, job_id: str, token: str) -> FinAnswer:
        """See ``LedgerRules.fin_beat``."""
        with self._step(job_id) as rules:
            return rules.fin_beat(token)

    def fin_fail(self, job_id: str, token: str, error: str) -> FinAnswer:
        """See ``LedgerRules.fin_fail``."""
        with self._step(job_id) as rules:
            return rules.fin_fail(token, error)

    def fin_commit(self, job_id: str, token: str, summary: bytes) -> FinAnswer:
        """See ``LedgerRules.fin_commit``; the summary is kept in the same step."""
        with self._step(job_id) as rules:
            answer = rules.fin_commit(token)
            if answer is FinAnswer.OK:
                self._keep_summary(job_id, summary)
            return answer


def unknown_job(job_id: str, known: Iterable[str]) -> UnknownJobError:
    """The error for a job that is not there, with the nearest one that is."""
    near = suggestion(job_id, known)
    return UnknownJobError(f"no refresh job {job_id!r}{near} (`proxywell job list` shows all)")


def new_line(job: NewJob, chunks: int, now_s: float) -> JobRow:
    """The line of a job whose chunks are all ready."""
    created_s = now_s - job.age_s
    return JobRow(
        job_id=job.job_id,
        terms=job.terms,
        items=job.items,
        created_s=created_s,
        created_at_s=job.created_at_s,
        deadline_s=created_s + min(job.terms.floor_s, job.terms.cap_s),
        cap_s=created_s + job.terms.cap_s,
        epoch=job.epoch,
        state=JobState.OPEN,
        checked=count(job.settled),
        working=job.working,
        ready=chunks,
        chunks=chunks,
        next_chunk=chunks,
        peak_since_s=now_s,
    )


def first_chunks(blocks: Iterable[Block], settled: Spans) -> Iterator[Planned]:
    """Each block and the chunk that it becomes, claimed in the order of the plan.

    A chunk holds what is not settled of its block; where all is, there is none.
    """
    number = 0
    for block in blocks:
        items = minus((block.lo, block.hi), _near(settled, block))
        if items:
            yield block, ChunkRow(number, ChunkState.READY, items, place=block.lo)
            number += 1
        else:
            yield block, None


def stages(planned: Iterable[Planned]) -> Iterator[list[Planned]]:
    """Cut what is to be written into steps that hold no home for long."""
    stage: list[Planned] = []
    size = 0
    for block, chunk in planned:
        stage.append((block, chunk))
        size += len(block.body)
        if len(stage) >= STAGE_ROWS or size >= STAGE_BYTES:
            yield stage
            stage, size = [], 0
    if stage:
        yield stage


def _near(settled: Spans, block: Block) -> Spans:
    """The ranges that may touch this block; walking all of them for each block would take long."""
    first = bisect_right(settled, block.lo) // 2 * 2
    last = bisect_left(settled, block.hi)
    return settled[max(0, first - 2) : last + last % 2]
