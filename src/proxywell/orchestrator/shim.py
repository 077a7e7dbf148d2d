"""Become another program that ends when the process that started it ends.

Run as a script, without the package, so that it takes a few milliseconds:
``python -I -S shim.py PARENT LOCK PROGRAM ARGUMENT…``. PARENT is the process id of whoever starts
it. LOCK is a file that the program keeps locked for as long as it runs, its forks included, or
``-``. Where the kernel can tell of a parent's death (Linux) the program takes this process' place;
elsewhere this process stays, looks who its parent is, and kills its process group, which must be
its own.

Exit status: that of the program; ``ORPHANED`` if the parent was gone before it began, ``LOCKED`` if
the lock stayed taken, ``NOT_RUN`` if the program cannot be run, each with a sentence on stderr.
"""

from __future__ import annotations

import os
import signal
import sys
import time

ORPHANED = 74
LOCKED = 75
NOT_RUN = 76
LOCK_S = 5.0
_LOOK_S = 0.05
_PARENT_LOOK_S = 0.5
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Take the lock, tie this process to its parent, run the program."""
    parent, lock, program = int(arguments[0]), arguments[1], arguments[2:]
    tied = _tie_to_parent()
    if os.getppid() != parent:
        return _say(ORPHANED, "the process that started this one is gone")
    if lock != "-" and not _keep_locked(lock):
        return _say(LOCKED, f"{lock} is locked by another process")
    try:
        if tied:
            os.execvp(program[0], program)  # noqa: S606 - no shell, the caller's own words
        return _watch(parent, program)
    except OSError as error:
        return _say(NOT_RUN, f"{program[0]} cannot be run: {error.strerror}")


def _tie_to_parent() -> bool:
    """Ask the kernel for SIGKILL when the parent's thread that made us ends; survives exec."""
    if sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415 - only where it is used

    refused: int = ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return not refused


def _keep_locked(lock: str) -> bool:
    """Lock a file for good, or say that somebody else holds it after ``LOCK_S``."""
    import fcntl  # noqa: PLC0415 - only where it is used

    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.set_inheritable(descriptor, True)
    end_s = time.monotonic() + LOCK_S
    while True:  # ends at end_s
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end_s:
                return False
            time.sleep(_LOOK_S)
        else:
            return True


def _watch(parent: int, program: list[str]) -> int:
    """Run the program as a child, pass SIGTERM on, and kill it when the parent is gone."""
    child = os.posix_spawnp(program[0], program, os.environ)
    signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(child, number))
    while True:  # ends with the program
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if os.getppid() != parent:
            os.killpg(os.getpgrp(), signal.SIGKILL)  # this process too
        time.sleep(_PARENT_LOOK_S)


def _say(status: int, sentence: str) -> int:
    sys.stderr.write(f"proxywell: {sentence}\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
