"""Where settings and state live on this system."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from proxywell.errors import StateError

SETTINGS_FILE = "proxywell.toml"
_PROGRAM = "proxywell"


def settings_files() -> tuple[Path, Path]:
    """Name the settings files that are tried, in order, when none is given."""
    import platformdirs  # noqa: PLC0415 - 5 ms that a command with --config need not spend

    return Path(SETTINGS_FILE), platformdirs.user_config_path(_PROGRAM) / SETTINGS_FILE


def state_directory(given: Path | None) -> Path:
    """Say where state lives, without touching it.

    Args:
        given: What the user named, or None for the user's own state directory.

    Returns:
        An absolute path.

    Raises:
        StateError: ``~`` stands for nobody's home.
    """
    if given is None:
        import platformdirs  # noqa: PLC0415 - as above

        given = platformdirs.user_state_path(_PROGRAM)
    try:
        return given.expanduser().absolute()
    except RuntimeError as error:
        raise StateError(f"state directory {given}: {error}; name it in full") from error


def readable(directory: Path) -> Path:
    """See that what is at a state directory's place can be read; one not there is empty.

    Args:
        directory: From ``state_directory``.

    Returns:
        The same path.

    Raises:
        StateError: It is no directory, or this user may not look into it.
    """
    try:
        is_directory = stat.S_ISDIR(directory.stat().st_mode)
    except FileNotFoundError:
        return directory
    except NotADirectoryError:  # a file somewhere above
        is_directory = False
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StateError(_cannot_be_read(directory, why)) from error
    if not is_directory:
        raise StateError(f"state directory {directory} is a file; name a directory with --state")
    if not os.access(directory, os.R_OK | os.X_OK):
        raise StateError(_cannot_be_read(directory, os.strerror(errno.EACCES)))
    return directory


def _cannot_be_read(directory: Path, why: str) -> str:
    return (
        f"state directory {directory} cannot be read ({why}); mend that, or name another one "
        "with --state"
    )


def make_ready(directory: Path) -> Path:
    """Create the state directory if need be, readable by its owner alone, and try to write.

    An existing directory keeps its permissions.

    Args:
        directory: From ``state_directory``.

    Returns:
        The same path.

    Raises:
        StateError: It cannot be made, is no directory, or cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = directory / f".writable-{os.getpid()}"  # tempfile would take 8 ms to import
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        probe.unlink(missing_ok=True)
    except FileExistsError as error:
        raise StateError(
            f"state directory {directory} is a file; name a directory with --state"
        ) from error
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StateError(
            f"state directory {directory} cannot be written ({why}); mend that, or name another "
            "one with --state"
        ) from error
    return directory


def make_private(file: Path) -> None:
    """Make a file where there is none, and see that nobody but its owner may use it.

    One that is there is not opened: a process that closes any descriptor of a file loses all its
    locks on that file (fcntl(2)). Another process would then take a database that is open here for
    one that nobody has open, delete its log, and with it what is written later.

    Args:
        file: In a directory that is there; a link is followed.

    Raises:
        OSError: It cannot be made, or is not ours to change.
    """
    place = os.path.realpath(file)
    try:
        os.close(os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if os.stat(place).st_mode & 0o077:  # noqa: PTH116 - realpath gives text
            os.chmod(place, 0o600)  # noqa: PTH101 - as above
