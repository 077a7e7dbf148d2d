"""What the reactor talks through one socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxywell.model.failure import FailureKind

if TYPE_CHECKING:
    from proxywell.net.deadlines import Line
    from proxywell.net.sockets import Socket


class Conversation:
    """One connection's worth of talk: the reactor calls, the subclass decides.

    Every conversation ends with exactly one of ``finished``, ``ended``, ``failed``,
    ``deferred`` or ``broke``, after its socket was given back, unless it is cancelled. It is
    good for one connection.

    Attributes:
        host, port: Where to connect; the host is an address in canonical text.
        patient: Only the hard times hold, and it is never deferred.
        guess: Silence ends it at the soft answer time; once bytes came the hard time holds.
        stands: The connection stood.
        spoke: Bytes came from the other side.
        opened_s: Monotonic instant at which the connect began.
        line, due_s, socket, unsent, fault_s: The reactor's own.
    """

    __slots__ = (
        "due_s",
        "fault_s",
        "guess",
        "host",
        "line",
        "opened_s",
        "patient",
        "port",
        "socket",
        "spoke",
        "stands",
        "unsent",
    )

    def __init__(self, host: str, port: int, *, patient: bool, guess: bool = False) -> None:
        self.host = host
        self.port = port
        self.patient = patient
        self.guess = guess
        self.stands = self.spoke = False
        self.opened_s = 0.0
        self.line: Line | None = None
        self.due_s = 0.0
        self.socket: Socket | None = None
        self.unsent = b""
        self.fault_s = 0.0

    def leave_line(self) -> None:
        """Stand in no line any more."""
        line = self.line
        if line is not None:
            line.count -= 1
            self.line = None

    def connected(self, now_s: float) -> bytes | None:
        """Say what to send first; None to hang up (``finished`` follows)."""
        raise NotImplementedError

    def received(self, data: bytes, now_s: float) -> bytes | None:
        """Take what came; say what to send, perhaps nothing, or None when all is known."""
        raise NotImplementedError

    def finished(self, now_s: float) -> None:
        """The socket is given back after ``connected`` or ``received`` said None."""
        raise NotImplementedError

    def ended(self, now_s: float) -> None:
        """The other side closed after its last byte."""
        raise NotImplementedError

    def failed(self, kind: FailureKind | None, now_s: float) -> None:
        """The connection failed; kind None means the answer's time is over."""
        raise NotImplementedError

    def late(self, now_s: float) -> None:
        """Not a byte within the soft answer time, and it goes on."""
        raise NotImplementedError

    def deferred(self, now_s: float) -> None:
        """Somebody waited for the socket; try again later."""
        raise NotImplementedError

    def broke(self, error: Exception, now_s: float) -> None:
        """One of these methods raised: a bug of ours."""
        raise NotImplementedError
