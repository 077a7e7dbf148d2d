"""Tunnels through proxies that others wrote, with TLS to the far end verified inside."""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.net.dial import open_tunnel
from proxywell.net.stream import ProxyStream
from proxywell.net.translate import Stage, failure_of
from tests.network.conftest import Run
from tests.network.scripted import Script, expect, scripted, serve_tls
from tests.network.third_party import PEERS, Peer, free_port, running
from tests.network.tunnels import AMPLE_S, allow_all

TUNNELS = frozenset({Protocol.CONNECT, Protocol.SOCKS4, Protocol.SOCKS4A, Protocol.SOCKS5})
REASONS = {
    FailureKind.HTTP_STATUS,
    FailureKind.SOCKS_REFUSED,
    FailureKind.EOF_EARLY,
    FailureKind.RESET,
    FailureKind.TLS_ALERT,  # it said yes before it had tried
}
PEERS_WITH_TUNNELS = [peer for peer in PEERS if peer.protocols & TUNNELS]
AUTHORITY = trustme.CA()


def judge() -> Script:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)

    def inside(connection: socket.socket) -> None:
        expect(connection, b"question")
        connection.sendall(b"answer")

    return lambda connection: serve_tls(connection, context, inside)


async def ask(proxy_port: int, protocol: Protocol, port: int) -> bytes | FailureKind:
    stream = await open_tunnel(
        Endpoint("127.0.0.1", proxy_port),
        protocol,
        "127.0.0.1",
        port,
        refusal=allow_all,
        connect_s=AMPLE_S,
        answer_s=AMPLE_S,
    )
    if not isinstance(stream, ProxyStream):
        return stream
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    try:
        await stream.start_tls(context, "127.0.0.1")
        await stream.send(b"question")
        return await stream.receive(100)
    except OSError as error:
        return failure_of(error, Stage.HANDSHAKE)
    finally:
        stream.close()


@dataclass(frozen=True)
class Started:
    """A peer that runs."""

    port: int
    tunnels: frozenset[Protocol]


@pytest.fixture(scope="module", params=PEERS_WITH_TUNNELS, ids=lambda peer: peer.name)
def proxy(request: pytest.FixtureRequest) -> Iterator[Started]:
    """Each peer that is installed, in a directory that an unprivileged process can reach."""
    peer: Peer = request.param
    program = peer.found()
    if program is None:
        pytest.skip(f"{peer.name} is not installed: {peer.install_line}")
    with (
        tempfile.TemporaryDirectory(prefix="proxywell-peer-") as home,
        running(peer, program, Path(home)) as port,
    ):
        yield Started(port, peer.protocols & TUNNELS)


async def ask_all(proxy: Started, port: int) -> dict[Protocol, bytes | FailureKind]:
    return {protocol: await ask(proxy.port, protocol, port) for protocol in sorted(proxy.tunnels)}


def test_every_tunnel_that_a_real_proxy_offers_carries_verified_tls(
    run: Run, proxy: Started
) -> None:
    with scripted(judge()) as server:
        answers = run(ask_all(proxy, server.port))
    assert answers == dict.fromkeys(proxy.tunnels, b"answer")


def test_a_real_proxy_that_reaches_nobody_gives_a_reason_and_no_stream(
    run: Run, proxy: Started
) -> None:
    answers = run(ask_all(proxy, free_port()))
    assert answers.keys() == proxy.tunnels
    for answer in answers.values():
        assert answer in REASONS
