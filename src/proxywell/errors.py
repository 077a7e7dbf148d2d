"""The few errors that a caller is meant to catch, each with a stable code and the facts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class ProxywellError(Exception):
    """Base of every error that proxywell raises on purpose.

    The text is one sentence for a person: what is wrong, where, and what to do next.

    Attributes:
        code: Stable name for programs; never reused for another meaning.
        exit_status: What the command line ends with: 1 when the surroundings failed
            (disk, permissions, services, network), 2 for wrong use or wrong input.
    """

    code: ClassVar[str] = "proxywell"
    exit_status: ClassVar[int] = 1


class UsageError(ProxywellError):
    """The call, a setting or an input that was named is wrong; nothing was started."""

    code = "usage"
    exit_status = 2


class SettingsError(UsageError):
    """A setting is unknown, malformed, out of range or at odds with another one."""

    code = "settings"


class InputMissingError(UsageError):
    """A file or list that was named is not there or cannot be read at all."""

    code = "input_missing"


class StateError(ProxywellError):
    """The state directory or a store in it cannot be read or written."""

    code = "state"


class UnknownJobError(UsageError):
    """A refresh job that was named is not in the state directory."""

    code = "unknown_job"


class StoreBusyError(StateError):
    """A store stayed locked for too long; the step was not done and may be repeated."""

    code = "store_busy"


class StoreAwayError(StoreBusyError):
    """A store on a server does not answer, or takes no writes just now; try again later."""

    code = "store_away"


class StoreDamagedError(StateError):
    """A store's file is not what it should be, is truncated or is inconsistent."""

    code = "store_damaged"


class StoreTooNewError(StateError):
    """A store's file was written by a later version of proxywell."""

    code = "store_too_new"


class DiskFullError(StateError):
    """There is no space for a store's file; what was being written is not in it."""

    code = "disk_full"


class NoJudgeError(ProxywellError):
    """No judge answers a direct request, so nothing can be said about any proxy."""

    code = "no_judge"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, as the tail of an error's sentence.

    Args:
        name: What was given.
        known: All names that exist.

    Returns:
        ``"; did you mean X?"``, or nothing when no name is near.
    """
    import difflib  # noqa: PLC0415 - only needed once something is wrong

    by_fold = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.6)
    return f"; did you mean {by_fold[near[0]]}?" if near else ""
