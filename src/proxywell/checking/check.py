"""Stage 1 of one candidate: its probes, until one passes or none is left.

Probes follow one another, with one exception: a probe that is silent past the soft time goes on
beside those that try other protocols, so that a silent candidate does not cost the sum of all
answer times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxywell.checking.ladder import Heard, Ladder, first_protocol, heard
from proxywell.checking.ports import JudgeRequest
from proxywell.checking.probe import Probe
from proxywell.checking.verdicts import weight
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import Verdict

if TYPE_CHECKING:
    from proxywell.checking.checker import Checker

Done = Callable[[Verdict | None], None]

# Failures that a judge out of order would cause as well.
_PERHAPS_THE_JUDGE = frozenset(
    {
        FailureKind.HANDSHAKE_TIMEOUT,
        FailureKind.ANSWER_TIMEOUT,
        FailureKind.BODY_STALLED,
        FailureKind.EOF_EARLY,
        FailureKind.RESET,
        FailureKind.SOCKS_REFUSED,
        FailureKind.WRONG_ANSWER,
    }
)
_PERHAPS_THE_LINE = frozenset({FailureKind.CONNECT_TIMEOUT, FailureKind.UNREACHABLE})
_SERVER_ERRORS = range(500, 600)


class Check:
    """All probes of one candidate in one pass. Also what a shift holds to cancel it.

    Attributes:
        candidate: Whom it is about.
        host: The address to connect to; differs from the endpoint's only for a name.
        patient: With the hard times, and never deferred.
        done: Gets the verdict, or None when it was deferred.
        over: Nothing is told any more.
        again: It was begun anew once, because the judge was unwell.
        told: The probe that got furthest so far.
        doubtful: A judge that is out of order, or our own line, would have caused this as well.
        waits_since_s: Monotonic instant since when it waits for the judge; 0.0 when it does not.
    """

    __slots__ = (
        "_aside",
        "_checker",
        "_ladder",
        "_probe",
        "again",
        "candidate",
        "done",
        "doubtful",
        "errand",
        "host",
        "over",
        "patient",
        "told",
        "waits_since_s",
    )

    def __init__(
        self, checker: Checker, candidate: Candidate, *, patient: bool, done: Done
    ) -> None:
        self._checker = checker
        self.candidate = candidate
        self.host = candidate.endpoint.host
        self.patient = patient
        self.done = done
        self.over = False
        self.again = False
        self.errand: asyncio.Task[None] | None = None
        self.told: Probe | None = None
        self.doubtful = False
        self.waits_since_s = 0.0
        self._ladder: Ladder | None = None
        self._probe: Probe | None = None
        self._aside: Probe | None = None  # silent so far, while others are tried

    def begin(self) -> None:
        """Try the first protocol; also from the start again, with all that was found forgotten."""
        self.told = None
        self.doubtful = False
        self.waits_since_s = 0.0
        self._ladder = None
        host = self.host
        if ":" not in host and not host.replace(".", "").isdigit():
            self._checker.find_address(self)
            return
        candidate, only = self.candidate, self._checker.only
        self.launch(only or first_protocol(candidate.hints, candidate.endpoint.port))

    def launch(
        self, protocol: Protocol, guess: bool = False, request: JudgeRequest | None = None
    ) -> None:
        """Try one protocol; with a request in hand it goes before those that have none."""
        checker = self._checker
        self._probe = Probe(
            self,
            self.candidate.endpoint,
            self.host,
            protocol,
            checker.http_limits,
            patient=self.patient,
            guess=guess,
            request=request,
        )
        checker.counts.stage_1 += 1
        checker.reactor.submit(self._probe, urgent=request is not None)

    def cancel(self) -> None:
        """Stop; ``done`` is not called any more. Works twice, and after the end."""
        if self.over:
            return
        if self.errand is not None:
            self.errand.cancel()
        self._stop_probes()
        self.end()

    def end(self) -> None:
        """Let go of what points back here, so that nothing waits for the garbage collector."""
        self.over = True
        self.told = self._probe = self._aside = self.errand = None
        self.done = _told_already

    def request_came(self, request: JudgeRequest) -> None:
        """Connect once more: this time with something to ask."""
        assert self._probe is not None, "waits for a request without a probe"
        self.told = None
        self.launch(self._probe.protocol, self._probe.guess, request)

    # --- called by its probe

    def next_request(self) -> JudgeRequest | None:
        """See ProbeOwner."""
        return self._checker.next_request()

    def wall_s(self) -> float:
        """See ProbeOwner."""
        return self._checker.wall_s

    def probe_without_judge(self, probe: Probe, now_s: float) -> None:
        """See ProbeOwner."""
        probe.kind = FailureKind.JUDGE_UNWELL  # for the case that no request ever comes
        self._note(probe)
        self._checker.waits_for_request(self, now_s)

    def probe_late(self, probe: Probe, now_s: float) -> None:
        """See ProbeOwner: try something else beside it, unless others need the sockets."""
        checker = self._checker
        if checker.only is not None or (checker.reactor.wanted and not self.patient):
            return
        following = self._ladder_after(probe, Heard.SILENCE)
        if following is not None:
            self._aside = probe
            self.launch(following, guess=True)

    def probe_deferred(self, probe: Probe, now_s: float) -> None:
        """See ProbeOwner."""
        self._stop_probes(but=probe)
        self._checker.deferred(self)

    def probe_broke(self, probe: Probe, error: Exception, now_s: float) -> None:
        """See ProbeOwner."""
        self._checker.broke("probe", error)
        self._stop_probes(but=probe)
        self._note(probe)
        self._checker.failed(self, now_s)

    def probe_over(self, probe: Probe, now_s: float) -> None:
        """Go on to stage 2, to the next protocol, or to the end."""
        checker = self._checker
        kind = probe.kind
        if kind is None:
            self._stop_probes(but=probe)
            checker.passed(self, probe, now_s)
            return
        self._note(probe)
        following: Protocol | None = None
        guess = False
        if probe.stands or kind is FailureKind.RESET:
            self.doubtful = self.doubtful or perhaps_the_judge(kind, probe.detail)
            what = heard(probe.protocol, kind, probe.detail, spoke=probe.spoke, tunnel=probe.tunnel)
            guess = probe.guess or what is Heard.SILENCE
            if self._aside is probe:
                self._aside = None
                if what.vague and self._probe is not None:
                    return  # what is tried beside it goes on
                self._stop_probes(but=probe)
            if checker.only is None:
                following = self._ladder_after(probe, what)
        elif checker.reactor.heard_s <= probe.opened_s and kind in _PERHAPS_THE_LINE:
            self.doubtful = True  # nobody at all was heard meanwhile: perhaps it is our own line
        if following is not None:
            self.launch(following, guess)
            return
        self._probe = None
        if self._aside is None:
            checker.failed(self, now_s)

    def _ladder_after(self, probe: Probe, what: Heard) -> Protocol | None:
        if self._ladder is None:
            self._ladder = Ladder(probe.protocol, self.candidate.hints)
        return self._ladder.after(probe.protocol, what, spare=self._checker.spare_connections())

    def _stop_probes(self, but: Probe | None = None) -> None:
        if self.waits_since_s:  # one of them for a request to a judge
            self._checker.forget(self)
            self.waits_since_s = 0.0
        for probe in (self._probe, self._aside):
            if probe is not None and probe is not but:
                self._checker.reactor.cancel(probe)
        self._probe = self._aside = None

    def _note(self, probe: Probe) -> None:
        """Keep the probe if it got further than those before it."""
        if self.told is None or weight(probe) > weight(self.told):
            self.told = probe


def _told_already(verdict: Verdict | None) -> None:
    raise AssertionError(f"a check was told twice: {verdict}")


def perhaps_the_judge(kind: FailureKind, detail: int | None) -> bool:
    """Say whether a judge that is out of order would cause this failure as well.

    Args:
        kind: How a probe failed that had a connection.
        detail: The status behind it, if there was one.
    """
    if kind is FailureKind.HTTP_STATUS:
        return detail in _SERVER_ERRORS
    return kind in _PERHAPS_THE_JUDGE
