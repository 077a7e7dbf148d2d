"""A waiter's view of a job that lives on a server: it outlives the waiter, and the server's data.

What workers report is read into the journal as it comes, and what is handed to the pool is read
from there. A server that has lost the job gets it again, as the next epoch, with what is settled;
one that is away when the wait's bound is met loses it: the job comes home and ends here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from proxywell.errors import StateError, StoreAwayError, StoreBusyError, UnknownJobError
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    NOTHING,
    Beat,
    BeatAnswer,
    Claim,
    FinAnswer,
    JobRow,
    JobState,
    Lease,
    LedgerEvent,
    NoClaim,
    Part,
    Settled,
    SubmitAnswer,
    Tick,
    Worker,
)
from proxywell.refresh.ledgers.journal import Cursor, Ending, Journal, mark
from proxywell.refresh.ports import Block, Ledger, NewJob
from proxywell.refresh.spans import Spans, count
from proxywell.telemetry.events import JobCameHome, JobGivenAgain, ServerBack, ServerSilent, emit

GIVEN_LOOKS: Final = 60  # a waiter looks five times a second at what is busy
PULLED_AT_ONCE: Final = 100
_GIVEN_AT_MOST: Final = 3  # in one look
_LOST: Final = "it has lost the job"
_WHY_OF_ITEMS: Final = {
    "timed_out": GivenUpWhy.DEADLINE,
    "enough": GivenUpWhy.ENOUGH,
    "stalled": GivenUpWhy.CANCELLED,
    "cancelled": GivenUpWhy.CANCELLED,
    "failed": GivenUpWhy.CANCELLED,
}


class JournaledLedger:
    """Implements ``refresh.ports.Ledger`` for whoever waits; one object belongs to one thread.

    Args:
        home: Where the job's books are; its calls may raise StoreBusyError at any time.
        journal: Of the state directory.
    """

    def __init__(self, home: Ledger, journal: Journal) -> None:
        self._home = home
        self._journal = journal
        self._told = _Outage()
        self._given: dict[str, int] = {}  # the epoch in which we gave a job to the server again
        self._looks = 0  # at a job that somebody else may be giving to it just now

    def create(self, job: NewJob, blocks: Iterable[Block]) -> bool:
        """Write the journal, then the server; one that is away gets the job at the next tick."""
        if not self._journal.keep(job, blocks):
            return False
        try:
            self._home.create(job, self._journal.all_blocks(job.job_id))
        except StoreBusyError:
            pass
        except StateError:
            self._journal.forget(job.job_id)
            raise
        return True

    def tick(self, job_id: str) -> Tick:
        """Tick there, and read what is new; a job that was lost there is created again.

        A job that is closed, and of which everything was read, needs no server to be finalised:
        it comes home if that does not answer.
        """
        if self._is_here(job_id):
            return self._journal.tick(job_id)
        try:
            tick = self._tick(job_id)
        except StoreAwayError as error:
            if self._journal.is_complete(job_id):
                self._come_home(job_id, str(error), told=False)
                return self._journal.tick(job_id)
            self._told.silence(job_id, str(error))
            raise
        self._told.answer(job_id)
        return tick

    def _tick(self, job_id: str) -> Tick:
        for _ in range(_GIVEN_AT_MOST):
            cursor = self._away(job_id)
            if cursor is None:
                return self._journal.tick(job_id)
            known = 0
            try:
                tick = self._home.tick(job_id)
                return replace(tick, job=self._pull(tick.job))
            except UnknownJobError:
                pass
            except _Rewound as rewound:
                known = rewound.epoch
            self._lost(job_id, cursor, known)
        raise StoreBusyError(f"job {job_id} is lost again and again by its server")

    def cancel(
        self, job_id: str, items_why: GivenUpWhy, why: str, detail: str | None = None
    ) -> bool:
        """Cancel there; where that cannot be, the job comes home and is cancelled here."""
        if self._is_here(job_id):
            return self._journal.cancel(job_id, items_why, why, detail)
        try:
            cancelled = self._home.cancel(job_id, items_why, why, detail)
        except (StoreBusyError, UnknownJobError) as error:
            lost = isinstance(error, UnknownJobError)
            before = self._journal.status(job_id).state
            reason = _LOST if lost else str(error)
            self._come_home(job_id, reason, told=lost, end=Ending(items_why, why, detail))
            return before is JobState.OPEN
        self.status(job_id)  # the journal knows it from now on
        return cancelled

    def fin_claim(self, job_id: str, token: str) -> FinAnswer:
        """See ``LedgerRules.fin_claim``; WAIT for a job that the server has lost.

        Also WAIT until everything is read: nothing is sealed that misses a verdict.
        """
        if self._is_here(job_id):
            return self._journal.fin_claim(job_id, token)
        try:
            line = self._pull(self._home.status(job_id))
            if line.state is JobState.DONE:
                return FinAnswer.DUP
            if not self._journal.is_complete(job_id):
                return FinAnswer.WAIT
        except (_Rewound, UnknownJobError):
            return FinAnswer.WAIT  # the next tick sees to it
        return self._fin(job_id, lambda ledger: ledger.fin_claim(job_id, token))

    def fin_beat(self, job_id: str, token: str) -> FinAnswer:
        """See ``LedgerRules.fin_beat``."""
        return self._fin(job_id, lambda ledger: ledger.fin_beat(job_id, token))

    def fin_fail(self, job_id: str, token: str, error: str) -> FinAnswer:
        """See ``LedgerRules.fin_fail``."""
        return self._fin(job_id, lambda ledger: ledger.fin_fail(job_id, token, error))

    def fin_commit(self, job_id: str, token: str, summary: bytes) -> FinAnswer:
        """Mark the job as finalised, there and here.

        The pool is sealed when this is called, so a server that has lost the job meanwhile does
        not get it again: it comes home and is marked here.
        """
        if self._is_here(job_id):
            return self._journal.fin_commit(job_id, token, summary)
        try:
            answer = self._home.fin_commit(job_id, token, summary)
        except UnknownJobError:
            self._come_home(job_id, _LOST, told=True)
            if self._journal.fin_claim(job_id, token) is not FinAnswer.OK:
                return FinAnswer.WAIT
            return self._journal.fin_commit(job_id, token, summary)
        if answer in (FinAnswer.OK, FinAnswer.DUP):
            self.status(job_id)
        return answer

    def status(self, job_id: str) -> JobRow:
        """The line as it stands there; as it was last seen if the server is away."""
        if self._is_here(job_id):
            return self._journal.status(job_id)
        try:
            return self._pull(self._home.status(job_id))
        except (StoreBusyError, UnknownJobError, _Rewound):
            return self._journal.status(job_id)

    def summary(self, job_id: str) -> bytes | None:
        """What ``fin_commit`` kept; None before."""
        kept = self._journal.summary(job_id)
        if kept is not None or self._is_here(job_id):
            return kept
        try:
            return self._home.summary(job_id)
        except (StoreBusyError, UnknownJobError):
            return None

    def parts(self, job_id: str, after: int, limit: int) -> list[Part]:
        """Verdicts in the order in which the journal took them, across all epochs."""
        return self._journal.parts(job_id, after, limit)

    def events(self, job_id: str, after: int, limit: int) -> list[LedgerEvent]:
        """Events in the order in which the journal took them, across all epochs."""
        return self._journal.events(job_id, after, limit)

    def blocks(self, job_id: str, spans: Spans) -> list[Block]:
        """See the port; from the journal."""
        return self._journal.blocks(job_id, spans)

    def spec(self, job_id: str) -> bytes:
        """See the port; from the journal."""
        return self._journal.spec(job_id)

    def jobs(self) -> list[JobRow]:
        """All jobs of the state directory, newest first, as they were last seen."""
        return self._journal.jobs()

    def leases(self, job_id: str) -> list[Lease]:
        """All running attempts; none of a job that the server has lost."""
        try:
            return self._at(job_id).leases(job_id)
        except UnknownJobError:
            return []

    def expire(self, job_id: str, held: Sequence[tuple[int, str]]) -> int:
        """See ``LedgerRules.expire``; 0 for a job that the server has lost."""
        try:
            return self._at(job_id).expire(job_id, held)
        except UnknownJobError:
            return 0

    def nodes(self, job_id: str) -> frozenset[str]:
        """Mains that live, for this job."""
        return self._at(job_id).nodes(job_id)

    def node_beat(self, node: str, job_id: str, *, term_s: float, draining: bool = False) -> None:
        """See the port; told to the server."""
        self._home.node_beat(node, job_id, term_s=term_s, draining=draining)

    def node_gone(self, node: str) -> None:
        """See the port; told to the server."""
        self._home.node_gone(node)

    def claim(self, job_id: str, worker: Worker, token: str) -> Claim | NoClaim:
        """See the port."""
        return self._at(job_id).claim(job_id, worker, token)

    def beat(self, job_id: str, worker: Worker, beats: Sequence[Beat]) -> list[BeatAnswer]:
        """See the port."""
        return self._at(job_id).beat(job_id, worker, beats)

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
        """See the port."""
        return self._at(job_id).submit(
            job_id, chunk_id, token, epoch, settled, deferred=deferred, error=error
        )

    def release(
        self, job_id: str, chunk_id: int, token: str, settled: Settled = NOTHING
    ) -> BeatAnswer:
        """See the port."""
        return self._at(job_id).release(job_id, chunk_id, token, settled)

    def sweep(self, now_s: float) -> None:
        """Drop what is past keeping, and let the server give up jobs that came home."""
        self._journal.sweep(now_s)
        for job_id, cursor in self._journal.copies().items():
            if cursor.is_home and not cursor.is_told:
                try:
                    self._home.cancel(job_id, GivenUpWhy.CANCELLED, "cancelled")
                    self._home.fin_claim(job_id, job_id)
                    self._home.fin_commit(job_id, job_id, b"")
                except UnknownJobError:
                    pass
                except StateError:
                    return  # another time
                self._journal.was_told(job_id)

    def close(self) -> None:
        """Let go of both; works twice."""
        self._home.close()
        self._journal.close()

    # --- inside

    def _at(self, job_id: str) -> Ledger:
        return self._journal if self._is_here(job_id) else self._home

    def _is_here(self, job_id: str) -> bool:
        return self._away(job_id) is None

    def _away(self, job_id: str) -> Cursor | None:
        """How far the job was read; None if it need not be read any more."""
        cursor = self._journal.cursor(job_id)
        if cursor is None or cursor.is_home:
            return None
        return None if self._journal.status(job_id).state is JobState.DONE else cursor

    def _fin(self, job_id: str, step: Callable[[Ledger], FinAnswer]) -> FinAnswer:
        try:
            return step(self._at(job_id))
        except UnknownJobError:
            return FinAnswer.WAIT  # the next tick gives it to the server again

    def _come_home(
        self, job_id: str, reason: str, *, told: bool, end: Ending | None = None
    ) -> None:
        while not self._journal.come_home(job_id, told=told, end=end):
            continue  # somebody else has read on; ends since the server has no more for long
        emit(JobCameHome(job_id=job_id, reason=reason))

    def _pull(self, line: JobRow) -> JobRow:
        """Read what is new there into the journal; the line in the journal's terms.

        Raises:
            _Rewound: The server has lost what was read from it, or we what was given to it.
        """
        job_id = line.job_id
        while True:  # ends when all that the line knows of is here
            cursor = self._away(job_id)
            if cursor is None:
                return self._journal.status(job_id)
            if cursor.epoch != line.epoch:
                raise _Rewound(line.epoch)
            parts = self._new_parts(line, cursor)
            if line.parts < cursor.part:
                return self._journal.status(job_id)  # another waiter has seen a later line
            events: list[LedgerEvent] = []
            if line.events > cursor.event:
                events = self._home.events(job_id, cursor.event, PULLED_AT_ONCE)
            whole = cursor.part + len(parts) == line.parts and (
                not events or events[-1].seq >= line.events
            )
            done = whole and line.state is JobState.DONE
            summary = self._home.summary(job_id) if done else None
            kept = self._journal.append(line, cursor, parts, events, whole=whole, summary=summary)
            if kept is None or not whole:
                continue
            if kept.state in (JobState.CLOSED, JobState.FINALISING):
                self._must_be_complete(line)
            return kept

    def _must_be_complete(self, line: JobRow) -> None:
        """Whoever closed a job had all of it; what is not among the parts there was lost there."""
        if not self._journal.is_complete(line.job_id):
            raise _Rewound(line.epoch)

    def _new_parts(self, line: JobRow, cursor: Cursor) -> list[Part]:
        """What the line knows of behind the last part that was read, if that one is as it was."""
        if line.parts == cursor.part and line.state is JobState.OPEN:
            return []
        known = bool(cursor.part)
        wanted = min(PULLED_AT_ONCE, max(0, line.parts - cursor.part))
        read = self._home.parts(line.job_id, cursor.part - known, wanted + known)
        if known and not (read and read[0].seq == cursor.part and mark(read[0]) == cursor.mark):
            raise _Rewound(line.epoch)
        return read[known:]

    def _lost(self, job_id: str, cursor: Cursor, known: int) -> None:
        """The server has lost the job or a part of it: end it here, or give it there again.

        Args:
            job_id: The job.
            cursor: As it was before the server was asked.
            known: The epoch that the server knows; 0: none.
        """
        line = self._journal.status(job_id)
        if line.why is not None or self._journal.is_complete(job_id):
            why = line.why or ""
            end = Ending(_WHY_OF_ITEMS[why], why, line.detail) if why else None
            self._come_home(job_id, _LOST, told=not known, end=end)
            return
        job = None
        if not self._is_being_given(job_id, cursor):
            job = self._journal.next_epoch(job_id, cursor, known)
        if job is None:
            raise StoreBusyError(f"job {job_id} is being given to the server again by another wait")
        self._given[job_id] = job.epoch
        self._home.create(job, self._journal.all_blocks(job_id))
        emit(JobGivenAgain(job_id=job_id, epoch=job.epoch, missing=job.items - count(job.settled)))

    def _is_being_given(self, job_id: str, cursor: Cursor) -> bool:
        """Whether another waiter has raised the epoch, and may still be writing its items.

        Two that outbid each other would never end; one that died in it is waited for some looks.
        """
        fresh = cursor.epoch > 1 and not cursor.part and not cursor.event
        if not fresh or self._given.get(job_id) == cursor.epoch:
            self._looks = 0
            return False
        self._looks += 1
        return self._looks % GIVEN_LOOKS != 0


class _Outage:
    """Says once that a server is silent, and once that it is back."""

    def __init__(self) -> None:
        self._silent = False

    def silence(self, job_id: str, reason: str) -> None:
        """It did not answer."""
        if not self._silent:
            emit(ServerSilent(job_id=job_id, reason=reason))
        self._silent = True

    def answer(self, job_id: str) -> None:
        """It did."""
        if self._silent:
            emit(ServerBack(job_id=job_id))
        self._silent = False


class _Rewound(Exception):  # noqa: N818 - an answer, no fault
    """The server has other books than those that were read: it, or we, went back to a copy.

    Attributes:
        epoch: Of the books there.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch
