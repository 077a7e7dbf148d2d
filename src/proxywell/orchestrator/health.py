"""Asks a Redis, again and again, how it is and who works there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from proxywell.errors import ProxywellError, StateError, StoreAwayError
from proxywell.refresh.books import JobRow, JobState
from proxywell.refresh.engines.node import is_gone
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link

LOOK_S: Final = 0.5
RISING_LOOK_S: Final = 0.05  # somebody waits for it
WORK_LOOK_S: Final = 3.0


class Health:
    """What is known of a server and of the mains that work there, looked up by a thread.

    Its readings are plain attributes that the thread replaces as a whole; times are of the
    monotonic clock.

    Attributes:
        answered_s: When the server last gave any answer, be it that it is loading; None: never.
        ready_s: When it last did what a ledger needs; None: never.
        trouble: Why it is not ready; None while it is.
        mains: Those that live, without those that are certainly gone; None: not known.
        idle_s: For how long chunks have been ready while nothing ran and nothing was claimed.
        where: The server's address.
        bug: What ended the thread, which must not end by itself; None: nothing did.

    Args:
        where: The server's address, asked anew for each connection.
        private: Whether we may ask the server itself, beside the ledger.
    """

    def __init__(self, where: Callable[[], RedisAddress], *, private: bool) -> None:
        self.answered_s: float | None = None
        self.ready_s: float | None = None
        self.trouble: StateError | None = None
        self.mains: frozenset[str] | None = None
        self.idle_s = 0.0
        self.bug: BaseException | None = None
        self.where = where
        self._private = private
        self._idle_from_s: float | None = None
        self._claimed: dict[str, int] = {}
        self._look_at_work_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """End after the question under way; works twice."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(2 * self.where().answer_s + 1.0)

    def answered_since(self, instant_s: float) -> bool:
        """Whether the server has answered lately, and after an instant."""
        return _is_fresh(self.answered_s, max(instant_s, self._lately_s()))

    def is_ready(self) -> bool:
        """Whether the server did lately what a ledger needs."""
        return _is_fresh(self.ready_s, self._lately_s())

    def _lately_s(self) -> float:
        return time.monotonic() - 2 * (LOOK_S + self.where().answer_s)

    def _run(self) -> None:
        try:
            self._ask()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            self.bug = error

    def _ask(self) -> None:
        while not self._over.is_set():
            address = self.where()
            link = Link(address)
            ledger = RedisLedger(address)
            try:
                while address == self.where() and not self._over.is_set():
                    self._look(link, ledger)
                    self._over.wait(RISING_LOOK_S if self.ready_s is None else LOOK_S)
            finally:
                link.close()
                ledger.close()

    def _look(self, link: Link, ledger: RedisLedger) -> None:
        try:
            if self._private:
                told = link.call("INFO", "persistence")
                self.answered_s = time.monotonic()
                if b"loading:1" in told:
                    raise StoreAwayError(f"Redis at {link.address.shown} is still loading its data")
            mains = ledger.nodes("")
        except StateError as error:
            self.trouble, self.mains = error, None
            return
        self.answered_s = self.ready_s = time.monotonic()
        self.trouble = None
        self.mains = frozenset(main for main in mains if not is_gone(main))
        self._look_at_work(ledger)

    def _look_at_work(self, ledger: RedisLedger) -> None:
        now_s = time.monotonic()
        if now_s < self._look_at_work_s:
            return
        self._look_at_work_s = now_s + WORK_LOOK_S
        try:
            rows = [row for row in ledger.jobs() if row.state is JobState.OPEN]
        except ProxywellError:
            return  # the next look tells
        claimed = {row.job_id: row.attempts for row in rows}
        if not _waits(rows) or claimed != self._claimed:
            self._idle_from_s = None
        elif self._idle_from_s is None:
            self._idle_from_s = now_s
        self._claimed = claimed
        self.idle_s = 0.0 if self._idle_from_s is None else now_s - self._idle_from_s


def _waits(rows: list[JobRow]) -> bool:
    """Whether there is something to do and nobody does anything."""
    return any(row.ready for row in rows) and not any(row.running for row in rows)


def _is_fresh(instant_s: float | None, since_s: float) -> bool:
    return instant_s is not None and instant_s >= since_s
