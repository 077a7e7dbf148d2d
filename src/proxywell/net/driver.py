"""Runs a reactor inside an asyncio loop, which sees one descriptor and one timer of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxywell.net.backends import Backend
from proxywell.net.reactor import Reactor

COALESCE_S = 0.025  # what falls due within this of each other is handled together
UNWATCHED_S = 0.005  # between polls, where the back end has no descriptor to wait for


class LoopDriver:
    """Calls ``Reactor.turn`` when something happened, is due or was submitted.

    All calls on the loop's own thread.

    Args:
        loop: Watches the back end's descriptor from ``run`` to ``stop``.
        backend: The reactor's.
        before_turn, after_turn: Called around every turn.
        broke: Told of an exception that escaped from a turn; the reactor goes on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        backend: Backend,
        *,
        before_turn: Callable[[], None],
        after_turn: Callable[[], None],
        broke: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._descriptor = backend.descriptor()
        self._before_turn = before_turn
        self._after_turn = after_turn
        self._broke = broke
        self._reactor: Reactor | None = None
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def run(self, reactor: Reactor) -> None:
        """Begin to watch."""
        self._reactor = reactor
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._turn)

    def wake(self) -> None:
        """Have a turn soon; cheap when one is coming already."""
        if self._soon is None and self._reactor is not None:
            self._soon = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        """Stop watching; works twice. The reactor is closed by its owner afterwards."""
        if self._reactor is None:
            return
        self._reactor = None
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()
        self._soon = self._timer = None

    def _turn(self) -> None:
        reactor = self._reactor
        if reactor is None:
            return
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        next_s: float | None = UNWATCHED_S
        try:
            self._before_turn()
            next_s = reactor.turn()
            self._after_turn()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other sockets go on
            self._broke(error)
        if self._descriptor is None and reactor.in_use:
            next_s = UNWATCHED_S if next_s is None else min(next_s, UNWATCHED_S)
        if next_s == 0.0:
            self.wake()
        elif next_s is not None:
            self._arm(self._loop.time() + next_s + COALESCE_S)

    def _arm(self, at_s: float) -> None:
        """Set the timer, unless it goes off early enough: then it is set anew."""
        timer = self._timer
        if timer is not None:
            if timer.when() <= at_s:
                return
            timer.cancel()
        self._timer = self._loop.call_at(at_s, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._turn()
