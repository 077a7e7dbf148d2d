"""Heads of HTTP answers, line by line, with a limit on everything a stranger may send.

A line may end with CRLF or with a bare LF (RFC 9112, section 2.2): too many working proxies
send the latter. The reason phrase may be missing together with its space.
"""

from __future__ import annotations

import re

from msgspec import Struct

from proxywell.model.failure import FailureKind
from proxywell.protocols.machine import Refused

TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*"  # what a value may hold; of controls only the tab
_MAGIC = b"HTTP/"
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9]{2})(?: " + TEXT + rb")?")


class HttpLimits(Struct, frozen=True, gc=False):
    """How much of one answer is taken before it is refused.

    Attributes:
        head_max_bytes: All heads of the answer (interim ones too) and its trailers, together.
        headers_max: Header and trailer lines, together.
        interim_max: Answers with status 1xx before the one that counts.
        body_max_bytes: The body, after its transfer coding.
    """

    head_max_bytes: int = 16_384
    headers_max: int = 100
    interim_max: int = 5
    body_max_bytes: int = 16_384


DEFAULT_LIMITS = HttpLimits()


class Head:
    """The lines of heads, one by one, with every limit on them.

    Attributes:
        got: What came in; what is before ``at`` has been read.
        status: Of the latest status line; None before the first one.
    """

    __slots__ = ("_fields", "_limits", "_scanned", "_spent_bytes", "at", "got", "status")

    def __init__(self, limits: HttpLimits) -> None:
        self.got = bytearray()
        self.at = 0
        self.status: int | None = None
        self._limits = limits
        self._scanned = 0
        self._spent_bytes = 0
        self._fields = 0

    def forget_what_was_read(self) -> None:
        """Keep only what has not been read, so that the limits hold for memory too."""
        if self.at:
            del self.got[: self.at]
            self._scanned = max(0, self._scanned - self.at)
            self.at = 0

    def take_status(self) -> int | Refused | None:
        """The status of the next status line; None if it is not there yet."""
        if not self.got.startswith(_MAGIC, self.at):
            start = bytes(self.got[self.at : self.at + len(_MAGIC)])
            if not _MAGIC.startswith(start):
                return self._refused_by_its_start(start)
        line = self._take_line()
        if line is None or isinstance(line, Refused):
            return line
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            return self.refused(FailureKind.BAD_HTTP)
        self.status = int(found[1])
        return self.status

    def take_field(self) -> bytearray | Refused | None:
        """The next header line, empty at the end of the head; None if it is not there yet."""
        line = self._take_line()
        if line and not isinstance(line, Refused):
            self._fields += 1
            if self._fields > self._limits.headers_max:
                return self.refused(FailureKind.HEADER_TOO_LARGE)
        return line

    def refused(self, kind: FailureKind) -> Refused:
        """A refusal that names the status, if there is one."""
        return Refused(kind, self.status)

    def _refused_by_its_start(self, start: bytes) -> Refused:
        if self.status is not None:  # it did speak HTTP before
            return self.refused(FailureKind.BAD_HTTP)
        strange = next(byte for byte, due in zip(start, _MAGIC, strict=False) if byte != due)
        return Refused(FailureKind.NOT_THIS_PROTOCOL, strange)

    def _take_line(self) -> bytearray | Refused | None:
        got, at = self.got, self.at
        room = self._limits.head_max_bytes - self._spent_bytes
        end = got.find(b"\n", max(self._scanned, at))
        if end < 0:
            self._scanned = len(got)
            return self.refused(FailureKind.HEADER_TOO_LARGE) if len(got) - at >= room else None
        size = end + 1 - at
        if size > room:
            return self.refused(FailureKind.HEADER_TOO_LARGE)
        self._spent_bytes += size
        self.at = end + 1
        return got[at : end - 1] if size > 1 and got[end - 1] == 0x0D else got[at:end]
