"""One protocol tried on one candidate: from the connect to the judge's answer, believed or not."""

from __future__ import annotations

import re
from typing import Protocol as Port

from proxywell.checking.ports import JudgeRequest, ProbeReport, Sighting
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.net.conversation import Conversation
from proxywell.protocols.handshakes import handshake
from proxywell.protocols.head import HttpLimits
from proxywell.protocols.http import Answered, AnswerReader, Reading
from proxywell.protocols.machine import Established, Handshake, NeedMore, Refused
from proxywell.protocols.request import with_proxy_credentials

_PROXY_AUTHENTICATION_REQUIRED = 407
# A status that no believable answer has: no more of it needs to be read.
_STATUS = re.compile(rb"HTTP/1\.[01] ((?!200)[2-5][0-9][0-9])[ \r\n]")


class ProbeOwner(Port):
    """Whoever wants to know how a probe ends; each ends with one call, unless it is cancelled."""

    def next_request(self) -> JudgeRequest | None:
        """A request to a judge, asked for when the connection stands; None if there is none."""
        ...

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        ...

    def probe_over(self, probe: Probe, now_s: float) -> None:
        """``kind``, ``detail`` and ``sighting`` say how it ended."""
        ...

    def probe_without_judge(self, probe: Probe, now_s: float) -> None:
        """It connected, there was no request to be had, and it hung up."""
        ...

    def probe_late(self, probe: Probe, now_s: float) -> None:
        """Not a byte came within the soft time; it goes on. The only call that ends nothing."""
        ...

    def probe_deferred(self, probe: Probe, now_s: float) -> None:
        """Somebody waited for its socket."""
        ...

    def probe_broke(self, probe: Probe, error: Exception, now_s: float) -> None:
        """A bug of ours."""
        ...


class Probe(Conversation):
    """A connection, a handshake where the protocol has one, a request, an answer.

    Args:
        owner: Told once how it ended.
        endpoint: The candidate, for its port and credentials.
        host: The address to connect to.
        protocol: What to try.
        limits: How much of an answer is read.
        patient, guess: As for every conversation.
        request: What to ask the judge; None: ask the owner for one once it is connected.

    Attributes:
        kind: The failure, once it is over; None if the answer was believed.
        detail: Status, reply code or first byte behind the failure.
        sighting: What the judge saw, if the answer was believed.
        tunnel: The handshake was completed; for a forwarded request it counts as soon as the
            answer is HTTP.
        connect_ms, latency_ms: As in ProbeReport.
        took_ms: From the connect's begin to the probe's end.
    """

    __slots__ = (
        "_endpoint",
        "_limits",
        "_machine",
        "_owner",
        "_reader",
        "connect_ms",
        "detail",
        "kind",
        "latency_ms",
        "protocol",
        "request",
        "sighting",
        "took_ms",
        "tunnel",
    )

    def __init__(
        self,
        owner: ProbeOwner,
        endpoint: Endpoint,
        host: str,
        protocol: Protocol,
        limits: HttpLimits,
        *,
        patient: bool,
        guess: bool = False,
        request: JudgeRequest | None = None,
    ) -> None:
        Conversation.__init__(self, host, endpoint.port, patient=patient, guess=guess)
        self._owner = owner
        self._endpoint = endpoint
        self.protocol = protocol
        self._limits = limits
        self._machine: Handshake | None = None
        self._reader: AnswerReader | None = None
        self.request = request
        self.kind: FailureKind | None = None
        self.detail: int | None = None
        self.sighting: Sighting | None = None
        self.tunnel = False
        self.connect_ms: float | None = None
        self.latency_ms: float | None = None
        self.took_ms = 0.0

    def outcome(self) -> ProbeReport:
        """Give the probe as a value, once it is over."""
        return ProbeReport(
            protocol=self.protocol,
            failure=self.kind,
            detail=self.detail,
            sighting=self.sighting,
            request=self.request,
            connect_ms=self.connect_ms,
            latency_ms=None if self.latency_ms is None else round(self.latency_ms, 1),
        )

    # --- called by the reactor

    def connected(self, now_s: float) -> bytes | None:
        """Choose what to ask, and begin."""
        self.connect_ms = 1_000 * (now_s - self.opened_s)
        if self.request is None:
            self.request = self._owner.next_request()
            if self.request is None:
                return None
        if self.protocol is Protocol.HTTP:
            self._reader = AnswerReader(self._limits)
            endpoint, asked = self._endpoint, self.request.absolute()
            if endpoint.user is None:
                return asked
            return with_proxy_credentials(asked, endpoint.user, endpoint.password or "")
        if self.protocol is Protocol.SOCKS4 and not _is_ipv4(self.request.address):
            self.protocol = Protocol.SOCKS4A  # plain SOCKS4 cannot name such a judge
        request = self.request
        host = request.address if self.protocol is Protocol.SOCKS4 else request.host
        self._machine = handshake(self._endpoint, self.protocol, host, request.port)
        return self._machine.opening

    def received(self, data: bytes, now_s: float) -> bytes | None:
        """Feed the handshake, then the answer."""
        machine = self._machine
        if machine is None:
            return self._read(data, now_s)
        step = machine.receive(data)
        if isinstance(step, NeedMore):
            return step.send
        if isinstance(step, Refused):
            self.kind, self.detail = step.kind, step.detail
            return None
        return self._enter_tunnel(step, now_s)

    def finished(self, now_s: float) -> None:
        """All is known, or there was nothing to ask."""
        self.took_ms = 1_000 * (now_s - self.opened_s)
        if self.kind is None and self.sighting is None:
            self._owner.probe_without_judge(self, now_s)
        else:
            self._owner.probe_over(self, now_s)

    def ended(self, now_s: float) -> None:
        """The end of the stream may be the end of the answer."""
        machine, reader = self._machine, self._reader
        if machine is not None:
            step = machine.ended()
            self.kind = FailureKind.EOF_EARLY
            if isinstance(step, Refused):
                self.kind, self.detail = step.kind, step.detail
        else:
            assert reader is not None, "a stream ended before it was asked anything"
            self._take(reader.ended(), now_s)
        self.took_ms = 1_000 * (now_s - self.opened_s)
        self._owner.probe_over(self, now_s)

    def failed(self, kind: FailureKind | None, now_s: float) -> None:
        """The connection failed, or the answer's time is over."""
        if kind is None:
            reader = self._reader
            if reader is None:
                kind = FailureKind.HANDSHAKE_TIMEOUT
            elif reader.in_body:
                kind = FailureKind.BODY_STALLED
            else:
                kind = FailureKind.ANSWER_TIMEOUT
        self.kind = kind
        if self.opened_s:
            self.took_ms = 1_000 * (now_s - self.opened_s)
        self._owner.probe_over(self, now_s)

    def late(self, now_s: float) -> None:
        """Not a byte within the soft time."""
        self._owner.probe_late(self, now_s)

    def deferred(self, now_s: float) -> None:
        """Somebody waited for the socket."""
        self._owner.probe_deferred(self, now_s)

    def broke(self, error: Exception, now_s: float) -> None:
        """One of these methods raised."""
        self.kind = FailureKind.INTERNAL
        self._owner.probe_broke(self, error, now_s)

    # --- the answer

    def _enter_tunnel(self, step: Established, now_s: float) -> bytes | None:
        request = self.request
        assert request is not None, "a tunnel without anything to ask through it"
        self._machine = None
        self.tunnel = True
        self._reader = AnswerReader(self._limits)
        if step.leftover and self._read(step.leftover, now_s) is None:
            return None
        return step.send + request.origin()

    def _read(self, data: bytes, now_s: float) -> bytes | None:
        reader = self._reader
        assert reader is not None, "an answer before anything was asked"
        early_no = reader.status is None and _STATUS.match(data)
        if early_no:
            self.tunnel = True
            self.detail = int(early_no[1])
            login = self.detail == _PROXY_AUTHENTICATION_REQUIRED
            self.kind = FailureKind.AUTH_REQUIRED if login else FailureKind.HTTP_STATUS
            return None
        reading = reader.receive(data)
        if isinstance(reading, NeedMore):
            return b""
        self._take(reading, now_s)
        return None

    def _take(self, reading: Reading, now_s: float) -> None:
        if isinstance(reading, Answered):
            assert self.request is not None, "an answer to nothing"
            self.tunnel = True
            self.detail = reading.answer.status
            believed = self.request.read(reading.answer, now_s=self._owner.wall_s())
            if isinstance(believed, Sighting):
                self.sighting = believed
                self.detail = None
                self.latency_ms = 1_000 * (now_s - self.opened_s)
            else:
                self.kind = believed
        elif isinstance(reading, Refused):
            self.kind, self.detail = reading.kind, reading.detail
        else:
            self.kind = FailureKind.EOF_EARLY


def _is_ipv4(address: str) -> bool:
    return address.replace(".", "").isdigit()
