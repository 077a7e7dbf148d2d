"""Whole HTTP answers taken apart and put together again, on the proxy's side. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxywell.lab.fronts import Malformed


@dataclass(frozen=True, slots=True)
class Page:
    """One whole answer.

    Attributes:
        version, status, reason: The status line.
        headers: Names and values in order, without those about framing.
        body: Undone of its transfer coding.
    """

    version: bytes
    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: bytes) -> bytes:
        """The first value of a header, empty if there is none; any case."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), b"")

    def with_body(self, body: bytes) -> Page:
        """The same with another body."""
        return replace(self, body=body)


_FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"keep-alive"}


def read_answer(got: bytes, *, ended: bool) -> Page | None:
    """Read an answer to GET; ``None`` while it is not whole.

    Raises:
        Malformed: Not HTTP, or ended before it was whole.
    """
    end = got.find(b"\r\n\r\n")
    if end < 0:
        if ended:
            raise Malformed
        return None
    lines = got[:end].split(b"\r\n")
    version, _, words = lines[0].partition(b" ")
    status, _, reason = words.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not status.isdigit():
        raise Malformed
    headers = [
        (name, value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])
    ]
    framing = {name.lower(): value for name, value in headers}
    rest = got[end + 4 :]
    body: bytes | None = rest
    if framing.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = _unchunked(rest)
    elif b"content-length" in framing:
        length = int(framing[b"content-length"])
        body = rest[:length] if len(rest) >= length else None
    elif int(status) in {204, 304}:
        body = b""
    elif not ended:
        body = None
    if body is None:
        if ended:
            raise Malformed
        return None
    kept = tuple(pair for pair in headers if pair[0].lower() not in _FRAMING)
    return Page(version, int(status), reason, kept, body)


def is_whole(got: bytes) -> bool:
    """Whether an answer is whole; what is no answer at all needs nothing more either."""
    try:
        return read_answer(got, ended=False) is not None
    except Malformed:
        return True


def write_answer(page: Page, *, chunked: bool = False) -> bytes:
    """Put an answer together, to be followed by the end of the stream."""
    head = [b"%b %d %b" % (page.version, page.status, page.reason)]
    head += [b"%b: %b" % pair for pair in page.headers]
    body = page.body
    if chunked:
        head.append(b"Transfer-Encoding: chunked")
        middle = len(body) // 2
        parts = [part for part in (body[:middle], body[middle:]) if part]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    elif page.version != b"HTTP/1.0" and page.status not in {204, 304}:
        head.append(b"Content-Length: %d" % len(body))
    head.append(b"Connection: close")
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def restyled(raw: bytes, style: str) -> bytes:
    """A whole answer as an honest proxy with habits passes it on: nothing that matters changes.

    Args:
        raw: The answer as it came, up to the end of the stream.
        style: ``kept``, ``via`` (a cache's headers are added), ``http10`` (older version, the
            end of the stream ends it), ``rechunked``, ``lower`` (header names).
    """
    if style == "kept":
        return raw
    try:
        page = read_answer(raw, ended=True)
    except Malformed:
        return raw
    assert page is not None
    if style == "via":
        extra = ((b"X-Cache", b"MISS from gate"), (b"Via", b"1.1 gate (squid/5.7)"))
        page = replace(page, headers=page.headers + extra)
    elif style == "http10":
        page = replace(page, version=b"HTTP/1.0")
    elif style == "lower":
        page = replace(page, headers=tuple((name.lower(), value) for name, value in page.headers))
    return write_answer(page, chunked=style == "rechunked" and page.status not in {204, 304})


def _unchunked(data: bytes) -> bytes | None:
    body = bytearray()
    at = 0
    while True:  # ends with the last chunk, or with what came so far
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        try:
            size = int(data[at:line_end].partition(b";")[0], 16)
        except ValueError as error:
            raise Malformed from error
        at = line_end + 2
        if len(data) < at + size + 2:
            return None
        if size == 0:
            return bytes(body)
        body += data[at : at + size]
        at += size + 2
