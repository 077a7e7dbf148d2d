"""What was asked for, kept from the moment a job is named until its books stand.

Reading lists takes a while, and a process may be killed in it: its job was named and has no
books yet. Whoever waits for that job finds here what to begin anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from proxywell.errors import StateError

DIRECTORY = "begun"
_JOB_ID = re.compile(r"[0-9a-z-]{1,64}")


class Intents:
    """The intents of one state directory, one small file each.

    Args:
        state_dir: The state directory; ``begun/`` in it is made when it is needed.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / DIRECTORY

    def keep(self, job_id: str, intent: bytes) -> None:
        """Keep an intent; it is there whole, or not at all.

        Args:
            job_id: The job that has been named.
            intent: What the caller needs to begin it anew; readable by the owner alone.

        Raises:
            StateError: It cannot be written.
        """
        path = self._path(job_id)
        beside = path.with_suffix(".new")
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            with open(beside, "wb", opener=_private) as file:
                file.write(intent)
            beside.replace(path)
        except OSError as error:
            raise StateError(
                f"{path} cannot be written ({error.strerror}); mend that, or name another place "
                "with --state"
            ) from error

    def find(self, job_id: str) -> bytes | None:
        """The intent of a job without books; None if there is none."""
        if _JOB_ID.fullmatch(job_id) is None:
            return None
        try:
            return self._path(job_id).read_bytes()
        except OSError:
            return None

    def drop(self, job_id: str) -> None:
        """Forget an intent: its books stand, or it can never begin. Works twice."""
        self._path(job_id).unlink(missing_ok=True)

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{job_id}.json"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
