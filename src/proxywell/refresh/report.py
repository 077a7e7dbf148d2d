"""What a job amounts to: the public report, from its books and what its caller kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct, field, structs

from proxywell.model.report import (
    CandidateCounts,
    ChunkCounts,
    DeadlineFigures,
    GivenUpWhy,
    ItemCounts,
    OpenItemCounts,
    Outcome,
    PoolChange,
    RefreshReport,
    SourceReport,
    Timing,
    VerdictCounts,
)
from proxywell.refresh.books import JobRow, JobState

_BY_WHY = {
    "enough": Outcome.USABLE,
    "cancelled": Outcome.CANCELLED,
    "stalled": Outcome.STALLED,
    "timed_out": Outcome.TIMED_OUT,
    "failed": Outcome.FAILED,
}


class Dossier(Struct, frozen=True, kw_only=True):
    """What a job's creator knows and its books do not; kept with the job.

    Attributes:
        engine: ``local`` or ``celery``.
        server: Where the books were made, as ``EngineKind.server``.
        workers: How many processes were meant to check.
        sources: What each source gave.
        candidates: From entries to what is planned.
        read_s: How long reading took, in seconds; None if nothing was read.
        lead_s: From when the job was asked for until it was created, in seconds.
        extra: JSON of the caller's own, for whoever goes on with the job in a new process.
    """

    engine: str = "local"
    server: str | None = None
    workers: int = 1
    sources: list[SourceReport] = field(default_factory=list)
    candidates: CandidateCounts = field(default_factory=CandidateCounts)
    read_s: float | None = None
    lead_s: float = 0.0
    extra: Raw = Raw(b"null")


_dossier = msgspec.json.Decoder(Dossier).decode


def dossier_of(spec: bytes) -> Dossier:
    """What a job's creator kept, from the bytes that its books keep."""
    return _dossier(spec)


def outcome_of(job: JobRow) -> tuple[Outcome | None, str | None]:
    """Say how a job ended and why; None while it is not finalised, with the reason so far.

    ``complete``: nothing was given up against our will. ``usable``: as many work as were
    wanted, the rest was left. ``timed_out`` and ``stalled``: the bound was met, or nobody
    worked. ``partial``: some could not be checked. ``failed``: the pool could not be written.
    """
    if job.state is not JobState.DONE:
        return None, job.detail
    given_up = {why: n for why, n in job.given_up.items() if n and why is not GivenUpWhy.ENOUGH}
    if job.fin_error is not None:
        reason = f"the verdicts are kept, but the pool was not written: {job.fin_error}"
        return Outcome.FAILED, reason
    if job.why is not None and (job.why == "failed" or job.items_given_up):
        return _BY_WHY[job.why], job.detail or _sentence(job)
    if given_up:
        told = ", ".join(f"{n:,} by {why}" for why, n in sorted(given_up.items()))
        return Outcome.PARTIAL, f"some candidates could not be checked: {told}"
    return Outcome.COMPLETE, None


def report_of(
    job: JobRow,
    dossier: Dossier,
    verdicts: VerdictCounts,
    pool: PoolChange,
    poison: Sequence[str] = (),
) -> RefreshReport:
    """Put the report together; it balances at any moment.

    Args:
        job: The line in the books.
        dossier: What the creator kept.
        verdicts: Of the items that the line counts as checked.
        pool: The change that was sealed; zeros before.
        poison: Candidates given up as poison, without credentials.
    """
    outcome, reason = outcome_of(job)
    items = ItemCounts(
        planned=job.items,
        checked=job.checked,
        given_up=job.items_given_up,
        given_up_why=dict.fromkeys(GivenUpWhy, 0) | job.given_up,
    )
    if outcome is None:
        items = OpenItemCounts(**structs.asdict(items), pending=job.pending)
    return RefreshReport(
        job_id=job.job_id,
        outcome=outcome,
        reason=reason,
        engine=dossier.engine,
        sources=list(dossier.sources),
        candidates=dossier.candidates,
        items=items,
        chunks=ChunkCounts(
            planned=job.chunks,
            done=job.chunks_done,
            given_up=job.chunks_given_up,
            rescued=job.rescued,
            split=job.split,
            attempts=job.attempts,
            stale_reports=job.stale,
        ),
        verdicts=verdicts,
        timing_s=_timing(job, dossier),
        deadline=DeadlineFigures(
            floor_s=job.terms.floor_s,
            in_force_s=round(job.deadline_s - job.created_s, 3),
            cap_s=job.terms.cap_s,
        ),
        pool=pool,
        poison=list(poison),
    )


def _timing(job: JobRow, dossier: Dossier) -> Timing:
    """Seconds since the job was asked for; time in which nobody was there does not count."""

    def since(instant_s: float | None) -> float | None:
        return None if instant_s is None else round(instant_s - job.created_s + dossier.lead_s, 3)

    return Timing(
        read=dossier.read_s,
        first_working=since(job.first_working_s),
        usable=since(job.usable_s),
        closed=since(job.closed_s),
        finalised=since(job.finalised_s),
        total=since(job.seen_s if job.finalised_s is None else job.finalised_s),
    )


def _sentence(job: JobRow) -> str:
    unchecked = job.items_given_up
    bound_s = job.deadline_s - job.created_s
    return {
        "enough": f"at least {job.terms.want} {'was' if job.terms.want == 1 else 'were'} wanted; "
        f"{job.working:,} work, {unchecked:,} were left unchecked",
        "timed_out": f"the deadline of {bound_s:g} s was met with {unchecked:,} unchecked",
        "stalled": f"nobody worked on it for {job.terms.stalled_s:g} s; {unchecked:,} unchecked",
        "cancelled": f"{unchecked:,} unchecked",
    }.get(job.why or "", "")
