"""A small HTTP/1.1 server for the lab's own sites: lists, truth, unsigned judges, bait pages."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

from proxywell.lab.fronts import Malformed, Request, read_request

HEAD_MAX_BYTES = 32_768
IDLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a site answers.

    Attributes:
        body: As sent.
        kind: Content type.
        status: With its reason.
        headers: Further ones.
    """

    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    status: str = "200 OK"
    headers: tuple[str, ...] = ()


Site: TypeAlias = Callable[[Request, str], Reply]  # a request, and the client's address


class WebConnection(asyncio.Protocol):
    """One client of a site; requests one after another until it asks to close."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._got = bytearray()
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's
        self._transport = cast("asyncio.Transport", transport)
        self._peer = transport.get_extra_info("peername")[0]
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        if self._idle is not None:
            self._idle.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        transport = self._transport
        assert transport is not None
        self._got += data
        while self._got and not transport.is_closing():
            try:
                request = read_request(self._got)
            except Malformed:
                transport.write(_whole(Reply(status="400 Bad Request"), last=True, bodiless=False))
                transport.close()
                return
            if request is None:
                if len(self._got) > HEAD_MAX_BYTES:
                    transport.abort()
                return
            del self._got[: request.used_bytes]
            last = request.version == b"HTTP/1.0" or any(
                name.lower() == b"connection" and b"close" in value.lower()
                for name, value in request.headers
            )
            reply = self._site(request, self._peer)
            transport.write(_whole(reply, last=last, bodiless=request.method == b"HEAD"))
            if last:
                transport.close()


def _whole(reply: Reply, *, last: bool, bodiless: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.status}", f"Content-Type: {reply.kind}", *reply.headers]
    empty = reply.status.startswith(("204", "304"))
    if not empty:
        lines.append(f"Content-Length: {len(reply.body)}")
    if last:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return head if empty or bodiless else head + reply.body


async def serve_site(
    site: Site, host: str, *, port: int = 0, context: ssl.SSLContext | None = None
) -> tuple[asyncio.Server, int]:
    """Serve a site; answers the server and its port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: WebConnection(site), host, port, ssl=context, backlog=4096
    )
    return server, server.sockets[0].getsockname()[1]
