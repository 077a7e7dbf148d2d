"""HTTPS through a proxy: a tunnel left alone, one that is intercepted, and none at all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from proxywell.checking.https_inspection import HttpsInspection
from proxywell.checking.judges import Judges
from proxywell.checking.ports import (
    Examined,
    Finding,
    JudgeRequest,
    Panel,
    ProbeResult,
    Sighting,
    Stream,
)
from proxywell.config.schema import JudgeSettings, NetworkSettings
from proxywell.judge.certificate import Certificate, make_certificate
from proxywell.judge.server import JudgeServer, Listen
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import CheckState, JudgeTrust
from proxywell.net.dial import open_tunnel
from proxywell.net.guard import Guard

GUARD = Guard(allow_private=True)
LOOPBACK = Listen("127.0.0.1", 0)
OURS = "127.0.0.2"


class DialledSubject:
    """A candidate whose tunnels are real."""

    def __init__(self, port: int, panel: Panel, first: Protocol = Protocol.HTTP) -> None:
        self.candidate = Candidate(Endpoint("127.0.0.1", port))
        self.panel = panel
        sighting = Sighting("127.0.0.1", (), "1.1", JudgeTrust.SIGNED)
        self.first = ProbeResult(first, None, sighting=sighting)
        self.examined: Examined = ()

    async def probe(self, protocol: Protocol, request: JudgeRequest) -> ProbeResult:
        raise AssertionError("the https inspection asks nothing in the clear")

    async def tunnel(self, protocol: Protocol, host: str, port: int) -> Stream | FailureKind:
        return await open_tunnel(
            self.candidate.endpoint, protocol, host, port,
            refusal=GUARD.refusal, source_address=OURS, connect_s=10, answer_s=10,
        )  # fmt: skip


@asynccontextmanager
async def connect_proxy(
    *,
    intercept: ssl.SSLContext | None = None,
    refuse: bytes | None = None,
    junk: bytes | None = None,
) -> AsyncIterator[int]:
    """A CONNECT proxy that relays, or puts itself between, or says no, or sends junk."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if refuse is not None:
                writer.write(refuse)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await writer.drain()
                if junk is not None:
                    writer.write(junk)
                elif intercept is not None:
                    await writer.start_tls(intercept)
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                else:
                    host, _, port = head.split(b" ")[1].decode().rpartition(":")
                    await relay(reader, writer, host, int(port))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> None:
    far_reader, far_writer = await asyncio.open_connection(host, port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(4096):
                sink.write(data)
                await sink.drain()
            sink.write_eof()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
    far_writer.close()


@asynccontextmanager
async def panel_with_https(
    place: Path, certificate: Certificate, *anchors: bytes
) -> AsyncIterator[Judges]:
    ca_file = place / "ca.pem"
    ca_file.write_bytes(certificate.anchor_pem + b"".join(anchors))
    async with JudgeServer(
        http=[LOOPBACK], https=[LOOPBACK], tls=certificate.server_context()
    ) as server:
        specs = [f"proxywell:{url}" for url in (*server.http_urls, *server.https_urls)]
        settings = JudgeSettings(ca_file=str(ca_file), public_keys=(server.public_key,))
        async with Judges(specs, settings, NetworkSettings(), GUARD, source_address=OURS) as panel:
            yield panel


def inspection(*pins: str, total_s: float = 15.0) -> HttpsInspection:
    return HttpsInspection(SystemClock(), pins=pins, total_s=total_s, answer_max_bytes=16_384)


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return make_certificate(["127.0.0.1"])


def interceptor(authority: trustme.CA, name: str, *, expired: bool = False) -> ssl.SSLContext:
    until = datetime.now(UTC) - timedelta(days=1) if expired else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_after=until).configure_cert(context)
    return context


async def inspect(port: int, panel: Panel, *pins: str, first: Protocol = Protocol.HTTP) -> Finding:
    return await inspection(*pins).inspect(DialledSubject(port, panel, first))


async def test_a_tunnel_that_is_left_alone_passes(tmp_path: Path, certificate: Certificate) -> None:
    async with panel_with_https(tmp_path, certificate) as panel, connect_proxy() as port:
        found = await inspect(port, panel, certificate.spki_pin)
        assert found.https is True
        assert found.failure is None
        assert found.step.state is CheckState.PASSED
        assert found.protocols == (Protocol.CONNECT,)  # the first one was plain forwarding
        assert [(one.inside_tls, one.trust, one.exit_ip) for one in found.sightings] == [
            (True, JudgeTrust.SIGNED, "127.0.0.1")
        ]
        again = await inspect(port, panel, first=Protocol.CONNECT)
        assert again.protocols == ()


@pytest.mark.parametrize(
    ("trusted", "name", "expired", "kind"),
    [
        (False, "127.0.0.1", False, FailureKind.TLS_UNTRUSTED),
        (True, "other.test", False, FailureKind.TLS_NAME),
        (True, "127.0.0.1", True, FailureKind.TLS_EXPIRED),
    ],
)
async def test_another_certificate_is_interception_with_its_evidence(
    *,
    tmp_path: Path,
    certificate: Certificate,
    trusted: bool,
    name: str,
    expired: bool,
    kind: FailureKind,
) -> None:
    authority = trustme.CA()
    anchors = [authority.cert_pem.bytes()] if trusted else []
    context = interceptor(authority, name, expired=expired)
    async with (
        panel_with_https(tmp_path, certificate, *anchors) as panel,
        connect_proxy(intercept=context) as port,
    ):
        found = await inspect(port, panel)
        assert found.intercepts_tls is True
        assert found.failure is kind
        assert found.https is False
        assert found.step.state is CheckState.FAILED
        assert found.step.detail is not None
        assert "SHA-256" in found.step.detail


async def test_a_trusted_interceptor_is_found_by_the_pin(
    tmp_path: Path, certificate: Certificate
) -> None:
    authority = trustme.CA()
    context = interceptor(authority, "127.0.0.1")
    async with (
        panel_with_https(tmp_path, certificate, authority.cert_pem.bytes()) as panel,
        connect_proxy(intercept=context) as port,
    ):
        found = await inspect(port, panel, certificate.spki_pin)
        assert found.intercepts_tls is True
        assert found.failure is FailureKind.TLS_UNTRUSTED
        unpinned = await inspect(port, panel)  # then the signature still tells a forged page
        assert unpinned.https is False
        assert unpinned.step.reason == FailureKind.WRONG_ANSWER.value


@pytest.mark.parametrize(
    ("refuse", "junk"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 405 Method Not Allowed\r\n\r\n", None),
        (b"", None),
        (None, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        (None, b""),
        (None, b"\x15\x03\x03\x00\x02\x02\x28"),
    ],
)
async def test_a_proxy_without_tunnels_still_works_for_plain_http(
    tmp_path: Path, certificate: Certificate, refuse: bytes | None, junk: bytes | None
) -> None:
    async with (
        panel_with_https(tmp_path, certificate) as panel,
        connect_proxy(refuse=refuse, junk=junk) as port,
    ):
        found = await inspect(port, panel)
        assert found.https is False
        assert found.failure is None
        assert found.intercepts_tls is not True
        assert found.step.state is CheckState.FAILED


async def test_when_the_judge_shows_another_certificate_itself_the_proxy_is_not_accused(
    tmp_path: Path, certificate: Certificate
) -> None:
    async with panel_with_https(tmp_path, certificate) as panel:
        context = interceptor(trustme.CA(), "127.0.0.1")
        async with connect_proxy(intercept=context) as port:

            async def unwell(judge: str) -> bool:
                return False

            panel.still_well = unwell  # type: ignore[method-assign]  # it was changed meanwhile
            found = await inspect(port, panel)
            assert found.step.state is CheckState.UNAVAILABLE
            assert found.https is None
            assert found.intercepts_tls is None
            assert found.failure is None


async def test_a_tunnel_that_goes_silent_ends_at_the_limit(
    tmp_path: Path, certificate: Certificate
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with panel_with_https(tmp_path, certificate) as panel:
        limited = inspection(total_s=0.3)
        found = await limited.inspect(DialledSubject(port, panel))
        assert found.step.reason == FailureKind.ANSWER_TIMEOUT.value
        assert found.https is False
    server.close()
