"""Refresh jobs: sources, ledger, workers and pool joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Raw, Struct, structs

from proxywell.app.checkers import must_be_sound, must_have_read, read_candidates
from proxywell.app.engines import (
    CELERY,
    LOCAL,
    engine_at_rest,
    engine_kind,
    engine_that_goes_on,
)
from proxywell.app.metering import metered
from proxywell.config.schema import (
    CheckingSettings,
    JudgeSettings,
    NetworkSettings,
    RefreshSettings,
    Settings,
    SourceSettings,
)
from proxywell.errors import ProxywellError, UsageError
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint
from proxywell.model.progress import Progress
from proxywell.model.report import Outcome, RefreshReport
from proxywell.net.loop import run
from proxywell.pool.pool import Pool
from proxywell.refresh.books import JobState
from proxywell.refresh.intents import Intents
from proxywell.refresh.ports import EngineKind
from proxywell.refresh.report import Dossier, dossier_of
from proxywell.refresh.run import RefreshRoom
from proxywell.refresh.wait import Until
from proxywell.sources.catalog import STDIN, chosen_sources
from proxywell.sources.harvesting import HarvestingSink
from proxywell.sources.yields import YieldBook
from proxywell.telemetry.events import JobLeftOpen, JobNamed, emit

SOURCES_DIR = "sources"  # last good copies, in the state directory

READ_MAX_S = 120.0  # all sources together; each has its own shorter limit
_CLOCK = SystemClock()


class RefreshWish(Struct, frozen=True, kw_only=True):
    """What one refresh is asked for beside the settings.

    Attributes:
        engine: ``local`` or ``celery``.
        workers: Processes that check; 1 checks in this process, with the local engine.
        until: Return when this is reached.
        want: Stop as soon as so many work.
        limit: Check at most so many candidates, the likeliest.
        deadline_s: Close the job after so many seconds; None: by the formula.
    """

    engine: str = LOCAL
    workers: int = 1
    until: Until = Until.FINALISED
    want: int | None = None
    limit: int | None = None
    deadline_s: float | None = None


def refresh(
    settings: Settings,
    state_dir: Path,
    wish: RefreshWish,
    show: Callable[[Progress], None] | None = None,
) -> RefreshReport:
    """Run one refresh job from reading sources to finalisation, on either engine.

    Args:
        settings: All settings; ``sources.lists`` replaces the catalogue.
        state_dir: Home of ledger and pool.
        wish: What this call asks for.
        show: Gets a look at the progress, some times a second.

    Returns:
        The report; balanced, ``outcome`` is not None. It is ``failed``, with the reason, when
        nothing could be checked, because no judge answers for example.

    Raises:
        UsageError: A judge is misspelt; nothing was started.
        InputMissingError: A file that was named is not there or is no list.
        NoSourceError: Not one source could be read.
        StateError: The state directory cannot be written.
        ProxywellError: Nobody can go on with a job of which something was done.
        KeyboardInterrupt: Passed on; the job stays open.
    """
    must_be_sound(settings)
    with metered(settings, state_dir), Pool.open(state_dir, settings.pool) as pool:
        sink = _sink(pool, YieldBook(state_dir / SOURCES_DIR))
        with (
            _kind_of(wish, settings, state_dir) as kind,
            _room(settings, state_dir, sink, kind, wish.workers) as room,
        ):
            job_id = room.new_job_id()
            intents = Intents(state_dir)
            intents.keep(job_id, _encode(_intent(settings, wish)))
            try:
                _create(room, job_id, settings, wish, state_dir=state_dir, pool=pool, sink=sink)
            except KeyboardInterrupt:
                emit(JobLeftOpen(job_id=job_id, state_dir=str(state_dir)))
                raise
            except ProxywellError:
                intents.drop(job_id)  # it would fail in the same way again
                raise
            try:
                return room.wait_for(job_id, until=wish.until, show=show)
            except ProxywellError:
                report = room.report(job_id)
                if report.outcome is not Outcome.FAILED:
                    raise
                return report


@contextmanager
def job_room(
    settings: Settings, state_dir: Path, job_id: str, *, work: bool = True
) -> Iterator[RefreshRoom]:
    """The refresh room as the job was started: its judges, its checker, its engine, its workers.

    Args:
        settings: Of this call; what matters to checking is taken from the job.
        state_dir: Home of ledger and pool.
        job_id: The job.
        work: Bring up what it takes to go on with the job; else only to end it.

    Raises:
        UnknownJobError: There is no such job.
        StateError: The state directory cannot be read or written.
    """
    with metered(settings, state_dir), Pool.open(state_dir, settings.pool) as pool:
        _begin_what_was_named(settings, state_dir, pool, job_id)
        dossier = _looked_up(settings, state_dir, job_id)
        as_started = _as_started(settings, dossier)
        sink = _sink(pool, YieldBook(state_dir / SOURCES_DIR))
        sink.saw_lists(dossier.sources)
        with (
            _to_go_on(dossier, as_started, state_dir, job_id, work=work) as kind,
            _room(as_started, state_dir, sink, kind, dossier.workers) as room,
        ):
            yield room


def _looked_up(settings: Settings, state_dir: Path, job_id: str) -> Dossier:
    """What a job's creator kept; of one that is over no server need be asked."""
    with RefreshRoom(state_dir, settings.refresh, sink=None) as looking:
        dossier = looking.dossier(job_id)
        over = {job.job_id for job in looking.jobs() if job.state is JobState.DONE}
    return structs.replace(dossier, engine=LOCAL, server=None) if job_id in over else dossier


@contextmanager
def _kind_of(wish: RefreshWish, settings: Settings, state_dir: Path) -> Iterator[EngineKind]:
    if wish.engine == CELERY and wish.until is Until.USABLE:
        yield engine_that_goes_on(settings, state_dir)
        return
    with engine_kind(wish.engine, settings, state_dir, workers=wish.workers) as kind:
        yield kind


@contextmanager
def _to_go_on(
    dossier: Dossier, settings: Settings, state_dir: Path, job_id: str, *, work: bool
) -> Iterator[EngineKind]:
    if not work:
        yield engine_at_rest(dossier.engine, settings, state_dir)
        return
    if dossier.server is not None and settings.redis.url is None:
        raise UsageError(
            f"job {job_id} is on Redis at {dossier.server}; set redis.url (PROXYWELL_REDIS__URL), "
            f"or end it with `proxywell job cancel {job_id}`"
        )
    with engine_kind(dossier.engine, settings, state_dir, workers=dossier.workers) as kind:
        yield kind


def as_job_was_started(settings: Settings, spec: bytes) -> Settings:
    """Settings for a worker that checks for a job: what decides a check is taken from the job.

    Args:
        settings: The worker's own.
        spec: What the job's creator kept with it.
    """
    return _as_started(settings, dossier_of(spec))


def _as_started(settings: Settings, dossier: Dossier) -> Settings:
    kept = _decode(bytes(dossier.extra))
    return structs.replace(settings, **structs.asdict(kept)) if kept else settings


def _begin_what_was_named(settings: Settings, state_dir: Path, pool: Pool, job_id: str) -> None:
    """Create a job whose process ended while it was reading lists; otherwise do nothing."""
    intents = Intents(state_dir)
    kept = intents.find(job_id)
    if kept is None:
        return
    intent = _decode_intent(kept)
    if STDIN in intent.sources.lists:
        intents.drop(job_id)
        raise UsageError(
            f"job {job_id} ended while it was reading stdin, which is gone; start it again with "
            "`proxywell refresh --source -`"
        )
    as_asked = structs.replace(
        settings,
        judges=intent.judges,
        network=intent.network,
        checking=intent.checking,
        judge=intent.judge,
        sources=intent.sources,
        refresh=intent.refresh,
    )
    sink = _sink(pool, YieldBook(state_dir / SOURCES_DIR))
    kind = engine_at_rest(intent.wish.engine, as_asked, state_dir)
    with _room(as_asked, state_dir, sink, kind, intent.wish.workers) as room:
        if job_id in {job.job_id for job in room.jobs()}:
            intents.drop(job_id)
        else:
            _create(room, job_id, as_asked, intent.wish, state_dir=state_dir, pool=pool, sink=sink)


def _create(
    room: RefreshRoom,
    job_id: str,
    settings: Settings,
    wish: RefreshWish,
    *,
    state_dir: Path,
    pool: Pool,
    sink: HarvestingSink,
) -> None:
    """Read the lists and write the job's books; its intent is fulfilled then."""
    asked_s = _CLOCK.monotonic_s()
    specs = chosen_sources(settings.sources.lists)
    emit(JobNamed(job_id=job_id, sources=len(specs)))
    reading = run(read_candidates(settings, specs, state_dir / SOURCES_DIR))
    must_have_read(reading, specs)
    sink.saw_lists(reading.reports)
    read_s = round(_CLOCK.monotonic_s() - asked_s, 3)
    dossier = Dossier(
        workers=wish.workers,
        sources=reading.reports,
        candidates=reading.counts,
        read_s=read_s,
        lead_s=read_s,
        extra=Raw(_encode(_what_workers_need(settings))),
    )
    room.create(
        reading.candidates,
        dossier,
        job_id=job_id,
        worked_before=_standing(pool, reading.candidates),
        yields=YieldBook(state_dir / SOURCES_DIR).shares(),
        limit=wish.limit,
        want=wish.want,
        deadline_s=wish.deadline_s,
    )
    reading.candidates.clear()
    Intents(state_dir).drop(job_id)


class _ForWorkers(Struct, frozen=True):
    """The sections that decide what a check is; kept with a job."""

    judges: tuple[str, ...]
    network: NetworkSettings
    checking: CheckingSettings
    judge: JudgeSettings


class _Intent(Struct, frozen=True):
    """All that is needed to begin a job anew that was named and not yet created."""

    judges: tuple[str, ...]
    network: NetworkSettings
    checking: CheckingSettings
    judge: JudgeSettings
    sources: SourceSettings
    refresh: RefreshSettings
    wish: RefreshWish


def _intent(settings: Settings, wish: RefreshWish) -> _Intent:
    lists = tuple(
        place if place == STDIN or "://" in place else str(Path(place).absolute())
        for place in settings.sources.lists
    )
    return _Intent(
        settings.judges,
        settings.network,
        settings.checking,
        settings.judge,
        structs.replace(settings.sources, lists=lists),
        settings.refresh,
        wish,
    )


_encode = msgspec.json.Encoder().encode
_decode_intent = msgspec.json.Decoder(_Intent).decode
_decode = msgspec.json.Decoder(_ForWorkers | None).decode


def _what_workers_need(settings: Settings) -> _ForWorkers:
    return _ForWorkers(settings.judges, settings.network, settings.checking, settings.judge)


def _sink(pool: Pool, book: YieldBook) -> HarvestingSink:
    return HarvestingSink(pool, book, known=pool.standing().keys(), clock=_CLOCK)


def _room(
    settings: Settings, state_dir: Path, sink: HarvestingSink, kind: EngineKind, workers: int
) -> RefreshRoom:
    return RefreshRoom(state_dir, settings.refresh, sink=sink, kind=kind, workers=workers)


def _standing(pool: Pool, candidates: Sequence[Candidate]) -> dict[Endpoint, float]:
    standing = pool.standing()
    if not standing:
        return {}
    endpoints = (candidate.endpoint for candidate in candidates)
    return {endpoint: standing[key] for endpoint in endpoints if (key := endpoint.key) in standing}
