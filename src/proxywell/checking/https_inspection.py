"""Does TLS come through untouched? A tunnel to the https judge, its certificate verified."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from base64 import b64encode

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from proxywell.checking.ports import Answer, Finding, JudgeRequest, Sighting, Stream, Subject
from proxywell.model.clock import Clock
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.verdict import CheckState, CheckStep
from proxywell.protocols.head import HttpLimits
from proxywell.protocols.http import Answered, AnswerReader
from proxywell.protocols.machine import Refused

_READ_BYTES = 16_384
# OpenSSL's verification codes: X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED, and the mismatches
# of host name, e-mail and address.
_EXPIRED_CODES = frozenset({9, 10})
_NAME_CODES = frozenset({62, 63, 64})


class HttpsInspection:
    """A request to an https judge through a tunnel.

    A certificate that is not the judge's, while the judge shows its own on the direct path, is
    interception: the proxy is not called working. A proxy that opens no tunnel, or breaks TLS
    without showing a certificate, still works for plain http; ``https`` is False then.
    """

    name = "https"

    def __init__(
        self, clock: Clock, *, pins: tuple[str, ...], total_s: float, answer_max_bytes: int
    ) -> None:
        """Take limits.

        Args:
            clock: For signed times.
            pins: SHA-256 of SubjectPublicKeyInfo in base64, any of which the leaf must have;
                empty: the chain and the name are enough.
            total_s: Longest inspection.
            answer_max_bytes: Longest body of the judge's answer.
        """
        self._clock = clock
        self._pins = frozenset(pins)
        self._total_s = total_s
        self._limits = HttpLimits(body_max_bytes=answer_max_bytes)

    async def inspect(self, subject: Subject) -> Finding:
        """Open the tunnel, verify, ask, read."""
        request = subject.panel.request(https=True)
        context = subject.panel.https_context
        if request is None or context is None:
            reason = "no https judge" if context is None else "no https judge is well"
            return Finding(step=CheckStep(self.name, CheckState.UNAVAILABLE, reason=reason))
        first = subject.first.protocol
        protocol = Protocol.CONNECT if first is Protocol.HTTP else first
        begin_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._total_s):
                stream = await subject.tunnel(protocol, request.host, request.port)
                if isinstance(stream, FailureKind):
                    return await self._broken(subject, request, stream)
                try:
                    found = await self._through(stream, context, request)
                finally:
                    stream.close()
        except TimeoutError:
            found = FailureKind.ANSWER_TIMEOUT
        if isinstance(found, Sighting):
            took_ms = (self._clock.monotonic_s() - begin_s) * 1000
            step = CheckStep(self.name, CheckState.PASSED, target=request.judge, took_ms=took_ms)
            new = () if protocol is first else (protocol,)
            return Finding(step=step, sightings=(found,), protocols=new, https=True)
        return await self._broken(subject, request, found)

    async def _through(
        self, stream: Stream, context: ssl.SSLContext, request: JudgeRequest
    ) -> Sighting | FailureKind:
        try:
            await stream.start_tls(context, request.host)
            if not self._is_pinned(stream.peer_certificate()):
                return FailureKind.TLS_UNTRUSTED
            await stream.send(request.origin())
            answer = await self._answer(stream)
        except OSError as error:  # those of TLS and of time are among them
            return _what_happened(error)
        if isinstance(answer, FailureKind):
            return answer
        return request.read(answer, now_s=self._clock.now_s())

    async def _answer(self, stream: Stream) -> Answer | FailureKind:
        reader = AnswerReader(self._limits)
        while True:  # ends with the answer, the stream, a limit or the deadline
            data = await stream.receive(_READ_BYTES)
            step = reader.receive(data) if data else reader.ended()
            if isinstance(step, Answered):
                return step.answer
            if isinstance(step, Refused):
                return step.kind

    async def _broken(self, subject: Subject, request: JudgeRequest, kind: FailureKind) -> Finding:
        """Tell a proxy that intercepts from one that has no tunnels, and both from us."""
        if kind.blame is not Blame.PROXY or not await subject.panel.still_well(request.judge):
            step = CheckStep(
                self.name, CheckState.UNAVAILABLE, reason=kind.value, target=request.judge
            )
            return Finding(step=step)
        step = CheckStep(self.name, CheckState.FAILED, reason=kind.value, target=request.judge)
        if kind in _INTERCEPTION:
            return Finding(step=step, failure=kind, https=False, intercepts_tls=True)
        if kind is FailureKind.NOT_A_PROXY:
            return Finding(step=step, failure=kind, https=False)
        return Finding(step=step, https=False)

    def _is_pinned(self, leaf: bytes | None) -> bool:
        if not self._pins:
            return True
        if leaf is None:
            return False
        spki = (
            x509.load_der_x509_certificate(leaf)
            .public_key()
            .public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return b64encode(hashlib.sha256(spki).digest()).decode() in self._pins


_INTERCEPTION = frozenset(
    {FailureKind.TLS_UNTRUSTED, FailureKind.TLS_NAME, FailureKind.TLS_EXPIRED}
)


def _what_happened(error: OSError) -> FailureKind:
    match error:
        case ssl.SSLCertVerificationError(verify_code=code):
            if code in _EXPIRED_CODES:
                return FailureKind.TLS_EXPIRED
            return FailureKind.TLS_NAME if code in _NAME_CODES else FailureKind.TLS_UNTRUSTED
        case ssl.SSLError():
            return FailureKind.TLS_ALERT
        case TimeoutError():
            return FailureKind.ANSWER_TIMEOUT
        case _:
            return FailureKind.RESET
