"""The thread of a shift's loop, and how another thread interrupts what hangs on it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final, TypeVar

from proxywell.net.loop import run
from proxywell.refresh.standstill import LoopHungError

HUNG_STATUS: Final = 75  # of a process that could not be interrupted
_SIGNAL: Final = signal.SIGUSR2

T = TypeVar("T")

end_process: Callable[[], None] = partial(os._exit, HUNG_STATUS)


class InterruptedThread:
    """See ``standstill.LoopThread``; made by ``interruptible``.

    A main thread is interrupted by a signal, which also ends a sleep or a blocking read; another
    thread by the interpreter, between two steps of Python code. Native code that keeps the
    interpreter's lock can be interrupted by nobody.

    Args:
        end: Called when interrupting did not help.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end
        self._thread = threading.get_ident()
        self.by_signal = threading.current_thread() is threading.main_thread()

    def interrupt(self) -> None:
        """Let what runs there just now raise ``LoopHungError``."""
        if self.by_signal:
            signal.pthread_kill(self._thread, _SIGNAL)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread), ctypes.py_object(LoopHungError)
            )


@contextmanager
def interruptible(end: Callable[[], None] = end_process) -> Iterator[InterruptedThread]:
    """This thread, which runs a loop, as one that can be interrupted; inside a coroutine.

    Args:
        end: What to do when interrupting does not help; the process ends if nothing is said.
    """
    thread = InterruptedThread(end)
    asyncio.get_running_loop().set_exception_handler(_but_for_interruptions)
    kept = signal.signal(_SIGNAL, _raise) if thread.by_signal else None
    try:
        yield thread
    finally:
        if thread.by_signal:
            signal.signal(_SIGNAL, kept)


def run_again_when_hung(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop of its own; made anew when a hung check had to be interrupted."""
    while True:  # ends with a coroutine that ends by itself
        try:
            return run(make())
        except LoopHungError:
            continue


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise LoopHungError


def _but_for_interruptions(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An interrupted callback is told by the clerk, in our words; a bug as the loop tells it."""
    if not isinstance(context.get("exception"), LoopHungError):
        loop.default_exception_handler(context)
