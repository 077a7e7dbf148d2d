"""Connections that asyncio code waits for: through a proxy, or direct for control requests.

The reactor checks thousands of candidates; this is for the few that pass. Every wait ends at an
instant that was fixed beforehand, however slowly bytes drip in.
"""

from __future__ import annotations

import asyncio
import socket

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.net.resolve import GuardRefusal, resolve
from proxywell.net.stream import ProxyStream
from proxywell.net.translate import Stage, failure_of
from proxywell.protocols.handshakes import handshake
from proxywell.protocols.machine import Established, Handshake, NeedMore, Refused

_READ_BYTES = 4_096
# Linux: leave the choice of the port to connect, which may use one port for many targets.
_BIND_WITHOUT_PORT: int | None = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", None)


async def open_tunnel(
    endpoint: Endpoint,
    protocol: Protocol,
    host: str,
    port: int,
    *,
    refusal: GuardRefusal,
    source_address: str | None = None,
    connect_s: float,
    answer_s: float,
) -> ProxyStream | FailureKind:
    """Open a tunnel through a proxy to a host.

    Args:
        endpoint: The proxy, with its credentials; a name is resolved and vetted here.
        protocol: CONNECT or one of SOCKS; there is no tunnel by forwarding.
        host: Where the tunnel leads; the proxy resolves it. An IPv4 address for SOCKS4.
        port: 1 to 65535.
        refusal: ``Guard.refusal``; asked about the address that is really dialled.
        source_address: Local address to connect from; does not apply to a proxy of the
            other address family.
        connect_s: Longest time, in seconds, to resolve the proxy's name and connect to it.
        answer_s: Longest time for the handshake, and again for everything that is then done
            with the stream (its ``deadline_s`` can be set anew).

    Returns:
        The stream, or why there is none; nothing is left open then.

    Raises:
        ValueError: ``protocol`` is HTTP, or cannot carry ``host`` and ``port``.
    """
    machine = handshake(endpoint, protocol, host, port)
    stream = await open_direct(
        endpoint.host,
        endpoint.port,
        refusal=refusal,
        source_address=source_address,
        connect_s=connect_s,
        answer_s=answer_s,
    )
    if isinstance(stream, FailureKind):
        return stream
    try:
        outcome = await _shake_hands(stream, machine)
    except OSError as error:
        stream.close()
        return failure_of(error, Stage.HANDSHAKE)
    except BaseException:
        stream.close()
        raise
    if isinstance(outcome, Refused):
        stream.close()
        return outcome.kind
    stream.give_back(outcome.leftover)
    stream.deadline_s = asyncio.get_running_loop().time() + answer_s
    return stream


async def open_direct(
    host: str,
    port: int,
    *,
    refusal: GuardRefusal,
    source_address: str | None = None,
    connect_s: float,
    answer_s: float,
) -> ProxyStream | FailureKind:
    """Connect without a proxy: to the proxy itself, or to a judge as a control.

    Args:
        host: Name or address without brackets; a name's addresses are tried in their order.
        port: 1 to 65535.
        refusal: ``Guard.refusal``; asked about the address that is really dialled.
        source_address: Local address to connect from; does not apply to a target of the
            other address family.
        connect_s: Longest time, in seconds, to resolve the name and connect, in all.
        answer_s: Longest time for everything that is then done with the stream.

    Returns:
        The stream, or why there is none (with several addresses: why not the last one).
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + connect_s
    addresses = await resolve(host, port, guard_refusal=refusal, deadline_s=deadline_s)
    if isinstance(addresses, FailureKind):
        return addresses
    failure = FailureKind.DNS
    for address in addresses:
        if refusal(address, port) is not None:
            return FailureKind.ADDRESS_REFUSED
        try:
            async with asyncio.timeout_at(deadline_s):
                sock = await _connect(address, port, source_address)
        except OSError as error:
            failure = failure_of(error, Stage.CONNECT)
        else:
            return ProxyStream(sock, deadline_s=loop.time() + answer_s)
    return failure


async def _connect(address: str, port: int, source_address: str | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source_address is not None and (":" in source_address) == (":" in address):
            if _BIND_WITHOUT_PORT is not None and family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, _BIND_WITHOUT_PORT, 1)
            sock.bind((source_address, 0))
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _shake_hands(stream: ProxyStream, handshake: Handshake) -> Established | Refused:
    await stream.send(handshake.opening)
    while True:  # each turn waits for bytes of the proxy, at most until the stream's deadline
        data = await stream.receive(_READ_BYTES)
        step = handshake.receive(data) if data else handshake.ended()
        if isinstance(step, Refused):
            return step
        if step.send:
            await stream.send(step.send)
        if not isinstance(step, NeedMore):
            return step
        assert data, "a machine wanted more behind the end of the stream"
