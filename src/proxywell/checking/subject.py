"""A candidate that passed stage 1, as inspections see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxywell.checking.ports import (
    Examined,
    Finding,
    JudgeRequest,
    Panel,
    ProbeReport,
    Stream,
)
from proxywell.checking.probe import Probe
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind
from proxywell.net.dial import open_tunnel

if TYPE_CHECKING:
    from proxywell.checking.checker import Checker


class CheckedSubject:
    """See ``checking.ports.Subject``; probes go through the checker's own reactor.

    Attributes:
        candidate, first, panel: As in the port.
        findings: What earlier inspections found; the checker adds to it.
    """

    def __init__(
        self, checker: Checker, candidate: Candidate, host: str, first: ProbeReport, panel: Panel
    ) -> None:
        self._checker = checker
        self._host = host
        self.candidate = candidate
        self.first = first
        self.panel = panel
        self.findings: list[Finding] = []

    @property
    def examined(self) -> Examined:
        """What earlier inspections found, in their order."""
        return tuple(self.findings)

    async def probe(self, protocol: Protocol, request: JudgeRequest) -> ProbeReport:
        """One more plain request; ends at the checker's hard times."""
        waiting = _WaitingProbe(self._checker)
        probe = Probe(
            waiting,
            self.candidate.endpoint,
            self._host,
            protocol,
            self._checker.http_limits,
            patient=True,
            request=request,
        )
        self._checker.counts.stage_2 += 1
        self._checker.reactor.submit(probe, urgent=True)
        try:
            return await waiting.outcome
        finally:
            self._checker.reactor.cancel(probe)

    async def tunnel(self, protocol: Protocol, host: str, port: int) -> Stream | FailureKind:
        """A tunnel through the proxy, with the checker's hard times."""
        self._checker.counts.stage_2 += 1
        settings = self._checker.settings
        return await open_tunnel(
            self.candidate.endpoint,
            protocol,
            host,
            port,
            refusal=self._checker.refusal,
            source_address=settings.source_address,
            connect_s=settings.connect_hard_s,
            answer_s=settings.answer_hard_s,
        )


class _WaitingProbe:
    """Turns the end of one probe into something to await."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self.outcome: asyncio.Future[ProbeReport] = asyncio.get_running_loop().create_future()

    def next_request(self) -> JudgeRequest | None:
        """Never asked: the probe has its request."""
        return None

    def wall_s(self) -> float:
        """See ProbeOwner."""
        return self._checker.wall_s

    def probe_over(self, probe: Probe, now_s: float) -> None:
        """See ProbeOwner."""
        if not self.outcome.done():
            self.outcome.set_result(probe.outcome())

    def probe_late(self, probe: Probe, now_s: float) -> None:
        """See ProbeOwner; the protocol is known, there is nothing else to try."""

    probe_without_judge = probe_deferred = probe_over  # a patient probe with a request is neither

    def probe_broke(self, probe: Probe, error: Exception, now_s: float) -> None:
        """See ProbeOwner."""
        self._checker.broke("probe", error)
        self.probe_over(probe, now_s)
