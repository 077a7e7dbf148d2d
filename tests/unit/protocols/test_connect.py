"""CONNECT: claims about every input, each with a planted bug that breaks it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.failure import FailureKind
from proxywell.protocols.head import Head, HttpLimits
from proxywell.protocols.http import HttpConnect
from proxywell.protocols.machine import Established, NeedMore, Refused, Step
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
LIMITS = HttpLimits()

ends = st.sampled_from((b"\r\n", b"\n"))
reasons = st.sampled_from((b"", b" ", b" OK", b" Connection established", b" ok 200", b" 200"))
fields = st.sampled_from(
    (b"Via: 1.1 x", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X", b" folded")
)


@st.composite
def heads(draw: st.DrawFn, statuses: st.SearchStrategy[int]) -> bytes:
    version = draw(st.sampled_from((b"HTTP/1.1", b"HTTP/1.0")))
    lines = [b"%s %d%s" % (version, draw(statuses), draw(reasons))]
    lines += draw(st.lists(fields, max_size=3))
    return b"".join(line + draw(ends) for line in [*lines, b""])


successes = heads(st.sampled_from((200, 201, 204, 299)))
interims = st.lists(heads(st.sampled_from((100, 102, 103, 199))), max_size=7).map(b"".join)
refusals = heads(st.integers(300, 599))
tunnels = st.one_of(st.binary(max_size=20), st.just(b"HTTP/1.1 200 OK\r\n\r\n"))
opened = st.tuples(interims, successes, tunnels).map(b"".join)
replies = st.one_of(
    opened,
    mutated(opened),
    refusals,
    mutated(refusals),
    st.sampled_from((b"\x05\xff", b"\x00\x5b", b"<html>", b"HTTP/2.0 200 OK\r\n\r\n", b"HELO")),
)


def make() -> HttpConnect:
    return HttpConnect("judge.example", 443)


def test_the_request_names_the_destination_twice_and_nothing_else() -> None:
    assert make().opening == (
        b"CONNECT judge.example:443 HTTP/1.1\r\nHost: judge.example:443\r\n\r\n"
    )
    assert HttpConnect("2001:db8::1", 80).opening.startswith(b"CONNECT [2001:db8::1]:80 HTTP/1.1")


def test_credentials_go_out_at_once_by_the_basic_scheme() -> None:
    opening = HttpConnect("judge.example", 443, "ann", "pä:ss").opening
    coded = opening.partition(b"Proxy-Authorization: Basic ")[2].partition(b"\r\n")[0]
    assert b64decode(coded).decode() == "ann:pä:ss"


@given(data=replies, places=cuts(200))
def test_the_outcome_does_not_depend_on_where_tcp_cuts_the_answer(
    data: bytes, places: list[int]
) -> None:
    assert_cuts_do_not_matter(make, data, places)


@given(head=successes, tunnel=tunnels)
def test_the_tunnel_begins_right_behind_the_head_whatever_the_head_says(
    head: bytes, tunnel: bytes
) -> None:
    assert make().receive(head + tunnel) == Established(tunnel)


def assert_only_a_well_formed_success_opens(maker: Maker, data: bytes) -> None:
    """The status that counts, found by splitting at spaces instead of by a pattern."""
    if not isinstance(feed(maker, [data]).step, Established):
        return
    lines = iter(data.split(b"\n"))
    words = next(lines).rstrip(b"\r").split(b" ")
    while words[1].startswith(b"1"):
        while next(lines) not in {b"", b"\r"}:
            pass
        words = next(lines).rstrip(b"\r").split(b" ")
    assert words[0] in {b"HTTP/1.%d" % minor for minor in range(10)}
    assert len(words[1]) == 3
    assert words[1].startswith(b"2")
    assert words[1].isdigit()


@given(data=replies)
def test_only_a_well_formed_success_opens(data: bytes) -> None:
    assert_only_a_well_formed_success_opens(make, data)


@pytest.mark.parametrize(
    ("line", "kind", "detail"),
    [
        (b"HTTP/1.1 403 ok 200\r\n", FailureKind.HTTP_STATUS, 403),
        (b"HTTP/1.0 502 Bad Gateway\n", FailureKind.HTTP_STATUS, 502),
        (b"HTTP/1.1 302 Found\r\n", FailureKind.HTTP_STATUS, 302),
        (b"HTTP/1.1 101 Switching Protocols\r\n", FailureKind.HTTP_STATUS, 101),
        (b"HTTP/1.1 407\r\n", FailureKind.AUTH_REQUIRED, 407),
        (b"HTTP/1.1 999 x\r\n", FailureKind.BAD_HTTP, None),
        (b"HTTP/1.1 20 OK\r\n", FailureKind.BAD_HTTP, None),
        (b"HTTP/1.1 2000 OK\r\n", FailureKind.BAD_HTTP, None),
        (b"HTTP/1.1  200 OK\r\n", FailureKind.BAD_HTTP, None),
        (b"HTTP/1.1 200 O\x00K\r\n", FailureKind.BAD_HTTP, None),
        (b"HTTP/1.1 200 OK\r\r\n", FailureKind.BAD_HTTP, None),
        (b"HTTP/2.0 200 OK\r\n", FailureKind.BAD_HTTP, None),
        (b"http/1.1 200 OK\r\n", FailureKind.NOT_THIS_PROTOCOL, ord("h")),
        (b"\x05", FailureKind.NOT_THIS_PROTOCOL, 5),
        (b"\x04", FailureKind.NOT_THIS_PROTOCOL, 4),
        (b"\x00", FailureKind.NOT_THIS_PROTOCOL, 0),
        (b"\r\nHTTP/1.1 200 OK\r\n", FailureKind.NOT_THIS_PROTOCOL, 13),
        (b"HELO", FailureKind.NOT_THIS_PROTOCOL, ord("E")),
    ],
)
def test_a_no_is_a_no_at_the_end_of_its_line(
    line: bytes, kind: FailureKind, detail: int | None
) -> None:
    assert make().receive(line) == Refused(kind, detail)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_success_without_a_blank_line_waits_for_it(end: bytes) -> None:
    machine = make()
    assert machine.receive(b"HTTP/1.1 200 OK" + end) == NeedMore()
    assert machine.receive(end) == Established()


def test_five_interim_answers_are_passed_over_and_the_sixth_is_too_many() -> None:
    interim, success = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
    assert make().receive(interim * 5 + success + b"t") == Established(b"t")
    assert make().receive(interim * 6) == Refused(FailureKind.BAD_HTTP, 103)


def test_the_head_may_have_its_limit_and_no_byte_more() -> None:
    line = b"HTTP/1.1 200 "
    longest = line + b"x" * (LIMITS.head_max_bytes - len(line) - 4) + b"\r\n\r\n"
    assert make().receive(longest + b"t") == Established(b"t")
    head = b"HTTP/1.1 200 x" + longest[len(line) :]
    assert make().receive(head) == Refused(FailureKind.HEADER_TOO_LARGE, 200)


def test_a_hundred_header_lines_are_taken_and_no_more() -> None:
    line = b"HTTP/1.1 200 OK\r\n"
    assert make().receive(line + b"A: b\r\n" * 100 + b"\r\n") == Established()
    assert make().receive(line + b"A: b\r\n" * 101) == Refused(FailureKind.HEADER_TOO_LARGE, 200)


FLOODS = [
    b"x" * 64,
    b"HTTP/1.1 200 OK" + b" " * 64,
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10,
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"b" * 1_000,
]


def endless(unit: bytes) -> Iterator[bytes]:
    """A megabyte in blocks as a reactor reads them; the first unit begins the first block."""
    first = unit * (BLOCK_BYTES // len(unit) + 1)
    yield first
    for _ in range(256):
        yield unit[-1:] * BLOCK_BYTES if b"\n\n" not in unit[-2:] else first


@pytest.mark.parametrize("unit", FLOODS)
def test_a_flood_is_refused_before_much_of_it_is_kept(unit: bytes) -> None:
    assert_bounded(make, unit)


def assert_bounded(maker: Maker, unit: bytes) -> None:
    assert most_kept_bytes(maker, endless(unit)) <= LIMITS.head_max_bytes + 2 * BLOCK_BYTES


@given(data=replies)
def test_the_end_before_the_end_is_an_early_end_that_tells_what_was_seen(data: bytes) -> None:
    machine = make()
    if isinstance(machine.receive(data), NeedMore):
        step = machine.ended()
        assert isinstance(step, Refused)
        assert step.kind is FailureKind.EOF_EARLY


@pytest.mark.parametrize("host", ["", "a b", "a\r\nb", "a/b", "user@host", "x" * 256, "[::1]"])
def test_a_host_that_could_smuggle_is_our_own_mistake(host: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        HttpConnect(host, 80)


# --- planted bugs: each of these must be caught by the property that it is for


class LooksForTwoHundred(Head):
    """Finds a success anywhere in the line."""

    __slots__ = ()

    def take_status(self) -> int | Refused | None:
        line = self.take_field()
        if line is None or isinstance(line, Refused):
            return line
        self.status = 200 if b" 200" in line else 403
        return self.status


class HasNoLimit(Head):
    """Keeps whatever comes."""

    __slots__ = ()

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__(HttpLimits(head_max_bytes=10**9, headers_max=10**9))


class ReadsOneReceive(Head):
    """Takes a receive for a whole head."""

    __slots__ = ()

    def take_status(self) -> int | Refused | None:
        whole = b"\n" in self.got
        return super().take_status() if whole else self.refused(FailureKind.BAD_HTTP)


class Planted(HttpConnect):
    """A machine with another reader of heads."""

    __slots__ = ()

    def __init__(self, head: type[Head]) -> None:
        super().__init__("judge.example", 443)
        self._head = head(HttpLimits())


class ForgetsTheLeftover(HttpConnect):
    """Throws away what came behind the head."""

    __slots__ = ()

    def _next_step(self) -> Step:
        step = super()._next_step()
        return Established() if isinstance(step, Established) else step


def with_head(head: type[Head]) -> Callable[[], HttpConnect]:
    return lambda: Planted(head)


def test_looking_for_two_hundred_is_caught() -> None:
    bug = with_head(LooksForTwoHundred)
    assert finds_a_counterexample(
        replies, lambda data: assert_only_a_well_formed_success_opens(bug, data)
    )


def test_reading_by_receive_is_caught() -> None:
    bug = with_head(ReadsOneReceive)
    assert finds_a_counterexample(
        st.tuples(replies, cuts(200)),
        lambda drawn: assert_cuts_do_not_matter(bug, drawn[0], drawn[1]),
    )


def test_a_lost_leftover_is_caught() -> None:
    def claim(drawn: tuple[bytes, bytes]) -> None:
        step = ForgetsTheLeftover("judge.example", 443).receive(drawn[0] + drawn[1])
        assert step == Established(drawn[1])

    assert finds_a_counterexample(st.tuples(successes, tunnels), claim)


def test_a_head_without_a_limit_is_caught() -> None:
    with pytest.raises(AssertionError):
        assert_bounded(with_head(HasNoLimit), b"HTTP/1.1 200 OK\r\nA: " + b"b" * 1_000)
