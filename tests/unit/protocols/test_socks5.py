"""SOCKS5: claims about every input, each with a planted bug that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.failure import FailureKind
from proxywell.protocols.machine import Established, NeedMore, Refused
from proxywell.protocols.socks5 import REPLY_MAX_BYTES, Socks5Connect
from tests.unit.protocols.driving import (
    assert_cuts_do_not_matter,
    cuts,
    feed,
    in_single_bytes,
    mutated,
)
from tests.unit.protocols.planted import finds_a_counterexample

REQUEST = b"\x05\x01\x00\x01\xc0\x00\x02\x07\x1f\x90"
SECRET = b"\x01\x03ann\x06secret"

bound_v4 = st.binary(min_size=6, max_size=6).map(lambda rest: b"\x05\x00\x00\x01" + rest)
bound_v6 = st.binary(min_size=18, max_size=18).map(lambda rest: b"\x05\x00\x00\x04" + rest)
bound_names = st.one_of(
    st.binary(max_size=255), st.just(b"n" * 255), st.just(b""), st.just(b"\x05\x00\x00\x01")
).map(lambda name: b"\x05\x00\x00\x03" + bytes((len(name),)) + name + b"\x00\x50")
grants = st.one_of(bound_v4, bound_v6, bound_names)
refusals = st.integers(1, 8).map(lambda code: bytes((5, code, 0, 1)) + b"\x00" * 6)
tunnels = st.binary(max_size=12)


@st.composite
def conversations(draw: st.DrawFn, method: bytes) -> bytes:
    """What a server sends from greeting to tunnel, all of it well-formed."""
    return method + draw(st.one_of(grants, refusals)) + draw(tunnels)


open_to_all = conversations(b"\x05\x00")
with_password = conversations(b"\x05\x02\x01\x00")
talk = st.one_of(
    open_to_all,
    with_password,
    mutated(open_to_all),
    mutated(with_password),
    st.binary(max_size=24),
    st.sampled_from((b"\x05\xff", b"\x05\x02\x01\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n")),
)


def plain() -> Socks5Connect:
    return Socks5Connect("192.0.2.7", 8080)


def known() -> Socks5Connect:
    return Socks5Connect("192.0.2.7", 8080, "ann", "secret")


makers = st.sampled_from((plain, known))


def after_greeting(reply: bytes) -> object:
    machine = plain()
    assert machine.receive(b"\x05\x00") == NeedMore(REQUEST)
    return machine.receive(reply)


def test_the_greeting_offers_a_password_only_if_there_is_one() -> None:
    assert plain().opening == b"\x05\x01\x00"
    assert known().opening == b"\x05\x02\x00\x02"


@pytest.mark.parametrize(
    ("host", "destination"),
    [
        ("192.0.2.7", b"\x01\xc0\x00\x02\x07"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + b"\x00" * 11 + b"\x01"),
        ("judge.example", b"\x03\x0djudge.example"),
        ("n" * 255, b"\x03\xff" + b"n" * 255),
    ],
)
def test_the_destination_goes_in_the_form_that_the_host_has(host: str, destination: bytes) -> None:
    machine = Socks5Connect(host, 443)
    assert machine.receive(b"\x05\x00") == NeedMore(b"\x05\x01\x00" + destination + b"\x01\xbb")


def test_the_password_goes_out_when_it_is_asked_for() -> None:
    machine = known()
    assert machine.receive(b"\x05\x02") == NeedMore(SECRET)
    assert machine.receive(b"\x01\x00") == NeedMore(REQUEST)


def test_a_server_that_wants_no_password_gets_none() -> None:
    assert known().receive(b"\x05\x00") == NeedMore(REQUEST)


@pytest.mark.parametrize("secret", [("u" * 256, "p"), ("u", "p" * 256), ("ü" * 128, "")])
def test_credentials_that_cannot_be_carried_are_not_offered(secret: tuple[str, str]) -> None:
    assert Socks5Connect("192.0.2.7", 80, *secret).opening == plain().opening


@given(make=makers, data=talk, places=cuts(300))
def test_the_outcome_does_not_depend_on_where_tcp_cuts_the_replies(
    make: Callable[[], Socks5Connect], data: bytes, places: list[int]
) -> None:
    assert_cuts_do_not_matter(make, data, places)


@given(grant=grants, tunnel=tunnels)
def test_the_bound_address_is_skipped_by_its_type_and_the_tunnel_kept(
    grant: bytes, tunnel: bytes
) -> None:
    assert after_greeting(grant + tunnel) == Established(tunnel)


@given(grant=grants, tunnel=tunnels)
def test_a_server_that_answers_before_it_is_asked_still_gets_the_request(
    grant: bytes, tunnel: bytes
) -> None:
    assert plain().receive(b"\x05\x00" + grant + tunnel) == Established(tunnel, REQUEST)
    assert known().receive(b"\x05\x02\x01\x00" + grant) == Established(b"", SECRET + REQUEST)


@pytest.mark.parametrize("code", range(1, 9))
def test_a_no_is_a_no_at_its_second_byte(code: int) -> None:
    assert after_greeting(bytes((5, code))) == Refused(FailureKind.SOCKS_REFUSED, code)


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (b"\x05\x09", 9),
        (b"\x05\xff", 0xFF),
        (b"\x00", 0),
        (b"H", 0x48),
        (b"\x05\x00\x00\x00", 0),
        (b"\x05\x00\x00\x02", 2),
        (b"\x05\x00\x00\xff", 0xFF),
    ],
)
def test_a_malformed_reply_is_bad_as_soon_as_it_shows(reply: bytes, detail: int) -> None:
    assert after_greeting(reply) == Refused(FailureKind.SOCKS_BAD_REPLY, detail)
    assert isinstance(after_greeting(reply[:-1]), NeedMore)


@pytest.mark.parametrize(
    ("make", "sent", "kind", "detail"),
    [
        (plain, b"\x05\xff", FailureKind.AUTH_REQUIRED, 0xFF),
        (plain, b"\x05\x02", FailureKind.AUTH_REQUIRED, 2),
        (known, b"\x05\x01", FailureKind.AUTH_REQUIRED, 1),
        (known, b"\x05\x80", FailureKind.SOCKS_BAD_REPLY, 0x80),
        (known, b"\x05\x02\x01\x01", FailureKind.AUTH_REQUIRED, 1),
        (known, b"\x05\x02\x05\x02", FailureKind.AUTH_REQUIRED, 2),
        (known, b"\x05\x02\x02", FailureKind.SOCKS_BAD_REPLY, 2),
        (plain, b"H", FailureKind.NOT_THIS_PROTOCOL, 0x48),
        (plain, b"\x00", FailureKind.NOT_THIS_PROTOCOL, 0),
        (plain, b"\x04\x00", FailureKind.NOT_THIS_PROTOCOL, 4),
    ],
)
def test_a_server_that_does_not_let_us_in_says_why(
    make: Callable[[], Socks5Connect], sent: bytes, kind: FailureKind, detail: int
) -> None:
    assert feed(make, in_single_bytes(sent)).step == Refused(kind, detail)


def test_the_version_of_the_password_reply_may_be_a_repeated_five() -> None:
    assert feed(known, [b"\x05\x02", b"\x05\x00", b"\x05\x00\x00\x01" + b"\x00" * 6]).step == (
        Established()
    )


@given(make=makers, data=talk)
def test_the_end_before_the_end_is_an_early_end(
    make: Callable[[], Socks5Connect], data: bytes
) -> None:
    undecided = next(
        size
        for size in range(len(data), -1, -1)
        if isinstance(feed(make, [data[:size]]).step, NeedMore)
    )
    assert feed(make, [data[:undecided]], end=True).step == Refused(FailureKind.EOF_EARLY)


@given(make=makers, data=talk)
def test_an_undecided_handshake_holds_less_than_one_reply(
    make: Callable[[], Socks5Connect], data: bytes
) -> None:
    assert_bounded(make, data)


def assert_bounded(make: Callable[[], Socks5Connect], data: bytes) -> None:
    machine = make()
    for byte in in_single_bytes(data + b"\x00" * 600):
        if not isinstance(machine.receive(byte), NeedMore):
            assert machine._got == b""
            return
        assert len(machine._got) < REPLY_MAX_BYTES


@pytest.mark.parametrize("host", ["", "n" * 256, "bücher.example", "fe80::1%eth0"])
def test_a_host_that_cannot_be_carried_is_our_own_mistake(host: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Socks5Connect(host, 80)


@pytest.mark.parametrize("port", [-1, 0, 65_536])
def test_a_port_out_of_range_is_our_own_mistake(port: int) -> None:
    with pytest.raises(ValueError, match=str(port)):
        Socks5Connect("192.0.2.7", port)


def test_a_finished_handshake_takes_nothing_more() -> None:
    machine = plain()
    machine.receive(b"\x05\xff")
    with pytest.raises(AssertionError):
        machine.receive(b"")
    with pytest.raises(AssertionError):
        machine.ended()


# --- planted bugs: each of these must be caught by the property that it is for


class ReadsByReceive(Socks5Connect):
    """Takes what one receive brings for one whole reply."""

    __slots__ = ()

    def _read_reply(self) -> Established | Refused | None:
        whole = len(self._got) >= 10
        return super()._read_reply() if whole else Refused(FailureKind.SOCKS_BAD_REPLY)


class IgnoresTheAddressType(Socks5Connect):
    """Skips ten bytes whatever the reply says."""

    __slots__ = ()

    def _read_reply(self) -> Established | Refused | None:
        step = super()._read_reply()
        return Established(self._got[10:]) if isinstance(step, Established) else step


class OffByOneInTheName(Socks5Connect):
    """Forgets that the length of the name is a byte of its own."""

    __slots__ = ()

    def _read_reply(self) -> Established | Refused | None:
        step = super()._read_reply()
        named = isinstance(step, Established) and self._got[3] == 3
        return Established(self._got[4 + self._got[4] + 2 :]) if named else step


class DropsWhatFollowsTheMethod(Socks5Connect):
    """Believes that nothing can come behind the choice of a method."""

    __slots__ = ()

    def _read_method(self) -> bytes | Refused | None:
        answer = super()._read_method()
        if isinstance(answer, bytes):
            self._got = b""
        return answer


class NeverHasEnough(Socks5Connect):
    """Waits for more, for ever."""

    __slots__ = ()

    def _read_reply(self) -> Established | Refused | None:
        return None


def _bug(kind: type[Socks5Connect]) -> Callable[[], Socks5Connect]:
    return lambda: kind("192.0.2.7", 8080, "ann", "secret")


@pytest.mark.parametrize("kind", [ReadsByReceive, DropsWhatFollowsTheMethod])
def test_an_outcome_that_depends_on_the_cut_is_caught(kind: type[Socks5Connect]) -> None:
    assert finds_a_counterexample(
        st.tuples(talk, cuts(300)),
        lambda drawn: assert_cuts_do_not_matter(_bug(kind), drawn[0], drawn[1]),
    )


@pytest.mark.parametrize("kind", [IgnoresTheAddressType, OffByOneInTheName])
def test_a_wrongly_measured_reply_is_caught(kind: type[Socks5Connect]) -> None:
    def claim(drawn: tuple[bytes, bytes]) -> None:
        machine = _bug(kind)()
        machine.receive(b"\x05\x00")
        assert machine.receive(drawn[0] + drawn[1]) == Established(drawn[1])

    assert finds_a_counterexample(st.tuples(grants, tunnels), claim)


def test_a_machine_that_hoards_is_caught() -> None:
    assert finds_a_counterexample(talk, lambda data: assert_bounded(_bug(NeverHasEnough), data))
