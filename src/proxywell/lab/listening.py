"""Where the fleet listens: on Linux few sockets for all of 127.0.0.0/8, elsewhere one per proxy.

A socket bound to 0.0.0.0 and to the device ``lo`` answers on every loopback address and on no
other; the local address of an accepted connection tells which proxy was meant.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import sys
from collections.abc import Callable, Iterator

from proxywell.errors import ProxywellError
from proxywell.lab.proxy import Proxy
from proxywell.lab.watch import Watch

BACKLOG = 4096
ACCEPTS_PER_EVENT = 256
FIRST_PORT, LAST_PORT = 12_000, 31_000  # below the ports that systems give to clients
FILL_WAIT_S = 0.2
FILLERS_MAX = 64

Accepted = Callable[[socket.socket, tuple[str, int], str], None]


class LabError(ProxywellError):
    """The lab cannot listen or cannot have the addresses that it needs."""

    code = "lab"


class Doors:
    """Every listening socket of a lab.

    Args:
        watch: Where listeners are watched.
        accepted: Called with each connection, the (host, port) that it came to, and the
            client's address.
        one_device: Use the device ``lo`` for all addresses; False: a socket per proxy.
    """

    def __init__(self, watch: Watch, accepted: Accepted, *, one_device: bool) -> None:
        self._watch = watch
        self._accepted = accepted
        self._one_device = one_device
        self._sockets: list[socket.socket] = []
        self._next_port = FIRST_PORT

    async def place(self, fleet: list[Proxy], seed: int) -> None:
        """Give every proxy its port, and listen.

        Args:
            fleet: Proxies with addresses and slots; their ports are set.
            seed: Moves the range of ports, so that labs side by side seldom ask for the same.

        Raises:
            LabError: No port is free, or the system refuses.
        """
        self._next_port = FIRST_PORT + (seed * 97) % (LAST_PORT - FIRST_PORT)
        try:
            if self._one_device:
                await self._place_on_device(fleet)
            else:
                await self._place_apart(fleet)
        except OSError as error:
            raise LabError(
                f"the lab cannot listen on loopback ({error.strerror or error}); "
                "raise the limit on open files or take fewer --candidates"
            ) from error

    def close(self) -> None:
        """Close every listener; works twice."""
        for sock in self._sockets:
            self._watch.remove(sock.fileno())
            sock.close()
        self._sockets.clear()

    async def _place_on_device(self, fleet: list[Proxy]) -> None:
        ports: dict[tuple[str, int], int] = {}
        for proxy in fleet:
            kind = _kind(proxy)
            if proxy.host == "::1":
                proxy.port = self._listen("::1", kind="live")
                continue
            key = kind, proxy.slot
            if key not in ports:
                ports[key] = self._listen("0.0.0.0", kind=kind)  # noqa: S104 - device lo only
                if kind == "black_hole":
                    await self._fill("127.0.0.1", ports[key])
            proxy.port = ports[key]

    async def _place_apart(self, fleet: list[Proxy]) -> None:
        for proxy in fleet:
            kind = _kind(proxy)
            if proxy.host != "::1":
                proxy.host = "127.0.0.1"
            proxy.port = self._listen(proxy.host, kind=kind)
            if kind == "black_hole":
                await self._fill(proxy.host, proxy.port)

    def _listen(self, host: str, *, kind: str) -> int:
        """Listen on a free port (hold it without listening for ``refuse``) and say which."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for _ in range(LAST_PORT - FIRST_PORT):
            port = self._next_port
            self._next_port = port + 1 if port < LAST_PORT else FIRST_PORT
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                if host == "0.0.0.0":  # noqa: S104 - device lo only
                    _bind_to_loopback_device(sock)
                if kind != "refuse":  # what is only held must not be shared with other labs
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((host, port))
                if kind != "refuse":
                    sock.listen(0 if kind == "black_hole" else BACKLOG)
            except OSError as error:
                sock.close()
                if error.errno == errno.EADDRINUSE:
                    continue
                raise
            self._sockets.append(sock)
            if kind == "live":
                self._take_from(sock, port)
            return port
        raise LabError(
            f"no port from {FIRST_PORT} to {LAST_PORT} is free on {host}; stop other labs"
        )

    def _take_from(self, listener: socket.socket, port: int) -> None:
        prepare_to_accept(listener)

        def take(_events: int) -> None:
            for sock, peer in accept_all(listener):
                try:
                    host = sock.getsockname()[0]
                except OSError:
                    sock.close()
                    continue
                self._accepted(sock, (host, port), peer)

        self._watch.add(listener.fileno(), take)

    async def _fill(self, host: str, port: int) -> None:
        """Fill a listener's queue until a further connection is no longer answered."""
        loop = asyncio.get_running_loop()
        for _ in range(FILLERS_MAX):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            self._sockets.append(sock)
            try:
                async with asyncio.timeout(FILL_WAIT_S):
                    await loop.sock_connect(sock, (host, port))
            except TimeoutError:
                return
        raise LabError(f"port {port} cannot be made a black hole: it answers without end")


def listen_on(host: str) -> socket.socket:
    """Listen on a free port of one address, ready for ``accept_all``."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen(BACKLOG)
    prepare_to_accept(listener)
    return listener


def prepare_to_accept(listener: socket.socket) -> None:
    """Make a listener non-blocking; what it accepts sends small pieces at once."""
    listener.setblocking(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted ones inherit it


def accept_all(listener: socket.socket) -> Iterator[tuple[socket.socket, str]]:
    """The connections that wait, non-blocking, each with the client's address."""
    for _ in range(ACCEPTS_PER_EVENT):
        try:
            sock, address = listener.accept()
        except OSError:  # nobody left, or out of descriptors: the rest waits
            return
        sock.setblocking(False)
        yield sock, address[0]


def _kind(proxy: Proxy) -> str:
    return proxy.behaviour.name if proxy.behaviour.visit is None else "live"


def _bind_to_loopback_device(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")


def device_trick_works() -> bool:
    """Whether one socket can answer for all loopback addresses here."""
    if sys.platform != "linux":
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            _bind_to_loopback_device(sock)
        except OSError:
            return False
    return True


def has_ipv6() -> bool:
    """Whether ``::1`` can be listened on."""
    if not socket.has_ipv6:
        return False
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


def require_addresses(hosts: list[str]) -> None:
    """Make sure that these loopback addresses can be connected from.

    Raises:
        LabError: One cannot; the sentence has the command that adds it.
    """
    for host in hosts:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            try:
                sock.bind((host, 0))
            except OSError as error:
                raise LabError(
                    f"the lab needs the loopback address {host}, which this system lacks; "
                    f"add it with: sudo ifconfig lo0 alias {host} up"
                ) from error


def raise_file_limit() -> int:
    """Raise the soft limit on open files to the hard one; answers what is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS has a lower limit than it says
            return soft
        return hard
    return soft
