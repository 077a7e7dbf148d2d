"""Candidates, verdicts and clocks for tests of the pool."""

from __future__ import annotations

from datetime import UTC, datetime

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import Anonymity, CheckState, CheckStep, JudgeTrust, Verdict

NOON_S = 1_700_000_000.0


class SetClock:
    """A clock that stands where it was put."""

    def __init__(self, at_s: float = NOON_S) -> None:
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s


def endpoint(number: int, *, user: str | None = None, password: str | None = None) -> Endpoint:
    """The endpoint with a number: 1.0.0.1:8080 and on."""
    address = 0x01000000 + number
    host = ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
    return Endpoint(host, 8080, user, password)


def candidate(number: int, *sources: str) -> Candidate:
    return Candidate(endpoint(number), (), sources)


def passed(
    whom: Endpoint,
    *,
    at_s: float = NOON_S,
    protocols: tuple[Protocol, ...] = (Protocol.SOCKS5,),
    latency_ms: float | None = 800.0,
    anonymity: Anonymity = Anonymity.ELITE,
    exit_ip: str | None = None,
    tampering: str | None = None,
) -> Verdict:
    return Verdict(
        proxy=whom.url(protocols[0]),
        host=whom.host,
        port=whom.port,
        protocol=protocols[0],
        protocols=protocols,
        working=True,
        checked_at=datetime.fromtimestamp(at_s, UTC),
        anonymity=anonymity,
        exit_ip=exit_ip or whom.host,
        exit_ips=(exit_ip or whom.host,),
        tampering=tampering,
        https=True,
        latency_ms=latency_ms,
        connect_ms=20.0,
        judge=JudgeTrust.SIGNED,
        checks=(CheckStep("reach", CheckState.PASSED, None, None, 20.0),),
    )


def failed(
    whom: Endpoint,
    *,
    at_s: float = NOON_S,
    kind: FailureKind = FailureKind.CONNECT_TIMEOUT,
    tampering: str | None = None,
    intercepts_tls: bool = False,
) -> Verdict:
    return Verdict(
        proxy=whom.url(Protocol.HTTP),
        host=whom.host,
        port=whom.port,
        protocol=Protocol.HTTP,
        working=False,
        checked_at=datetime.fromtimestamp(at_s, UTC),
        failure=kind,
        blame=kind.blame,
        tampering=tampering,
        intercepts_tls=intercepts_tls,
        checks=(
            CheckStep("reach", CheckState.FAILED, kind.value, None, 8_000.0),
            CheckStep("handshake", CheckState.SKIPPED),
        ),
    )
