"""Readiness of thousands of raw sockets, behind one descriptor of the event loop where that works.

The lab shares a small machine with the checker under test, so a connection costs it one
registration and no transport, task or future.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable
from typing import Protocol, TypeAlias

Handler: TypeAlias = Callable[[int], None]

READ = 1  # the values of EPOLLIN and EPOLLOUT, used by both watches
WRITE = 4
EVENTS_PER_POLL = 512


class Watch(Protocol):
    """Level-triggered readiness; handlers get READ, WRITE or both, errors come as READ."""

    def add(self, fd: int, handler: Handler) -> None:
        """Watch for reading from now on."""
        ...

    def change(self, fd: int, interest: int) -> None:
        """Watch for READ, WRITE, both or neither."""
        ...

    def remove(self, fd: int) -> None:
        """Forget a descriptor that is about to be closed; unknown ones are ignored."""
        ...

    def close(self) -> None:
        """Stop watching altogether."""
        ...


class EpollWatch:
    """An epoll descriptor of our own, which the event loop sees as one readable descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, fd: int, handler: Handler) -> None:
        """See Watch."""
        self._handlers[fd] = handler
        self._epoll.register(fd, READ)

    def change(self, fd: int, interest: int) -> None:
        """See Watch."""
        self._epoll.modify(fd, interest)

    def remove(self, fd: int) -> None:
        """See Watch; closing the descriptor takes it out of the epoll set."""
        self._handlers.pop(fd, None)

    def close(self) -> None:
        """See Watch."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._handlers.clear()

    def _ready(self) -> None:
        handlers = self._handlers
        for fd, events in self._epoll.poll(0, EVENTS_PER_POLL):
            handler = handlers.get(fd)  # an earlier handler of this round may have closed it
            if handler is not None:
                handler(events)


class LoopWatch:
    """The event loop's own readers and writers: slower, and there on every system."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handlers: dict[int, Handler] = {}

    def add(self, fd: int, handler: Handler) -> None:
        """See Watch."""
        self._handlers[fd] = handler
        self._loop.add_reader(fd, handler, READ)

    def change(self, fd: int, interest: int) -> None:
        """See Watch."""
        handler = self._handlers[fd]
        if interest & READ:
            self._loop.add_reader(fd, handler, READ)
        else:
            self._loop.remove_reader(fd)
        if interest & WRITE:
            self._loop.add_writer(fd, handler, WRITE)
        else:
            self._loop.remove_writer(fd)

    def remove(self, fd: int) -> None:
        """See Watch."""
        if self._handlers.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def close(self) -> None:
        """See Watch."""
        for fd in list(self._handlers):
            self.remove(fd)


def watch_on(loop: asyncio.AbstractEventLoop) -> Watch:
    """The best watch of this system."""
    return EpollWatch(loop) if sys.platform == "linux" else LoopWatch(loop)
