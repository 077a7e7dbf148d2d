"""What all probes of one candidate in one pass amount to."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from proxywell.model.endpoint import Protocol
from proxywell.model.failure import Blame, FailureKind


class Anonymity(StrEnum):
    """What the target learns about us through a proxy (decision table in checking/anonymity)."""

    ELITE = "elite"
    ANONYMOUS = "anonymous"  # marks of a proxy, or a false address, but not ours
    TRANSPARENT = "transparent"  # an address of ours arrived
    UNKNOWN = "unknown"  # only seen inside TLS, or our own address is not known


class CheckState(StrEnum):
    """How one check of a verdict ended; a check that did not run is never ``passed``."""

    PASSED = "passed"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"  # its target was unwell or is not configured
    SKIPPED = "skipped"


class JudgeTrust(StrEnum):
    """Whether the judge's answer was signed with a key that we know."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"


class CheckStep(Struct, frozen=True, gc=False):
    """One check within a verdict.

    Attributes:
        name: ``reach``, ``handshake``, ``judge``, ``second``, ``https``, ``anonymity``, ...
        state: How it ended.
        reason: Why it is not passed; a FailureKind's text where one fits.
        target: What was asked, without secrets.
        took_ms: How long it took; None when it did not run.
        detail: What was found, in a few words; None when there is nothing to add.
    """

    name: str
    state: CheckState
    reason: str | None = None
    target: str | None = None
    took_ms: float | None = None
    detail: str | None = None


class Verdict(Struct, frozen=True, kw_only=True):
    """The outcome for one candidate; field names are the public contract.

    Attributes:
        proxy: The URL that a client pastes, credentials included.
        host, port: The endpoint.
        protocol: The best protocol that works, else the one that got furthest; None if none was
            tried.
        protocols: All protocols that work, best first.
        working: True only if every required check passed.
        failure, blame: Both None when working; blame other than ``proxy`` means inconclusive.
        exit_ip, exit_ips: The last and all addresses that judges saw us come from.
        tampering: Class of a changed answer, or None.
        intercepts_tls: True when a certificate that is not the judge's was shown.
        https: True when a TLS tunnel came through untouched; None when that was not tested.
        latency_ms: Connect to whole answer of the judge, milliseconds.
        connect_ms: TCP connect alone, milliseconds.
        checked_at: When the verdict was reached, UTC.
        checks: One entry per check that exists, in order.
    """

    proxy: str
    host: str
    port: int
    protocol: Protocol | None
    working: bool
    checked_at: datetime
    failure: FailureKind | None = None
    blame: Blame | None = None
    protocols: tuple[Protocol, ...] = ()
    anonymity: Anonymity = Anonymity.UNKNOWN
    exit_ip: str | None = None
    exit_ips: tuple[str, ...] = ()
    tampering: str | None = None
    intercepts_tls: bool = False
    https: bool | None = None
    latency_ms: float | None = None
    connect_ms: float | None = None
    judge: JudgeTrust = JudgeTrust.UNSIGNED
    checks: tuple[CheckStep, ...] = ()

    @property
    def inconclusive(self) -> bool:
        """True when nothing was learnt about the proxy: the judge or we were at fault."""
        return not self.working and self.blame is not Blame.PROXY
