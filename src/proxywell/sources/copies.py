"""The last good copy of each list, with what makes the next request conditional.

One pair of files for each URL in a directory of ours: the body under a name of its own, and a
small JSON file that names it. The JSON file is replaced last, so a crash leaves the older pair
whole. Losing the directory costs one full fetch of each list.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import IO, BinaryIO

import msgspec
from msgspec import Struct


class Copy(Struct, frozen=True):
    """What is known about the last good copy of one list.

    Attributes:
        url: Where it is from.
        body: Name of the file with the list.
        fetched_s: When its content last came, seconds since the epoch.
        asked_s: When the source last answered that it is current.
        unique: Distinct well-formed candidates in it.
        etag, last_modified: As sent with it.
        outsized_since_s: Since when the source shows ten times as many; None: it does not.
    """

    url: str
    body: str
    fetched_s: float
    asked_s: float
    unique: int
    etag: str | None = None
    last_modified: str | None = None
    outsized_since_s: float | None = None


class Copies:
    """The directory of copies.

    Args:
        directory: Made on the first ``keep``.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, url: str) -> Copy | None:
        """Give what is known about a copy; None if there is none that can be read."""
        try:
            copy = msgspec.json.decode(self._facts_path(url).read_bytes(), type=Copy)
        except (OSError, msgspec.MsgspecError):
            return None
        whole = copy.url == url and Path(copy.body).name == copy.body
        return copy if whole and (self._directory / copy.body).is_file() else None

    def open(self, copy: Copy) -> BinaryIO:
        """Open the list itself; the caller closes it.

        Raises:
            OSError: It is gone.
        """
        return (self._directory / copy.body).open("rb")

    def note(self, copy: Copy) -> None:
        """Replace what is known about a copy whose body stays.

        Raises:
            OSError: The directory cannot be written.
        """
        with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as file:
            try:
                file.write(msgspec.json.encode(copy))
                file.close()
                Path(file.name).replace(self._facts_path(copy.url))
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def keep(self, copy: Copy, body: IO[bytes]) -> None:
        """Make a new body the last good copy, and drop the one before.

        Args:
            copy: What is known about it; its ``body`` is chosen here.
            body: The list, from the file's current position on.

        Raises:
            OSError: The directory cannot be written; the copy before is still whole.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = _key(copy.url)
        name = f"{key}-{secrets.token_hex(4)}.list"
        path = self._directory / name
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(body, file)
            self.note(msgspec.structs.replace(copy, body=name))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        for older in self._directory.glob(f"{key}-*.list"):
            if older.name != name:
                older.unlink(missing_ok=True)

    def _facts_path(self, url: str) -> Path:
        return self._directory / f"{_key(url)}.json"


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:24]
