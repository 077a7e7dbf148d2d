"""HTTP/1.1 seen from the client: CONNECT, and as much of an answer as a judge's needs.

Sources: RFC 9110 (meaning), RFC 9112 (framing). Where they leave a choice to the receiver of
an answer, the choice is the strict one; what is forgiven is told in ``protocols.head``. The
framing of chunks never takes a bare LF.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from msgspec import Struct

from proxywell.model.failure import FailureKind
from proxywell.protocols.head import DEFAULT_LIMITS, TEXT, Head, HttpLimits
from proxywell.protocols.machine import Established, NeedMore, Refused, Step
from proxywell.protocols.request import authority, basic_credentials, build_request

SWITCHING_PROTOCOLS = 101

_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):(" + TEXT + rb")")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;" + TEXT + rb")?\r\n")
_CHUNK_LINE_SO_FAR = re.compile(rb"[0-9A-Fa-f]{1,16}[ \t]*(?:;" + TEXT + rb")?\r?")
_CHUNK_LINE_MAX_BYTES = 256
_LENGTH = re.compile(rb"[0-9]+")
_LENGTH_MAX_DIGITS = 18
_LENGTH_BEYOND_ALL = 10**_LENGTH_MAX_DIGITS
_CHUNKED: Final = -1
_UNTIL_THE_END: Final = -2
_NOT_CODED = frozenset({b"", b"identity"})
_NO_CONTENT, _NOT_MODIFIED = 204, 304
_PROXY_AUTHENTICATION_REQUIRED = 407
_MORE = NeedMore()


class HttpAnswer(Struct, frozen=True):
    """One whole HTTP answer within its limits.

    Attributes:
        status: 200 to 599.
        headers: Names and values as they came, in order, without the space around values.
        body: Undone of its transfer coding, never of a content coding.
        leftover: Bytes behind the answer; more than none is a second answer or junk.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    leftover: bytes = b""


class Answered(Struct, frozen=True):
    """The answer is whole."""

    answer: HttpAnswer


Reading: TypeAlias = NeedMore | Answered | Refused


class HttpConnect:
    """One CONNECT seen from the client: bytes in, one Step out, no I/O.

    Any 2xx opens the tunnel; what its head says about a body does not count (RFC 9110,
    section 9.3.6), so its header lines are counted and passed over. Any other status is a no
    as soon as its line is there.

    Args:
        host: Name or address; IPv6 without brackets.
        port: 1 to 65535.
        user, password: Both or neither; sent at once, by the Basic scheme.
        limits: Of the head; there is no body.

    Raises:
        ValueError: ``host`` or ``port`` is not of that form.
    """

    __slots__ = ("_finished", "_head", "_interims", "_interims_max", "_tunnel", "opening")

    opening: bytes

    def __init__(
        self,
        host: str,
        port: int,
        user: str | None = None,
        password: str | None = None,
        *,
        limits: HttpLimits = DEFAULT_LIMITS,
    ) -> None:
        self.opening = _connect_request(host, port, user, password)
        self._head = Head(limits)
        self._interims = 0
        self._interims_max = limits.interim_max
        self._tunnel: bool | None = None  # None: between heads; False: inside an interim one
        self._finished = False

    def receive(self, data: bytes) -> Step:
        """Take bytes of the answer; see ``protocols.machine.Handshake``."""
        assert not self._finished, "a finished handshake was fed again"
        head = self._head
        head.got += data
        step = self._next_step()
        if step is _MORE:
            head.forget_what_was_read()
        else:
            self._finished = True
            head.got = bytearray()
        return step

    def ended(self) -> Step:
        """Say what the end of the stream means: the head was cut off."""
        assert not self._finished, "a finished handshake was told of the end"
        self._finished = True
        return self._head.refused(FailureKind.EOF_EARLY)

    def _next_step(self) -> Step:
        head = self._head
        while True:  # each turn reads a line, or ends
            if self._tunnel is None:
                status = head.take_status()
                if not isinstance(status, int):
                    return _MORE if status is None else status
                refusal = self._judge(status)
                if refusal is not None:
                    return refusal
            line = head.take_field()
            if isinstance(line, Refused):
                return line
            if line is None:
                return _MORE
            if not line:
                if self._tunnel:
                    return Established(bytes(head.got[head.at :]))
                self._tunnel = None

    def _judge(self, status: int) -> Refused | None:
        if 200 <= status < 300:
            self._tunnel = True
            return None
        if status < 200 and status != SWITCHING_PROTOCOLS:
            self._tunnel = False
            self._interims += 1
            too_many = self._interims > self._interims_max
            return Refused(FailureKind.BAD_HTTP, status) if too_many else None
        if status == _PROXY_AUTHENTICATION_REQUIRED:
            return Refused(FailureKind.AUTH_REQUIRED, status)
        return Refused(FailureKind.HTTP_STATUS, status)


@lru_cache(maxsize=1024)  # nearly every request of a check goes to the same judge
def _connect_request(host: str, port: int, user: str | None, password: str | None) -> bytes:
    target = authority(host, port)
    headers = [("Host", target)]
    if user is not None:
        headers.append(("Proxy-Authorization", basic_credentials(user, password or "")))
    return build_request("CONNECT", target, headers)


class AnswerReader:
    """One HTTP/1.1 answer: bytes in, one Reading out, no I/O; same discipline as Handshake.

    Refused as BAD_HTTP: a malformed or folded header line, lengths that differ, a length
    together with a transfer coding, status 101 (never asked for), more than the allowed
    number of interim answers, chunks that are not framed to the byte. Refused as DECODE_BOMB:
    any content or transfer coding but ``identity`` and ``chunked``, since no other is ever
    asked for. A length above the limit is refused before the body is sent. ``detail`` of a
    refusal is the status, once there is one.

    Args:
        limits: How much is taken.
        head_only: The request was HEAD: the answer ends with its head.

    Attributes:
        in_body: True once the final head is whole: silence from here on is a stalled body.
    """

    __slots__ = (
        "_body",
        "_chunk_left",
        "_ends_with_the_stream",
        "_fields",
        "_finished",
        "_head",
        "_head_only",
        "_interims",
        "_length",
        "_limits",
        "_stage",
        "in_body",
    )

    def __init__(self, limits: HttpLimits = DEFAULT_LIMITS, *, head_only: bool = False) -> None:
        self._limits = limits
        self._head_only = head_only
        self._head = Head(limits)
        self._interims = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._body = bytearray()  # of chunks; a body of known length stays where it came in
        self._length = 0
        self._chunk_left = 0
        self._ends_with_the_stream = False
        self.in_body = False
        # A plain function, not a bound method: that would be a cycle for the collector.
        self._stage: _Stage = type(self)._read_status
        self._finished = False

    @property
    def status(self) -> int | None:
        """The status of the latest head, interim ones included; None before the first."""
        return self._head.status

    def receive(self, data: bytes) -> Reading:
        """Take bytes of the answer, say what is next; never raises on them."""
        assert not self._finished, "a finished answer was fed again"
        head = self._head
        head.got += data
        reading = self._stage(self)
        while reading is None:  # each turn moves to another stage and has read something
            reading = self._stage(self)
        if reading is _MORE:
            head.forget_what_was_read()
        else:
            self._finished = True
            head.got = bytearray()
        return reading

    def ended(self) -> Reading:
        """Say what the end of the stream means: a body without a length ends with it."""
        assert not self._finished, "a finished answer was told of the end"
        self._finished = True
        if self._ends_with_the_stream:
            return self._answered(bytes(self._head.got[self._head.at :]), leftover=b"")
        return self._head.refused(FailureKind.EOF_EARLY)

    def _read_status(self) -> Reading | None:
        status = self._head.take_status()
        if not isinstance(status, int):
            return _MORE if status is None else status
        if status < 200:
            self._interims += 1
            if status == SWITCHING_PROTOCOLS or self._interims > self._limits.interim_max:
                return self._head.refused(FailureKind.BAD_HTTP)
        self._stage = type(self)._read_fields
        return None

    def _read_fields(self) -> Reading | None:
        head, fields = self._head, self._fields
        while True:  # each turn reads a line, or ends
            line = head.take_field()
            if line is None:
                return _MORE
            if isinstance(line, Refused):
                return line
            if not line:
                return self._end_of_head()
            field = _FIELD.fullmatch(line)
            if field is None:
                return head.refused(FailureKind.BAD_HTTP)
            fields.append((field[1], field[2].strip(b" \t")))

    def _end_of_head(self) -> Reading | None:
        status = self._head.status
        assert status is not None, "a head ended before its status line"
        if status < 200:
            self._fields = []
            self._stage = type(self)._read_status
            return None
        self.in_body = True
        framing = _framing(self._fields)
        if isinstance(framing, FailureKind):
            return self._head.refused(framing)
        if self._head_only or status in {_NO_CONTENT, _NOT_MODIFIED}:
            framing = 0
        if framing == _CHUNKED:
            self._stage = type(self)._read_chunk_line
        elif framing == _UNTIL_THE_END:
            self._ends_with_the_stream = True
            self._stage = type(self)._read_to_the_end
        elif framing > self._limits.body_max_bytes:
            return self._head.refused(FailureKind.BODY_TOO_LARGE)
        else:
            self._length = framing
            self._stage = type(self)._read_length
        return None

    def _read_length(self) -> Reading | None:
        head = self._head
        end = head.at + self._length
        if len(head.got) < end:
            return _MORE
        return self._answered(bytes(head.got[head.at : end]), leftover=bytes(head.got[end:]))

    def _read_to_the_end(self) -> Reading | None:
        if len(self._head.got) - self._head.at > self._limits.body_max_bytes:
            return self._head.refused(FailureKind.BODY_TOO_LARGE)
        return _MORE

    def _read_chunk_line(self) -> Reading | None:
        head = self._head
        pending = bytes(head.got[head.at : head.at + _CHUNK_LINE_MAX_BYTES])
        line = _CHUNK_LINE.match(pending)
        if line is None:
            so_far = len(pending) < _CHUNK_LINE_MAX_BYTES and (
                not pending or _CHUNK_LINE_SO_FAR.fullmatch(pending)
            )
            return _MORE if so_far else head.refused(FailureKind.BAD_HTTP)
        head.at += line.end()
        self._chunk_left = int(line[1], 16)
        if len(self._body) + self._chunk_left > self._limits.body_max_bytes:
            return head.refused(FailureKind.BODY_TOO_LARGE)
        last = self._chunk_left == 0
        self._stage = type(self)._read_trailers if last else type(self)._read_chunk
        return None

    def _read_chunk(self) -> Reading | None:
        head = self._head
        part = head.got[head.at : head.at + self._chunk_left]
        self._body += part
        self._chunk_left -= len(part)
        head.at += len(part)
        if self._chunk_left:
            return _MORE
        end = bytes(head.got[head.at : head.at + 2])
        if end != b"\r\n":
            return _MORE if b"\r\n".startswith(end) else head.refused(FailureKind.BAD_HTTP)
        head.at += 2
        self._stage = type(self)._read_chunk_line
        return None

    def _read_trailers(self) -> Reading | None:
        head = self._head
        while True:  # each turn reads a line, or ends
            line = head.take_field()
            if line is None:
                return _MORE
            if isinstance(line, Refused):
                return line
            if not line:
                return self._answered(bytes(self._body), leftover=bytes(head.got[head.at :]))
            if _FIELD.fullmatch(line) is None:
                return head.refused(FailureKind.BAD_HTTP)

    def _answered(self, body: bytes, *, leftover: bytes) -> Answered:
        status = self._head.status
        assert status is not None, "an answer ended before its status line"
        return Answered(HttpAnswer(status, tuple(self._fields), body, leftover))


_Stage: TypeAlias = Callable[[AnswerReader], Reading | None]


def _framing(fields: list[tuple[bytes, bytes]]) -> int | FailureKind:
    """The length of the body, or why there is no telling (RFC 9112, section 6)."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in fields:
        match name.lower():
            case b"content-length":
                lengths += [part.strip(b" \t") for part in value.split(b",")]
            case b"transfer-encoding":
                codings += [part.strip(b" \t") for part in value.lower().split(b",")]
            case b"content-encoding" if not _NOT_CODED.issuperset(
                part.strip(b" \t") for part in value.lower().split(b",")
            ):
                return FailureKind.DECODE_BOMB
            case _:
                pass
    if codings and not {b"chunked", b"identity"}.issuperset(codings):
        return FailureKind.DECODE_BOMB
    if codings:
        alone = codings == [b"chunked"] and not lengths
        return _CHUNKED if alone else FailureKind.BAD_HTTP
    return _length(lengths) if lengths else _UNTIL_THE_END


def _length(lengths: list[bytes]) -> int | FailureKind:
    if len(set(lengths)) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        return FailureKind.BAD_HTTP
    digits = lengths[0].lstrip(b"0")
    return int(digits or b"0") if len(digits) <= _LENGTH_MAX_DIGITS else _LENGTH_BEYOND_ALL
