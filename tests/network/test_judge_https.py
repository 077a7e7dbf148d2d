"""HTTPS through a proxy: a tunnel left alone, one that is intercepted, and none at all."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
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
    ProbeReport,
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
from tests.network.scripted import PATIENCE_S, Script, expect_end, scripted, serve_tls

GUARD = Guard(allow_private=True)
LOOPBACK = Listen("127.0.0.1", 0)
OURS = "127.0.0.2"


class DialledSubject:
    """A candidate whose tunnels are real."""

    def __init__(self, port: int, panel: Panel, first: Protocol = Protocol.HTTP) -> None:
        self.candidate = Candidate(Endpoint("127.0.0.1", port))
        self.panel = panel
        sighting = Sighting("127.0.0.1", (), "1.1", JudgeTrust.SIGNED)
        self.first = ProbeReport(first, None, sighting=sighting)
        self.examined: Examined = ()

    async def probe(self, protocol: Protocol, request: JudgeRequest) -> ProbeReport:
        raise AssertionError("the https inspection asks nothing in the clear")

    async def tunnel(self, protocol: Protocol, host: str, port: int) -> Stream | FailureKind:
        return await open_tunnel(
            self.candidate.endpoint, protocol, host, port,
            refusal=GUARD.refusal, source_address=OURS, connect_s=10, answer_s=10,
        )  # fmt: skip


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        assert part, "the request was cut"
        head += part
    return head


@contextmanager
def connect_proxy(behind: Script | None) -> Iterator[int]:
    """A CONNECT proxy that grants every tunnel; ``behind`` serves its end of it, None relays."""

    def script(connection: socket.socket) -> None:
        host, _, port = read_head(connection).split(b" ")[1].decode().rpartition(":")
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        if behind is not None:
            behind(connection)
            return
        with socket.create_connection((host, int(port))) as judge:
            relay(connection, judge)

    with scripted(script) as server:
        yield server.port


def relay(near: socket.socket, far: socket.socket) -> None:
    with suppress(ConnectionError):
        while True:  # until one of them closes
            for ready in select.select([near, far], [], [], PATIENCE_S)[0]:
                data = ready.recv(4096)
                if not data:
                    return
                (far if ready is near else near).sendall(data)


def intercepting(context: ssl.SSLContext) -> Script:
    def page(inside: socket.socket) -> None:
        with suppress(OSError, AssertionError):  # who does not trust it, leaves
            read_head(inside)
            inside.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    return lambda connection: serve_tls(connection, context, page)


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
    with connect_proxy(None) as port:
        async with panel_with_https(tmp_path, certificate) as panel:
            found = await inspect(port, panel, certificate.spki_pin)
            again = await inspect(port, panel, first=Protocol.CONNECT)
    assert found.https is True
    assert found.failure is None
    assert found.step.state is CheckState.PASSED
    assert found.protocols == (Protocol.CONNECT,)  # the first one was plain forwarding
    assert [(one.inside_tls, one.trust, one.exit_ip) for one in found.sightings] == [
        (True, JudgeTrust.SIGNED, "127.0.0.1")
    ]
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
    with connect_proxy(intercepting(context)) as port:
        async with panel_with_https(tmp_path, certificate, *anchors) as panel:
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
    anchor = authority.cert_pem.bytes()
    with connect_proxy(intercepting(context)) as port:
        async with panel_with_https(tmp_path, certificate, anchor) as panel:
            found = await inspect(port, panel, certificate.spki_pin)
            unpinned = await inspect(port, panel)
    assert found.intercepts_tls is True
    assert found.failure is FailureKind.TLS_UNTRUSTED
    assert unpinned.https is False  # the signature still tells a forged page
    assert unpinned.step.reason == FailureKind.WRONG_ANSWER.value


def says(data: bytes) -> Script:
    return lambda connection: connection.sendall(data)


def refuses(data: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(data)

    return script


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 405 No\r\n\r\n", b""],
)
async def test_a_proxy_that_refuses_tunnels_still_works_for_plain_http(
    tmp_path: Path, certificate: Certificate, answer: bytes
) -> None:
    with scripted(refuses(answer)) as server:
        async with panel_with_https(tmp_path, certificate) as panel:
            plain_only(await inspect(server.port, panel))


@pytest.mark.parametrize(
    "junk", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x03\x00\x02\x02\x28"]
)
async def test_a_tunnel_that_breaks_without_a_certificate_is_no_interception(
    tmp_path: Path, certificate: Certificate, junk: bytes
) -> None:
    with connect_proxy(says(junk)) as port:
        async with panel_with_https(tmp_path, certificate) as panel:
            plain_only(await inspect(port, panel))


def plain_only(found: Finding) -> None:
    assert found.https is False
    assert found.failure is None
    assert found.intercepts_tls is not True
    assert found.step.state is CheckState.FAILED


async def test_when_the_judge_shows_another_certificate_itself_the_proxy_is_not_accused(
    tmp_path: Path, certificate: Certificate
) -> None:
    async def unwell(judge: str) -> bool:
        return False

    with connect_proxy(intercepting(interceptor(trustme.CA(), "127.0.0.1"))) as port:
        async with panel_with_https(tmp_path, certificate) as panel:
            panel.still_well = unwell  # type: ignore[method-assign]  # it was changed meanwhile
            found = await inspect(port, panel)
    assert found.step.state is CheckState.UNAVAILABLE
    assert found.https is None
    assert found.intercepts_tls is None
    assert found.failure is None


async def test_a_tunnel_that_goes_silent_ends_at_the_limit(
    tmp_path: Path, certificate: Certificate
) -> None:
    with connect_proxy(expect_end) as port:
        async with panel_with_https(tmp_path, certificate) as panel:
            found = await inspection(total_s=0.3).inspect(DialledSubject(port, panel))
    assert found.step.reason == FailureKind.ANSWER_TIMEOUT.value
    assert found.https is False
