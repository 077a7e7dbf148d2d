"""Lists in files and on standard input, block by block."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

from proxywell.errors import InputMissingError
from proxywell.sources.catalog import STDIN
from proxywell.sources.coding import GZIP_MAGIC, Decoder
from proxywell.sources.errors import SourceError

BLOCK_BYTES = 64 * 1024
_NO_LIMIT_BYTES = 2**50  # it is streamed; what it may become per byte is limited
_STDIN_FD = 0


def must_be_there(place: str) -> None:
    """Check that a file can be opened, before anything is started.

    Args:
        place: A path, or ``-`` for standard input.

    Raises:
        InputMissingError: It is not there, is a directory, or must not be read.
    """
    try:
        mode = (os.fstat(_STDIN_FD) if place == STDIN else Path(place).stat()).st_mode
    except (OSError, ValueError) as error:
        raise _missing(place, error) from error
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        os.close(_open(place))  # not a pipe: its writer would be told that we have left


async def read_file(place: str, *, ratio_max: int) -> AsyncGenerator[bytes, None]:
    """Give the bytes of a file, pipe or device; a gzip file is undone on the way.

    A pipe is waited for without blocking the loop; the caller's time-out ends the wait.

    Args:
        place: A path, or ``-`` for standard input.
        ratio_max: Most bytes that one byte of a gzip file may become.

    Raises:
        InputMissingError: As ``must_be_there``.
        SourceError: It cannot be read on, or its coding is damaged or passes the limit.
    """
    descriptor = _open(place)
    decoder: Decoder | None = None
    try:
        waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        while True:  # ends with the input, or by the caller's time-out
            if waits:
                waits = await _readable(descriptor)
            block = os.read(descriptor, BLOCK_BYTES)
            if not block:
                break
            if decoder is None:
                coding = "gzip" if block.startswith(GZIP_MAGIC) else ""
                decoder = Decoder(coding, body_max_bytes=_NO_LIMIT_BYTES, ratio_max=ratio_max)
            for part in decoder.feed(block):
                yield part
        if decoder is not None:
            decoder.finish()
    except OSError as error:
        raise SourceError(f"reading stopped: {_why(error)}") from error
    finally:
        os.close(descriptor)


def _open(place: str) -> int:
    try:
        if place == STDIN:
            return os.dup(_STDIN_FD)
        # Non-blocking, or a pipe that nobody writes to would hold us up here.
        descriptor = os.open(Path(place), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _missing(place, error) from error
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputMissingError(f"source {place}: it is a directory; name a file in it")
    return descriptor


def _missing(place: str, error: OSError | ValueError) -> InputMissingError:
    named = "standard input" if place == STDIN else place
    why = _why(error) if isinstance(error, OSError) else str(error)
    return InputMissingError(f"source {named}: {why}; check the path")


async def _readable(descriptor: int) -> bool:
    """Wait for bytes or the end; False if it is of a kind that never makes one wait."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # epoll's word for /dev/null and the like
        return False
    try:
        await ready.wait()
    finally:
        with contextlib.suppress(OSError):
            loop.remove_reader(descriptor)
    return True


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
