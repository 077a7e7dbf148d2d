"""HTTP answers: claims about every input, h11 as a second opinion, planted bugs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import h11
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from proxywell.model.failure import FailureKind
from proxywell.protocols.head import HttpLimits
from proxywell.protocols.http import Answered, AnswerReader, HttpAnswer, Reading
from proxywell.protocols.machine import NeedMore, Refused
from tests.unit.protocols.driving import (
    Maker,
    assert_cuts_do_not_matter,
    cuts,
    feed,
    most_kept_bytes,
    mutated,
)
from tests.unit.protocols.planted import finds_a_counterexample

BLOCK_BYTES = 4_096
LIMITS = HttpLimits(head_max_bytes=4_096, headers_max=20, interim_max=5, body_max_bytes=2_000)

names = st.sampled_from((b"Server", b"X-Cache", b"via", b"Set-Cookie", b"a!#$%&'*+-.^_`|~0"))
values = st.sampled_from((b"", b"x", b"a, b", b"1.1 squid", b"\xe9t\xe9", b"a\tb", b"a:b"))
padding = st.sampled_from((b"", b" ", b"\t ", b"  "))
bodies = st.one_of(st.binary(max_size=60), st.just(b"0\r\n\r\n"), st.just(b"HTTP/1.1 200 OK\r\n"))
behind = st.one_of(st.just(b""), st.binary(max_size=20), st.just(b"HTTP/1.1 200 OK\r\n\r\n"))


@st.composite
def head_lines(draw: st.DrawFn, status: int, framing: list[bytes]) -> bytes:
    """A well-formed head: fields in any order, ends of lines of both kinds, spaces around."""
    fields = [
        name + b":" + draw(padding) + draw(values) + draw(padding)
        for name in draw(st.lists(names, max_size=3))
    ]
    lines = draw(st.permutations(fields + framing))
    version = draw(st.sampled_from((b"1.1", b"1.0")))
    status_line = b"HTTP/%s %d%s" % (version, status, draw(st.sampled_from((b" OK", b" ", b""))))
    ends = st.sampled_from((b"\r\n", b"\r\n", b"\n"))
    return b"".join(line + draw(ends) for line in [status_line, *lines, b""])


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """The body in chunks of any size, with extensions, zeros in front, and trailers."""
    coded, at = b"", 0
    while at < len(body):
        size = draw(st.integers(1, len(body) - at))
        form = draw(st.sampled_from((b"%x", b"%X", b"00%x")))
        extension = draw(st.sampled_from((b"", b"", b";name=value", b" ", b';q="a"')))
        coded += form % size + extension + b"\r\n" + body[at : at + size] + b"\r\n"
        at += size
    trailers = draw(st.lists(st.sampled_from((b"X-Sum: 1\r\n", b"Expires: 0\r\n")), max_size=2))
    return coded + draw(st.sampled_from((b"0", b"000"))) + b"\r\n" + b"".join(trailers) + b"\r\n"


class Sent(NamedTuple):
    """What a server sends; ``closed`` if only the end of the stream ends the answer."""

    data: bytes
    closed: bool


@st.composite
def answers(draw: st.DrawFn) -> Sent:
    """Well-formed answers of every framing that an answer may have, interim ones before."""
    interim = b"".join(
        draw(head_lines(status, []))
        for status in draw(st.lists(st.sampled_from((100, 103)), max_size=3))
    )
    status = draw(st.sampled_from((200, 200, 201, 204, 304, 403, 407, 502, 599)))
    body = draw(bodies)
    framing = draw(st.sampled_from(("length", "length twice", "chunked", "close")))
    if status in {204, 304} or framing.startswith("length"):
        lengths = [b"Content-Length: %d" % len(body)] * (2 if framing.endswith("twice") else 1)
        sent = b"" if status in {204, 304} else body
        return Sent(interim + draw(head_lines(status, lengths)) + sent + draw(behind), closed=False)
    if framing == "close":
        return Sent(interim + draw(head_lines(status, [])) + body, closed=True)
    field = draw(st.sampled_from((b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING:chunked")))
    coded = draw(chunked(body))
    return Sent(interim + draw(head_lines(status, [field])) + coded + draw(behind), closed=False)


valid = answers().map(lambda sent: sent.data)
strange = st.sampled_from(
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"\x05\xff",
        b"HTTP/1.1 101 x\r\n\r\n",
    )
)
anything = st.one_of(valid, mutated(valid), mutated(strange))


def make() -> AnswerReader:
    return AnswerReader(LIMITS)


def second_opinion(data: bytes, *, closed: bool) -> HttpAnswer | None:
    """What h11 makes of it; None if it refuses it or wants more."""
    connection = h11.Connection(our_role=h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "judge.example")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    try:
        connection.receive_data(data)
        if closed:
            connection.receive_data(b"")
        while True:
            event_ = connection.next_event()
            match event_:
                case h11.InformationalResponse():
                    pass
                case h11.Response():
                    status = event_.status_code
                    headers = tuple((bytes(a), bytes(b)) for a, b in event_.headers.raw_items())
                case h11.Data():
                    body += bytes(event_.data)
                case h11.EndOfMessage():
                    return HttpAnswer(status, headers, body, connection.trailing_data[0])
                case _:
                    return None
    except h11.RemoteProtocolError:
        return None


def assert_h11_agrees(maker: Maker, sent: Sent) -> None:
    answer = second_opinion(sent.data, closed=sent.closed)
    assert answer is not None, "the generator went wrong, not the reader"
    outcome = feed(maker, [sent.data], end=sent.closed)
    assert isinstance(outcome.step, Answered)
    mine = outcome.step.answer
    assert (mine.status, mine.body, outcome.rest) == (answer.status, answer.body, answer.leftover)
    # h11 folds equal lengths into one field; all else is told as it came
    assert dict(mine.headers) == dict(answer.headers)
    assert len(mine.headers) - len(answer.headers) in {0, 1}


@given(sent=answers())
def test_a_well_formed_answer_is_framed_as_h11_frames_it(sent: Sent) -> None:
    assert_h11_agrees(make, sent)


@given(data=anything, closed=st.booleans())
def test_what_is_taken_is_never_framed_in_another_way_than_h11_would(
    data: bytes, closed: bool
) -> None:
    assert_never_framed_otherwise(make, data, closed)


def assert_never_framed_otherwise(maker: Maker, data: bytes, closed: bool) -> None:
    outcome = feed(maker, [data], end=closed)
    answer = second_opinion(data, closed=closed)
    event(f"{type(outcome.step).__name__}, h11 {'takes' if answer else 'refuses'} it")
    if isinstance(outcome.step, Answered) and answer is not None:
        mine = outcome.step.answer
        assert (mine.status, mine.body) == (answer.status, answer.body)
        assert outcome.rest == answer.leftover


@given(data=anything, places=cuts(300))
def test_the_outcome_does_not_depend_on_where_tcp_cuts_the_answer(
    data: bytes, places: list[int]
) -> None:
    assert_cuts_do_not_matter(make, data, places)


@given(data=anything)
def test_the_end_of_the_stream_ends_only_what_has_no_length(data: bytes) -> None:
    machine = make()
    if isinstance(machine.receive(data), NeedMore):
        without_length = machine._ends_with_the_stream
        step = machine.ended()
        assert isinstance(step, Answered) == without_length
        assert without_length or step == Refused(FailureKind.EOF_EARLY, machine.status)


def answered(head: bytes, body: bytes = b"") -> Reading:
    return make().receive(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (b"Content-Length: 3\nContent-Length: 4", FailureKind.BAD_HTTP),
        (b"Content-Length: 3, 4", FailureKind.BAD_HTTP),
        (b"Content-Length: 3, 03", FailureKind.BAD_HTTP),
        (b"Content-Length: +3", FailureKind.BAD_HTTP),
        (b"Content-Length: -3", FailureKind.BAD_HTTP),
        (b"Content-Length: 0x3", FailureKind.BAD_HTTP),
        (b"Content-Length:", FailureKind.BAD_HTTP),
        (b"Content-Length: 3,", FailureKind.BAD_HTTP),
        (b"Content-Length: 3\nTransfer-Encoding: chunked", FailureKind.BAD_HTTP),
        (b"Transfer-Encoding: chunked\nTransfer-Encoding: chunked", FailureKind.BAD_HTTP),
        (b"Transfer-Encoding: identity", FailureKind.BAD_HTTP),
        (b"Transfer-Encoding: chunked, identity", FailureKind.BAD_HTTP),
        (b"Transfer-Encoding : chunked", FailureKind.BAD_HTTP),
        (b"A: b\n folded", FailureKind.BAD_HTTP),
        (b" A: b", FailureKind.BAD_HTTP),
        (b"no colon", FailureKind.BAD_HTTP),
        (b": no name", FailureKind.BAD_HTTP),
        (b"A: nul\x00", FailureKind.BAD_HTTP),
        (b"A: bare \r return", FailureKind.BAD_HTTP),
        (b"Transfer-Encoding: gzip, chunked", FailureKind.DECODE_BOMB),
        (b"Content-Encoding: gzip", FailureKind.DECODE_BOMB),
        (b"Content-Encoding: identity\nContent-Encoding: br", FailureKind.DECODE_BOMB),
        (b"Content-Length: 2001", FailureKind.BODY_TOO_LARGE),
        (b"Content-Length: 1000000000000", FailureKind.BODY_TOO_LARGE),
        (b"Content-Length: " + b"9" * 3_900, FailureKind.BODY_TOO_LARGE),
        (b"A: " + b"b" * 4_096, FailureKind.HEADER_TOO_LARGE),
        (b"A: b\n" * 20 + b"A: b", FailureKind.HEADER_TOO_LARGE),
    ],
)
def test_a_head_that_cannot_be_trusted_is_refused_with_its_reason(
    fields: bytes, kind: FailureKind
) -> None:
    assert answered(b"HTTP/1.1 200 OK\n" + fields) == Refused(kind, 200)


@pytest.mark.parametrize(
    "coded",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"-1\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"\r\n",
        b"g",
        b"11111111111111111",
        b"3 abc",
        b"3;" + b"x" * 254,
        b"0\r\nbad trailer\r\n\r\n",
    ],
)
def test_chunks_are_framed_to_the_byte_or_refused(coded: bytes) -> None:
    head = b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
    assert answered(head, coded) == Refused(FailureKind.BAD_HTTP, 200)


@pytest.mark.parametrize("coded", [b"2 ; x\r\nok\r\n0\r\n\r\n", b"2\t\r\nok\r\n00\r\nA: b\r\n\r\n"])
def test_case_and_space_do_not_matter_to_chunks(coded: bytes) -> None:
    step = answered(b"HTTP/1.1 200 OK\nTransfer-Encoding: Chunked", coded)
    assert isinstance(step, Answered)
    assert step.answer.body == b"ok"


@pytest.mark.parametrize("coded", [b"7d1\r\n", b"7d0\r\n" + b"x" * 2_000 + b"\r\n1\r\n"])
def test_a_chunk_beyond_the_limit_is_refused_at_its_size(coded: bytes) -> None:
    head = b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
    assert answered(head, coded) == Refused(FailureKind.BODY_TOO_LARGE, 200)


def test_the_largest_answer_is_taken() -> None:
    body = b"x" * 2_000
    length = answered(b"HTTP/1.1 200 OK\nContent-Length: 2000", body)
    assert length == Answered(HttpAnswer(200, ((b"Content-Length", b"2000"),), body))
    assert feed(make, [b"HTTP/1.1 200 OK\r\n\r\n" + body], end=True).step == Answered(
        HttpAnswer(200, (), body)
    )
    assert answered(b"HTTP/1.1 200 OK", body + b"x") == Refused(FailureKind.BODY_TOO_LARGE, 200)


def test_an_answer_to_head_ends_with_its_head() -> None:
    reader = AnswerReader(LIMITS, head_only=True)
    step = reader.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nx")
    assert step == Answered(HttpAnswer(200, ((b"Content-Length", b"1000000000000"),), b"", b"x"))


def test_interim_answers_are_bounded_and_leave_no_fields_behind() -> None:
    interim, last = b"HTTP/1.1 103 x\r\nLink: a\r\n\r\n", b"HTTP/1.1 204 x\r\nB: c\r\n\r\n"
    assert make().receive(interim * 5 + last) == Answered(HttpAnswer(204, ((b"B", b"c"),), b""))
    assert make().receive(interim * 6) == Refused(FailureKind.BAD_HTTP, 103)
    assert make().receive(b"HTTP/1.1 101 x\r\n") == Refused(FailureKind.BAD_HTTP, 101)
    assert make().receive(interim + b"junk") == Refused(FailureKind.BAD_HTTP, 103)


@pytest.mark.parametrize(("first", "detail"), [(b"\x05\x00", 5), (b"\x00\x5a", 0), (b"<", 0x3C)])
def test_another_protocol_is_recognised_by_its_first_byte(first: bytes, detail: int) -> None:
    assert make().receive(first) == Refused(FailureKind.NOT_THIS_PROTOCOL, detail)


def test_silence_in_the_body_can_be_told_from_silence_before_it() -> None:
    reader = make()
    seen = [(reader.status, reader.in_body)]
    for piece in (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", b"\r\n"):
        reader.receive(piece)
        seen.append((reader.status, reader.in_body))
    assert seen == [(None, False), (200, False), (200, True)]


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "a line without end": (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
    "header lines": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 x\r\n\r\n"),
    "a body until the end": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "chunks of one byte with padding": (CHUNKED_HEAD, b"1;" + b"p" * 200 + b"\r\nx\r\n"),
    "a chunk extension without end": (CHUNKED_HEAD, b"1;p"),
    "trailers": (CHUNKED_HEAD + b"0\r\n", b"A: b\r\n"),
}


def blocks(start: bytes, unit: bytes) -> Iterator[bytes]:
    """The start, then a megabyte of the unit, in blocks as a reactor reads them."""
    yield start
    flood = unit * (2**20 // len(unit))
    for at in range(0, len(flood), BLOCK_BYTES):
        yield flood[at : at + BLOCK_BYTES]


def assert_bounded(maker: Maker, start: bytes, unit: bytes) -> None:
    limit = LIMITS.head_max_bytes + LIMITS.body_max_bytes + 2 * BLOCK_BYTES
    assert most_kept_bytes(maker, blocks(start, unit)) <= limit


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_is_refused_before_much_of_it_is_kept(flood: tuple[bytes, bytes]) -> None:
    assert_bounded(make, *flood)


def test_a_finished_answer_takes_nothing_more() -> None:
    reader = make()
    reader.receive(b"\x05")
    with pytest.raises(AssertionError):
        reader.receive(b"")
    with pytest.raises(AssertionError):
        reader.ended()


# --- planted bugs: each of these must be caught by the property that it is for


class TakesWhatIsThere(AnswerReader):
    """Believes that a receive brings the whole body."""

    __slots__ = ()

    def _read_length(self) -> Reading | None:
        self._length = min(self._length, len(self._head.got) - self._head.at)
        return super()._read_length()


class ForgetsWhatIsBehind(AnswerReader):
    """Loses the beginning of a second answer."""

    __slots__ = ()

    def _answered(self, body: bytes, *, leftover: bytes) -> Answered:
        return super()._answered(body, leftover=b"")


class PrefersTheLength(AnswerReader):
    """Takes an answer with both framings, by its length."""

    __slots__ = ()

    def _end_of_head(self) -> Reading | None:
        if any(name.lower() == b"content-length" for name, _ in self._fields):
            self._fields = [
                pair for pair in self._fields if pair[0].lower() != b"transfer-encoding"
            ]
        return super()._end_of_head()


class BelievesALengthOnNoContent(AnswerReader):
    """Waits for the body of a 204."""

    __slots__ = ()

    def _end_of_head(self) -> Reading | None:
        status = self._head.status
        if status in {204, 304}:
            self._head.status = 200
        reading = super()._end_of_head()
        self._head.status = status
        return reading


class EndsAtTheFirstChunk(AnswerReader):
    """Takes the first chunk for the whole body."""

    __slots__ = ()

    def _read_chunk_line(self) -> Reading | None:
        if self._body:
            return self._answered(bytes(self._body), leftover=b"")
        return super()._read_chunk_line()


class CountsOnlyTheLatestChunk(AnswerReader):
    """Holds each chunk against the limit, but not their sum."""

    __slots__ = ("_earlier",)

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__(limits)
        self._earlier = bytearray()

    def _read_chunk_line(self) -> Reading | None:
        self._earlier += self._body
        self._body.clear()
        return super()._read_chunk_line()


def bug(kind: type[AnswerReader]) -> Callable[[], AnswerReader]:
    return lambda: kind(LIMITS)


@pytest.mark.parametrize("kind", [TakesWhatIsThere, ForgetsWhatIsBehind])
def test_an_outcome_that_depends_on_the_cut_is_caught(kind: type[AnswerReader]) -> None:
    assert finds_a_counterexample(
        st.tuples(anything, cuts(300)),
        lambda drawn: assert_cuts_do_not_matter(bug(kind), drawn[0], drawn[1]),
    )


@pytest.mark.parametrize(
    "kind", [ForgetsWhatIsBehind, BelievesALengthOnNoContent, EndsAtTheFirstChunk]
)
def test_a_wrong_frame_around_a_good_answer_is_caught(kind: type[AnswerReader]) -> None:
    assert finds_a_counterexample(answers(), lambda sent: assert_h11_agrees(bug(kind), sent))


def test_taking_an_answer_with_two_framings_is_caught() -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"
    assert make().receive(smuggled) == Refused(FailureKind.BAD_HTTP, 200)
    assert isinstance(bug(PrefersTheLength)().receive(smuggled), Answered)
    assert finds_a_counterexample(
        mutated(strange).map(lambda data: (data, False)),
        lambda drawn: assert_never_framed_otherwise(bug(PrefersTheLength), *drawn),
    )


def test_a_body_without_a_bound_is_caught() -> None:
    with pytest.raises(AssertionError):
        assert_bounded(bug(CountsOnlyTheLatestChunk), *FLOODS["chunks of one byte with padding"])
