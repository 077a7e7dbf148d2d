"""The room's front: candidates in, verdicts out, thousands at a time."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from proxywell.checking.check import Check, Done
from proxywell.checking.doubts import JUDGE_WAIT_S, Doubts
from proxywell.checking.ladder import spare_connections
from proxywell.checking.ports import Finding, Inspection, JudgeRequest, Panel
from proxywell.checking.probe import Probe
from proxywell.checking.run import Run
from proxywell.checking.subject import CheckedSubject
from proxywell.checking.verdicts import VerdictMaker
from proxywell.config.schema import CheckingSettings
from proxywell.model.candidate import Candidate
from proxywell.model.clock import Clock
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import CheckState, CheckStep, Verdict
from proxywell.net.backends import make_backend
from proxywell.net.deadlines import Times
from proxywell.net.driver import LoopDriver
from proxywell.net.guard import Guard
from proxywell.net.limits import SocketLimit, socket_ceiling
from proxywell.net.reactor import Reactor
from proxywell.net.resolve import resolve
from proxywell.net.sockets import socket_factory
from proxywell.protocols.head import HttpLimits
from proxywell.telemetry.events import CheckerFault, ChecksPaused, ChecksResumed, emit

LOOK_S = 0.05  # the judges' health is looked at no more often, however many turns there are
PULSE_S = 0.1  # and no less often while anything waits for it
COLLECT_AFTER = 50_000  # new objects before the cycle collector runs, while checking
REQUEST_WAIT_S = 240.0  # for a turn at a judge that allows few requests
WAITING_MAX = 32  # connected candidates that wait for their turn; then no new ones begin
EXAMINATION_MAX_S = 120.0  # all inspections of one candidate


class Counts:
    """What a checker did since it began."""

    __slots__ = ("checks", "faults", "judge_waits", "patient", "stage_1", "stage_2")

    def __init__(self) -> None:
        self.checks = self.patient = 0
        self.stage_1 = self.stage_2 = 0
        self.judge_waits = self.faults = 0


class CheckerFigures(Struct, frozen=True):
    """What a checker did since it began.

    Attributes:
        checks: Passes over candidates that were begun, patient ones included.
        patient_checks: Those of them that were patient.
        connections_stage_1, connections_stage_2: Connections for first answers, and for
            inspections.
        deferred: Checks given up for now in favour of others.
        local_faults: Connects that our own system refused; each was tried again.
        judge_waits: Checks that waited because a judge was unwell, or in doubt.
        peak_sockets: Most sockets in use at one time.
        sockets_allowed: How many may be in use now.
        faults: Bugs of ours that were caught.
    """

    checks: int
    patient_checks: int
    connections_stage_1: int
    connections_stage_2: int
    deferred: int
    local_faults: int
    judge_waits: int
    peak_sockets: int
    sockets_allowed: int
    faults: int


class Checker:
    """Checks candidates: stage 1 for all, inspections for the few that pass.

    An async context manager; inside it, ``start`` serves shifts (``refresh.ports``) and
    ``check`` serves everybody else. All calls on the loop's own thread.

    Args:
        settings: Times, sockets, back end.
        panel: The judges, started.
        guard: Asked about every address at the moment of its connect.
        inspections: Stage 2, in order.
        clock: Time for verdicts and for all waiting.
        protocol: Try only this one.

    Attributes:
        counts, reactor, http_limits, only, refusal, settings, wall_s, checked_at: For the checks
            in progress; the last two are the wall clock as of this turn.
    """

    reactor: Reactor

    def __init__(
        self,
        settings: CheckingSettings,
        *,
        panel: Panel,
        guard: Guard,
        inspections: Sequence[Inspection],
        clock: Clock,
        protocol: Protocol | None = None,
    ) -> None:
        self.settings = settings
        self.only = protocol
        self.refusal = guard.refusal
        self.http_limits = HttpLimits(body_max_bytes=settings.judge_answer_max_bytes)
        self.counts = Counts()
        self._panel = panel
        self._inspections = tuple(inspections)
        self._clock = clock
        self._maker = VerdictMaker([inspection.name for inspection in inspections])
        self._doubts = Doubts(
            panel, settle=self._settle, anew=self._begin_anew, give_up=self._give_up
        )
        self._unasked: deque[Check] = deque()  # connected once, wait for a request to a judge
        self._errands: set[asyncio.Task[None]] = set()
        self._examiners = asyncio.Semaphore(max(8, settings.max_sockets // 8))
        self._pulse: asyncio.TimerHandle | None = None
        self._runs: set[Run] = set()
        self._control_s: float | None = None
        self._look_at_s = float("-inf")
        self._read_the_clock()

    async def __aenter__(self) -> Self:
        settings = self.settings
        self._loop = asyncio.get_running_loop()
        # Thousands of open probes are live objects without cycles, which the collector would
        # visit again and again for nothing: a tenth of all CPU time.
        self._collector = gc.get_threshold()
        gc.set_threshold(max(COLLECT_AFTER, self._collector[0]), *self._collector[1:])
        backend = make_backend(settings.backend)
        self._driver = LoopDriver(
            self._loop,
            backend,
            before_turn=self._read_the_clock,
            after_turn=self._after_turn,
            broke=self._turn_broke,
        )
        self.reactor = Reactor(
            backend=backend,
            open_socket=socket_factory(settings.source_address),
            monotonic_s=self._clock.monotonic_s,
            times=Times(
                connect_soft_s=settings.connect_soft_s,
                connect_hard_s=settings.connect_hard_s,
                answer_soft_s=settings.answer_soft_s,
                answer_hard_s=settings.answer_hard_s,
            ),
            limit=SocketLimit(socket_ceiling(settings.max_sockets)),
            refusal=self.refusal,
            on_work=self._driver.wake,
        )
        self._driver.run(self.reactor)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.stop()
        gc.set_threshold(*self._collector)
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None
        for errand in self._errands:
            errand.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        self.reactor.close()

    # --- for whoever hands in candidates

    def room(self) -> int:
        """See CandidateChecker: how many more can be started before sockets run short."""
        if self.reactor.paused:
            return 0
        return max(0, self.reactor.room() - len(self._doubts))

    def start(self, candidate: Candidate, *, patient: bool, done: Done) -> Check:
        """See CandidateChecker: check one candidate."""
        self.counts.checks += 1
        self.counts.patient += patient
        check = Check(self, candidate, patient=patient, done=done)
        check.begin()
        return check

    def check(
        self, candidates: Iterable[Candidate] | AsyncIterable[Candidate]
    ) -> AsyncGenerator[tuple[Candidate, Verdict], None]:
        """Check candidates and yield each verdict as it comes, in no particular order.

        Every candidate gets exactly one verdict: what is deferred is checked patiently at the
        end. Candidates are read only as sockets become free. Whoever leaves the loop early
        should close the generator (``contextlib.aclosing``): that cancels what is under way.

        Args:
            candidates: Read once; may be endless.
        """
        return Run(self, self._runs).verdicts(candidates)

    def figures(self) -> CheckerFigures:
        """What was done so far."""
        counts, reactor = self.counts, self.reactor.figures
        return CheckerFigures(
            checks=counts.checks,
            patient_checks=counts.patient,
            connections_stage_1=counts.stage_1,
            connections_stage_2=counts.stage_2,
            deferred=reactor.deferred,
            local_faults=reactor.local_faults,
            judge_waits=counts.judge_waits,
            peak_sockets=reactor.peak,
            sockets_allowed=self.reactor.limit.now,
            faults=counts.faults,
        )

    # --- for the checks in progress

    def find_address(self, check: Check) -> None:
        """The candidate is a name: resolve it once, keep the address, begin then."""
        self._keep(check, self._find_address(check))

    def next_request(self) -> JudgeRequest | None:
        """A request to a judge, unless others have waited longer for one."""
        return None if self._unasked else self._panel.request()

    def spare_connections(self) -> bool:
        """Whether unlikely protocols may be tried as well."""
        return spare_connections(self.counts.stage_1, self.counts.checks)

    def waits_for_request(self, check: Check, now_s: float) -> None:
        """A connected candidate has nothing to ask: it waits without a socket."""
        check.waits_since_s = now_s
        self.counts.judge_waits += 1
        self._unasked.append(check)
        self._beat()

    def deferred(self, check: Check) -> None:
        """Somebody waited for its socket."""
        self._tell(check, None)

    def passed(self, check: Check, probe: Probe, now_s: float) -> None:
        """Stage 1 is passed: the inspections begin."""
        # the judge was well when it was asked, which may be long ago: not when its answer came
        self._doubts.passed(probe.opened_s)
        self._keep(check, self._examine(check, probe))

    def failed(self, check: Check, now_s: float) -> None:
        """No protocol passed: tell, unless the judge or our own line is in doubt."""
        if check.doubtful or (self._doubts.unwell and check.told is not None and check.told.tunnel):
            self.counts.judge_waits += 1
            self._doubts.hold(check, now_s)
            self._beat()
        else:
            self._settle(check)

    def forget(self, check: Check) -> None:
        """Drop a check from wherever it waits for the judge."""
        self._doubts.forget(check)
        if check in self._unasked:
            self._unasked.remove(check)

    def broke(self, where: str, error: Exception) -> None:
        """Count and tell a bug of ours."""
        self.counts.faults += 1
        emit(CheckerFault(where=where, error=type(error).__name__, text=str(error)[:200]))

    # --- the ends of a check

    def _settle(self, check: Check) -> None:
        told = check.told
        assert told is not None, "a check failed without a probe"
        assert told.kind is not None, "a probe that passed is not a failure"
        self._tell(
            check,
            self._maker.failed(check.candidate, told.protocol, told.kind, self.checked_at, told),
        )

    def _give_up(self, check: Check) -> None:
        told = check.told
        self._tell(
            check,
            self._maker.failed(
                check.candidate,
                None if told is None else told.protocol,
                FailureKind.JUDGE_UNWELL,
                self.checked_at,
                told,
            ),
        )

    def _begin_anew(self, check: Check) -> None:
        check.again = True
        check.begin()

    def _tell(self, check: Check, verdict: Verdict | None) -> None:
        if check.over:
            return
        done = check.done
        check.end()
        try:
            done(verdict)
        except Exception as error:  # noqa: BLE001 - a caller's bug must not stop the others
            self.broke("done", error)

    # --- what takes a coroutine of its own

    def _keep(self, check: Check, work: Coroutine[Any, Any, None]) -> None:
        check.errand = errand = self._loop.create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _find_address(self, check: Check) -> None:
        endpoint = check.candidate.endpoint
        found = await resolve(
            endpoint.host,
            endpoint.port,
            guard_refusal=self.refusal,
            deadline_s=self._loop.time() + self.settings.connect_hard_s,
        )
        if isinstance(found, FailureKind):
            self._read_the_clock()
            self._tell(check, self._maker.failed(check.candidate, None, found, self.checked_at))
        else:
            check.host = found[0]
            check.begin()

    async def _examine(self, check: Check, probe: Probe) -> None:
        first = probe.outcome()
        subject = CheckedSubject(self, check.candidate, check.host, first, self._panel)
        failure: FailureKind | None = None
        async with self._examiners:
            try:
                async with asyncio.timeout(EXAMINATION_MAX_S):
                    for inspection in self._inspections:
                        finding = await inspection.inspect(subject)
                        subject.findings.append(finding)
                        if finding.failure is not None:
                            break
            except TimeoutError:
                subject.findings.append(self._out_of_time(subject))
            except Exception as error:  # noqa: BLE001 - a bug in one inspection
                self.broke("inspection", error)
                failure = FailureKind.INTERNAL
        self._read_the_clock()
        verdict = self._maker.examined(
            check.candidate, first, subject.findings, self.checked_at, failure
        )
        self._tell(check, verdict)

    def _out_of_time(self, subject: CheckedSubject) -> Finding:
        """The inspection that was under way when time ran out; later ones are skipped."""
        name = self._inspections[len(subject.findings)].name
        reason = f"not finished within {EXAMINATION_MAX_S:g} s"
        return Finding(step=CheckStep(name, CheckState.UNAVAILABLE, reason))

    # --- time

    def _read_the_clock(self) -> None:
        """Once a turn, for all the verdicts in it."""
        self.wall_s = self._clock.now_s()
        self.checked_at = datetime.fromtimestamp(self.wall_s, UTC)

    def _after_turn(self) -> None:
        """Look at the judges now and then, and hand on what waits for them."""
        now_s = self.reactor.now_s
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            self._look_at_the_judges(now_s)
        for run in self._runs:
            run.room_changed()
        reactor = self.reactor
        if reactor.busy or reactor.paused or self._unasked or len(self._doubts):
            self._beat()

    def _look_at_the_judges(self, now_s: float) -> None:
        doubts = self._doubts
        was_unwell, waiting = doubts.unwell, len(doubts)
        doubts.look(now_s)
        if doubts.unwell is not was_unwell:
            event = ChecksPaused if doubts.unwell else ChecksResumed
            emit(event(waiting=waiting))
        control_s = self._panel.control_latency_s()
        if control_s is not None and control_s != self._control_s:
            self._control_s = control_s
            self.reactor.limit.follow(control_s, self.reactor.in_use, now_s)
        if self._unasked:
            self._ask_for_the_waiting(now_s)
        self.reactor.paused = self._must_pause(now_s)

    def _must_pause(self, now_s: float) -> bool:
        waits = self._doubts.unwell and not self._judge_is_lost(now_s)
        return waits or len(self._unasked) >= WAITING_MAX

    def _judge_is_lost(self, now_s: float) -> bool:
        """No judge has answered for so long that nobody waits for one any more."""
        since_s = self._panel.unwell_since_s()
        return since_s is not None and now_s - since_s >= JUDGE_WAIT_S

    def _ask_for_the_waiting(self, now_s: float) -> None:
        unasked = self._unasked
        patience_s = 0.0 if self._judge_is_lost(now_s) else REQUEST_WAIT_S
        while unasked:
            if now_s - unasked[0].waits_since_s >= patience_s:
                self._give_up(unasked.popleft())
                continue
            request = self._panel.request()
            if request is None:
                return
            check = unasked.popleft()
            check.waits_since_s = 0.0
            check.request_came(request)

    def _beat(self) -> None:
        if self._pulse is None:
            self._pulse = self._loop.call_later(PULSE_S, self._pulse_came)

    def _pulse_came(self) -> None:
        self._pulse = None
        self._driver.wake()

    def _turn_broke(self, error: Exception) -> None:
        self.broke("reactor", error)
