"""Opening non-blocking TCP sockets at the least cost."""

from __future__ import annotations

import _socket
import errno
import socket
import sys
from collections.abc import Callable
from typing import Protocol, TypeAlias

from proxywell.net.backends import Backend

IN_PROGRESS = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR})

SPARE_SOCKETS = 256  # kept beyond what is waited for

# The number is Linux's own; Python names it only from 3.12 on.
_BIND_ADDRESS_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)


class Socket(Protocol):
    """What the reactor needs from a socket; all calls return at once."""

    def fileno(self) -> int:
        """The descriptor."""
        ...

    def connect_ex(self, address: tuple[str, int], /) -> int:
        """Begin to connect; 0 or an errno."""
        ...

    def send(self, data: bytes, /) -> int:
        """Send what fits; raises OSError."""
        ...

    def recv(self, max_bytes: int, /) -> bytes:
        """What is there; empty at the end; raises OSError."""
        ...

    def getsockopt(self, level: int, option: int, /) -> int:
        """An option's value."""
        ...

    def shutdown(self, how: int, /) -> None:
        """End both directions; raises OSError."""
        ...

    def close(self) -> None:
        """Give the descriptor back; works twice."""
        ...


SocketFactory: TypeAlias = Callable[[bool], Socket]


def socket_factory(source_address: str | None) -> SocketFactory:
    """Make a function that opens a socket; its argument says whether it is for IPv6.

    The function raises OSError. Sockets of the source address's own family are bound to it,
    where the system can with the port left open until the connect, so that one local port
    serves many proxies.

    The interpreter's inner socket type is used: the outer one adds files and reference counts
    that are never needed here, and a third of the cost.
    """
    flags = _socket.SOCK_STREAM
    born_ready = sys.platform == "linux"
    if sys.platform == "linux":
        flags |= _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    bound_v6 = source_address is not None and ":" in source_address

    def open_socket(ipv6: bool) -> Socket:
        opened = _socket.socket(_socket.AF_INET6 if ipv6 else _socket.AF_INET, flags)
        if not born_ready:
            opened.setblocking(False)
        if source_address is not None and ipv6 is bound_v6:
            try:
                if sys.platform == "linux":
                    opened.setsockopt(_socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                opened.bind((source_address, 0))
            except OSError:
                opened.close()
                raise
        return opened

    return open_socket


def disconnect(connecting: Socket) -> bool:
    """Take back a connect that has got no answer, so that the socket can connect elsewhere.

    On Linux shutting down a socket that is still connecting ends the attempt and leaves it as
    good as new. That costs a third of closing it, opening another and registering that.

    Returns:
        False if it was too late: the connect has failed meanwhile. A connect that has succeeded
        meanwhile is not noticed here; the socket then refuses its next connect.
    """
    try:
        connecting.shutdown(_socket.SHUT_RDWR)
    except OSError:
        return False
    return True


class SocketStock:
    """Where sockets come from and go to: those that never got a connection serve again.

    Args:
        backend: Watches every socket that is handed out.
        open_socket: Opens one.
    """

    __slots__ = ("_backend", "_open_socket", "_spare")

    def __init__(self, backend: Backend, open_socket: SocketFactory) -> None:
        self._backend = backend
        self._open_socket = open_socket
        self._spare: tuple[list[Socket], list[Socket]] = ([], [])

    def used(self, ipv6: bool) -> Socket | None:
        """A socket that is watched already, if there is one."""
        spare = self._spare[ipv6]
        return spare.pop() if spare else None

    def fresh(self, ipv6: bool) -> Socket:
        """A new socket, not yet watched; raises OSError."""
        idle = self._spare[not ipv6]
        if idle:  # all of them together never exceed the reactor's limit
            idle.pop().close()
        return self._open_socket(ipv6)

    def wants(self, queued: int) -> bool:
        """Whether one more spare socket would be used, with so many connects waiting."""
        return len(self._spare[0]) + len(self._spare[1]) < queued + SPARE_SOCKETS

    def give_back(self, used: Socket, *, ipv6: bool, clean: bool) -> None:
        """Close a watched socket, or keep it if it is as good as new and watched for life."""
        if self._backend.edge:
            if clean:
                self._spare[ipv6].append(used)
                return
        else:
            self._backend.forget(used.fileno())
        used.close()

    def drop_spare(self) -> None:
        """Close what is kept."""
        for spare in self._spare:
            while spare:
                spare.pop().close()
