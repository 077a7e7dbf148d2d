"""What a client says to a proxy, read on the proxy's side: bytes in, a request or None out.

No I/O. Each reader takes everything received so far and answers ``None`` while it needs more.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxywell.model.endpoint import Protocol

HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"upgrade",
}


class Malformed(Exception):  # noqa: N818 - it is caught at once and never leaves the lab
    """The client speaks none of the protocols."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A target that a client asked for.

    Attributes:
        protocol: How it asked.
        host: Name or address as text.
        port: 1 to 65535.
        used_bytes: Where its request ended in what was received.
        user, password: The login that it gave, if any.
    """

    protocol: Protocol
    host: str
    port: int
    used_bytes: int
    user: bytes | None = None
    password: bytes | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one HTTP request.

    Attributes:
        method, target, version: The request line.
        headers: Names and values in order.
        used_bytes: Where the head ended.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    used_bytes: int


def read_request(got: bytes | bytearray) -> Request | None:
    """Read a request head, in absolute, origin or authority form.

    Raises:
        Malformed: The request line has not three words, or a header has no colon.
    """
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = bytes(got[:end]).split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        raise Malformed
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise Malformed
        headers.append((name, value.strip()))
    return Request(words[0], words[1], words[2], tuple(headers), end + 4)


def split_authority(text: bytes, default_port: int) -> tuple[str, int]:
    """Split ``host``, ``host:port`` or ``[v6]:port``.

    Raises:
        Malformed: No host, or a port that is not 1 to 65535.
    """
    if text.startswith(b"["):
        host, bracket, rest = text[1:].partition(b"]")
        if not bracket or (rest and not rest.startswith(b":")):
            raise Malformed
        port = rest[1:]
    else:
        host, _, port = text.partition(b":")
    if not host or not (port.isdigit() or not port):
        raise Malformed
    number = int(port) if port else default_port
    if not 1 <= number <= 65_535:
        raise Malformed
    return host.decode("latin-1"), number


def split_absolute(target: bytes) -> tuple[str, int, bytes]:
    """Split ``http://host:port/path`` into host, port and path with query.

    Raises:
        Malformed: Not absolute, or another scheme.
    """
    if target[:7].lower() != b"http://":
        raise Malformed
    authority, slash, path = target[7:].partition(b"/")
    host, port = split_authority(authority.rpartition(b"@")[2], 80)
    return host, port, slash + path if slash else b"/"


def read_socks4(got: bytes | bytearray) -> Wanted | None:
    """Read a SOCKS4 or SOCKS4a CONNECT; which one is told by the protocol of the answer.

    Raises:
        Malformed: Not CONNECT, or endless text.
    """
    if len(got) > 600:
        raise Malformed
    if len(got) < 9:
        return None
    if got[1] != 1:
        raise Malformed
    port = int.from_bytes(got[2:4])
    user_end = got.find(0, 8)
    if user_end < 0:
        return None
    if got[4:7] != b"\0\0\0" or got[7] == 0:
        host = ".".join(str(byte) for byte in got[4:8])
        return Wanted(Protocol.SOCKS4, host, port, user_end + 1)
    name_end = got.find(0, user_end + 1)
    if name_end < 0:
        return None
    name = bytes(got[user_end + 1 : name_end]).decode("latin-1")
    return Wanted(Protocol.SOCKS4A, name, port, name_end + 1)


def read_socks5_greeting(got: bytes | bytearray) -> tuple[bytes, int] | None:
    """Read the methods that a SOCKS5 client offers, and where its greeting ended."""
    if len(got) < 2 or len(got) < 2 + got[1]:
        return None
    return bytes(got[2 : 2 + got[1]]), 2 + got[1]


def read_socks5_login(got: bytes | bytearray) -> tuple[bytes, bytes, int] | None:
    """Read user and password (RFC 1929), and where the login ended."""
    if len(got) < 2 or len(got) < 3 + got[1]:
        return None
    user_end = 2 + got[1]
    end = user_end + 1 + got[user_end]
    if len(got) < end:
        return None
    return bytes(got[2:user_end]), bytes(got[user_end + 1 : end]), end


def read_socks5_request(got: bytes | bytearray) -> Wanted | None:
    """Read a SOCKS5 CONNECT (RFC 1928, section 4).

    Raises:
        Malformed: Wrong version, another command or address type.
    """
    if len(got) < 5:
        return None
    if got[0] != 5 or got[1] != 1:
        raise Malformed
    kind = got[3]
    if kind == 1:
        end, host = 8, ".".join(str(byte) for byte in got[4:8])
    elif kind == 3:
        end = 5 + got[4]
        host = bytes(got[5:end]).decode("latin-1")
    elif kind == 4:
        end, host = 20, "::"  # no simulated proxy reaches IPv6
    else:
        raise Malformed
    if len(got) < end + 2:
        return None
    return Wanted(Protocol.SOCKS5, host, int.from_bytes(got[end : end + 2]), end + 2)
