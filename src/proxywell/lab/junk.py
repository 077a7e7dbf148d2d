"""Endpoints that lists call proxies and that are none: silent, broken or something else."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache

from proxywell.lab.channel import Channel
from proxywell.lab.visit import RequestVisit, Visit

DRIP_S = 2.0
ENDLESS_MAX_BYTES = 256 * 2**20  # nothing in the lab is truly without end
_BLOCK = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"


def page(status: str, body: str, *headers: str, kind: str = "text/html") -> bytes:
    """One whole HTTP answer, after which the server closes."""
    head = [
        f"HTTP/1.1 {status}",
        *headers,
        f"Content-Type: {kind}",
        f"Content-Length: {len(body.encode())}",
        "Connection: close",
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


LOGIN_PAGE = (
    "<!DOCTYPE html><html><head><title>Router login</title></head><body>"
    "<form action='/login' method='post'><input name='user'><input name='password' "
    "type='password'><button>Log in</button></form></body></html>"
)
PAGES = {
    "login_page": page("200 OK", LOGIN_PAGE),
    "wrong_200": page("200 OK", "It works!\n", kind="text/plain"),
    "forbidden_403": page("403 Forbidden", "<h1>Forbidden</h1>"),
    "need_login_407": page(
        "407 Proxy Authentication Required",
        "<h1>Log in first</h1>",
        'Proxy-Authenticate: Basic realm="proxy"',
    ),
    "bad_gateway_502": page("502 Bad Gateway", "<h1>Bad gateway</h1>"),
    "redirect_302": page("302 Found", "", "Location: http://127.0.0.1:1/portal"),
    "not_found_404": page("404 Not Found", "<h1>Not found</h1>"),
    "bad_request_400": page("400 Bad Request", "<h1>Bad request</h1>"),
    "status_403_ok_200": page("403 ok 200", "no"),
}


class SilentVisit(Visit):
    """Takes everything and never says a word."""


class ResetVisit(Visit):
    """Hangs up with RST: option ``at_once`` or ``after_request``."""

    def begin(self) -> None:
        """See Visit."""
        if self.proxy.behaviour.option == "at_once":
            self.client.reset()
            self.close()

    def received(self, channel: Channel, data: bytes) -> None:
        """See Visit."""
        channel.reset()
        self.close()


class HangUpVisit(Visit):
    """Closes in order: option ``at_once``, or ``half``: sends FIN and reads on for ever."""

    def begin(self) -> None:
        """See Visit."""
        if self.proxy.behaviour.option == "half":
            self.client.end()
        else:
            self.close()


class GarbageVisit(Visit):
    """Answers anything with bytes that mean nothing; option ``banner`` greets like SSH."""

    def begin(self) -> None:
        """See Visit."""
        if self.proxy.behaviour.option == "banner":
            self.client.send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")

    def received(self, channel: Channel, data: bytes) -> None:
        """See Visit."""
        if self.proxy.behaviour.option != "banner":
            noise = self.around.draw.randbytes(self.around.draw.randint(16, 600))
            channel.send(b"\xfe" + noise)  # never by chance a word of SOCKS or HTTP
        self.close()


class PageVisit(RequestVisit):
    """A web server, not a proxy: one page for every request; option names the page."""

    def answer(self, request: bytes) -> None:
        """See RequestVisit."""
        self.client.send(PAGES[self.proxy.behaviour.option])
        self.close()

    def not_http(self) -> None:
        """See RequestVisit; web servers complain in HTTP."""
        self.client.send(PAGES["bad_request_400"])
        self.close()


class DripVisit(RequestVisit):
    """An answer that arrives one byte every two seconds and would take a day."""

    def answer(self, request: bytes) -> None:
        """See RequestVisit."""
        self.client.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n")
        self.client.send(b"Content-Length: 40000\r\n\r\n")
        self._drip()

    def _drip(self) -> None:
        if self.client.open:
            self.client.send(b".")
            self.around.loop.call_later(DRIP_S, self._drip)


class EndlessVisit(RequestVisit):
    """A body without an end: option ``chunked``, or ``length``: 10^12 bytes announced."""

    sent_bytes = 0

    def answer(self, request: bytes) -> None:
        """See RequestVisit."""
        if self.proxy.behaviour.option == "chunked":
            self.client.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        else:
            self.client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        self._pour()

    def _pour(self) -> None:
        while self.client.open and not self.client.queued_bytes:
            self.client.send(_BLOCK)
            self.sent_bytes += len(_BLOCK)
            if self.sent_bytes > ENDLESS_MAX_BYTES:
                self.close()
            elif self.sent_bytes % (64 * len(_BLOCK)) == 0:
                self.around.loop.call_soon(self._pour)  # others have their turn
                return

    def drained(self, channel: Channel) -> None:
        """See Visit."""
        self._pour()


def _long_line() -> bytes:
    return b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 2**20 + b"\r\n\r\n"


def _many_headers() -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"X-Again: and again\r\n" * 100_000 + b"\r\n"


def _interim_flood() -> bytes:
    return b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000


def _folded() -> bytes:
    return b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n" + b" and on\r\n" * 50_000 + b"\r\n"


_BOMBS: dict[str, Callable[[], bytes]] = {
    "long_line": _long_line,
    "many_headers": _many_headers,
    "interim_flood": _interim_flood,
    "folded": _folded,
}


class HeaderBombVisit(RequestVisit):
    """A head that fills memory; option: which way."""

    def answer(self, request: bytes) -> None:
        """See RequestVisit."""
        self.client.send(_BOMBS[self.proxy.behaviour.option]())
        self.close()


@lru_cache(maxsize=1)
def _zeros_gzipped() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(bytes(2**20)) for _ in range(32)]
    return b"".join(parts) + packer.flush()


class GzipBombVisit(RequestVisit):
    """32 kB that unpack to 32 MB, in a coding that nobody asked for."""

    def answer(self, request: bytes) -> None:
        """See RequestVisit."""
        body = _zeros_gzipped()
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        self.client.send(head.encode() + body)
        self.close()


class EmptyTunnelVisit(RequestVisit):
    """Says 200 to everything and has nothing behind it; option: what comes then.

    ``silent``: nothing; ``close``: the end; ``body``: the 200 carries a body, as no answer
    to CONNECT may; ``no_blank_line``: the head never ends.
    """

    def answer(self, request: bytes) -> None:
        """See RequestVisit."""
        option = self.proxy.behaviour.option
        if option == "no_blank_line":
            self.client.send(b"HTTP/1.1 200 OK\r\n")
        elif option == "body":
            self.client.send(page("200 OK", "<h1>hello</h1>"))
        else:
            self.client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if option in {"close", "body"}:
            self.close()


_GREETING_ANSWERS = {
    "wrong_version": b"\x06\x00",
    "method_ff": b"\x05\xff",
    "method_not_offered": b"\x05\x03",
}
_REPLIES = {
    "address_type_0": b"\x05\x00\x00\x00\x01\x02\x03\x04\x05\x06",
    "name_cut_short": b"\x05\x00\x00\x03\xff" + b"n" * 40,
    "short_reply": b"\x05\x00",
    "extra_bytes": b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00" + b"\x00surplus that nobody sent",
}
_CLOSES_AFTER = {"short_reply", "extra_bytes", "address_type_0"}


class OddSocksVisit(Visit):
    """A SOCKS server that breaks off, says no or talks nonsense; option: which way.

    The words of ``_GREETING_ANSWERS`` and ``_REPLIES``, ``never_ends`` (a reply one byte every
    two seconds), ``refuses_1`` to ``refuses_8`` (SOCKS5) and ``refuses_91`` to ``refuses_93``
    (SOCKS4).
    """

    greeted = False

    def received(self, channel: Channel, data: bytes) -> None:
        """See Visit."""
        option = self.proxy.behaviour.option
        code = int(option.removeprefix("refuses_")) if option.startswith("refuses_") else None
        if data[:1] == b"\x04" and code is not None and code >= 90:
            self._finish(bytes((0, code)) + bytes(6))
        elif not self.greeted and data[:1] != b"\x05":
            self.close()
        elif not self.greeted:
            self.greeted = True
            if option in _GREETING_ANSWERS:
                self._finish(_GREETING_ANSWERS[option])
            elif code is not None and code >= 90:
                self.close()  # SOCKS4 alone
            else:
                channel.send(b"\x05\x00")
        elif option == "never_ends":
            channel.send(b"\x05\x00\x00\x03\xfa")
            self._drip()
        elif code is not None:
            self._finish(bytes((5, code, 0, 1)) + bytes(6))
        elif option in _CLOSES_AFTER:
            self._finish(_REPLIES[option])
        else:
            channel.send(_REPLIES[option])

    def _finish(self, last: bytes) -> None:
        self.client.send(last)
        self.close()

    def _drip(self) -> None:
        if self.client.open:
            self.client.send(b"n")
            self.around.loop.call_later(DRIP_S, self._drip)
