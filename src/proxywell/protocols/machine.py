"""What every handshake machine says, and the shape that they share."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from msgspec import Struct

from proxywell.model.failure import FailureKind


class NeedMore(Struct, frozen=True, gc=False):
    """Send these bytes (perhaps none), then read on."""

    send: bytes = b""


class Established(Struct, frozen=True, gc=False):
    """The handshake is over; what came behind it already belongs to the tunnel."""

    leftover: bytes = b""


class Refused(Struct, frozen=True, gc=False):
    """No, with the reason; ``detail`` is the status, reply code or first byte that said so."""

    kind: FailureKind
    detail: int | None = None


Step: TypeAlias = NeedMore | Established | Refused


class Handshake(Protocol):
    """One handshake seen from the client.

    ``opening`` is sent as soon as the connection stands. ``receive`` takes whatever TCP handed
    over, in any cut, and answers one Step; it never raises on a stranger's bytes and never
    keeps more than its limit. After Established or Refused it must not be fed again. ``ended``
    says what the end of the stream (FIN) means at this point.
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
