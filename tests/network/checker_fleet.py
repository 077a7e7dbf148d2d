"""Proxies of every kind on loopback, in a process of their own, for tests of the checker.

One listener per behaviour, bound to the device ``lo``, so that each address of 127.0.0.0/8 is a
candidate of its own. Working ones play the judge as well: the answer names the nonce that was
asked for and the address that was connected to. Run as a program it prints the ports as JSON and
serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

BEHAVIOURS = (
    "http",
    "connect",
    "socks4",
    "socks4a",
    "socks5",
    "dual",
    "mixed",
    "http_split",
    "connect_split",
    "socks4_split",
    "socks5_split",
    "http_fin",
    "http_slow",
    "http_late_judge",
    "forger",
    "silent",
    "reset",
    "close",
    "error_page",
    "login_page",
    "garbage",
    "banner",
    "socks_no",
)
BACKLOG = 4096
REFUSE, BLACK_HOLE, IPV6 = "refuse", "black_hole", "mixed_on_ipv6"
_NONCE = re.compile(rb"nonce=([0-9a-f]+)")


class Visitor(asyncio.Protocol):
    """One connection to one behaviour."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.got = b""
        self.outgoing = b""
        self.then_close = False
        self.tunnel = False
        self.socks5_stage = 0
        self.transport: asyncio.Transport
        self.local = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.local = transport.get_extra_info("sockname")[0]
        match self.behaviour:
            case "reset":
                raw = transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                self.transport.abort()
            case "close":
                self.transport.close()
            case "banner":
                self.transport.write(b"SSH-2.0-OpenSSH_9.6\r\n")

    def data_received(self, data: bytes) -> None:
        self.got += data
        speak = _SPEAK.get(self.behaviour.removesuffix("_split"))
        if speak is not None and not self.transport.is_closing():
            speak(self)

    def send(self, data: bytes, *, close: bool = False) -> None:
        if self.behaviour.endswith("_split"):
            self.outgoing += data
            self.then_close = close
            if len(self.outgoing) == len(data):
                self._send_byte()
            return
        self.transport.write(data)
        if close:
            self.transport.close()

    def _send_byte(self) -> None:
        if self.transport.is_closing():
            return
        if not self.outgoing:
            if self.then_close:
                self.transport.close()
            return
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        byte, self.outgoing = self.outgoing[:1], self.outgoing[1:]
        self.transport.write(byte)
        asyncio.get_running_loop().call_later(0.001, self._send_byte)

    def play_judge(self, *, absolute: bool) -> bool:
        """Answer a whole request, if it is there; True if it was."""
        if b"\r\n\r\n" not in self.got:
            return False
        if self.got.startswith(b"GET http://") is not absolute:
            self.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", close=True)
            return True
        self.send(judge_answer(self.got, self.local))
        return True


def judge_answer(asked: bytes, exit_ip: str, *, framed: bool = True) -> bytes:
    """What the judge of these tests says: the nonce that it was asked for, and who asked."""
    found = _NONCE.search(asked)
    body = b"nonce=%s exit=%s" % (found[1] if found else b"", exit_ip.encode())
    length = b"Content-Length: %d\r\n" % len(body) if framed else b""
    return b"HTTP/1.1 200 OK\r\n%sConnection: close\r\n\r\n%s" % (length, body)


def _http(visitor: Visitor) -> None:
    if visitor.got.startswith(b"CONNECT "):
        visitor.send(b"HTTP/1.1 405 Not Allowed\r\nContent-Length: 0\r\n\r\n", close=True)
    elif visitor.got[:1] not in b"GPC":
        visitor.transport.close()
    else:
        visitor.play_judge(absolute=True)


def _http_fin(visitor: Visitor) -> None:
    if b"\r\n\r\n" in visitor.got:
        visitor.send(judge_answer(visitor.got, visitor.local, framed=False), close=True)


def _http_slow(visitor: Visitor) -> None:
    if b"\r\n\r\n" in visitor.got:
        answer = judge_answer(visitor.got, visitor.local)
        asyncio.get_running_loop().call_later(0.5, visitor.transport.write, answer)


def _http_late_judge(visitor: Visitor) -> None:
    if b"\r\n\r\n" in visitor.got:
        visitor.send(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", close=True)


def _forger(visitor: Visitor) -> None:
    if b"\r\n\r\n" in visitor.got:
        visitor.send(judge_answer(b"nonce=00", visitor.local))


def _connect(visitor: Visitor) -> None:
    if visitor.tunnel:
        visitor.play_judge(absolute=False)
    elif b"\r\n\r\n" in visitor.got:
        if visitor.got.startswith(b"CONNECT "):
            visitor.got, visitor.tunnel = b"", True
            visitor.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            visitor.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", close=True)
    elif visitor.got[:1] not in b"GPC":
        visitor.transport.close()


def _socks4(visitor: Visitor, *, by_name: bool = False) -> None:
    if visitor.tunnel:
        visitor.play_judge(absolute=False)
        return
    got = visitor.got
    if got[:1] != b"\x04":
        visitor.transport.close()
    elif len(got) >= 9 and got.endswith(b"\0"):
        if (got[4:7] == b"\0\0\0") is not by_name:
            visitor.send(b"\x00\x5b" + bytes(6), close=True)
            return
        visitor.got, visitor.tunnel = b"", True
        visitor.send(b"\x00\x5a" + bytes(6))


def _socks4a(visitor: Visitor) -> None:
    _socks4(visitor, by_name=True)


def _socks5(visitor: Visitor) -> None:
    got = visitor.got
    if visitor.tunnel:
        visitor.play_judge(absolute=False)
    elif got[:1] != b"\x05":
        visitor.transport.close()
    elif visitor.socks5_stage == 0 and len(got) >= 2 + got[1]:
        visitor.got, visitor.socks5_stage = got[2 + got[1] :], 1
        visitor.send(b"\x05\x00")
    elif visitor.socks5_stage == 1 and len(got) >= 8:
        visitor.got, visitor.tunnel = b"", True
        visitor.send(b"\x05\x00\x00\x01\x7f\0\0\x01\x00\x50")


def _dual(visitor: Visitor) -> None:
    (_socks5 if visitor.socks5_stage or visitor.got[:1] == b"\x05" else _socks4)(visitor)


def _mixed(visitor: Visitor) -> None:
    if visitor.tunnel or visitor.socks5_stage or visitor.got[:1] == b"\x05":
        _socks5(visitor)
    else:
        _http(visitor)


def _error_page(visitor: Visitor) -> None:
    visitor.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", close=True)


def _login_page(visitor: Visitor) -> None:
    if visitor.got[:1].isalpha():
        visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlogin", close=True)
    else:
        visitor.transport.close()


def _garbage(visitor: Visitor) -> None:
    visitor.send(b"\xde\xad\xbe\xef", close=True)


def _socks_no(visitor: Visitor) -> None:
    if visitor.got[:1] == b"\x05":
        visitor.send(b"\x05\xff", close=True)
    elif visitor.got[:1] == b"\x04":
        visitor.send(b"\x00\x5b" + bytes(6), close=True)
    else:
        visitor.transport.close()


_SPEAK: dict[str, Callable[[Visitor], object]] = {
    "http": _http,
    "http_fin": _http_fin,
    "http_slow": _http_slow,
    "http_late_judge": _http_late_judge,
    "forger": _forger,
    "connect": _connect,
    "socks4": _socks4,
    "socks4a": _socks4a,
    "socks5": _socks5,
    "dual": _dual,
    "mixed": _mixed,
    "error_page": _error_page,
    "login_page": _login_page,
    "garbage": _garbage,
    "socks_no": _socks_no,
}


def _listener(backlog: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    listener.bind(("0.0.0.0", 0))
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


def _black_hole() -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose queue is full: further connects get no answer at all."""
    listener = _listener(0)
    fillers = []
    for _ in range(2):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", listener.getsockname()[1]))
        fillers.append(filler)
    return listener, fillers


async def serve() -> None:
    """Serve until standard input closes."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    ports = {}
    for behaviour in BEHAVIOURS:
        listener = _listener(BACKLOG)
        ports[behaviour] = listener.getsockname()[1]
        await loop.create_server(partial(Visitor, behaviour), sock=listener, backlog=BACKLOG)
    if socket.has_ipv6:
        with contextlib.suppress(OSError):  # the system has the family switched off
            server = await loop.create_server(partial(Visitor, "mixed"), "::1", 0, backlog=BACKLOG)
            ports[IPV6] = server.sockets[0].getsockname()[1]
    hole, fillers = _black_hole()
    ports[BLACK_HOLE] = hole.getsockname()[1]
    nobody = socket.socket()  # bound, never listening: a connect is refused
    nobody.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    nobody.bind(("0.0.0.0", 0))
    ports[REFUSE] = nobody.getsockname()[1]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    for kept in (hole, nobody, *fillers):
        kept.close()


@contextlib.contextmanager
def fleet() -> Iterator[dict[str, int]]:
    """Start the fleet in a process of its own; gives the port of each behaviour."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.network.checker_fleet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve())
