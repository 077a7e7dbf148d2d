"""Putting a verdict together from what probes and inspections found.

Nine in ten verdicts say "cannot be reached", so their parts are made once and shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from proxywell.checking.ports import Finding, ProbeReport, Sighting
from proxywell.checking.probe import Probe
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import LIES, FailureKind
from proxywell.model.verdict import Anonymity, CheckState, CheckStep, JudgeTrust, Verdict

REACH, HANDSHAKE, JUDGE = "reach", "handshake", "judge"

_UNREACHED = frozenset(
    {
        FailureKind.DNS,
        FailureKind.ADDRESS_REFUSED,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.CONNECT_REFUSED,
        FailureKind.UNREACHABLE,
    }
)
_AFTER_THE_HANDSHAKE = frozenset(
    {
        FailureKind.BODY_STALLED,
        FailureKind.BODY_TOO_LARGE,
        FailureKind.DECODE_BOMB,
        FailureKind.WRONG_ANSWER,
        FailureKind.JUDGE_BAD_SIGNATURE,
        FailureKind.JUDGE_REPLAY,
        FailureKind.JUDGE_UNWELL,
        FailureKind.TAMPERED,
        FailureKind.NOT_A_PROXY,
    }
)

_SCHEMES: dict[Protocol | None, str] = {
    None: "http://",
    **{protocol: f"{protocol.scheme}://" for protocol in Protocol},
}

# Which of several failures is told: the one that got furthest, the first among equals.
_OURS = frozenset({FailureKind.LOCAL_FAULT, FailureKind.INTERNAL, FailureKind.JUDGE_UNWELL})
_ANSWERED = frozenset(
    {
        FailureKind.WRONG_ANSWER,
        FailureKind.HTTP_STATUS,
        FailureKind.AUTH_REQUIRED,
        FailureKind.SOCKS_REFUSED,
        FailureKind.HEADER_TOO_LARGE,
        FailureKind.BODY_TOO_LARGE,
        FailureKind.DECODE_BOMB,
        FailureKind.BODY_STALLED,
    }
)
_SPOKE = frozenset({FailureKind.BAD_HTTP, FailureKind.SOCKS_BAD_REPLY})


def weight(probe: Probe) -> int:
    """Say how telling a failure is: what is ours first, then whoever got furthest."""
    kind = probe.kind
    if kind in _OURS:
        return 5
    if kind in LIES:
        return 4
    if kind in _ANSWERED:
        return 3
    return 2 if probe.tunnel or kind in _SPOKE else int(kind not in _UNREACHED)


class VerdictMaker:
    """Makes verdicts for one list of inspections.

    Args:
        inspections: Their names, in order; each has an entry in every verdict.
    """

    def __init__(self, inspections: Sequence[str]) -> None:
        self._skipped = tuple(CheckStep(name, CheckState.SKIPPED) for name in inspections)
        self._unreached = (
            CheckStep(HANDSHAKE, CheckState.SKIPPED),
            CheckStep(JUDGE, CheckState.SKIPPED),
            *self._skipped,
        )

    def failed(
        self,
        candidate: Candidate,
        protocol: Protocol | None,
        kind: FailureKind,
        checked_at: datetime,
        probe: Probe | None = None,
    ) -> Verdict:
        """The verdict for a candidate of which no protocol passed stage 1.

        Args:
            candidate: Whom it is about.
            protocol: The one that got furthest; None if none was tried.
            kind: Why it failed.
            checked_at: UTC.
            probe: The probe that got furthest; None if none was made.
        """
        endpoint = candidate.endpoint
        return Verdict(
            proxy=_url(endpoint, protocol),
            host=endpoint.host,
            port=endpoint.port,
            protocol=protocol,
            working=False,
            checked_at=checked_at,
            failure=kind,
            blame=kind.blame,
            connect_ms=None if probe is None else probe.connect_ms,
            checks=self._failed_steps(kind, probe),
        )

    def _failed_steps(self, kind: FailureKind, probe: Probe | None) -> tuple[CheckStep, ...]:
        state = CheckState.UNAVAILABLE if kind in _OURS else CheckState.FAILED
        if kind is FailureKind.ADDRESS_REFUSED:
            state = CheckState.SKIPPED
        if probe is None or probe.connect_ms is None:
            took_ms = round(probe.took_ms, 1) if probe is not None and probe.opened_s else None
            return (CheckStep(REACH, state, kind, None, took_ms), *self._unreached)
        reach = CheckStep(REACH, CheckState.PASSED, None, None, round(probe.connect_ms, 1))
        took_ms = round(probe.took_ms - probe.connect_ms, 1)
        if not probe.tunnel and kind not in _AFTER_THE_HANDSHAKE:
            return (
                reach,
                CheckStep(HANDSHAKE, state, kind, None, took_ms),
                *self._unreached[1:],
            )
        target = None if probe.request is None else probe.request.judge
        judge = CheckStep(JUDGE, state, kind, target, took_ms)
        return (reach, CheckStep(HANDSHAKE, CheckState.PASSED), judge, *self._skipped)

    def examined(
        self,
        candidate: Candidate,
        first: ProbeReport,
        findings: Sequence[Finding],
        checked_at: datetime,
        failure: FailureKind | None = None,
    ) -> Verdict:
        """The verdict for a candidate that passed stage 1.

        Args:
            candidate: Whom it is about.
            first: The probe that passed.
            findings: Of the inspections that ran, in their order; the others were skipped.
            checked_at: UTC.
            failure: A failure that is not in the findings, such as a bug in an inspection.
        """
        assert first.sighting is not None, "a probe that passed has seen the judge"
        for finding in findings:
            failure = failure or finding.failure
        sightings = [first.sighting, *(s for finding in findings for s in finding.sightings)]
        endpoint = candidate.endpoint
        protocols = dict.fromkeys(
            (first.protocol, *(p for finding in findings for p in finding.protocols))
        )
        exits = tuple(dict.fromkeys(sighting.exit_ip for sighting in sightings))
        anonymity = [f.anonymity for f in findings if f.anonymity is not None]
        https = [f.https for f in findings if f.https is not None]
        tampering = [f.tampering for f in findings if f.tampering is not None]
        return Verdict(
            proxy=_url(endpoint, first.protocol),
            host=endpoint.host,
            port=endpoint.port,
            protocol=first.protocol,
            working=failure is None,
            checked_at=checked_at,
            failure=failure,
            blame=None if failure is None else failure.blame,
            protocols=tuple(protocols),
            anonymity=anonymity[-1] if anonymity else Anonymity.UNKNOWN,
            exit_ip=sightings[-1].exit_ip,
            exit_ips=exits,
            tampering=tampering[0] if tampering else None,
            intercepts_tls=any(finding.intercepts_tls for finding in findings),
            https=https[-1] if https else None,
            latency_ms=_tenths(first.latency_ms),
            connect_ms=_tenths(first.connect_ms),
            judge=_trust(sightings),
            checks=self._examined_steps(first, findings),
        )

    def _examined_steps(
        self, first: ProbeReport, findings: Sequence[Finding]
    ) -> tuple[CheckStep, ...]:
        connect_ms, latency_ms = first.connect_ms or 0.0, first.latency_ms or 0.0
        target = None if first.request is None else first.request.judge
        found = {finding.step.name: finding.step for finding in findings}
        return (
            CheckStep(REACH, CheckState.PASSED, None, None, _tenths(connect_ms)),
            CheckStep(HANDSHAKE, CheckState.PASSED),
            CheckStep(JUDGE, CheckState.PASSED, None, target, _tenths(latency_ms - connect_ms)),
            *(found.get(step.name, step) for step in self._skipped),
        )


def _trust(sightings: Sequence[Sighting]) -> JudgeTrust:
    signed = all(sighting.trust is JudgeTrust.SIGNED for sighting in sightings)
    return JudgeTrust.SIGNED if signed else JudgeTrust.UNSIGNED


def _tenths(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 1)


def _url(endpoint: Endpoint, protocol: Protocol | None) -> str:
    if endpoint.user is None and ":" not in endpoint.host:
        return f"{_SCHEMES[protocol]}{endpoint.host}:{endpoint.port}"
    return endpoint.url(protocol or Protocol.HTTP)
