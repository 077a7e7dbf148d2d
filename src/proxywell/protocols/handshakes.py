"""Which machine speaks which protocol."""

from __future__ import annotations

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.protocols.http import HttpConnect
from proxywell.protocols.machine import Handshake
from proxywell.protocols.socks4 import Socks4aConnect, Socks4Connect
from proxywell.protocols.socks5 import Socks5Connect


def handshake(endpoint: Endpoint, protocol: Protocol, host: str, port: int) -> Handshake:
    """Make the machine that opens a tunnel through a proxy.

    Args:
        endpoint: The proxy, for its credentials.
        protocol: CONNECT or one of SOCKS.
        host: Where the tunnel leads; for SOCKS4 an IPv4 address.
        port: 1 to 65535.

    Raises:
        ValueError: ``protocol`` is HTTP, which opens no tunnel, or cannot carry ``host``.
    """
    user, password = endpoint.user, endpoint.password
    match protocol:
        case Protocol.CONNECT:
            return HttpConnect(host, port, user, password)
        case Protocol.SOCKS4:
            return Socks4Connect(host, port, user or "")
        case Protocol.SOCKS4A:
            return Socks4aConnect(host, port, user or "")
        case Protocol.SOCKS5:
            return Socks5Connect(host, port, user, password)
        case Protocol.HTTP:
            raise ValueError("forwarding opens no tunnel; connect to the proxy and send to it")
