"""SOCKS4 and SOCKS4a: claims about every input, each with a planted bug that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxywell.model.failure import FailureKind
from proxywell.protocols.machine import Established, NeedMore, Refused, Step
from proxywell.protocols.socks4 import GRANTED, REPLY_SIZE_BYTES, Socks4aConnect, Socks4Connect
from tests.unit.protocols.driving import assert_cuts_do_not_matter, cuts, feed, mutated
from tests.unit.protocols.planted import finds_a_counterexample

tails = st.binary(min_size=6, max_size=40)
granted = tails.map(lambda tail: bytes((0, GRANTED)) + tail)
refusals = st.tuples(st.sampled_from((0x5B, 0x5C, 0x5D)), tails).map(
    lambda drawn: bytes((0, drawn[0])) + drawn[1]
)
replies = st.one_of(granted, mutated(granted), refusals, mutated(refusals), st.binary(max_size=40))


def make() -> Socks4Connect:
    return Socks4Connect("192.0.2.7", 8080, "reader")


def test_the_request_is_laid_out_byte_by_byte() -> None:
    assert make().opening == b"\x04\x01\x1f\x90\xc0\x00\x02\x07reader\x00"
    by_name = Socks4aConnect("judge.example", 443)
    assert by_name.opening == b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00judge.example\x00"


@given(data=replies, places=cuts(60))
def test_the_outcome_does_not_depend_on_where_tcp_cuts_the_reply(
    data: bytes, places: list[int]
) -> None:
    assert_cuts_do_not_matter(make, data, places)


@given(reply=granted)
def test_the_tunnels_first_bytes_are_kept_to_the_byte(reply: bytes) -> None:
    assert make().receive(reply) == Established(reply[REPLY_SIZE_BYTES:])


@pytest.mark.parametrize("code", [0x5B, 0x5C, 0x5D])
def test_a_no_is_a_no_at_its_second_byte(code: int) -> None:
    assert make().receive(bytes((0, code))) == Refused(FailureKind.SOCKS_REFUSED, code)


@pytest.mark.parametrize("code", [0x00, 0x01, 0x59, 0x5E, 0xFF])
def test_a_code_that_socks4_does_not_have_is_a_bad_reply(code: int) -> None:
    assert make().receive(bytes((0, code))) == Refused(FailureKind.SOCKS_BAD_REPLY, code)


@pytest.mark.parametrize("first", [0x05, 0x48, 0x3C, 0x15, 0xFF])
def test_another_protocol_is_recognised_by_its_first_byte(first: int) -> None:
    assert make().receive(bytes((first,))) == Refused(FailureKind.NOT_THIS_PROTOCOL, first)


def test_a_reply_with_the_version_of_a_request_is_socks_but_bad() -> None:
    assert make().receive(b"\x04\x5a") == Refused(FailureKind.SOCKS_BAD_REPLY, 4)


@given(reply=granted, size=st.integers(0, REPLY_SIZE_BYTES - 1))
@example(reply=bytes((0, GRANTED)) + b"\x00" * 6, size=0)
def test_a_reply_that_is_cut_off_is_an_early_end(reply: bytes, size: int) -> None:
    assert feed(make, [reply[:size]], end=True).step == Refused(FailureKind.EOF_EARLY)


def test_the_opening_can_be_read_again_and_again() -> None:
    machine = make()
    before = machine.opening
    assert machine.receive(b"\x00") == NeedMore()
    assert machine.opening == before


@given(piece=st.binary(max_size=64))
def test_a_finished_handshake_keeps_nothing_and_takes_nothing(piece: bytes) -> None:
    machine = make()
    machine.receive(b"\x00\x5b" + piece)
    assert machine._got == b""
    with pytest.raises(AssertionError):
        machine.receive(piece)
    with pytest.raises(AssertionError):
        machine.ended()


@pytest.mark.parametrize("user", ["a\x00b", "x" * 256])
def test_a_user_that_cannot_be_carried_is_left_out(user: str) -> None:
    assert Socks4Connect("192.0.2.7", 80, user).opening == b"\x04\x01\x00\x50\xc0\x00\x02\x07\x00"


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: Socks4Connect("judge.example", 80),
        lambda: Socks4Connect("2001:db8::1", 80),
        lambda: Socks4Connect("192.0.2.7", 0),
        lambda: Socks4Connect("192.0.2.7", 65_536),
        lambda: Socks4aConnect("", 80),
        lambda: Socks4aConnect("x" * 256, 80),
        lambda: Socks4aConnect("a\x00b", 80),
        lambda: Socks4aConnect("bücher.example", 80),
    ],
)
def test_a_destination_that_cannot_be_carried_is_our_own_mistake(
    misuse: Callable[[], object],
) -> None:
    with pytest.raises(ValueError, match=r"."):
        misuse()


# --- planted bugs: each of these must be caught by the property that it is for


class ReadsOnlyWhatOneReceiveBrings(Socks4Connect):
    """Takes TCP for a protocol of messages."""

    __slots__ = ()

    def _next_step(self) -> Step:
        if 0 < len(self._got) < REPLY_SIZE_BYTES:
            return Refused(FailureKind.EOF_EARLY)
        return super()._next_step()


class ForgetsTheLeftover(Socks4Connect):
    """Loses the first bytes of the tunnel."""

    __slots__ = ()

    def _next_step(self) -> Step:
        step = super()._next_step()
        return Established() if isinstance(step, Established) else step


class DecidesByTheLastByte(Socks4Connect):
    """Says no late, and then by what happens to be there."""

    __slots__ = ()

    def _next_step(self) -> Step:
        if len(self._got) >= 2 and self._got[1] != GRANTED:
            return Refused(FailureKind.SOCKS_REFUSED, self._got[-1])
        return super()._next_step()


def _as_the_bug(bug: type[Socks4Connect]) -> Callable[[], Socks4Connect]:
    return lambda: bug("192.0.2.7", 8080, "reader")


@pytest.mark.parametrize("bug", [ReadsOnlyWhatOneReceiveBrings, DecidesByTheLastByte])
def test_reading_by_receive_is_caught(bug: type[Socks4Connect]) -> None:
    assert finds_a_counterexample(
        st.tuples(replies, cuts(60)),
        lambda drawn: assert_cuts_do_not_matter(_as_the_bug(bug), drawn[0], drawn[1]),
    )


def test_a_lost_leftover_is_caught() -> None:
    def claim(reply: bytes) -> None:
        step = _as_the_bug(ForgetsTheLeftover)().receive(reply)
        assert step == Established(reply[REPLY_SIZE_BYTES:])

    assert finds_a_counterexample(granted, claim)
