"""The judge that we ship: reports each request as it arrived, signed, over http and https."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Self

from msgspec import Struct

from proxywell.errors import ProxywellError, UsageError
from proxywell.judge.connection import JudgeConnection, Limits
from proxywell.judge.keys import JudgeKey

_SWEEP_S = 0.5  # how late a deadline may be noticed
_BACKLOG = 4096
_TLS_HANDSHAKE_S = 10.0


class JudgeStartError(ProxywellError):
    """The judge cannot listen where it was told to."""

    code = "judge_start"


class Listen(Struct, frozen=True):
    """Where to listen: an address (IPv6 without brackets) or a name, and a port; 0: a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Read ``HOST:PORT`` or ``[V6]:PORT``.

        Raises:
            UsageError: It has another form, or the port is not in 0 to 65535.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        fits = colon and host and (bracketed or ":" not in host)
        if not fits or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
            raise UsageError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8085 or [::1]:8085")
        return cls(host, int(port))


class JudgeServer:
    """A judge as an asynchronous context manager: it serves while the context is open.

    ``async with JudgeServer(http=[Listen("127.0.0.1", 0)]) as judge: judge.url`` is all that a
    test needs. No address of a client is logged anywhere.

    Attributes:
        name: Put into every answer.
        key: Signs the answers.
        limits: What one client may take.
        served: Requests answered so far.
        http_urls, https_urls: Where it listens, in the order given; empty before it does.
    """

    def __init__(
        self,
        *,
        http: Sequence[Listen] = (Listen("127.0.0.1", 0),),
        https: Sequence[Listen] = (),
        tls: ssl.SSLContext | None = None,
        key: JudgeKey | None = None,
        name: str = "",
        limits: Limits | None = None,
    ) -> None:
        """Prepare a judge; nothing listens yet.

        Args:
            http: Where to listen in the clear.
            https: Where to listen for TLS.
            tls: Serves the certificate; needed with ``https``.
            key: None: a fresh one that is kept nowhere.
            name: Name in the answers.
            limits: None: the defaults.
        """
        assert tls is not None or not https, "https needs a certificate"
        self.name = name
        self.key = key or JudgeKey.fresh()
        self.limits = limits or Limits()
        self.connections: set[JudgeConnection] = set()
        self.served = 0
        self.closing = False
        self.http_urls: tuple[str, ...] = ()
        self.https_urls: tuple[str, ...] = ()
        self._http, self._https, self._tls = tuple(http), tuple(https), tls
        self._servers: list[asyncio.Server] = []
        self._gone: asyncio.Event | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The first http URL, else the first https one."""
        return (*self.http_urls, *self.https_urls)[0]

    @property
    def public_key(self) -> str:
        """The public key in base64: what ``judge.public_keys`` takes."""
        return self.key.public

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            JudgeStartError: An address or a port cannot be had.
        """
        try:
            self.http_urls = tuple([await self._listen(place, None) for place in self._http])
            self.https_urls = tuple([await self._listen(place, self._tls) for place in self._https])
        except BaseException:
            await self.close(grace_s=0)
            raise
        self._sweeper = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, within two seconds."""
        await self.close()

    async def close(self, *, grace_s: float = 2.0) -> None:
        """Stop listening, let answers that are on their way leave, then cut. Works twice.

        Args:
            grace_s: The longest that clients are waited for.
        """
        self.closing = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self.connections):
            connection.leave()
        if self.connections:
            self._gone = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), grace_s)
        for connection in list(self.connections):
            connection.cut()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await asyncio.sleep(0)  # lets the cuts reach the transports

    def forget(self, connection: JudgeConnection) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        if self._gone is not None and not self.connections:
            self._gone.set()

    async def _listen(self, place: Listen, tls: ssl.SSLContext | None) -> str:
        loop = asyncio.get_running_loop()
        try:
            listener = _listener(place)
        except OSError as error:
            raise JudgeStartError(_why_not(place, error)) from error
        server = await loop.create_server(
            lambda: JudgeConnection(self),
            sock=listener,
            ssl=tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=None if tls is None else _TLS_HANDSHAKE_S,
        )
        self._servers.append(server)
        host, port = listener.getsockname()[:2]
        shown = place.host if _is_name(place.host) else host
        shown = f"[{shown}]" if ":" in shown else shown
        return f"{'http' if tls is None else 'https'}://{shown}:{port}/"

    async def _sweep(self) -> None:
        while not self.closing:
            await asyncio.sleep(_SWEEP_S)
            now_s = time.monotonic()
            for connection in [c for c in self.connections if c.deadline_s < now_s]:
                connection.expire()


def _listener(place: Listen) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # IPv4 has a listener of its own
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.setblocking(False)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_name(host: str) -> bool:
    return ":" not in host and not host.replace(".", "").isdecimal()


def _why_not(place: Listen, error: OSError) -> str:
    where = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
    match error.errno:
        case errno.EADDRINUSE:
            remedy = "the port is in use; stop what uses it or choose another port"
        case errno.EACCES | errno.EPERM:
            remedy = "this user may not use the port; choose one above 1023 or allow it"
        case errno.EADDRNOTAVAIL:
            remedy = "this machine has no such address; choose one of its own, or 0.0.0.0 or [::]"
        case _:
            remedy = f"{error.strerror or error}; choose another address"
    return f"the judge cannot listen on {where}: {remedy}"
