"""What every handshake machine says, and the shape that they share."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, TypeAlias

from msgspec import Struct

from proxywell.model.failure import FailureKind


class NeedMore(Struct, frozen=True, gc=False):
    """Send these bytes (perhaps none), then read on."""

    send: bytes = b""


class Established(Struct, frozen=True, gc=False):
    """The handshake is over; what came behind it already belongs to the tunnel.

    Attributes:
        leftover: The tunnel's first bytes; they arrived with the end of the handshake.
        send: What must leave before anything else. Empty, except for a server that answered
            before it was asked: then it is what the server should have waited for.
    """

    leftover: bytes = b""
    send: bytes = b""


class Refused(Struct, frozen=True, gc=False):
    """No, with the reason.

    Attributes:
        kind: The reason.
        detail: With NOT_THIS_PROTOCOL the first byte that does not fit; with SOCKS_* and the
            AUTH_REQUIRED of SOCKS5 the reply code or the byte that is wrong; with everything
            of HTTP the status, if the status line was read; None if there was nothing to see.
    """

    kind: FailureKind
    detail: int | None = None


Step: TypeAlias = NeedMore | Established | Refused


class Handshake(Protocol):
    """One handshake seen from the client.

    ``opening`` is sent as soon as the connection stands. ``receive`` takes whatever TCP handed
    over, in any cut, and answers one Step; it never raises on a stranger's bytes and never
    keeps more than its limit. After Established or Refused it must not be fed again, nor told
    of the end. ``ended`` says what the end of the stream (FIN) means at this point.
    """

    @property
    def opening(self) -> bytes:
        """The first bytes to send; not empty."""
        ...

    def receive(self, data: bytes) -> Step:
        """Take bytes in, say what is next."""
        ...

    def ended(self) -> Step:
        """The other side closed: Refused, or Established if that is how an answer ends."""
        ...


class Family(StrEnum):
    """What the other side turned out to speak."""

    HTTP = "http"
    SOCKS4 = "socks4"  # also where only SOCKS is certain, not which
    SOCKS5 = "socks5"
    STRANGE = "strange"  # bytes of no protocol that we know


_HTTP_FIRST_BYTE = 0x48  # the H of HTTP/
_OF_FIRST_BYTE = {
    _HTTP_FIRST_BYTE: Family.HTTP,
    0x05: Family.SOCKS5,
    0x04: Family.SOCKS4,  # what some SOCKS4 servers send in place of 0x00
    0x00: Family.SOCKS4,
}
_OF_HTTP = frozenset(
    {
        FailureKind.HTTP_STATUS,
        FailureKind.BAD_HTTP,
        FailureKind.HEADER_TOO_LARGE,
        FailureKind.BODY_TOO_LARGE,
        FailureKind.DECODE_BOMB,
    }
)


def family_heard(refused: Refused, *, tried: Family) -> Family | None:
    """Say what a refusal shows about the protocol of the other side.

    Args:
        refused: What a machine answered.
        tried: The family that the machine speaks.

    Returns:
        None when no byte of an answer was seen (closed, reset, silent).
    """
    match refused:
        case Refused(FailureKind.NOT_THIS_PROTOCOL, int(first_byte)):
            return _OF_FIRST_BYTE.get(first_byte, Family.STRANGE)
        case Refused(FailureKind.NOT_THIS_PROTOCOL):
            return Family.STRANGE
        case Refused(
            FailureKind.AUTH_REQUIRED | FailureKind.SOCKS_REFUSED | FailureKind.SOCKS_BAD_REPLY
        ):
            return tried
        case Refused(kind, detail) if kind in _OF_HTTP or (
            tried is Family.HTTP and kind is FailureKind.EOF_EARLY and detail is not None
        ):
            return Family.HTTP
        case _:
            return None
