"""The seams inside the checking room: probes, sightings of the judge, inspections.

Stage 1 sends everybody one plain request to a judge. Whoever passes goes through the list of
inspections (stage 2); later checks join by being added to that list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias
from typing import Protocol as Port

from msgspec import Struct

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import Anonymity, CheckStep, JudgeTrust
from proxywell.protocols.http import HttpAnswer

Answer: TypeAlias = HttpAnswer  # one whole HTTP answer within its limits


if TYPE_CHECKING:
    import ssl  # rules that use these types stay pure


class Baseline(Struct, frozen=True):
    """What the direct path to a judge adds, so that it is not held against a proxy.

    A load balancer in front of the judge, or a forwarding device on our side, adds headers to
    direct requests as well.

    Attributes:
        fixed: Added names (lower case) and values that direct requests share; the address
            that the judge saw is written as ``{peer}``.
        volatile: Added names (lower case) whose value changes from one direct request to the
            next.
    """

    fixed: tuple[tuple[str, str], ...] = ()
    volatile: frozenset[str] = frozenset()


class Sighting(Struct, frozen=True):
    """What a judge saw of one request: the answer after it was believed.

    Attributes:
        exit_ip: Canonical text of the address that the judge saw; empty if it cannot know it
            (httpbin shows what a proxy claims in its place).
        headers: What arrived, in order where the judge tells it; None if it does not tell.
        http_version: "1.1" or "1.0" as it arrived; None if the judge does not tell.
        trust: Signed or not.
        inside_tls: True if the proxy could not have touched the headers.
        sent: What was sent, to be compared with ``headers``.
        baseline: What this judge sees added without any proxy.
    """

    exit_ip: str
    headers: tuple[tuple[str, str], ...] | None
    http_version: str | None
    trust: JudgeTrust
    inside_tls: bool = False
    sent: tuple[tuple[str, str], ...] = ()
    baseline: Baseline = Baseline()


class JudgeRequest(Port):
    """One request to one judge, good for one use (it carries its own nonce)."""

    @property
    def judge(self) -> str:
        """The judge as the user wrote it (``KIND:URL``), for ``CheckStep.target``."""
        ...

    @property
    def host(self) -> str:
        """Host name or address to connect to through a tunnel."""
        ...

    @property
    def address(self) -> str:
        """An IPv4 address of the host for SOCKS4, else the host again."""
        ...

    @property
    def port(self) -> int:
        """1 to 65535."""
        ...

    @property
    def sent_headers(self) -> tuple[tuple[str, str], ...]:
        """What is sent, so that it can be compared with what arrived."""
        ...

    def absolute(self) -> bytes:
        """The whole request for a forward proxy (absolute form)."""
        ...

    def origin(self) -> bytes:
        """The whole request for inside a tunnel (origin form)."""
        ...

    def read(self, answer: Answer, *, now_s: float) -> Sighting | FailureKind:
        """Believe the answer or say what is wrong with it; never raises on its bytes."""
        ...


class Panel(Port):
    """All judges of one checker, their health, and our own addresses as they see them."""

    @property
    def own_addresses(self) -> frozenset[str]:
        """Canonical addresses that are ours; empty if not known."""
        ...

    @property
    def https_context(self) -> ssl.SSLContext | None:
        """What verifies an https judge's certificate; None when no judge speaks https."""
        ...

    def request(
        self, *, avoid: str | None = None, https: bool = False, ipv6: bool = False
    ) -> JudgeRequest | None:
        """A fresh request to a judge that is well, if one can be had within its rate.

        Args:
            avoid: A judge (``KIND:URL``) not to use if there is another one.
            https: A request to be sent inside TLS.
            ipv6: The proxy reaches only IPv6.

        Returns:
            None when no judge is well, or none allows another request now.
        """
        ...

    def unwell_since_s(self) -> float | None:
        """Monotonic instant since when no judge answers us directly; None while one does."""
        ...

    def well_at_s(self) -> float | None:
        """Monotonic instant of the last direct request that a judge answered; None if none."""
        ...

    def control_latency_s(self) -> float | None:
        """How long the latest direct request took, whole answer included; None if unknown."""
        ...

    def doubt(self) -> None:
        """Ask for a direct control request soon; cheap, and harmless however often it is called.

        The checker calls it when probes fail at the judge and nothing shows that the judge is
        well; the panel decides how often it really asks.
        """
        ...

    async def still_well(self, judge: str) -> bool:
        """Whether the judge (``KIND:URL``) answers us directly now, or did a moment ago."""
        ...


class ProbeReport(Struct, frozen=True, gc=False):
    """One protocol tried on one candidate.

    Attributes:
        protocol: What was tried.
        failure: None if the judge's answer was believed.
        detail: Status, reply code or first byte behind the failure.
        sighting: What the judge saw; None on failure.
        request: What was asked; None if the probe never got so far.
        connect_ms: TCP connect alone; None if it never stood.
        latency_ms: Connect to whole answer; None on failure.
    """

    protocol: Protocol
    failure: FailureKind | None
    detail: int | None = None
    sighting: Sighting | None = None
    request: JudgeRequest | None = None
    connect_ms: float | None = None
    latency_ms: float | None = None


class Stream(Port):
    """A byte stream through a proxy, perhaps inside TLS. Every wait ends at the deadline."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        ...

    async def receive(self, max_bytes: int) -> bytes:
        """What is there, at most ``max_bytes``; empty at the end of the stream."""
        ...

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Shake hands; raises ssl.SSLError with the certificate's fault."""
        ...

    def peer_certificate(self) -> bytes | None:
        """The leaf in DER, also after a failed verification where it was seen."""
        ...

    def close(self) -> None:
        """Close at once; works twice."""
        ...


class Finding(Struct, frozen=True, kw_only=True):
    """What one inspection found; every field but ``step`` only says what it knows.

    Attributes:
        step: The entry for the verdict's ``checks``.
        failure: Set if the proxy must not be called working because of it.
        sightings: What judges saw meanwhile (exit addresses are gathered from them).
        protocols: Further protocols that were shown to work.
        anonymity, https, tampering, intercepts_tls: As in Verdict; None where not examined.
    """

    step: CheckStep
    failure: FailureKind | None = None
    sightings: tuple[Sighting, ...] = ()
    protocols: tuple[Protocol, ...] = ()
    anonymity: Anonymity | None = None
    https: bool | None = None
    tampering: str | None = None
    intercepts_tls: bool | None = None


Examined: TypeAlias = tuple[Finding, ...]


class Subject(Port):
    """A candidate that passed stage 1, as an inspection sees it."""

    @property
    def candidate(self) -> Candidate:
        """Whom it is about."""
        ...

    @property
    def first(self) -> ProbeReport:
        """The stage 1 probe that passed."""
        ...

    @property
    def panel(self) -> Panel:
        """The judges."""
        ...

    @property
    def examined(self) -> Examined:
        """What earlier inspections of this check found, in their order."""
        ...

    async def probe(self, protocol: Protocol, request: JudgeRequest) -> ProbeReport:
        """One more plain request through the proxy, on the reactor."""
        ...

    async def tunnel(self, protocol: Protocol, host: str, port: int) -> Stream | FailureKind:
        """A tunnel to the host through the proxy, with the checker's time-outs."""
        ...


class Inspection(Port):
    """One check of stage 2."""

    @property
    def name(self) -> str:
        """The name in the verdict's ``checks``."""
        ...

    async def inspect(self, subject: Subject) -> Finding:
        """Examine; never raises on the proxy's or the judge's doing."""
        ...
