"""What can be wrong with one source; a reading goes on without it."""

from __future__ import annotations

from proxywell.errors import ProxywellError


class SourceError(ProxywellError):
    """One source cannot be read; the text says why, without naming the source."""

    code = "source"


class BrokenListError(SourceError):
    """What came is not a list: binary junk, a page without proxies, JSON that breaks off."""

    code = "source_broken"


class SourceLimitError(SourceError):
    """The source passed a limit on bytes, expansion, time or redirects."""

    code = "source_limit"


class SourceRefusedError(SourceError):
    """The address, scheme or redirect of the source is not allowed; nothing was sent there."""

    code = "source_refused"


class SourceStatusError(SourceError):
    """The source answered with a status that brings no list.

    Attributes:
        status: 100 to 599.
    """

    code = "source_status"

    def __init__(self, host: str, status: int) -> None:
        super().__init__(f"{host} answers with status {status}")
        self.status = status
