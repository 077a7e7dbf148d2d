"""SOCKS4 and SOCKS4a, seen from the client.

Source: Y.-D. Lee, "SOCKS: A protocol for TCP proxy across firewalls" (SOCKS 4), and the note
"SOCKS 4A: A simple extension to SOCKS 4 protocol"; neither is an RFC.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address

from proxywell.model.failure import FailureKind
from proxywell.protocols.machine import Established, NeedMore, Refused, Step

REPLY_SIZE_BYTES = 8
GRANTED = 0x5A

_VERSION_OF_REPLY = 0x00
_VERSION_OF_REQUEST = 0x04  # echoed by some servers where the reply must have 0x00
_REFUSALS = frozenset({0x5B, 0x5C, 0x5D})
_NO_ADDRESS = b"\x00\x00\x00\x01"  # 0.0.0.x, x not 0: the name follows (SOCKS4a)
_NAME_MAX_BYTES = 255
_USER_MAX_BYTES = 255
_MORE = NeedMore()


class _SocksFour:
    """What both forms share: one request, one reply of eight bytes."""

    __slots__ = ("_finished", "_got", "opening")

    opening: bytes

    def __init__(self, opening: bytes) -> None:
        self.opening = opening
        self._got = b""
        self._finished = False

    def receive(self, data: bytes) -> Step:
        """Take bytes of the reply; see ``protocols.machine.Handshake``."""
        assert not self._finished, "a finished handshake was fed again"
        self._got += data
        step = self._next_step()
        if step is not _MORE:
            self._finished = True
            self._got = b""
        return step

    def ended(self) -> Step:
        """Say what the end of the stream means: the reply was cut off."""
        assert not self._finished, "a finished handshake was told of the end"
        self._finished = True
        return Refused(FailureKind.EOF_EARLY)

    def _next_step(self) -> Step:
        got = self._got
        if got and got[0] != _VERSION_OF_REPLY:
            socks_after_all = got[0] == _VERSION_OF_REQUEST
            kind = FailureKind.SOCKS_BAD_REPLY if socks_after_all else FailureKind.NOT_THIS_PROTOCOL
            return Refused(kind, got[0])
        if len(got) >= 2 and got[1] != GRANTED:  # some servers send no more than this
            named = got[1] in _REFUSALS
            kind = FailureKind.SOCKS_REFUSED if named else FailureKind.SOCKS_BAD_REPLY
            return Refused(kind, got[1])
        if len(got) < REPLY_SIZE_BYTES:
            return _MORE
        return Established(got[REPLY_SIZE_BYTES:])


class Socks4Connect(_SocksFour):
    """One SOCKS4 CONNECT seen from the client: bytes in, one Step out, no I/O.

    Args:
        host_ip: Text of an IPv4 address; the protocol can carry nothing else.
        port: 1 to 65535.
        user: The user id. One that the protocol cannot carry (a NUL in it, or more than 255
            bytes) is not sent: the server then decides about a caller without a name.

    Raises:
        ValueError: ``host_ip`` is no IPv4 address or the port is out of range.
    """

    __slots__ = ()

    def __init__(self, host_ip: str, port: int, user: str = "") -> None:
        super().__init__(_request(host_ip, port, user))


class Socks4aConnect(_SocksFour):
    """One SOCKS4a CONNECT: as SOCKS4, but the proxy resolves the name.

    Args:
        host: A host name in ASCII, 1 to 255 bytes. An address is sent as text too; servers
            take that for a name that resolves to itself.
        port: 1 to 65535.
        user: As for SOCKS4.

    Raises:
        ValueError: ``host`` is not such a name or the port is out of range.
    """

    __slots__ = ()

    def __init__(self, host: str, port: int, user: str = "") -> None:
        super().__init__(_request_by_name(host, port, user))


@lru_cache(maxsize=1024)  # nearly every request of a check goes to the same judge
def _request(host_ip: str, port: int, user: str) -> bytes:
    return b"\x04\x01" + _port(port) + IPv4Address(host_ip).packed + _user(user) + b"\x00"


@lru_cache(maxsize=1024)
def _request_by_name(host: str, port: int, user: str) -> bytes:
    name = host.encode("ascii")  # UnicodeEncodeError is a ValueError
    if not 0 < len(name) <= _NAME_MAX_BYTES or b"\x00" in name:
        raise ValueError(f"SOCKS4a cannot carry the host {host!r}")
    return b"\x04\x01" + _port(port) + _NO_ADDRESS + _user(user) + b"\x00" + name + b"\x00"


def _port(port: int) -> bytes:
    if not 0 < port < 65_536:
        raise ValueError(f"port {port} is not in 1 to 65535")
    return port.to_bytes(2, "big")


def _user(user: str) -> bytes:
    encoded = user.encode("utf-8", "surrogatepass")
    return encoded if len(encoded) <= _USER_MAX_BYTES and b"\x00" not in encoded else b""
