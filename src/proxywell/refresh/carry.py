"""What a waiter does besides looking: starts workers, collects, finalises, shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from proxywell.errors import ProxywellError, StoreBusyError
from proxywell.model.candidate import Candidate
from proxywell.model.progress import Progress
from proxywell.refresh.books import JobRow, JobState, Tick
from proxywell.refresh.engines.node import bury
from proxywell.refresh.finalise import Collector, finalise
from proxywell.refresh.poison import candidates_at, shown
from proxywell.refresh.ports import Bell, Engine, Ledger, VerdictSink
from proxywell.refresh.tidings import tidings
from proxywell.refresh.wait import Driver, Until, WaitEnd, hard_bound_s, wait
from proxywell.telemetry.events import FinalisationFailed, emit

EVENTS_AT_ONCE = 1_000
CALLED_S = 3.0  # workers that were just called are on their way, and not missing
LEAVE_COLLECT_S = 2.0  # what an interrupted waiter still hands to the pool


class Carrier:
    """One wait for one job.

    Args:
        job: The line as it stands.
        ledger: Its books.
        sink: The pool.
        bell: What wakes the waiter.
        engine: Started while nobody works on the job; None: only look.
        lead_s: From when the job was asked for until it was created, in seconds.
        show: Gets a look at every wake; None: nobody watches.
        remember: Gets the candidates that were given up as poison, when finalising.
        monotonic_s: The local clock.
    """

    def __init__(
        self,
        job: JobRow,
        ledger: Ledger,
        *,
        sink: VerdictSink,
        bell: Bell,
        engine: Engine | None,
        lead_s: float,
        show: Callable[[Progress], None] | None,
        remember: Callable[[list[Candidate]], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._job_id = job.job_id
        self._ledger = ledger
        self._sink = sink
        self._bell = bell
        self._engine = engine
        self._lead_s = lead_s
        self._show = show
        self._remember = remember
        self._monotonic_s = monotonic_s
        self._collector = Collector(ledger, job.job_id, job.epoch, sink)
        self._sink_well = True
        self._events = job.events
        self._works = False
        self._hard_bound_s = hard_bound_s(job)

    def wait(self, until: Until, bound_s: float | None) -> WaitEnd:
        """See ``wait.wait``; without a bound, until the job's cap and a little."""
        return wait(
            self._ledger,
            self._job_id,
            until=until,
            bound_s=self._hard_bound_s if bound_s is None else bound_s,
            bell=self._bell,
            monotonic_s=self._monotonic_s,
            driver=Driver(each=self._each, finalise=self._finalise),
        )

    def leave(self) -> None:
        """Let workers report what is ready, and hand it to the pool, within a few seconds."""
        self.stop()
        end_s = self._monotonic_s() + LEAVE_COLLECT_S
        with contextlib.suppress(ProxywellError):
            while self._sink_well and self._monotonic_s() < end_s and self._collect():
                continue  # ends when all is handed on, or at the instant

    def stop(self) -> None:
        """End what was started; works twice."""
        if self._engine is not None:
            self._engine.stop()
        self._bell.close()

    def _each(self, tick: Tick) -> None:
        engine = self._engine
        if engine is not None and tick.job.state is JobState.OPEN:
            if not self._works and self._nobody_works(tick):
                self._works = True
                engine.start()
            failure = engine.failure()
            if failure is not None:
                raise failure
            engine.ring(tick.ring)
        self._collect()
        self._tell_events()
        if self._show is not None:
            self._show(_progress(tick, self._lead_s))

    def _nobody_works(self, tick: Tick) -> bool:
        """Whether no main is there, once those are forgotten whose process is gone."""
        try:
            bury(self._ledger, self._job_id)
            return not tick.nodes or not self._ledger.nodes(self._job_id)
        except StoreBusyError:
            return False  # seen again at the next tick

    def _collect(self) -> int:
        """Hand verdicts on as they come; a pool in trouble is met again when finalising."""
        if not self._sink_well:
            return 0
        try:
            return self._collector.collect()
        except StoreBusyError:
            return 0
        except ProxywellError as error:
            self._sink_well = False
            emit(FinalisationFailed(job_id=self._job_id, attempt=0, reason=str(error)))
            return 0

    def _finalise(self) -> None:
        with contextlib.suppress(StoreBusyError):
            finalise(
                self._ledger,
                self._sink,
                self._collector,
                job_id=self._job_id,
                remember=self._remember,
            )

    def _tell_events(self) -> None:
        with contextlib.suppress(StoreBusyError):
            events = self._ledger.events(self._job_id, self._events, EVENTS_AT_ONCE)
            for remark in tidings(self._job_id, events, whose=self._whose):
                emit(remark)
            self._events = events[-1].seq if events else self._events

    def _whose(self, item: int) -> str:
        found = candidates_at(self._ledger, self._job_id, [item])
        return shown(found[0]) if found else f"number {item}"


def _progress(tick: Tick, lead_s: float) -> Progress:
    job = tick.job
    return Progress(
        planned=job.items,
        checked=job.checked,
        given_up=job.items_given_up,
        working=job.working,
        chunks_planned=job.chunks,
        chunks_done=job.chunks_done + job.chunks_given_up,
        chunks_running=job.running,
        rescued=job.rescued,
        nodes=tick.nodes if tick.nodes or job.seen_s - job.created_s > CALLED_S else None,
        elapsed_s=job.seen_s - job.created_s + lead_s,
        bound_s=job.terms.cap_s + lead_s,
    )
