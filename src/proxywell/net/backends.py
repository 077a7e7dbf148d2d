"""How many sockets are watched at once: epoll where it exists, `selectors` elsewhere."""

from __future__ import annotations

import select
import selectors
from typing import Protocol

READ = 0x001  # the values of EPOLLIN and so on, so that epoll's own masks pass unchanged
WRITE = 0x004
ERROR = 0x008
HANG_UP = 0x010
READ_HANG_UP = 0x2000


class Backend(Protocol):
    """What the reactor needs from the system's readiness interface.

    A descriptor is watched from its ``connect`` until it is closed. ``edge`` says that every
    change is told once, so the reactor must read to the end, and that a refused socket may stay
    registered and be used again; otherwise readiness is told as long as it lasts and
    ``awaits_write`` says what is wanted.
    """

    edge: bool

    def descriptor(self) -> int | None:
        """One descriptor that is readable when anything happened; None if there is none."""
        ...

    def watch(self, descriptor: int) -> None:
        """Begin to watch a socket whose ``connect`` was called."""
        ...

    def awaits_write(self, descriptor: int, wanted: bool) -> None:
        """Say whether room to send is of interest; without meaning where ``edge`` is true."""
        ...

    def forget(self, descriptor: int) -> None:
        """Stop watching, before the socket is closed; not needed where ``edge`` is true."""
        ...

    def poll(self, at_most: int) -> list[tuple[int, int]]:
        """What happened, as (descriptor, mask), without waiting."""
        ...

    def close(self) -> None:
        """Give the descriptor back; works twice."""
        ...


HAS_EPOLL = hasattr(select, "epoll")
_EDGE = 1 << 31  # EPOLLET, which Python does not name everywhere


class EpollBackend:
    """One edge-triggered epoll registration per connection, for its whole life."""

    edge = True
    _mask = READ | WRITE | READ_HANG_UP | _EDGE

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def descriptor(self) -> int | None:
        """The epoll descriptor; an event loop may watch it like any other."""
        return self._epoll.fileno()

    def watch(self, descriptor: int) -> None:
        """Register once; what is already the case is told at the next poll."""
        self._epoll.register(descriptor, self._mask)

    def awaits_write(self, descriptor: int, wanted: bool) -> None:
        """Nothing to do: both directions are registered for life."""

    def forget(self, descriptor: int) -> None:
        """Nothing to do: closing the socket ends its registration."""

    def poll(self, at_most: int) -> list[tuple[int, int]]:
        """What happened since the last poll."""
        return self._epoll.poll(0, at_most)

    def close(self) -> None:
        """Close the epoll descriptor; works twice."""
        self._epoll.close()


class SelectorsBackend:
    """The best of ``selectors`` on this system, level-triggered."""

    edge = False

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def descriptor(self) -> int | None:
        """The descriptor of epoll, kqueue or /dev/poll; None for poll and select."""
        fileno = getattr(self._selector, "fileno", None)
        return None if fileno is None else int(fileno())

    def watch(self, descriptor: int) -> None:
        """Wait for the connect to end, which is told as room to send."""
        self._selector.register(descriptor, selectors.EVENT_WRITE)

    def awaits_write(self, descriptor: int, wanted: bool) -> None:
        """Read always, and look for room to send only while something is unsent."""
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        self._selector.modify(descriptor, mask)

    def forget(self, descriptor: int) -> None:
        """Unregister, because not every system does so on close."""
        self._selector.unregister(descriptor)

    def poll(self, at_most: int) -> list[tuple[int, int]]:
        """What is the case now; the count is the system's own."""
        happened = []
        for key, mask in self._selector.select(0)[:at_most]:
            events = READ if mask & selectors.EVENT_READ else 0
            if mask & selectors.EVENT_WRITE:
                events |= WRITE
            happened.append((key.fd, events))
        return happened

    def close(self) -> None:
        """Close the selector; works twice."""
        self._selector.close()


def make_backend(name: str) -> Backend:
    """Make the back end that a setting names.

    Args:
        name: ``auto`` (epoll where it exists), ``epoll`` or ``selectors``.

    Raises:
        ValueError: ``epoll`` on a system without it, or an unknown name.
    """
    if name not in ("auto", "epoll", "selectors"):
        raise ValueError(f"no back end is called {name!r}: use auto, epoll or selectors")
    if name == "epoll" and not HAS_EPOLL:
        raise ValueError("this system has no epoll: set checking.backend to auto or selectors")
    return EpollBackend() if HAS_EPOLL and name != "selectors" else SelectorsBackend()
