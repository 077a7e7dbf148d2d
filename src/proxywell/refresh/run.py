"""The room's front: create a refresh job, carry it to its end, look at it, cancel it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_hex

import msgspec
from msgspec.structs import replace

from proxywell.config.schema import RefreshSettings
from proxywell.errors import ProxywellError
from proxywell.model.candidate import Candidate
from proxywell.model.clock import Clock, SystemClock
from proxywell.model.endpoint import Endpoint
from proxywell.model.progress import Progress
from proxywell.model.report import (
    GivenUpWhy,
    Outcome,
    PoolChange,
    RefreshReport,
    RefusalReason,
    VerdictCounts,
)
from proxywell.refresh.books import JobRow, JobState, Terms
from proxywell.refresh.carry import Carrier
from proxywell.refresh.deadline import floor_s
from proxywell.refresh.engines.local import LocalKind
from proxywell.refresh.finalise import Collector, Summary
from proxywell.refresh.ledgers.sqlite import boot_clock_s, boot_id
from proxywell.refresh.plan import blocks, chunk_size, put_likely_first
from proxywell.refresh.poison import PoisonMemory, given_up_as_poison, leave_out, shown
from proxywell.refresh.ports import EngineKind, Ledger, NewJob, VerdictSink
from proxywell.refresh.report import Dossier, dossier_of, outcome_of, report_of
from proxywell.refresh.timeline import Chronicle, Timeline, events_of, since_asked, with_the_end
from proxywell.refresh.wait import Until, WaitEnd
from proxywell.telemetry.events import Event, JobCreated, JobLeftOpen, emit
from proxywell.telemetry.losses import PoisonLeftOut

FINAL_S = 30.0  # to finalise a job that was just closed by us

_encode = msgspec.json.Encoder().encode
_summary = msgspec.json.Decoder(Summary).decode


class RefreshRoom:
    """The refresh jobs of one state directory. One object belongs to one thread.

    Args:
        state_dir: Where ``ledger.sqlite`` lives; made if it is missing.
        settings: How jobs are cut, leased and bounded.
        sink: The pool, where verdicts go; None: this process only looks.
        kind: How jobs are kept, carried and waited for; None: they are kept in the state
            directory, and this process only looks.
        workers: Processes that check; decides how large the chunks of a new job are.
        clock: The time, for people.
        announce: Gets the events about a job's beginning, and about one that is left open.

    Raises:
        StateError: The state directory or its ledger cannot be made, read or written.
    """

    def __init__(
        self,
        state_dir: Path,
        settings: RefreshSettings,
        *,
        sink: VerdictSink | None,
        kind: EngineKind | None = None,
        workers: int = 1,
        clock: Clock | None = None,
        announce: Callable[[Event], None] = emit,
    ) -> None:
        self._state_dir = state_dir
        self._announce = announce
        self._settings = settings
        self._sink = sink
        self._kind: EngineKind = LocalKind(state_dir, settings) if kind is None else kind
        self._workers = workers
        self._clock = clock or SystemClock()
        self._ledger: Ledger = self._kind.open_ledger()

    def __enter__(self) -> RefreshRoom:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ledger; works twice."""
        self._ledger.close()

    def create(
        self,
        candidates: list[Candidate],
        dossier: Dossier,
        *,
        worked_before: Mapping[Endpoint, float] | None = None,
        yields: Mapping[str, float] | None = None,
        limit: int | None = None,
        want: int | None = None,
        min_count: int | None = None,
        deadline_s: float | None = None,
        size: int | None = None,
        job_id: str | None = None,
    ) -> str:
        """Plan a job and write its books; nothing is checked yet.

        Args:
            candidates: Whom to check; put in order in place, and cut to ``limit``.
            dossier: What the report tells beside the books; ``candidates.planned`` is set here.
            worked_before: Scores in [0, 1] of endpoints that worked before.
            yields: Per source the share that worked lately, in [0, 1].
            limit: Check at most so many, the likeliest; at least 1.
            want: Stop as soon as so many work; at least 1.
            min_count: Working ones that make the job usable; None: the setting.
            deadline_s: Stop after this time from creation; None: the floor times a factor.
            size: Candidates in a chunk; None: the setting, else by the plan.
            job_id: From ``new_job_id``, for a caller who named the job before it was planned.

        Returns:
            The job's id.

        Raises:
            StateError: The ledger cannot be written; no job was made.
        """
        now_s = self._clock.now_s()
        self._ledger.sweep(now_s)
        refused = self._without_poison(candidates, dossier.candidates.refused)
        put_likely_first(
            candidates, worked_before=worked_before or {}, yields=yields or {}, seed=int(now_s)
        )
        if limit is not None:
            del candidates[limit:]
        planned = len(candidates)
        terms = self._terms(
            planned,
            size=size or self._settings.chunk_size or chunk_size(planned, workers=self._workers),
            want=want,
            min_count=min_count or self._settings.min_count,
            deadline_s=deadline_s,
        )
        counts = replace(dossier.candidates, planned=planned, refused=refused)
        spec = _encode(
            replace(
                dossier,
                engine=self._kind.name,
                server=self._kind.server,
                candidates=counts,
                workers=self._workers,
            )
        )
        job_id = job_id or self.new_job_id()
        job = NewJob(job_id, planned, terms, spec, now_s)
        while not self._ledger.create(job, blocks(candidates, terms.chunk_size)):
            job_id = self.new_job_id()  # another one has this id
            job = replace(job, job_id=job_id)
        chunks = -(-planned // terms.chunk_size)
        self._announce(JobCreated(job_id=job_id, items=planned, chunks=chunks, bound_s=terms.cap_s))
        return job_id

    def new_job_id(self) -> str:
        """An id that no job has: the second in UTC, and a draw."""
        return f"{datetime.fromtimestamp(self._clock.now_s(), UTC):%Y%m%d-%H%M%S}-{token_hex(3)}"

    def wait_for(
        self,
        job_id: str,
        *,
        until: Until = Until.FINALISED,
        bound_s: float | None = None,
        work: bool = True,
        close_at_bound: bool = True,
        show: Callable[[Progress], None] | None = None,
    ) -> RefreshReport:
        """Carry a job on until something is reached; also one that another process left.

        Args:
            job_id: The job.
            until: Usable, closed or finalised.
            bound_s: Longest wait in seconds; None: the job's own cap and a little.
            work: Start workers here while nobody works on it.
            close_at_bound: When the bound is met or nobody works, close the job, so that the
                report balances; otherwise leave it open for others.
            show: Gets a look at every wake, some times a second.

        Returns:
            The report; ``outcome`` is never None.

        Raises:
            UnknownJobError: There is no such job.
            StateError: The ledger cannot be read or written.
            ProxywellError: No worker can start; a job of which nothing was checked is closed.
            KeyboardInterrupt: Passed on; the job stays open, and what was done stays done.
        """
        carrier = self._carrier(job_id, work=work, show=show)
        try:
            end = carrier.wait(until, bound_s)
            if end is not WaitEnd.REACHED and close_at_bound:
                self._end(job_id, end)
                if carrier.wait(Until.FINALISED, FINAL_S) is not WaitEnd.REACHED:
                    self._end(job_id, end)  # a server that went away meanwhile is left behind
                    carrier.wait(Until.FINALISED, FINAL_S)
        except KeyboardInterrupt:
            carrier.leave()
            self._announce(JobLeftOpen(job_id=job_id, state_dir=str(self._state_dir)))
            raise
        except ProxywellError as error:
            carrier.leave()
            self._failed(job_id, error)
            raise
        finally:
            carrier.stop()
        return self._reported(job_id, until, end)

    def report(self, job_id: str) -> RefreshReport:
        """The report as it stands; ``outcome`` is None while the job is not finalised.

        Raises:
            UnknownJobError: There is no such job.
        """
        job = self._ledger.status(job_id)
        kept = self._ledger.summary(job_id)
        if kept is None:
            poison = [shown(one) for one in given_up_as_poison(self._ledger, job_id)]
            summary = Summary(self._counted(job), PoolChange(), poison)
        else:
            summary = _summary(kept)
        return report_of(job, self.dossier(job_id), summary.verdicts, summary.pool, summary.poison)

    def timeline(self, job_id: str) -> Timeline:
        """What happened to the job so far, counted from when it was asked for.

        Of a job whose books are elsewhere, and are not asked here, it is what the waiter's copy
        knows; ``silent_s`` is its age.

        Raises:
            UnknownJobError: There is no such job.
        """
        job, dossier = self._ledger.status(job_id), self.dossier(job_id)
        kept = self._ledger.summary(job_id)
        told = None if kept is None else _summary(kept).timeline
        if told is not None:
            told = with_the_end(told, job)
        else:
            chronicle = Chronicle(events_of(self._ledger, job_id))
            asked = dossier.engine == self._kind.name
            told = chronicle.timeline(job, there=self._ledger.nodes(job_id) if asked else None)
        if job.state is not JobState.DONE and job.boot in ("", boot_id()):
            told.silent_s = round(max(0.0, boot_clock_s() - job.seen_s), 3)
        return since_asked(told, dossier.lead_s)

    def reports(self) -> list[RefreshReport]:
        """The reports of all jobs, newest first."""
        return [self.report(job.job_id) for job in self._ledger.jobs()]

    def dossier(self, job_id: str) -> Dossier:
        """What the job's creator kept.

        Raises:
            UnknownJobError: There is no such job.
        """
        return dossier_of(self._ledger.spec(job_id))

    def jobs(self) -> list[JobRow]:
        """The lines of all jobs, newest first."""
        return self._ledger.jobs()

    def cancel(self, job_id: str) -> RefreshReport:
        """Give up what is open, finalise what was checked, and report; again changes nothing.

        Raises:
            UnknownJobError: There is no such job.
        """
        self._ledger.cancel(job_id, GivenUpWhy.CANCELLED, "cancelled")
        return self.wait_for(job_id, bound_s=FINAL_S, work=False, close_at_bound=False)

    # --- inside

    def _terms(
        self, planned: int, *, size: int, want: int | None, min_count: int, deadline_s: float | None
    ) -> Terms:
        settings = self._settings
        floor = floor_s(
            -(-planned // size),
            time_per_chunk_s=settings.time_per_chunk_s,
            workers=settings.floor_workers,
            factor=settings.floor_factor,
            least_s=settings.floor_min_s,
        )
        return Terms(
            lease_s=settings.lease_s,
            attempt_hard_s=settings.attempt_hard_s,
            attempts_max=settings.attempts_max,
            errors_max=settings.errors_max,
            blames_max=settings.blames_max,
            fan=settings.split_parts,
            stalled_s=settings.stalled_s,
            chunk_size=size,
            min_count=min_count,
            want=want,
            floor_s=floor,
            cap_s=deadline_s or floor * settings.cap_factor,
            time_per_chunk_s=settings.time_per_chunk_s,
        )

    def _carrier(
        self, job_id: str, *, work: bool, show: Callable[[Progress], None] | None = None
    ) -> Carrier:
        assert self._sink is not None, "a room that only looks was asked to wait"
        job = self._ledger.status(job_id)
        engine = self._kind.engine(job) if work and job.state is JobState.OPEN else None
        return Carrier(
            job,
            self._ledger,
            sink=self._sink,
            bell=self._kind.bell(job_id),
            engine=engine,
            lead_s=self.dossier(job_id).lead_s,
            show=show,
            remember=partial(self._remember, job_id),
            monotonic_s=self._clock.monotonic_s,
        )

    def _without_poison(
        self, candidates: list[Candidate], refused: Mapping[str, int]
    ) -> dict[str, int]:
        """Leave out what ended its workers lately; why candidates are refused, with these."""
        with contextlib.closing(
            PoisonMemory(self._state_dir, self._settings.poison_kept_s)
        ) as memory:
            places = memory.places(self._clock.now_s())
        left_out = leave_out(candidates, places)
        if not left_out:
            return dict(refused)
        self._announce(PoisonLeftOut(candidates=left_out))
        return {**refused, RefusalReason.POISON: left_out}

    def _remember(self, job_id: str, poison: list[Candidate]) -> None:
        with contextlib.closing(
            PoisonMemory(self._state_dir, self._settings.poison_kept_s)
        ) as memory:
            memory.remember(poison, job_id=job_id, now_s=self._clock.now_s())

    def _end(self, job_id: str, end: WaitEnd) -> None:
        if end is WaitEnd.STALLED:
            self._ledger.cancel(job_id, GivenUpWhy.CANCELLED, "stalled")
        else:
            self._ledger.cancel(job_id, GivenUpWhy.DEADLINE, "timed_out")

    def _failed(self, job_id: str, error: ProxywellError) -> None:
        """Nothing can be done here: close a job of which nothing is lost, keep any other."""
        with contextlib.suppress(ProxywellError):
            if self._ledger.status(job_id).checked:
                self._announce(JobLeftOpen(job_id=job_id, state_dir=str(self._state_dir)))
                return
            self._ledger.cancel(job_id, GivenUpWhy.CANCELLED, "failed", str(error))
            closing = self._carrier(job_id, work=False)
            try:
                closing.wait(Until.FINALISED, FINAL_S)
            finally:
                closing.stop()

    def _reported(self, job_id: str, until: Until, end: WaitEnd) -> RefreshReport:
        report = self.report(job_id)
        if report.outcome is not None:
            return report
        job = self._ledger.status(job_id)
        if end is WaitEnd.REACHED:
            done = until is Until.USABLE and job.usable_s is not None
            report.outcome = Outcome.USABLE if done else outcome_of(_as_done(job))[0]
        elif end is WaitEnd.STALLED:
            report.outcome, report.reason = Outcome.STALLED, "nobody works on the job"
        else:
            report.outcome, report.reason = Outcome.TIMED_OUT, "the wait's bound was met"
        return report

    def _counted(self, job: JobRow) -> VerdictCounts:
        collector = Collector(self._ledger, job.job_id, job.epoch, None)
        while collector.collect(upto=job.parts):
            continue  # ends at the part that the line knows last
        return collector.tally.counts()


def _as_done(job: JobRow) -> JobRow:
    return replace(job, state=JobState.DONE)
