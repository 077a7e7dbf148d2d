"""The ladder finds what trying everything finds, with far fewer connections."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.checking.ladder import (
    SPARE_MEAN,
    SPARE_START,
    Heard,
    Ladder,
    first_protocol,
    heard,
    spare_connections,
)
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind

HTTP, CONNECT = Protocol.HTTP, Protocol.CONNECT
SOCKS4, SOCKS4A, SOCKS5 = Protocol.SOCKS4, Protocol.SOCKS4A, Protocol.SOCKS5
TRIED_BY_HAND = (HTTP, CONNECT, SOCKS4, SOCKS5)

Reaction = Callable[[Protocol], Heard | None]  # None: it works


def speaks(*protocols: Protocol, otherwise: Heard, family: Heard, kin: set[Protocol]) -> Reaction:
    def react(tried: Protocol) -> Heard | None:
        if tried in protocols:
            return None
        return family if tried in kin else otherwise

    return react


def working(protocols: tuple[Protocol, ...], otherwise: Heard) -> Reaction:
    http = protocols[0] in {HTTP, CONNECT}
    family = Heard.HTTP if http else Heard.SOCKS4 if SOCKS4 in protocols else Heard.SOCKS5
    kin = {HTTP, CONNECT} if http else {SOCKS4, SOCKS4A} if SOCKS4 in protocols else {SOCKS5}
    return speaks(*protocols, otherwise=otherwise, family=family, kin=kin)


def climb(
    react: Reaction, hints: tuple[Protocol, ...], port: int = 8080, *, spare: bool = True
) -> tuple[Protocol | None, list[Protocol]]:
    """What works, and everything that was tried on the way."""
    protocol: Protocol | None = first_protocol(hints, port)
    assert protocol is not None
    ladder, tried = Ladder(protocol, hints), []
    while protocol is not None:
        tried.append(protocol)
        what = react(protocol)
        if what is None:
            return protocol, tried
        protocol = ladder.after(protocol, what, spare=spare)
    return None, tried


vague = st.sampled_from([Heard.SILENCE, Heard.CLOSED, Heard.STRANGE])
fleets = st.sampled_from(
    [(HTTP,), (CONNECT,), (HTTP, CONNECT), (SOCKS4,), (SOCKS5,), (SOCKS4, SOCKS5)]
)
any_hints = st.lists(st.sampled_from(list(Protocol)), unique=True, max_size=3).map(tuple)


@given(protocols=fleets, otherwise=vague, hints=any_hints, port=st.integers(1, 65_535))
def test_with_connections_to_spare_whatever_works_is_found_under_any_hint(
    protocols: tuple[Protocol, ...], otherwise: Heard, hints: tuple[Protocol, ...], port: int
) -> None:
    found, tried = climb(working(protocols, otherwise), hints, port)
    assert found in protocols
    assert len(tried) <= 5


@given(
    answers=st.lists(st.sampled_from(list(Heard)), min_size=6, max_size=6),
    hints=any_hints,
    spare=st.booleans(),
)
def test_nothing_is_tried_twice_and_every_ladder_ends(
    answers: list[Heard], hints: tuple[Protocol, ...], spare: bool
) -> None:
    said = iter(answers)
    _, tried = climb(lambda _: next(said), hints, spare=spare)
    assert len(set(tried)) == len(tried) <= 5


@given(protocols=fleets, otherwise=vague)
def test_a_right_hint_costs_one_connection(
    protocols: tuple[Protocol, ...], otherwise: Heard
) -> None:
    for hint in protocols:
        assert climb(working(protocols, otherwise), (hint,))[1] == [hint]


@given(hints=any_hints, what=st.sampled_from([Heard.NO_CONNECTION, Heard.STALLED, Heard.LIAR]))
def test_who_cannot_be_reached_stalls_or_lies_is_asked_once(
    hints: tuple[Protocol, ...], what: Heard
) -> None:
    assert len(climb(lambda _: what, hints)[1]) == 1


def test_silence_on_http_leads_to_socks5_then_socks4() -> None:
    assert climb(lambda _: Heard.SILENCE, (HTTP,), spare=False)[1] == [HTTP, SOCKS5, SOCKS4]


def test_silence_on_socks_leads_to_the_http_pair() -> None:
    assert climb(lambda _: Heard.SILENCE, (SOCKS5,), spare=False)[1] == [SOCKS5, HTTP, CONNECT]


def test_an_http_answer_leads_to_the_other_http_way_alone() -> None:
    assert climb(lambda _: Heard.HTTP, (HTTP,))[1] == [HTTP, CONNECT]
    assert climb(lambda _: Heard.HTTP, (CONNECT,))[1] == [CONNECT, HTTP]


def test_a_socks_answer_leads_to_its_sibling() -> None:
    assert climb(lambda _: Heard.SOCKS5, (SOCKS5,))[1] == [SOCKS5, SOCKS4]
    assert climb(lambda _: Heard.SOCKS4, (SOCKS4,), spare=False)[1] == [SOCKS4, SOCKS5]


def test_a_banner_of_the_other_family_is_believed() -> None:
    assert climb(lambda _: Heard.HTTP, (SOCKS5,))[1] == [SOCKS5, HTTP, CONNECT]
    assert climb(lambda _: Heard.SOCKS5, (HTTP,))[1] == [HTTP, SOCKS5, SOCKS4]


def test_a_second_hint_goes_before_what_the_table_would_try() -> None:
    assert climb(lambda _: Heard.CLOSED, (HTTP, SOCKS4), spare=False)[1][1] == SOCKS4
    assert climb(lambda _: Heard.CLOSED, (HTTP, CONNECT), spare=False)[1][1] == CONNECT


@pytest.mark.parametrize(
    ("port", "first"), [(1080, SOCKS5), (4145, SOCKS4), (3128, HTTP), (80, HTTP), (9050, SOCKS5)]
)
def test_without_a_hint_the_port_decides(port: int, first: Protocol) -> None:
    assert first_protocol((), port) is first


# --- a modelled fleet: shares of junk as published lists have them

_JUNK = (
    (78, Heard.NO_CONNECTION),  # no answer to the connect
    (12, Heard.NO_CONNECTION),  # refused
    (4, Heard.CLOSED),
    (2, Heard.SILENCE),
    (4, Heard.HTTP),  # login and error pages
)
_WORKING = (
    (30, (HTTP,), Heard.CLOSED),
    (15, (HTTP, CONNECT), Heard.SILENCE),
    (15, (CONNECT,), Heard.CLOSED),
    (12, (SOCKS4,), Heard.CLOSED),
    (23, (SOCKS5,), Heard.CLOSED),
    (5, (SOCKS4, SOCKS5), Heard.SILENCE),
)


def modelled_fleet(count: int, seed: int) -> list[tuple[Reaction, tuple[Protocol, ...]]]:
    """Candidates with hints: right for four in five of the working ones, none for some."""
    draw = random.Random(seed)
    fleet: list[tuple[Reaction, tuple[Protocol, ...]]] = []
    for _ in range(count):
        hint = draw.choice([(HTTP,), (HTTP,), (SOCKS4,), (SOCKS5,), (CONNECT,), ()])
        if draw.random() < 0.05:
            _, protocols, otherwise = draw.choices(_WORKING, [kind[0] for kind in _WORKING])[0]
            if draw.random() < 0.8:
                hint = (draw.choice(protocols),)
            fleet.append((working(protocols, otherwise), hint))
        else:
            what = draw.choices([kind[1] for kind in _JUNK], [kind[0] for kind in _JUNK])[0]
            fleet.append((lambda _, what=what: what, hint))  # type: ignore[misc]  # bound now
    return fleet


def check_all(
    fleet: list[tuple[Reaction, tuple[Protocol, ...]]], ladder: type[Ladder] = Ladder
) -> tuple[int, int]:
    """How many work, and connections made, with the budget for unlikely protocols in force."""
    found = connections = 0
    for number, (react, hints) in enumerate(fleet, start=1):
        protocol: Protocol | None = first_protocol(hints, 8080)
        assert protocol is not None
        rungs = ladder(protocol, hints)
        while protocol is not None:
            connections += 1
            what = react(protocol)
            if what is None:
                found += 1
                break
            protocol = rungs.after(protocol, what, spare=spare_connections(connections, number))
    return found, connections


def by_trying_everything(fleet: list[tuple[Reaction, tuple[Protocol, ...]]]) -> int:
    return sum(any(react(protocol) is None for protocol in TRIED_BY_HAND) for react, _ in fleet)


@pytest.mark.parametrize("seed", range(5))
def test_a_realistic_fleet_is_found_whole_with_less_than_one_and_a_half_connections(
    seed: int,
) -> None:
    fleet = modelled_fleet(20_000, seed)
    found, connections = check_all(fleet)
    assert found == by_trying_everything(fleet)
    assert connections <= 1.45 * len(fleet)


class GivesUpOnSilence(Ladder):
    """Planted: silence is taken for the end."""

    def after(self, protocol: Protocol, what: Heard, *, spare: bool) -> Protocol | None:
        if what is Heard.SILENCE:
            return None
        return super().after(protocol, what, spare=spare)


class TriesEverything(Ladder):
    """Planted: what came back makes no difference."""

    def after(self, protocol: Protocol, what: Heard, *, spare: bool) -> Protocol | None:
        following = dict(pairwise(TRIED_BY_HAND))
        return following.get(protocol)


def test_a_ladder_that_gives_up_on_silence_would_be_noticed() -> None:
    fleet = modelled_fleet(20_000, 1)
    assert check_all(fleet, GivesUpOnSilence)[0] < by_trying_everything(fleet)


def test_a_ladder_that_tries_everything_would_be_noticed() -> None:
    fleet = modelled_fleet(20_000, 1)
    assert check_all(fleet, TriesEverything)[1] > 1.45 * len(fleet)


@given(junk=st.sampled_from([Heard.CLOSED, Heard.SILENCE]), count=st.integers(100, 3_000))
def test_unlikely_protocols_are_left_out_once_the_mean_is_spent(junk: Heard, count: int) -> None:
    """Even when everybody accepts connections, only the table's own rungs are climbed."""
    fleet: list[tuple[Reaction, tuple[Protocol, ...]]] = [(lambda _: junk, (HTTP,))] * count
    _, connections = check_all(fleet)
    assert connections <= 3 * count + SPARE_START
    assert SPARE_MEAN < 1.45


# --- what a failure shows


@pytest.mark.parametrize(
    ("protocol", "kind", "detail", "spoke", "what"),
    [
        (HTTP, FailureKind.CONNECT_TIMEOUT, None, False, Heard.NO_CONNECTION),
        (HTTP, FailureKind.CONNECT_REFUSED, None, False, Heard.NO_CONNECTION),
        (HTTP, FailureKind.ANSWER_TIMEOUT, None, False, Heard.SILENCE),
        (SOCKS5, FailureKind.HANDSHAKE_TIMEOUT, None, False, Heard.SILENCE),
        (SOCKS5, FailureKind.HANDSHAKE_TIMEOUT, None, True, Heard.STALLED),
        (HTTP, FailureKind.BODY_STALLED, 200, True, Heard.STALLED),
        (HTTP, FailureKind.RESET, None, False, Heard.CLOSED),
        (SOCKS4, FailureKind.EOF_EARLY, None, False, Heard.CLOSED),
        (HTTP, FailureKind.HTTP_STATUS, 403, True, Heard.HTTP),
        (SOCKS5, FailureKind.NOT_THIS_PROTOCOL, ord("H"), True, Heard.HTTP),
        (HTTP, FailureKind.NOT_THIS_PROTOCOL, 0x05, True, Heard.SOCKS5),
        (HTTP, FailureKind.NOT_THIS_PROTOCOL, 0x00, True, Heard.SOCKS4),
        (HTTP, FailureKind.NOT_THIS_PROTOCOL, ord("S"), True, Heard.STRANGE),
        (SOCKS4, FailureKind.SOCKS_REFUSED, 0x5B, True, Heard.SOCKS4),
        (SOCKS5, FailureKind.AUTH_REQUIRED, 0xFF, True, Heard.SOCKS5),
        (HTTP, FailureKind.WRONG_ANSWER, 200, True, Heard.HTTP),
        (HTTP, FailureKind.JUDGE_REPLAY, 200, True, Heard.LIAR),
        (CONNECT, FailureKind.NOT_A_PROXY, 200, True, Heard.LIAR),
    ],
)
def test_a_failure_shows_what_the_other_side_speaks(
    protocol: Protocol, kind: FailureKind, detail: int | None, spoke: bool, what: Heard
) -> None:
    tunnel = kind in {FailureKind.WRONG_ANSWER, FailureKind.BODY_STALLED}
    assert heard(protocol, kind, detail, spoke=spoke, tunnel=tunnel) is what


@given(
    protocol=st.sampled_from(list(Protocol)),
    kind=st.sampled_from(list(FailureKind)),
    detail=st.none() | st.integers(0, 599),
    spoke=st.booleans(),
    tunnel=st.booleans(),
)
def test_every_failure_shows_something(
    protocol: Protocol, kind: FailureKind, detail: int | None, spoke: bool, tunnel: bool
) -> None:
    assert heard(protocol, kind, detail, spoke=spoke, tunnel=tunnel) in Heard
