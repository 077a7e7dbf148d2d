"""Tunnels over real sockets: split, dripping, silent, resetting, closing, lying proxies."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.net.dial import open_direct
from proxywell.net.stream import ProxyStream
from proxywell.net.translate import Stage, failure_of
from tests.network.conftest import Run
from tests.network.scripted import (
    drip,
    expect,
    expect_end,
    reset,
    scripted,
    send_in_single_bytes,
)
from tests.network.tunnels import (
    AMPLE_S,
    JUDGE,
    LIMIT_S,
    SLACK_S,
    SOCKS5_GRANT,
    SOCKS5_REQUEST,
    SPEAKERS,
    allow_all,
    connect_script,
    dial,
    outcome,
    read_all,
    takes_between,
)


@pytest.mark.parametrize("protocol", SPEAKERS)
@pytest.mark.parametrize("send", [socket.socket.sendall, send_in_single_bytes])
def test_a_tunnel_stands_and_its_first_bytes_come_first(
    run: Run, protocol: Protocol, send: Callable[[socket.socket, bytes], None]
) -> None:
    def script(connection: socket.socket) -> None:
        SPEAKERS[protocol](send, b"early ")(connection)
        expect(connection, b"hello")
        connection.sendall(b"and late")

    async def scene(port: int) -> bytes:
        stream = await dial(port, protocol)
        assert isinstance(stream, ProxyStream)
        try:
            await stream.send(b"hello")
            return await read_all(stream)
        finally:
            stream.close()

    with scripted(script) as server:
        assert run(scene(server.port)) == b"early and late"


@pytest.mark.parametrize("protocol", SPEAKERS)
def test_data_that_comes_with_the_end_is_not_lost(run: Run, protocol: Protocol) -> None:
    async def scene(port: int) -> bytes:
        stream = await dial(port, protocol)
        assert isinstance(stream, ProxyStream)
        try:
            return await read_all(stream)
        finally:
            stream.close()

    with scripted(SPEAKERS[protocol](socket.socket.sendall, b"x" * 5_000)) as server:
        assert run(scene(server.port)) == b"x" * 5_000


def test_a_password_is_given_to_a_proxy_that_asks(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        expect(connection, b"\x05\x02\x00\x02")
        connection.sendall(b"\x05\x02")
        expect(connection, b"\x01\x03ann\x06secret")
        connection.sendall(b"\x01\x00")
        expect(connection, SOCKS5_REQUEST)
        connection.sendall(SOCKS5_GRANT)

    async def scene(port: int) -> None:
        proxy = Endpoint("127.0.0.1", port, "ann", "secret")
        stream = await dial(port, Protocol.SOCKS5, endpoint=proxy)
        assert isinstance(stream, ProxyStream)
        stream.close()

    with scripted(script) as server:
        run(scene(server.port))


def test_a_proxy_that_answers_before_it_is_asked_is_followed(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(b"\x05\x00" + SOCKS5_GRANT + b"early")
        expect(connection, b"\x05\x01\x00" + SOCKS5_REQUEST)

    async def scene(port: int) -> bytes:
        stream = await dial(port, Protocol.SOCKS5)
        assert isinstance(stream, ProxyStream)
        try:
            return await read_all(stream)
        finally:
            stream.close()

    with scripted(script) as server:
        assert run(scene(server.port)) == b"early"


def test_socks4_gets_the_address_and_forwarding_has_no_tunnel(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        expect(connection, b"\x04\x01\x01\xbb\xc0\x00\x02\x07\x00")
        connection.sendall(b"\x00\x5b")
        expect_end(connection)

    with scripted(script) as server:
        refused = run(dial(server.port, Protocol.SOCKS4, host="192.0.2.7"))
        assert refused is FailureKind.SOCKS_REFUSED
        with pytest.raises(ValueError, match="no tunnel"):
            run(dial(server.port, Protocol.HTTP))
        with pytest.raises(ValueError, match=JUDGE):
            run(dial(server.port, Protocol.SOCKS4))
    assert server.connections == 1


@pytest.mark.parametrize(
    ("protocol", "said", "kind"),
    [
        (Protocol.CONNECT, b"HTTP/1.1 403 ok 200\r\n", FailureKind.HTTP_STATUS),
        (Protocol.CONNECT, b"HTTP/1.1 407 x\r\n", FailureKind.AUTH_REQUIRED),
        (Protocol.CONNECT, b"\x05\xff", FailureKind.NOT_THIS_PROTOCOL),
        (
            Protocol.CONNECT,
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200,
            FailureKind.HEADER_TOO_LARGE,
        ),
        (Protocol.SOCKS5, b"\x05\xff", FailureKind.AUTH_REQUIRED),
        (Protocol.SOCKS5, b"HTTP/1.1 400 Bad Request\r\n\r\n", FailureKind.NOT_THIS_PROTOCOL),
        (Protocol.SOCKS4A, b"\x00\x5b", FailureKind.SOCKS_REFUSED),
    ],
)
def test_a_no_is_told_as_soon_as_it_is_certain(
    run: Run, protocol: Protocol, said: bytes, kind: FailureKind
) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(said)
        expect_end(connection)  # the client leaves by itself, without our closing

    with scripted(script) as server, takes_between(0, SLACK_S):
        assert run(outcome(server.port, protocol)) is kind


@pytest.mark.parametrize("protocol", SPEAKERS)
def test_a_proxy_that_closes_or_resets_early_is_told_apart(run: Run, protocol: Protocol) -> None:
    with scripted(lambda connection: connection.shutdown(socket.SHUT_WR)) as closing:
        assert run(outcome(closing.port, protocol)) in {FailureKind.EOF_EARLY, FailureKind.RESET}

    def close_when_asked(connection: socket.socket) -> None:
        connection.recv(4_096)

    with scripted(close_when_asked) as closing:
        assert run(outcome(closing.port, protocol)) is FailureKind.EOF_EARLY

    def reset_when_asked(connection: socket.socket) -> None:
        connection.recv(4_096)
        reset(connection)

    with scripted(reset_when_asked) as resetting:
        assert run(outcome(resetting.port, protocol)) is FailureKind.RESET


# --- time


@pytest.mark.parametrize("protocol", SPEAKERS)
def test_a_silent_proxy_costs_the_time_limit_and_no_more(run: Run, protocol: Protocol) -> None:
    with scripted(expect_end) as server, takes_between(LIMIT_S * 0.9, LIMIT_S + SLACK_S):
        kind = run(outcome(server.port, protocol, answer_s=LIMIT_S))
    assert kind is FailureKind.HANDSHAKE_TIMEOUT


def test_a_dripping_proxy_does_not_buy_time_with_every_byte(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nA: ")
        drip(connection, b"b", every_s=LIMIT_S / 20)

    with scripted(script) as server, takes_between(LIMIT_S * 0.9, LIMIT_S + SLACK_S):
        kind = run(outcome(server.port, Protocol.CONNECT, answer_s=LIMIT_S))
    assert kind is FailureKind.HANDSHAKE_TIMEOUT


def test_a_stream_ends_at_its_deadline_however_it_drips(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        connect_script(socket.socket.sendall, b"")(connection)
        drip(connection, b"b", every_s=LIMIT_S / 20)

    async def scene(port: int) -> tuple[bytes, FailureKind]:
        stream = await dial(port, Protocol.CONNECT, answer_s=LIMIT_S)
        assert isinstance(stream, ProxyStream)
        got = b""
        try:
            while part := await stream.receive(4_096):
                got += part
        except TimeoutError as error:
            return got, failure_of(error, Stage.ANSWER)
        finally:
            stream.close()
        raise AssertionError("the stream ended by itself")

    with scripted(script) as server, takes_between(LIMIT_S * 0.9, 2 * LIMIT_S + SLACK_S):
        got, kind = run(scene(server.port))
    assert b"b" in got
    assert kind is FailureKind.ANSWER_TIMEOUT


def test_a_reader_that_does_not_read_cannot_hold_up_a_sender(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        connect_script(socket.socket.sendall, b"")(connection)
        time.sleep(2 * LIMIT_S)

    async def scene(port: int) -> None:
        stream = await dial(port, Protocol.CONNECT, answer_s=LIMIT_S)
        assert isinstance(stream, ProxyStream)
        try:
            with pytest.raises(TimeoutError):
                await stream.send(b"x" * 50_000_000)
        finally:
            stream.close()

    with scripted(script) as server:
        run(scene(server.port))


def test_a_black_hole_costs_the_time_to_connect(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        queued = []
        for _ in range(4):  # until the queue is full; what comes then is not even refused
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
            queued.append(sock)
        try:
            with takes_between(LIMIT_S * 0.9, LIMIT_S + SLACK_S):
                port = full.getsockname()[1]
                kind = run(outcome(port, Protocol.CONNECT, connect_s=LIMIT_S))
            assert kind is FailureKind.CONNECT_TIMEOUT
        finally:
            for sock in queued:
                sock.close()


# --- where to, where from


def test_a_closed_port_refuses(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert run(outcome(port, Protocol.CONNECT)) is FailureKind.CONNECT_REFUSED


def test_the_guard_is_asked_about_the_address_that_is_dialled(run: Run) -> None:
    asked: list[tuple[str, int]] = []

    def refusal(host: str, port: int) -> object:
        asked.append((host, port))
        return "private" if host == "127.0.0.1" else None

    async def scene(host: str, port: int) -> object:
        return await open_direct(host, port, refusal=refusal, connect_s=AMPLE_S, answer_s=AMPLE_S)

    with scripted(expect_end) as server:
        assert run(scene("127.0.0.1", server.port)) is FailureKind.ADDRESS_REFUSED
        assert run(scene("localhost", server.port)) is FailureKind.ADDRESS_REFUSED
    assert server.connections == 0
    assert ("127.0.0.1", server.port) in asked
    assert all(host != "localhost" for host, _ in asked)


def test_an_address_that_turns_bad_between_the_look_and_the_dialling_is_not_dialled(
    run: Run,
) -> None:
    answers = iter([None, "private"])
    with scripted(expect_end) as server:
        kind = run(
            open_direct(
                "127.0.0.1",
                server.port,
                refusal=lambda _host, _port: next(answers),
                connect_s=AMPLE_S,
                answer_s=AMPLE_S,
            )
        )
    assert kind is FailureKind.ADDRESS_REFUSED
    assert server.connections == 0


def test_the_source_address_is_the_one_that_was_asked_for(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(connection.getpeername()[0].encode())

    async def scene(port: int, source_address: str) -> object:
        stream = await open_direct(
            "127.0.0.1",
            port,
            refusal=allow_all,
            source_address=source_address,
            connect_s=AMPLE_S,
            answer_s=AMPLE_S,
        )
        if isinstance(stream, FailureKind):
            return stream
        try:
            return await read_all(stream)
        finally:
            stream.close()

    with scripted(script) as server:
        assert run(scene(server.port, "127.0.0.2")) == b"127.0.0.2"
        # 192.0.2.1 is no address of this host (RFC 5737)
        assert run(scene(server.port, "192.0.2.1")) is FailureKind.LOCAL_FAULT


def test_ipv6_proxies_are_dialled_whatever_the_ipv4_source_address(run: Run) -> None:
    if not socket.has_ipv6:
        pytest.skip("this system has no IPv6")

    async def scene(port: int) -> None:
        stream = await open_direct(
            "::1",
            port,
            refusal=allow_all,
            source_address="127.0.0.2",
            connect_s=AMPLE_S,
            answer_s=AMPLE_S,
        )
        assert isinstance(stream, ProxyStream)
        stream.close()
        stream.close()

    with scripted(expect_end, host="::1") as server:
        run(scene(server.port))


def test_nothing_is_left_open_when_the_caller_loses_patience(run: Run) -> None:
    async def scene(port: int) -> None:
        opening = asyncio.ensure_future(dial(port, Protocol.CONNECT))
        await asyncio.sleep(LIMIT_S / 4)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    with scripted(expect_end) as server, takes_between(0, SLACK_S):
        run(scene(server.port))  # an open socket would keep the script waiting


def test_a_closed_stream_says_so(run: Run) -> None:
    async def scene(port: int) -> None:
        stream = await open_direct(
            "127.0.0.1", port, refusal=allow_all, connect_s=AMPLE_S, answer_s=AMPLE_S
        )
        assert isinstance(stream, ProxyStream)
        reading = asyncio.ensure_future(stream.receive(1))
        await asyncio.sleep(0.05)
        stream.deadline_s = 0
        stream.close()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(ConnectionAbortedError):
            await stream.send(b"x")

    with scripted(expect_end) as server:
        run(scene(server.port))
