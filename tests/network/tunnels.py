"""What tests of tunnels share: dialling with ample limits, and proxies that do it right."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.net.dial import open_tunnel
from proxywell.net.stream import ProxyStream
from tests.network.scripted import Script, expect

JUDGE = "judge.example"
LIMIT_S = 0.4  # for what must time out
AMPLE_S = 10.0  # for what must not
SLACK_S = 5.0  # a busy machine may be late by this, never by more

CONNECT_REQUEST = b"CONNECT judge.example:443 HTTP/1.1\r\nHost: judge.example:443\r\n\r\n"
SOCKS5_REQUEST = b"\x05\x01\x00\x03\x0djudge.example\x01\xbb"
SOCKS5_GRANT = b"\x05\x00\x00\x01" + b"\x00" * 6
SOCKS4A_REQUEST = b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00judge.example\x00"


def allow_all(_host: str, _port: int) -> None:
    """A guard that has no objection: the servers of these tests are on loopback."""


async def dial(
    port: int,
    protocol: Protocol,
    *,
    connect_s: float = AMPLE_S,
    answer_s: float = AMPLE_S,
    host: str = JUDGE,
    endpoint: Endpoint | None = None,
) -> ProxyStream | FailureKind:
    return await open_tunnel(
        endpoint or Endpoint("127.0.0.1", port),
        protocol,
        host,
        443,
        refusal=allow_all,
        connect_s=connect_s,
        answer_s=answer_s,
    )


async def outcome(port: int, protocol: Protocol, **limits: float) -> FailureKind | None:
    stream = await dial(port, protocol, **limits)  # type: ignore[arg-type]  # limits only
    if isinstance(stream, FailureKind):
        return stream
    stream.close()
    return None


async def read_all(stream: ProxyStream) -> bytes:
    got = b""
    while part := await stream.receive(7):
        got += part
    return got


@contextmanager
def takes_between(least_s: float, most_s: float) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    assert least_s <= time.monotonic() - began_s <= most_s


def connect_script(send: Callable[[socket.socket, bytes], None], behind: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        expect(connection, CONNECT_REQUEST)
        send(connection, b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n" + behind)

    return script


def socks5_script(send: Callable[[socket.socket, bytes], None], behind: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        expect(connection, b"\x05\x01\x00")
        send(connection, b"\x05\x00")
        expect(connection, SOCKS5_REQUEST)
        send(connection, SOCKS5_GRANT + behind)

    return script


def socks4a_script(send: Callable[[socket.socket, bytes], None], behind: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        expect(connection, SOCKS4A_REQUEST)
        send(connection, b"\x00\x5a" + b"\x00" * 6 + behind)

    return script


SPEAKERS = {
    Protocol.CONNECT: connect_script,
    Protocol.SOCKS5: socks5_script,
    Protocol.SOCKS4A: socks4a_script,
}
