"""Write the pool as files: each one whole or not at all, and none outside its directory."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxywell.errors import StateError, UsageError
from proxywell.model.member import MemberState, PoolMember
from proxywell.pool.formats import ALWAYS, ON_REQUEST

WAIT_S: Final = 10.0  # for another export into the same directory
_POLL_S: Final = 0.05


class ExportedFile(Struct, frozen=True):
    """One file as it was written; ``private`` if only its owner may read it."""

    path: str
    size_bytes: int
    private: bool


class ExportReport(Struct, frozen=True):
    """What an export wrote, and how many members it holds."""

    members: int
    files: tuple[ExportedFile, ...]


def export(
    members: Iterable[PoolMember], directory: Path, formats: Sequence[str] = ()
) -> ExportReport:
    """Write members that may be handed out as files.

    Each file is written beside the old one, put on the disk, and only then takes its name: a
    reader sees the old or the new one, whenever this process dies. A symbolic link in place of
    a file is replaced, never followed. With credentials in it a file is for its owner only.

    Args:
        members: Whom; those that are not fresh are left out.
        directory: Where to; made if it is not there.
        formats: Further files, by their names in ``formats.ON_REQUEST``.

    Raises:
        UsageError: A format is not known, or the directory is no directory.
        StateError: It cannot be written; files that stand are whole, old or new.
    """
    unknown = [name for name in formats if name not in ON_REQUEST]
    if unknown:
        raise UsageError(f"no format {unknown[0]!r}; there are {', '.join(ON_REQUEST)}")
    fresh = [member for member in members if member.state is MemberState.FRESH]
    forms = dict(ALWAYS) | dict(ON_REQUEST[name] for name in formats)
    private = any("@" in member.proxy for member in fresh)
    written = []
    with _held(directory) as folder:
        for name, form in forms.items():
            data = form(fresh).encode()
            try:
                _put(folder, name, data, private=private)
            except OSError as error:
                raise StateError(
                    f"{directory / name} cannot be written: {error.strerror}; "
                    "what stands there is as it was"
                ) from error
            written.append(ExportedFile(str(directory / name), len(data), private))
    return ExportReport(len(fresh), tuple(written))


@contextmanager
def _held(directory: Path) -> Iterator[int]:
    """Open the directory and keep other exports out of it meanwhile."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{directory} is no directory; name one with --out DIR") from error
    except OSError as error:
        raise StateError(
            f"{directory} cannot be opened: {error.strerror}; name another one with --out DIR"
        ) from error
    try:
        _lock(folder, directory)
        yield folder
    finally:
        os.close(folder)


def _lock(folder: int, directory: Path) -> None:
    until_s = time.monotonic() + WAIT_S
    while True:  # ends with the lock, or at until_s
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks: each file is still whole
            if time.monotonic() >= until_s:
                raise StateError(
                    f"{directory} is being written by another export for {WAIT_S:g} s; "
                    "let that one finish, then try again"
                ) from error
            time.sleep(_POLL_S)
        else:
            return


def _put(folder: int, name: str, data: bytes, *, private: bool) -> None:
    """Write one file of the directory: beside, on the disk, then under its name."""
    beside = f".{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=folder)  # of an export that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    mode = 0o600 if private else 0o644
    try:
        with os.fdopen(os.open(beside, flags, mode, dir_fd=folder), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise
    os.fsync(folder)
