"""One raw TCP connection of the lab: non-blocking, buffered when the other side is slow."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Protocol

from proxywell.lab.watch import READ, WRITE, Watch

READ_BYTES = 16_384
QUEUE_MAX_BYTES = 262_144  # then the side that feeds us should pause
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time: close sends RST
_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)  # absent before Python 3.12


class Owner(Protocol):
    """Who is told what happens on a channel."""

    def connected(self, channel: Channel) -> None:
        """A dialled channel stands."""
        ...

    def received(self, channel: Channel, data: bytes) -> None:
        """Bytes came; never empty."""
        ...

    def ended(self, channel: Channel) -> None:
        """The other side sent FIN; sending is still possible."""
        ...

    def lost(self, channel: Channel) -> None:
        """Reset, or could not connect; the channel is closed already."""
        ...

    def drained(self, channel: Channel) -> None:
        """Everything queued has left."""
        ...


class Channel:
    """A connected or connecting socket with an owner.

    Everything is safe to call on a closed channel and then does nothing.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_connecting",
        "_ending",
        "_fd",
        "_interest",
        "_owner",
        "_queue",
        "_watch",
        "sock",
    )

    def __init__(self, watch: Watch, sock: socket.socket, owner: Owner) -> None:
        self.sock = sock
        self._fd = sock.fileno()
        self._watch = watch
        self._owner = owner
        self._queue = bytearray()
        self._interest = READ
        self._closing = False
        self._ending = False
        self._connecting = False
        watch.add(self._fd, self._event)

    @classmethod
    def dial(
        cls, watch: Watch, host: str, port: int, *, source: str | None, owner: Owner
    ) -> Channel | None:
        """Connect to an IPv4 address; the owner hears ``connected`` or ``lost`` later.

        Args:
            watch: Where the socket is watched.
            host: IPv4 text.
            port: 1 to 65535.
            source: Address to connect from; None leaves it to the system.
            owner: Who is told.

        Returns:
            None if the system refuses at once; then the owner hears nothing.
        """
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            if source is not None:
                _choose_port_late(sock)
                sock.bind((source, 0))
            outcome = sock.connect_ex((host, port))
            if outcome == errno.EINPROGRESS:  # loopback has often finished inside the call
                outcome = sock.connect_ex((host, port))
        except OSError:
            sock.close()
            return None
        if outcome not in {0, errno.EISCONN, errno.EALREADY, errno.EINPROGRESS}:
            sock.close()
            return None
        channel = cls(watch, sock, owner)
        channel._connecting = True
        if outcome in {0, errno.EISCONN}:
            channel._connecting = False
        else:
            channel._want(WRITE)
        return channel

    @property
    def open(self) -> bool:
        """False once closed or lost."""
        return self._fd >= 0

    @property
    def connecting(self) -> bool:
        """True until a dialled channel stands; ``connected`` is then still to come."""
        return self._connecting

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent."""
        return len(self._queue)

    def send(self, data: bytes) -> None:
        """Send now what the system takes, queue the rest."""
        if self._fd < 0 or not data:
            return
        if self._queue or self._connecting:
            self._queue += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose()
            return
        if sent < len(data):
            self._queue += data[sent:]
            self._want(self._interest | WRITE)

    def send_with_end(self, data: bytes) -> None:
        """Send data and FIN in one segment, as far as the system goes along."""
        if self._queue or self._connecting:
            self.send(data)
        elif self._fd >= 0:
            more = getattr(socket, "MSG_MORE", 0)
            try:
                self.sock.send(data, more)
            except OSError:
                self._lose()
                return
        self.end()

    def end(self) -> None:
        """Send FIN after what is queued; reading goes on."""
        if self._fd < 0:
            return
        self._ending = True
        if self._queue or self._connecting:
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._lose()

    def close(self) -> None:
        """Close in order once everything queued has left."""
        if self._fd < 0:
            return
        if self._queue:
            self._closing = True
            self._want(WRITE)
        else:
            self._drop()

    def reset(self) -> None:
        """Close at once with RST."""
        if self._fd >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._drop()

    def pause(self) -> None:
        """Stop reading."""
        if self._fd >= 0:
            self._want(self._interest & ~READ)

    def resume(self) -> None:
        """Read again."""
        if self._fd >= 0:
            self._want(self._interest | READ)

    def _want(self, interest: int) -> None:
        if interest != self._interest:
            self._interest = interest
            self._watch.change(self._fd, interest)

    def _event(self, events: int) -> None:
        if events & WRITE and self._interest & WRITE:
            self._write()
        if self._fd >= 0 and events & ~WRITE:
            if self._interest & READ:
                self._read()
            elif events & ~(READ | WRITE):  # both directions are over, or it was reset
                self._lose()

    def _read(self) -> None:
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            return
        if data:
            self._owner.received(self, data)
        else:
            self._owner.ended(self)
            if self._fd >= 0:
                self._want(self._interest & ~READ)

    def _write(self) -> None:
        if self._connecting:
            if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._lose()
                return
            self._connecting = False
            self._want(READ)
            self._owner.connected(self)
            if self._fd < 0:
                return
        if self._queue:
            try:
                sent = self.sock.send(self._queue)
            except BlockingIOError:
                return
            except OSError:
                self._lose()
                return
            del self._queue[:sent]
            if self._queue:
                self._want(self._interest | WRITE)
                return
        if self._closing:
            self._drop()
            return
        self._want(self._interest & ~WRITE)
        if self._ending:
            self.end()
        else:
            self._owner.drained(self)

    def _lose(self) -> None:
        self._drop()
        self._owner.lost(self)

    def _drop(self) -> None:
        if self._fd >= 0:
            self._watch.remove(self._fd)
            self._fd = -1
            self._queue.clear()
            self.sock.close()


def _choose_port_late(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_IP, _NO_PORT, 1)
    except OSError:  # not Linux: the port is then chosen by bind
        return
