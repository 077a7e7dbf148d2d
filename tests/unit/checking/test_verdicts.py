"""A verdict says what was found, and never that something passed which did not run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from proxywell.checking.ports import Finding, ProbeReport, Sighting
from proxywell.checking.probe import Probe, ProbeOwner
from proxywell.checking.verdicts import VerdictMaker, weight
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.verdict import Anonymity, CheckState, CheckStep, JudgeTrust
from proxywell.protocols.head import DEFAULT_LIMITS

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WHO = Candidate(Endpoint("192.0.2.1", 8080), (Protocol.HTTP,))
MAKER = VerdictMaker(["second", "anonymity"])


def probe(kind: FailureKind | None, *, connected: bool = False, tunnel: bool = False) -> Probe:
    made = Probe(
        cast(ProbeOwner, None),
        WHO.endpoint,
        WHO.endpoint.host,
        Protocol.SOCKS5,
        DEFAULT_LIMITS,
        patient=False,
    )
    made.kind, made.tunnel, made.opened_s, made.took_ms = kind, tunnel, 1.0, 250.04
    made.connect_ms = 50.04 if connected else None
    return made


def sighting(exit_ip: str, trust: JudgeTrust = JudgeTrust.SIGNED) -> Sighting:
    return Sighting(exit_ip, None, None, trust)


def first(trust: JudgeTrust = JudgeTrust.SIGNED) -> ProbeReport:
    return ProbeReport(
        Protocol.HTTP, None, None, sighting("198.51.100.1", trust), None, 50.04, 250.06
    )


@given(kind=st.sampled_from(list(FailureKind)), connected=st.booleans(), tunnel=st.booleans())
def test_a_failed_verdict_names_every_check_and_passes_none_that_did_not_run(
    kind: FailureKind, connected: bool, tunnel: bool
) -> None:
    tunnel = tunnel and connected
    verdict = MAKER.failed(
        WHO, Protocol.SOCKS5, kind, NOON, probe(kind, connected=connected, tunnel=tunnel)
    )
    states = {step.name: step.state for step in verdict.checks}
    assert list(states) == ["reach", "handshake", "judge", "second", "anonymity"]
    assert (states["reach"] is CheckState.PASSED) is connected
    assert states["handshake"] is not CheckState.PASSED or connected
    assert states["judge"] is not CheckState.PASSED
    assert states["second"] is states["anonymity"] is CheckState.SKIPPED
    assert sum(step.reason == kind.value for step in verdict.checks) == 1
    assert verdict.failure is kind
    assert verdict.blame is kind.blame
    assert not verdict.working
    assert verdict.inconclusive is (kind.blame is not Blame.PROXY)
    if kind.blame is not Blame.PROXY:
        assert CheckState.FAILED not in states.values()


def test_a_failure_before_any_probe_has_a_verdict_too() -> None:
    verdict = MAKER.failed(WHO, None, FailureKind.DNS, NOON)
    assert verdict.protocol is None
    assert verdict.proxy == "http://192.0.2.1:8080"
    assert verdict.checks[0] == CheckStep("reach", CheckState.FAILED, "dns")


def test_the_failure_that_got_furthest_is_told_and_ours_before_all() -> None:
    refused = probe(FailureKind.CONNECT_REFUSED)
    closed = probe(FailureKind.EOF_EARLY, connected=True)
    page = probe(FailureKind.HTTP_STATUS, connected=True, tunnel=True)
    forged = probe(FailureKind.JUDGE_BAD_SIGNATURE, connected=True, tunnel=True)
    fault = probe(FailureKind.LOCAL_FAULT)
    weights = [weight(one) for one in (refused, closed, page, forged, fault)]
    assert weights == sorted(set(weights))


def test_a_passed_verdict_gathers_what_inspections_found() -> None:
    findings = [
        Finding(
            step=CheckStep("second", CheckState.PASSED),
            sightings=(sighting("198.51.100.2"), sighting("198.51.100.1")),
            protocols=(Protocol.CONNECT, Protocol.HTTP),
        ),
        Finding(
            step=CheckStep("anonymity", CheckState.PASSED),
            anonymity=Anonymity.ELITE,
            https=True,
        ),
    ]
    verdict = MAKER.examined(WHO, first(), findings, NOON)
    assert verdict.working
    assert verdict.protocols == (Protocol.HTTP, Protocol.CONNECT)
    assert verdict.exit_ip == "198.51.100.1"
    assert verdict.exit_ips == ("198.51.100.1", "198.51.100.2")
    assert verdict.anonymity is Anonymity.ELITE
    assert verdict.https is True
    assert verdict.judge is JudgeTrust.SIGNED
    assert (verdict.connect_ms, verdict.latency_ms) == (50.0, 250.1)
    assert verdict.failure is None
    assert verdict.blame is None


def test_one_failed_inspection_is_enough_and_later_ones_are_skipped() -> None:
    failed = Finding(
        step=CheckStep("second", CheckState.FAILED, "reset"),
        failure=FailureKind.FIRST_REQUEST_ONLY,
        intercepts_tls=True,
    )
    verdict = MAKER.examined(WHO, first(), [failed], NOON)
    assert not verdict.working
    assert verdict.failure is FailureKind.FIRST_REQUEST_ONLY
    assert verdict.intercepts_tls
    assert verdict.checks[-1] == CheckStep("anonymity", CheckState.SKIPPED)


def test_one_unsigned_answer_makes_the_verdict_unsigned() -> None:
    assert MAKER.examined(WHO, first(JudgeTrust.UNSIGNED), [], NOON).judge is JudgeTrust.UNSIGNED


def test_credentials_and_ipv6_are_in_the_url() -> None:
    who = Candidate(Endpoint("2001:db8::1", 1080, "me", "p@ss"))
    verdict = MAKER.failed(who, Protocol.SOCKS5, FailureKind.RESET, NOON)
    assert verdict.proxy == "socks5://me:p%40ss@[2001:db8::1]:1080"
