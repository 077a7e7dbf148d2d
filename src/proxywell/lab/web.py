"""A small HTTP/1.1 server for the lab's own sites: lists, truth, unsigned judges, bait pages."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Port
from typing import TypeAlias, cast

from proxywell.lab.channel import Channel
from proxywell.lab.fronts import Malformed, Request, read_request
from proxywell.lab.listening import accept_all, listen_on
from proxywell.lab.watch import Watch

HEAD_MAX_BYTES = 32_768


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


class WebVisit:
    """One client of a site; requests one after another until it asks to close.

    An owner of a channel, or of anything that can ``send`` and ``close``.
    """

    def __init__(self, site: Site, peer: str) -> None:
        self._site = site
        self._peer = peer
        self._got = bytearray()

    def received(self, channel: Sink, data: bytes) -> None:
        """See channel.Owner."""
        self._got += data
        while self._got:
            try:
                request = read_request(self._got)
            except Malformed:
                channel.send(_whole(Reply(status="400 Bad Request"), last=True, bodiless=False))
                channel.close()
                return
            if request is None:
                if len(self._got) > HEAD_MAX_BYTES:
                    channel.close()
                return
            del self._got[: request.used_bytes]
            last = request.version == b"HTTP/1.0" or _asks_to_close(request)
            reply = self._site(request, self._peer)
            channel.send(_whole(reply, last=last, bodiless=request.method == b"HEAD"))
            if last:
                channel.close()
                return

    def connected(self, channel: Channel) -> None:
        """See channel.Owner; never called, these are accepted."""

    def ended(self, channel: Channel) -> None:
        """See channel.Owner."""
        channel.close()

    def lost(self, channel: Channel) -> None:
        """See channel.Owner."""

    def drained(self, channel: Channel) -> None:
        """See channel.Owner."""


class Sink(Port):
    """What a web visit needs of a connection."""

    def send(self, data: bytes) -> None:
        """Send all of it."""
        ...

    def close(self) -> None:
        """Close once everything has left."""
        ...


class TlsConnection(asyncio.Protocol):
    """A web visit inside TLS, which is the event loop's business."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._visit: WebVisit | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's
        self._transport = cast("asyncio.Transport", transport)
        self._visit = WebVisit(self._site, transport.get_extra_info("peername")[0])

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        assert self._visit is not None
        self._visit.received(self, data)

    def send(self, data: bytes) -> None:
        """See Sink."""
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        """See Sink."""
        assert self._transport is not None
        self._transport.close()


def _asks_to_close(request: Request) -> bool:
    return any(
        name.lower() == b"connection" and b"close" in value.lower()
        for name, value in request.headers
    )


def _whole(reply: Reply, *, last: bool, bodiless: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.status}", f"Content-Type: {reply.kind}", *reply.headers]
    empty = reply.status.startswith(("204", "304"))
    if not empty:
        lines.append(f"Content-Length: {len(reply.body)}")
    if last:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return head if empty or bodiless else head + reply.body


class WebListener:
    """A site on a port of its own, on raw sockets: a judge's request costs the lab little.

    Args:
        watch: Where sockets are watched.
        site: What it says.
        host: IPv4 address to listen on; the port is a free one.
    """

    def __init__(self, watch: Watch, site: Site, host: str) -> None:
        self._watch = watch
        self._site = site
        self._listener = listen_on(host)
        self._channels: weakref.WeakSet[Channel] = weakref.WeakSet()
        self.port: int = self._listener.getsockname()[1]
        watch.add(self._listener.fileno(), self._take)

    def close(self) -> None:
        """Stop listening, and cut what is open."""
        self._watch.remove(self._listener.fileno())
        self._listener.close()
        for channel in list(self._channels):
            channel.reset()

    def _take(self, _events: int) -> None:
        for sock, peer in accept_all(self._listener):
            self._channels.add(Channel(self._watch, sock, WebVisit(self._site, peer)))


async def serve_tls(site: Site, host: str, context: ssl.SSLContext) -> tuple[asyncio.Server, int]:
    """Serve a site over https; answers the server and its port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: TlsConnection(site), host, 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]
