"""Keeps one main process going: forked, tied to this process, started again when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from proxywell.refresh.engines.tie import tie_to_parent
from proxywell.telemetry.events import emit
from proxywell.telemetry.work import WorkerMainEnded

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_BACK_OFF_FIRST_S: Final = 0.5
_BACK_OFF_MOST_S: Final = 10.0
_STEADY_S: Final = 30.0  # a main that lived so long is started again soon
_LOOK_S: Final = 0.05


class Keeper:
    """Runs mains one after the other until asked to end.

    SIGTERM and SIGINT ask the main to end, by SIGTERM; the second one kills it. A main is forked,
    so nothing secret is handed over in words, and has a process group of its own: Ctrl-C is for
    the process above, which tells it.

    Args:
        be_main: What a main does; its answer is the main's exit status.
    """

    def __init__(self, be_main: Callable[[], int]) -> None:
        self._be_main = be_main
        self._main = 0
        self._asked = 0  # how often we were asked to end

    def keep(self) -> int:
        """Return when asked to end and the main did: 0, or 1 if it did not end by itself."""
        kept = {number: signal.signal(number, self._end) for number in _ENDING}
        try:
            return self._keep()
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _keep(self) -> int:
        pause_s = _BACK_OFF_FIRST_S
        while not self._must_end():
            born_s = time.monotonic()
            status = self._one_main()
            if self._must_end():
                return 0 if status in (0, -signal.SIGTERM) else 1
            if time.monotonic() - born_s > _STEADY_S:
                pause_s = _BACK_OFF_FIRST_S
            emit(WorkerMainEnded(how=_in_words(status), restart_s=pause_s))
            self._pause(pause_s)
            pause_s = min(2 * pause_s, _BACK_OFF_MOST_S)
        return 0

    def _must_end(self) -> bool:
        return self._asked > 0

    def _pause(self, pause_s: float) -> None:
        due_s = time.monotonic() + pause_s
        while time.monotonic() < due_s and not self._asked:
            time.sleep(_LOOK_S)

    def _one_main(self) -> int:
        """Its exit status, or the number of the signal that ended it, below zero."""
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        self._main = os.fork()
        if self._main == 0:
            os._exit(self._as_main(parent))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        _, status = os.waitpid(self._main, 0)
        self._main = 0
        return os.waitstatus_to_exitcode(status)

    def _as_main(self, parent: int) -> int:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        tie_to_parent(parent)
        if self._asked:
            return 0
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        try:
            return self._be_main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        except BaseException:
            logging.getLogger("proxywell").exception("the worker's main ended")
            return 1

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._asked += 1
        if self._main:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._main, signal.SIGTERM if self._asked == 1 else signal.SIGKILL)


def _in_words(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
