"""Tie a process to the one that started it: it ends when that one does, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
_PARENT_LOOK_S = 1.0


def tie_to_parent(parent: int) -> None:
    """End this process, by SIGKILL where the kernel does it, as soon as its parent is gone.

    The kernel looks at the thread that made this process, so that one must live as long.

    Args:
        parent: Process id of whoever made us, as it was before that.
    """
    tied = sys.platform == "linux" and not ctypes.CDLL(None).prctl(
        _PR_SET_PDEATHSIG, signal.SIGKILL
    )
    if os.getppid() != parent:
        os._exit(1)
    if not tied:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:  # ends with the parent
        threading.Event().wait(_PARENT_LOOK_S)
    os._exit(1)
