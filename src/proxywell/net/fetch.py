"""One plain GET through a proxy: the whole answer, or why there is none."""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.net.dial import open_direct, open_tunnel
from proxywell.net.resolve import GuardRefusal
from proxywell.net.stream import ProxyStream
from proxywell.net.translate import Stage, failure_of
from proxywell.protocols.http import AnswerReader, HttpAnswer
from proxywell.protocols.machine import NeedMore, Refused
from proxywell.protocols.request import (
    absolute_target,
    build_request,
    host_header,
    with_proxy_credentials,
)

_READ_BYTES = 65_536


class Route(Struct, frozen=True):
    """The way out: a proxy, how to speak to it, and within what.

    Attributes:
        endpoint: The proxy.
        protocol: One that works for it.
        refusal: ``Guard.refusal``, asked about the proxy's address.
        source_address: Local address to connect from; None: the system's choice.
        connect_s: Longest connect, in seconds.
        answer_s: Longest handshake, and longest answer.
    """

    endpoint: Endpoint
    protocol: Protocol
    refusal: GuardRefusal
    source_address: str | None
    connect_s: float
    answer_s: float


async def get(url: str, route: Route) -> HttpAnswer | FailureKind:
    """Ask for a plain http URL through a proxy; nothing is followed, nothing is retried.

    Args:
        url: ``http://host[:port]/path``; the proxy resolves the name.
        route: See there.

    Raises:
        ValueError: The URL is not of that form.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is not a plain http URL")
    host, port = parts.hostname, parts.port or 80
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = (
        ("Host", host_header("http", host, port)),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    )
    stream: ProxyStream | FailureKind
    if route.protocol is Protocol.HTTP:
        request = build_request("GET", absolute_target("http", host, port, path), headers)
        if route.endpoint.user is not None:
            password = route.endpoint.password or ""
            request = with_proxy_credentials(request, route.endpoint.user, password)
        stream = await open_direct(
            route.endpoint.host,
            route.endpoint.port,
            refusal=route.refusal,
            source_address=route.source_address,
            connect_s=route.connect_s,
            answer_s=route.answer_s,
        )
    else:
        request = build_request("GET", path, headers)
        stream = await open_tunnel(
            route.endpoint,
            route.protocol,
            host,
            port,
            refusal=route.refusal,
            source_address=route.source_address,
            connect_s=route.connect_s,
            answer_s=route.answer_s,
        )
    if isinstance(stream, FailureKind):
        return stream
    try:
        await stream.send(request)
        return await _answer(stream)
    except OSError as error:
        return failure_of(error, Stage.ANSWER)
    finally:
        stream.close()


async def _answer(stream: ProxyStream) -> HttpAnswer | FailureKind:
    reader = AnswerReader()
    while True:  # ends with the answer, its refusal, or the stream's deadline
        data = await stream.receive(_READ_BYTES)
        step = reader.receive(data) if data else reader.ended()
        if isinstance(step, Refused):
            return step.kind
        if not isinstance(step, NeedMore):
            return step.answer
        if not data:
            return FailureKind.EOF_EARLY
