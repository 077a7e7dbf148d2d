"""Undo the content coding of a list, a bounded step at a time. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from proxywell.sources.errors import BrokenListError, SourceLimitError

GZIP_MAGIC = b"\x1f\x8b"
_STEP_BYTES = 64 * 1024
_HEADER_BYTES = {"gzip": 1, "x-gzip": 1, "deflate": 2}  # so many tell which inflater it takes
_FREE_BYTES = 64 * 1024  # so much may come out of anything: small bodies have odd ratios


class Inflater(Protocol):
    """What zlib gives: an object that inflates one stream."""

    @property
    def eof(self) -> bool: ...  # noqa: D102 - zlib's
    @property
    def unconsumed_tail(self) -> bytes: ...  # noqa: D102
    @property
    def unused_data(self) -> bytes: ...  # noqa: D102
    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...  # noqa: D102


class Decoder:
    """Turns bytes as sent into bytes as meant, and stops as soon as a limit is passed.

    Args:
        coding: Content-Encoding, in any case: empty, ``identity``, ``gzip``, ``x-gzip`` or
            ``deflate`` (with or without zlib's header, as servers send both).
        body_max_bytes: Most bytes that may come out.
        ratio_max: Most bytes that may come out for one that went in; the first 64 KiB are free.

    Raises:
        BrokenListError: The coding is another one, or several.
    """

    def __init__(self, coding: str, *, body_max_bytes: int, ratio_max: int) -> None:
        self._coding = coding.strip().lower()
        if self._coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise BrokenListError(f"it came in the content coding {self._coding[:40]!r}")
        self._body_max_bytes = body_max_bytes
        self._ratio_max = ratio_max
        self._wire_bytes = 0
        self._body_bytes = 0
        self._inflater: Inflater | None = None
        self._waiting = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes as sent, give blocks of at most 64 KiB (plain bytes: as they came).

        Raises:
            SourceLimitError: More came out than may.
            BrokenListError: It is not in its coding.
        """
        self._wire_bytes += len(data)
        if self._coding in ("", "identity"):
            self._count(len(data))
            yield data
            return
        data, self._waiting = self._waiting + data, b""
        if self._inflater is None and len(data) < _HEADER_BYTES[self._coding]:
            self._waiting = data
            return
        while data or self._inflater is not None:
            if self._inflater is None:
                self._inflater = self._new_inflater(data)
            try:
                block = self._inflater.decompress(data, _STEP_BYTES)
            except zlib.error as error:
                raise BrokenListError(f"its {self._coding} coding is damaged") from error
            self._count(len(block))
            if block:
                yield block
            if self._inflater.eof:
                data, self._inflater = self._inflater.unused_data, None
                continue
            data = self._inflater.unconsumed_tail
            if not data and len(block) < _STEP_BYTES:  # a full block may have more behind it
                return

    def finish(self) -> None:
        """Check that the last stream came to its end.

        Raises:
            BrokenListError: It breaks off.
        """
        if self._inflater is not None or self._waiting:
            raise BrokenListError(f"its {self._coding} coding breaks off")

    def _new_inflater(self, data: bytes) -> Inflater:
        if self._coding != "deflate":
            return zlib.decompressobj(31)
        if len(data) < _HEADER_BYTES[self._coding]:  # a byte behind the end of the stream
            raise BrokenListError("its deflate coding is damaged")
        has_header = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
        return zlib.decompressobj(15 if has_header else -15)

    def _count(self, size: int) -> None:
        self._body_bytes += size
        if self._body_bytes > self._body_max_bytes:
            raise SourceLimitError(f"it is longer than {self._body_max_bytes} bytes")
        if self._body_bytes > self._wire_bytes * self._ratio_max + _FREE_BYTES:
            raise SourceLimitError(f"it expands to more than {self._ratio_max} times what was sent")
