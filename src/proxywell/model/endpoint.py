"""Where a proxy is and how to speak to it."""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import quote

from msgspec import Struct


class Protocol(StrEnum):
    """How we speak to a proxy.

    ``http`` forwards requests in absolute form (RFC 9112, section 3.2.2), ``connect`` opens
    tunnels (RFC 9110, section 9.3.6), ``socks4`` and ``socks4a`` differ in who resolves the
    name, ``socks5`` is RFC 1928.
    """

    HTTP = "http"
    CONNECT = "connect"
    SOCKS4 = "socks4"
    SOCKS4A = "socks4a"
    SOCKS5 = "socks5"

    @property
    def scheme(self) -> str:
        """The URL scheme that clients expect: ``http`` for http and connect, else the word."""
        return "http" if self is Protocol.CONNECT else self.value


class Endpoint(Struct, frozen=True, array_like=True, gc=False):
    """A host, a port, and credentials if the list gave some: the identity of a candidate.

    Attributes:
        host: Canonical text of an address (no brackets, no zone, IPv6 compressed and in
            lower case), or a host name in lower case where names are allowed.
        port: 1 to 65535.
        user, password: Both given or both None. Never in a log or an event.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = None

    @property
    def netloc(self) -> str:
        """``host:port`` without credentials, IPv6 in brackets: for people and logs."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def key(self) -> str:
        """The identity as text, credentials included; a key for stores, never for logs."""
        if self.user is None:
            return self.netloc
        return f"{quote(self.user, safe='')}:{quote(self.password or '', safe='')}@{self.netloc}"

    def url(self, protocol: Protocol) -> str:
        """The URL that a client pastes, credentials included."""
        return f"{protocol.scheme}://{self.key}"

    def __repr__(self) -> str:
        """Say where, and that there are credentials, but not which."""
        return f"Endpoint({'***@' if self.user is not None else ''}{self.netloc})"
