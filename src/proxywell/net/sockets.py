"""Opening non-blocking TCP sockets at the least cost."""

from __future__ import annotations

import _socket
import errno
import socket
import sys
from collections.abc import Callable
from typing import Protocol, TypeAlias

from proxywell.net.backends import Backend

SPARE_SOCKETS = 64  # refused ones kept for the next connect, per family
IN_PROGRESS = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR})

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


class SocketStock:
    """Where sockets come from and go to: refused ones serve again, if the back end allows it.

    Args:
        backend: Watches every socket that is handed out.
        open_socket: Opens one.
    """

    __slots__ = ("_backend", "_open_socket", "_spare")

    def __init__(self, backend: Backend, open_socket: SocketFactory) -> None:
        self._backend = backend
        self._open_socket = open_socket
        self._spare: tuple[list[Socket], list[Socket]] = ([], [])

    def take(self, ipv6: bool) -> tuple[Socket, bool]:
        """A socket, and whether it is fresh, which means not yet watched; raises OSError."""
        spare = self._spare[ipv6]
        if spare:
            return spare.pop(), False
        return self._open_socket(ipv6), True

    def give_back(self, used: Socket, *, ipv6: bool, clean: bool) -> None:
        """Close a watched socket, or keep it if it is as good as new and watched for life."""
        spare = self._spare[ipv6]
        if clean and self._backend.edge and len(spare) < SPARE_SOCKETS:
            spare.append(used)
            return
        if not self._backend.edge:
            self._backend.forget(used.fileno())
        used.close()

    def drop_spare(self) -> None:
        """Close what is kept."""
        for spare in self._spare:
            while spare:
                spare.pop().close()
