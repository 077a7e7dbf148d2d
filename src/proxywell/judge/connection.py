"""One connection of the judge's server: requests in, signed sightings out."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from enum import Enum
from ipaddress import ip_address
from typing import Protocol as Port
from typing import cast

import httptools
from msgspec import Struct

from proxywell.checking.wire import Seen, nonce_in, seal
from proxywell.judge.keys import JudgeKey

_WELCOME = b"<!doctype html><title>Welcome</title><p>It works.</p>\n"
_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}
_METHODS = (b"GET", b"HEAD")
_SLICE_BYTES = 4096  # limits are looked at after so many bytes


class _Phase(Enum):
    BETWEEN = "between"  # requests
    HEAD = "head"
    BODY = "body"


class Limits(Struct, frozen=True, kw_only=True):
    """What one client may take from the judge.

    Attributes:
        head_max_bytes: Longest head, give or take 4 KiB; more is answered 431.
        headers_max: Most header lines; more is answered 431.
        body_max_bytes: Longest body of a request, which is read and thrown away.
        head_s: A request must be whole this long after its first byte, or after connecting.
        idle_s: A kept connection is closed when nothing comes for so long.
        stall_s: A client that does not take its answers is cut after so long.
        requests_max: A connection is closed after so many requests.
        connections_max: More connections than this, over all clients, are answered 503.
    """

    head_max_bytes: int = 16_384
    headers_max: int = 200
    body_max_bytes: int = 16_384
    head_s: float = 10.0
    idle_s: float = 30.0
    stall_s: float = 10.0
    requests_max: int = 10_000
    connections_max: int = 20_000


class Desk(Port):
    """What a connection needs of its server."""

    name: str
    key: JudgeKey
    limits: Limits
    connections: set[JudgeConnection]
    served: int
    closing: bool

    def forget(self, connection: JudgeConnection) -> None:
        """A connection is over."""
        ...


class JudgeConnection(asyncio.Protocol):
    """One client of the judge. It answers GET and HEAD; everything else it refuses."""

    __slots__ = (
        "_desk",
        "_headers",
        "_parser",
        "_peer_ip",
        "_peer_port",
        "_phase",
        "_requests",
        "_stalled",
        "_taken_bytes",
        "_target",
        "_transport",
        "deadline_s",
    )

    def __init__(self, desk: Desk) -> None:
        """Take the server that it belongs to."""
        self._desk = desk
        self._parser = httptools.HttpRequestParser(self)
        self._requests = 0
        self._stalled = False
        self._start_message()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is; refuse politely when the house is full."""
        # uvloop's transports have the methods without being of the class
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if peer is None:  # gone already
            self._peer_ip, self._peer_port = "", 0
            self._transport.abort()
            return
        self._peer_ip, self._peer_port = _canonical(peer[0]), peer[1]
        desk = self._desk
        self.deadline_s = time.monotonic() + desk.limits.head_s
        if desk.closing or len(desk.connections) >= desk.limits.connections_max:
            self._refuse(503)
            return
        desk.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._desk.forget(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; the parser calls the ``on_`` methods."""
        if self._transport.is_closing():
            return
        try:
            for begin in range(0, len(data), _SLICE_BYTES):
                self._take(data[begin : begin + _SLICE_BYTES])
        except _TooMuchError as error:
            self._refuse(error.status)
        except httptools.HttpParserUpgrade:
            self._refuse(400)
        except httptools.HttpParserError as error:
            behind = error.__context__
            self._refuse(behind.status if isinstance(behind, _TooMuchError) else 400)

    def pause_writing(self) -> None:
        """The client does not take its answers: hear no more of it until it does."""
        if not self._transport.is_closing():
            self._transport.pause_reading()
        self._stalled = True
        self.deadline_s = time.monotonic() + self._desk.limits.stall_s

    def resume_writing(self) -> None:
        """It took them."""
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._stalled = False
        self._allow(self._desk.limits.idle_s)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._start_message()
        self._phase = _Phase.HEAD
        self._allow(self._desk.limits.head_s)

    def on_url(self, target: bytes) -> None:
        """Take a part of the request's target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """Take one header line, as it is written."""
        if len(self._headers) >= self._desk.limits.headers_max:
            raise _TooMuchError(431)
        value = (value or b"").strip(b" \t")  # not part of it: RFC 9110, section 5.5
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The head is whole; a body is counted and thrown away."""
        self._phase = _Phase.BODY
        self._taken_bytes = 0

    def on_message_complete(self) -> None:
        """The request is whole: answer it."""
        if self._transport.is_closing():
            return
        self._requests += 1
        self._desk.served += 1
        limits = self._desk.limits
        self._allow(limits.idle_s)
        keep = (
            self._parser.should_keep_alive()
            and self._requests < limits.requests_max
            and not self._desk.closing
        )
        method = self._parser.get_method()
        if method not in _METHODS:
            self._answer(405, b"text/plain", b"", keep=False, head_only=False)
            return
        status, kind, body = self._page(method)
        self._answer(status, kind, body, keep=keep, head_only=method == b"HEAD")

    def expire(self) -> None:
        """Time is up: say so if a request was under way, and close."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        elif self._phase is _Phase.BETWEEN and self._requests:
            self._transport.close()
        else:
            self._refuse(408)

    def leave(self) -> None:
        """The house closes: finish what is under way, hear nothing new."""
        self._transport.close()

    def cut(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    def _take(self, data: bytes) -> None:
        """Feed one slice; the parser itself would gather an endless header line."""
        self._parser.feed_data(data)
        if self._phase is _Phase.BETWEEN:
            return
        limits = self._desk.limits
        self._taken_bytes += len(data)
        if self._phase is _Phase.HEAD and self._taken_bytes > limits.head_max_bytes:
            raise _TooMuchError(431)
        if self._phase is _Phase.BODY and self._taken_bytes > limits.body_max_bytes:
            raise _TooMuchError(413)

    def _page(self, method: bytes) -> tuple[int, bytes, bytes]:
        form, path = _form_and_path(bytes(self._target))
        nonce = nonce_in(path)
        if nonce is not None:
            desk = self._desk
            seen = Seen(
                nonce=nonce,
                peer_ip=self._peer_ip,
                peer_port=self._peer_port,
                http_version=self._parser.get_http_version(),
                target_form=form,
                method=method.decode(),
                raw_headers=tuple(self._headers),
                ts=time.time(),
                judge=desk.name,
            )
            body = seal(seen, sign=desk.key.sign, key=desk.key.public)
            return 200, b"application/json", body
        if path == "/healthz":
            return 200, b"text/plain", b"ok\n"
        if path == "/":
            return 200, b"text/html", _WELCOME
        return 404, b"text/plain", b"not found\n"

    def _answer(
        self, status: int, kind: bytes, body: bytes, *, keep: bool, head_only: bool
    ) -> None:
        head = (
            b"HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n"
            b"Cache-Control: no-store\r\nConnection: %s\r\n\r\n"
        ) % (
            status,
            _REASONS[status],
            _http_date(int(time.time())),
            kind,
            len(body),
            b"keep-alive" if keep else b"close",
        )
        self._transport.write(head if head_only else head + body)
        if not keep:
            self._transport.close()
        self._start_message()

    def _refuse(self, status: int) -> None:
        if not self._transport.is_closing():
            self._answer(status, b"text/plain", b"", keep=False, head_only=False)

    def _allow(self, period_s: float) -> None:
        if not self._stalled:  # what came before it stalled is still being answered
            self.deadline_s = time.monotonic() + period_s

    def _start_message(self) -> None:
        self._target = bytearray()
        self._headers: list[tuple[str, str]] = []
        self._phase = _Phase.BETWEEN
        self._taken_bytes = 0


class _TooMuchError(Exception):
    """A limit of the request is passed; carried through the parser."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _form_and_path(target: bytes) -> tuple[str, str]:
    text = target.decode("latin-1")
    scheme, separator, rest = text.partition("://")
    if not text.startswith("/") and separator and scheme.lower() in ("http", "https"):
        slash = rest.find("/")
        return "absolute", "/" if slash < 0 else rest[slash:].partition("?")[0]
    return "origin", text.partition("?")[0]


def _canonical(host: str) -> str:
    address = ip_address(host.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


_dates: dict[int, bytes] = {}


def _http_date(second: int) -> bytes:
    date = _dates.get(second)
    if date is None:
        _dates.clear()
        date = _dates[second] = formatdate(second, usegmt=True).encode()
    return date
