"""Keeps child processes running, on a thread that lives as long as they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from proxywell.errors import ProxywellError
from proxywell.orchestrator.children import Child, Order, in_words
from proxywell.orchestrator.tending import Act, Pace, Sight, Tended
from proxywell.telemetry.events import emit
from proxywell.telemetry.services import (
    ServiceEnded,
    ServiceKilled,
    ServiceNotStarted,
    ServiceSilent,
    ServiceStarted,
)

LOOK_S: Final = 0.1
KILL_S: Final = 2.0  # until a killed child is gone
STOPPING_LOOK_S: Final = 0.02  # somebody waits


class ServiceFailedError(ProxywellError):
    """A service that a refresh job needs cannot be kept running; the text says which and why."""

    code = "service_failed"

    def __init__(self, sentence: str, exit_status: int = 1) -> None:
        super().__init__(sentence)
        self.exit_status = exit_status  # type: ignore[misc] # as the child's own error had it

    @classmethod
    def of_a_bug(cls, bug: BaseException, where: str) -> ServiceFailedError:
        """What ended a thread of ours that must not end."""
        return cls(f"a bug of ours in {where}, {type(bug).__name__}: {bug}; please report it")


class Death(Struct, frozen=True):
    """What a child's end means.

    Attributes:
        how: In a few words: the status or signal, and what it said.
        hopeless: Whether every other one would end in the same way.
        exit_status: What a command that cannot do without it ends with.
    """

    how: str
    hopeless: bool = False
    exit_status: int = 1


class Charge(Protocol):
    """One kind of child to keep running. All calls come from the supervisor's thread."""

    name: str
    pace: Pace

    def may_start(self) -> bool:
        """Whether it is wanted, and what it stands on is there."""
        ...

    def order(self) -> Order:
        """What to run, its files written; called before each start.

        Raises:
            ProxywellError: It cannot be run at all.
            OSError: A file cannot be written.
        """
        ...

    def well(self, pid: int) -> bool | None:
        """Whether it does what it is there for; None when that cannot be known just now."""
        ...

    def death(self, status: int, words: Sequence[str]) -> Death:
        """Make sense of an end that nobody asked for; mend what can be mended.

        Args:
            status: Exit status, negative for a signal.
            words: The last lines that it wrote.
        """
        ...


class Supervisor:
    """Starts its charges, watches over them, starts again what ended, and stops them.

    Each charge is stopped only after those behind it in the list have ended: what others stand
    on comes first. Children are ended by their process id, never by name.

    Args:
        charges: What to keep running.
    """

    def __init__(self, charges: Sequence[Charge]) -> None:
        self._kept = [_Kept(charge) for charge in charges]
        self._leaving = threading.Event()
        self._ended = threading.Event()  # a join that was interrupted cannot be repeated
        self._at_once = False
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, works twice."""
        if self._thread.ident is None and not self._leaving.is_set():
            self._thread.start()

    def failure(self, name: str) -> ProxywellError | None:
        """Why a charge is no longer started; None while it is."""
        if self._bug is not None:
            return ServiceFailedError.of_a_bug(self._bug, "the supervisor")
        return next((kept.failure for kept in self._kept if kept.name == name), None)

    def stop(self) -> None:
        """Stop all; works before starting, and twice. Takes the charges' stated times at most."""
        self._leaving.set()
        if self._thread.ident is not None:
            self._ended.wait(sum(kept.pace.stop_s + 2.0 for kept in self._kept))

    def hurry(self) -> None:
        """Kill all at once."""
        self._at_once = True
        self._leaving.set()
        if self._thread.ident is not None:
            self._ended.wait(KILL_S * len(self._kept) + 1.0)

    def _run(self) -> None:
        try:
            while not self._is_over():  # ends with the last child, after stop()
                for kept in self._kept:
                    kept.look_after()
                self._rest()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            self._bug = error
        finally:
            for kept in self._kept:
                kept.kill()
            self._ended.set()

    def _rest(self) -> None:
        if self._leaving.is_set():
            time.sleep(STOPPING_LOOK_S)
        else:
            self._leaving.wait(LOOK_S)

    def _is_over(self) -> bool:
        if not self._leaving.is_set():
            return False
        if self._at_once:
            return True
        for kept in reversed(self._kept):
            kept.leave()
            if not kept.is_over():
                return False
        return True


class _Kept:
    """One charge, and its child of the moment."""

    def __init__(self, charge: Charge) -> None:
        self.name, self.pace = charge.name, charge.pace
        self.failure: ProxywellError | None = None
        self._charge = charge
        self._tended = Tended(charge.pace, time.monotonic())
        self._child: Child | None = None
        self._left = False

    def leave(self) -> None:
        self._left = True
        self._tended.leave()

    def is_over(self) -> bool:
        return self._left and self._child is None

    def kill(self) -> None:
        """End what is there, whatever state it is in, and see it end."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait(KILL_S)

    def look_after(self) -> None:
        child, now_s = self._child, time.monotonic()
        status = None if child is None else child.status()
        if child is not None and status is not None:
            self._child = None
            self._bury(child, status, now_s)
            return
        act = self._tended.look(now_s, self._sight(child))
        if act is Act.START:
            self._start()
        elif child is not None and act is Act.STOP:
            if self._tended.silent:
                silent_s = self._tended.quiet_s(now_s)
                emit(ServiceSilent(service=self.name, silent_s=silent_s))
            child.stop()
        elif child is not None and act is Act.KILL:
            emit(ServiceKilled(service=self.name, stop_s=self.pace.stop_s))
            child.kill()

    def _sight(self, child: Child | None) -> Sight:
        if child is None:
            return Sight(running=False, may_start=not self._left and self._charge.may_start())
        return Sight(running=True, well=self._charge.well(child.pid))

    def _start(self) -> None:
        try:
            self._child = Child(self._charge.order())
        except ProxywellError as error:
            self._tended.ended(time.monotonic(), hopeless=True)
            self.failure = error
        except OSError as error:
            self._tended.ended(time.monotonic())
            why = error.strerror or str(error)
            reason = f"{why}: {error.filename}" if error.filename else why
            if self._tended.given_up:
                self.failure = ServiceFailedError(f"{self.name} cannot be started: {reason}")
            else:
                emit(ServiceNotStarted(service=self.name, reason=reason))
        else:
            emit(ServiceStarted(service=self.name, pid=self._child.pid))

    def _bury(self, child: Child, status: int, now_s: float) -> None:
        if self._left:
            self._tended.ended(now_s)
            return
        words = child.last_words()
        if self._tended.silent:
            death = Death(f"{in_words(status)} after being silent")
        else:
            death = self._charge.death(status, words)
        self._tended.ended(now_s, excused=not self._charge.may_start(), hopeless=death.hopeless)
        if not self._tended.given_up:
            restart_s = self._tended.start_s - now_s
            emit(ServiceEnded(service=self.name, how=death.how, restart_s=restart_s))
            return
        again = "" if death.hopeless else f" {self._tended.barren} times in a row, at last"
        self.failure = ServiceFailedError(
            f"{self.name} ended{again} with {death.how} (its log: {child.log})",
            death.exit_status,
        )


def told(status: int, words: Sequence[str]) -> str:
    """A child's end in a few words: how, and the last thing that it said."""
    return f"{in_words(status)}: {words[-1]}" if words else in_words(status)
