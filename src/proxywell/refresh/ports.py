"""What a refresh job needs from other rooms; ``app`` joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from proxywell.model.candidate import Candidate
from proxywell.model.report import GivenUpWhy, PoolChange
from proxywell.model.verdict import Verdict
from proxywell.refresh.books import (
    NOTHING,
    Beat,
    BeatAnswer,
    Claim,
    FinAnswer,
    JobRow,
    Lease,
    LedgerEvent,
    NoClaim,
    Part,
    Settled,
    SubmitAnswer,
    Terms,
    Tick,
    Worker,
)
from proxywell.refresh.spans import Spans


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


class NewJob(Struct, frozen=True):
    """What creates a job.

    Attributes:
        job_id: Chosen by the caller.
        items: How many items; the blocks must cover 0 to ``items`` in order, without a gap.
        terms: What is agreed.
        spec: The caller's own, kept as it is.
        created_at_s: Seconds since the epoch, for people.
        epoch: 1, or one more than that of a job whose store was lost.
        settled: Items that were settled in an earlier epoch; they count as checked at once.
        working: How many of them work.
        age_s: How long ago the job began; its deadline and cap count from then.
    """

    job_id: str
    items: int
    terms: Terms
    spec: bytes
    created_at_s: float
    epoch: int = 1
    settled: Spans = ()
    working: int = 0
    age_s: float = 0.0


class Block(Struct, frozen=True):
    """Items ``lo`` to ``hi`` (half-open) and their candidates, opaque; becomes one chunk."""

    lo: int
    hi: int
    body: bytes


class Ledger(Protocol):
    """The books of refresh jobs in one home; every method is one atomic step.

    A home brings its own clock. One object belongs to one thread; any number of objects, in
    any number of processes, may have the same home open. Calls about a job that is not there
    raise UnknownJobError, those that cannot reach or write the home a StateError; waiting for
    a lock ends after two seconds with StoreBusyError, after which the call may be repeated:
    every step may be.
    """

    def create(self, job: NewJob, blocks: Iterable[Block]) -> bool:
        """Write the items in stages, then the line that makes the job exist.

        Returns:
            False, and nothing was changed, if the job is there with this epoch or a later one.
        """
        ...

    def claim(self, job_id: str, worker: Worker, token: str) -> Claim | NoClaim:
        """See ``ChunkRules.claim``."""
        ...

    def blocks(self, job_id: str, spans: Spans) -> list[Block]:
        """The blocks that hold these items, rising."""
        ...

    def beat(self, job_id: str, worker: Worker, beats: Sequence[Beat]) -> list[BeatAnswer]:
        """See ``ChunkRules.beat``."""
        ...

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
        ...

    def release(
        self, job_id: str, chunk_id: int, token: str, settled: Settled = NOTHING
    ) -> BeatAnswer:
        """See ``ChunkRules.release``."""
        ...

    def tick(self, job_id: str) -> Tick:
        """See ``LedgerRules.tick``."""
        ...

    def expire(self, job_id: str, held: Sequence[tuple[int, str]]) -> int:
        """See ``LedgerRules.expire``."""
        ...

    def cancel(
        self, job_id: str, items_why: GivenUpWhy, why: str, detail: str | None = None
    ) -> bool:
        """See ``LedgerRules.cancel``."""
        ...

    def fin_claim(self, job_id: str, token: str) -> FinAnswer:
        """See ``LedgerRules.fin_claim``."""
        ...

    def fin_beat(self, job_id: str, token: str) -> FinAnswer:
        """See ``LedgerRules.fin_beat``."""
        ...

    def fin_fail(self, job_id: str, token: str, error: str) -> FinAnswer:
        """See ``LedgerRules.fin_fail``."""
        ...

    def fin_commit(self, job_id: str, token: str, summary: bytes) -> FinAnswer:
        """See ``LedgerRules.fin_commit``; the summary is kept in the same step."""
        ...

    def status(self, job_id: str) -> JobRow:
        """The line as it stands; changes nothing."""
        ...

    def spec(self, job_id: str) -> bytes:
        """What the caller gave at creation."""
        ...

    def summary(self, job_id: str) -> bytes | None:
        """What ``fin_commit`` kept; None before."""
        ...

    def leases(self, job_id: str) -> list[Lease]:
        """All running attempts."""
        ...

    def parts(self, job_id: str, after: int, limit: int) -> list[Part]:
        """Verdicts behind sequence number ``after``, in order, at most ``limit`` of them."""
        ...

    def events(self, job_id: str, after: int, limit: int) -> list[LedgerEvent]:
        """Events behind sequence number ``after``, in order, at most ``limit`` of them."""
        ...

    def jobs(self) -> list[JobRow]:
        """All jobs, newest first."""
        ...

    def node_beat(self, node: str, job_id: str, *, term_s: float, draining: bool = False) -> None:
        """Say that a main lives, for ``term_s`` from now; ``job_id`` empty: for all jobs."""
        ...

    def node_gone(self, node: str) -> None:
        """Forget a main that ended or is known to be gone."""
        ...

    def nodes(self, job_id: str) -> frozenset[str]:
        """Mains that live, for this job."""
        ...

    def sweep(self, now_s: float) -> None:
        """Drop what is past keeping, in short steps.

        Items and verdicts go an hour after the job was finalised, those of a job that nobody
        collected seven days after it was created, its line after thirty days.

        Args:
            now_s: Seconds since the epoch.
        """
        ...

    def close(self) -> None:
        """Let go of the home; works twice."""
        ...


class Bell(Protocol):
    """Somebody to wake, and a way to be woken. Losing or doubling a ring is harmless."""

    def ring(self) -> None:
        """Wake whoever listens; never waits, never raises."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Return when rung, or after the time; sometimes earlier."""
        ...

    def close(self) -> None:
        """Stop listening; works twice."""
        ...


class LoopBell(Bell, Protocol):
    """A bell that a loop can listen to."""

    def fileno(self) -> int | None:
        """What becomes readable when rung; None where there is only the clock."""
        ...

    def hush(self) -> None:
        """Take in what was rung, so that the next look waits for the next ring."""
        ...


class EngineKind(Protocol):
    """How jobs of one kind are kept, carried to workers, and waited for.

    Attributes:
        name: As it stands in the report: ``local`` or ``celery``.
        server: The server whose address was configured, as it is shown to people; None: there is
            none, or it is looked after by whoever looks after the state directory.
    """

    name: str
    server: str | None

    def open_ledger(self) -> Ledger:
        """A connection to the books, as a waiter uses them; for the calling thread."""
        ...

    def engine(self, job: JobRow) -> Engine | None:
        """What carries this job's chunks; None: this process only looks."""
        ...

    def bell(self, job_id: str) -> Bell:
        """What wakes a waiter for this job."""
        ...


class Engine(Protocol):
    """What carries chunks to workers."""

    def start(self) -> None:
        """Begin to work on the job; returns at once, works twice."""
        ...

    def ring(self, bells: int) -> None:
        """Say that there may be work."""
        ...

    def failure(self) -> BaseException | None:
        """Why no worker can go on; None while they can."""
        ...

    def stop(self) -> None:
        """Drain: report what is ready, release the rest. Ends within its stated time."""
        ...
