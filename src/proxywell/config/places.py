"""Where settings and state live on this system."""

from __future__ import annotations

import os
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
