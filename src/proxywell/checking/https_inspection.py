"""Does TLS come through untouched? A tunnel to the https judge, its certificate verified."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from base64 import b64encode

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from proxywell.checking.control import whole_answer
from proxywell.checking.judge import JudgeKind
from proxywell.checking.ports import Finding, JudgeRequest, Sighting, Stream, Subject
from proxywell.model.clock import Clock
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.verdict import CheckState, CheckStep
from proxywell.net.translate import Stage, failure_of
from proxywell.protocols.head import HttpLimits

_INTERCEPTION = frozenset(
    {FailureKind.TLS_UNTRUSTED, FailureKind.TLS_NAME, FailureKind.TLS_EXPIRED}
)


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
            pins: SHA-256 of SubjectPublicKeyInfo in base64, one of which the leaf of a judge of
                ours must have; empty: the chain and the name are enough.
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
        host = request.address if protocol is Protocol.SOCKS4 else request.host
        begin_s = self._clock.monotonic_s()
        shown: bytes | None = None
        found: Sighting | FailureKind
        try:
            async with asyncio.timeout(self._total_s):
                stream = await subject.tunnel(protocol, host, request.port)
                if isinstance(stream, FailureKind):
                    found = stream
                else:
                    try:
                        found = await self._through(stream, context, request)
                        shown = stream.peer_certificate()
                    finally:
                        stream.close()
        except TimeoutError:
            found = FailureKind.ANSWER_TIMEOUT
        if isinstance(found, Sighting):
            took_ms = round((self._clock.monotonic_s() - begin_s) * 1000, 1)
            step = CheckStep(self.name, CheckState.PASSED, target=request.judge, took_ms=took_ms)
            new = () if protocol is first else (protocol,)
            return Finding(step=step, sightings=(found,), protocols=new, https=True)
        return await self._broken(subject, request, found, shown)

    async def _through(
        self, stream: Stream, context: ssl.SSLContext, request: JudgeRequest
    ) -> Sighting | FailureKind:
        try:
            await stream.start_tls(context, request.host)
            if not self._is_pinned(request, stream.peer_certificate()):
                return FailureKind.TLS_UNTRUSTED
            await stream.send(request.origin())
            answer = await whole_answer(stream, self._limits)
        except OSError as error:  # those of TLS and of time are among them
            return failure_of(error, Stage.ANSWER)
        if isinstance(answer, FailureKind):
            return answer
        return request.read(answer.answer, now_s=self._clock.now_s())

    async def _broken(
        self, subject: Subject, request: JudgeRequest, kind: FailureKind, shown: bytes | None
    ) -> Finding:
        """Tell a proxy that intercepts from one that has no tunnels, and both from us."""
        if kind.blame is not Blame.PROXY or not await subject.panel.still_well(request.judge):
            return Finding(step=self._step(CheckState.UNAVAILABLE, request, kind))
        intercepts = kind in _INTERCEPTION
        if not intercepts:
            step = self._step(CheckState.FAILED, request, kind)
            ours = kind if kind is FailureKind.NOT_A_PROXY else None
            return Finding(step=step, failure=ours, https=False)
        evidence = None
        if shown is not None:
            evidence = f"shown certificate: SHA-256 {hashlib.sha256(shown).hexdigest()}"
        step = self._step(CheckState.FAILED, request, kind, evidence)
        return Finding(step=step, failure=kind, https=False, intercepts_tls=True)

    def _step(
        self,
        state: CheckState,
        request: JudgeRequest,
        kind: FailureKind,
        detail: str | None = None,
    ) -> CheckStep:
        return CheckStep(self.name, state, reason=kind.value, target=request.judge, detail=detail)

    def _is_pinned(self, request: JudgeRequest, leaf: bytes | None) -> bool:
        if not self._pins or not request.judge.startswith(f"{JudgeKind.PROXYWELL}:"):
            return True
        return leaf is not None and _spki_pin(leaf) in self._pins


def _spki_pin(leaf: bytes) -> str | None:
    try:
        key = x509.load_der_x509_certificate(leaf).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return b64encode(hashlib.sha256(spki).digest()).decode()
