"""Bytes of a list in any of its forms in, entries out, block by block. Pure.

An entry is a line that is neither blank nor a comment (``#``), a row of a table, or an element
of a JSON list. A header that names columns is none; prose above a list is (malformed) entries.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from enum import StrEnum

from proxywell.sources.columns import Columns, columns_of_line
from proxywell.sources.errors import BrokenListError, SourceLimitError
from proxywell.sources.grammar import SPACE, Entry, Malformed, fields_between, parse_line
from proxywell.sources.html_lists import HTML_MAX_BYTES, parse_html
from proxywell.sources.json_lists import is_whole_object, parse_json, parse_json_line

LINE_MAX_BYTES = 16 * 1024
DOCUMENT_MAX_BYTES = 128 * 2**20
_SNIFF_BYTES = 8 * 1024
_EXCERPT_CHARS = 200
_JUNK_SHARE = 0.04  # of control bytes; random bytes have 10 %, text has none
_CONTROL = frozenset((*range(9), *range(14, 27), *range(28, 32), 127))  # not: blanks, escape
_NOT_CONTROL = bytes(byte for byte in range(256) if byte not in _CONTROL)
_LOOKS_LIKE_HTML = re.compile(rb"\s*<[A-Za-z!?]")
_LOOKS_LIKE_JSON = re.compile(rb"""\s*(?:\[\s*[\[{"\]]|\{\s*["}])""")
_ENCODED = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class Form(StrEnum):
    """The form of a list."""

    AUTO = "auto"
    TEXT = "text"  # lines: also CSV and JSON lines
    JSON = "json"
    HTML = "html"


class ListParser:
    """Reads one list as its bytes arrive. Memory is bounded whatever comes.

    The form is seen from the first bytes, not believed from a name: a list that turns into an
    error page must not be read as a list. A byte-order mark is dropped, UTF-16 with its mark is
    understood, and all three line ends are.

    Args:
        document_max_bytes: Longest JSON document; lines have no limit on their number.

    Attributes:
        form: What it turned out to be; AUTO until enough has been fed.
        long_lines: Lines longer than ``LINE_MAX_BYTES``; each is one malformed entry, of which
            only the beginning was looked at.
    """

    def __init__(self, *, document_max_bytes: int = DOCUMENT_MAX_BYTES) -> None:
        self.form = Form.AUTO
        self.long_lines = 0
        self._document_max_bytes = document_max_bytes
        self._head = bytearray()
        self._document = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None
        self._line = ""
        self._skipping = False
        self._first_line = True
        self._header: tuple[str, Columns] | None = None

    def feed(self, data: bytes) -> Iterator[Entry | Malformed]:
        """Take the next block in, give the entries that are whole.

        Raises:
            BrokenListError: It is no list.
            SourceLimitError: A JSON document or an HTML page is too long.
        """
        if self.form is Form.AUTO:
            self._head += data
            if len(self._head) >= _SNIFF_BYTES:
                yield from self._take(self._open())
        else:
            yield from self._take(self._recoded(data))

    def finish(self) -> Iterator[Entry | Malformed]:
        """Give what is left after the last block.

        Raises:
            BrokenListError: It is no list, or breaks off in the middle.
        """
        if self.form is Form.AUTO:
            yield from self._take(self._open())
        if self.form is Form.TEXT:
            line, self._line = self._line, ""
            yield from self._lines([line])
        elif self.form is Form.JSON:
            text = self._document.decode("latin-1")
            self._document.clear()
            yield from parse_json(text)
        else:
            yield from parse_html(bytes(self._document))

    def _open(self) -> bytes:
        """Decide what the first bytes are, and give them back without their mark."""
        head = bytes(self._head)
        self._head.clear()
        head = head.removeprefix(codecs.BOM_UTF8)
        sample = head[:_SNIFF_BYTES]  # no more, or the outcome would depend on the blocks
        for mark, encoding in _ENCODED:
            if head.startswith(mark):
                head, sample = head.removeprefix(mark), sample.removeprefix(mark)
                self._decoder = codecs.getincrementaldecoder(encoding)("replace")
                sample = sample.decode(encoding, "replace").encode("utf-8", "replace")
        if len(sample.translate(None, _NOT_CONTROL)) > len(sample) * _JUNK_SHARE:
            raise BrokenListError("it is binary data, not a list in text, JSON or HTML")
        if _LOOKS_LIKE_HTML.match(sample):
            self.form = Form.HTML
        elif _LOOKS_LIKE_JSON.match(sample) and not _is_json_lines(sample):
            self.form = Form.JSON
        else:
            self.form = Form.TEXT
        return self._recoded(head)

    def _recoded(self, data: bytes) -> bytes:
        if self._decoder is None:
            return data
        return self._decoder.decode(data).encode("utf-8", "replace")

    def _take(self, data: bytes) -> Iterator[Entry | Malformed]:
        if self.form is not Form.TEXT:
            self._document += data
            limit = HTML_MAX_BYTES if self.form is Form.HTML else self._document_max_bytes
            if len(self._document) > limit:
                raise SourceLimitError(f"the {self.form} document is longer than {limit} bytes")
            return
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = (self._line + data.decode("latin-1")).split("\n")
        self._line = lines.pop()
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        yield from self._lines(lines)
        if self._skipping:
            self._line = ""
        elif len(self._line) > LINE_MAX_BYTES:
            self._line = self._line.lstrip(SPACE)
            if len(self._line) > LINE_MAX_BYTES:
                yield from self._lines([self._line])
                self._line, self._skipping = "", True

    def _lines(self, lines: list[str]) -> Iterator[Entry | Malformed]:
        for raw in lines:
            line = raw.lstrip(SPACE)
            if not line or line[0] == "#":
                continue
            if len(line) > LINE_MAX_BYTES:
                self.long_lines += 1
                yield Malformed(line[:_EXCERPT_CHARS])
                continue
            line = line.rstrip(SPACE)
            item = (parse_line(line) if self._header is None else self._row(line)) or (
                self._unusual(line)
            )
            if item is not None:
                self._first_line = False
                yield item

    def _unusual(self, line: str) -> Entry | Malformed | None:
        """What is no plain line: an object of JSON lines, or a header (None), or malformed."""
        if line[0] == "{":
            return parse_json_line(line) or Malformed(line[:_EXCERPT_CHARS])
        if self._first_line:
            self._first_line = False
            self._header = columns_of_line(line)
            if self._header is not None:
                return None
        return Malformed(line[:_EXCERPT_CHARS])

    def _row(self, line: str) -> Entry | None:
        assert self._header is not None
        separator, columns = self._header
        return columns.read(fields_between(line, separator))


def _is_json_lines(head: bytes) -> bool:
    return is_whole_object(head.lstrip().partition(b"\n")[0].strip().decode("latin-1"))
