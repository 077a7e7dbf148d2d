"""Who fits a wish, how the draw falls, and what is said when nobody fits."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.endpoint import Protocol
from proxywell.model.member import MemberState
from proxywell.model.verdict import Anonymity
from proxywell.pool.selection import (
    WEIGHT_MIN,
    Entry,
    MemberFilter,
    draw_distinct,
    matching,
    presentable,
    shortfall,
)


def entry(
    number: int,
    *,
    score: float = 0.5,
    state: MemberState = MemberState.FRESH,
    stale: bool = False,
    protocols: tuple[Protocol, ...] = (Protocol.SOCKS5,),
    anonymity: Anonymity = Anonymity.ELITE,
    country: str | None = None,
    latency_ms: float | None = 900.0,
    targets: tuple[tuple[str, float], ...] = (),
) -> Entry:
    return Entry(
        member_id=number,
        key=f"1.0.0.{number}:8080",
        score=score,
        state=state,
        stale=stale,
        protocols=protocols,
        anonymity=anonymity,
        country=country,
        latency_ms=latency_ms,
        targets=targets,
    )


entries = st.lists(
    st.builds(
        entry,
        st.integers(1, 10_000),
        score=st.floats(0, 1),
        state=st.sampled_from(MemberState),
        stale=st.booleans(),
    ),
    max_size=20,
    unique_by=lambda one: one.member_id,
)


@given(pool=entries, count=st.integers(1, 25), seed=st.integers())
def test_a_draw_gives_different_ones_and_as_many_as_there_are(
    pool: list[Entry], count: int, seed: int
) -> None:
    drawn = draw_distinct(pool, count, random.Random(seed).random)
    assert len(drawn) == min(count, len(pool))
    assert len({one.key for one in drawn}) == len(drawn)
    assert set(drawn) <= set(pool)


def shares(
    pick: Callable[[Sequence[Entry], int, Callable[[], float]], list[Entry]], count: int
) -> dict[int, float]:
    """How often each of four entries with weights 1, 2, 3, 4 is drawn first."""
    pool = [entry(number, score=number / 10) for number in (1, 2, 3, 4)]
    draw = random.Random(7).random
    first = Counter(pick(pool, count, draw)[0].member_id for _ in range(20_000))
    return {number: first[number] / 20_000 for number in (1, 2, 3, 4)}


def in_proportion(got: dict[int, float]) -> bool:
    return all(abs(share - number / 10) < 0.012 for number, share in got.items())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_chance_is_in_proportion_to_the_score(count: int) -> None:
    assert in_proportion(shares(draw_distinct, count))


def test_a_greedy_and_a_uniform_draw_are_caught() -> None:
    def greedy(pool: Sequence[Entry], count: int, _: Callable[[], float]) -> list[Entry]:
        return sorted(pool, key=lambda one: -one.score)[:count]

    def uniform(pool: Sequence[Entry], count: int, draw: Callable[[], float]) -> list[Entry]:
        return [pool[int(draw() * len(pool))]][:count]

    assert not in_proportion(shares(greedy, 1))
    assert not in_proportion(shares(uniform, 1))


@pytest.mark.parametrize("at", [0.0, 0.999999999999999])
def test_the_ends_of_the_draw_stay_inside(at: float) -> None:
    pool = [entry(1, score=0.0), entry(2, score=0.0)]
    assert draw_distinct(pool, 1, lambda: at)[0] in pool
    assert WEIGHT_MIN > 0


@given(pool=entries)
def test_only_fresh_ones_are_handed_out_and_stale_ones_only_on_request(pool: list[Entry]) -> None:
    assert all(one.state is MemberState.FRESH for one in presentable(pool))
    for one in presentable(pool, stale_too=True):
        assert one.state is MemberState.FRESH or one.stale


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (MemberFilter(), {1, 2, 3}),
        (MemberFilter(protocols=frozenset({Protocol.HTTP})), {2}),
        (MemberFilter(protocols=frozenset({Protocol.CONNECT, Protocol.SOCKS5})), {1, 2, 3}),
        (MemberFilter(anonymities=frozenset({Anonymity.ELITE})), {1, 3}),
        (MemberFilter(countries=frozenset({"DE", "FR"})), {1, 2}),
        (MemberFilter(max_latency_ms=900.0), {1}),
        (MemberFilter(target="shop"), {1, 3}),
    ],
)
def test_a_wish_is_met_by_exactly_those_that_meet_it(
    wanted: MemberFilter, numbers: set[int]
) -> None:
    pool = [
        entry(1, country="DE"),
        entry(
            2,
            protocols=(Protocol.CONNECT, Protocol.HTTP),
            anonymity=Anonymity.ANONYMOUS,
            country="FR",
            latency_ms=901.0,
            targets=(("shop", 0.2),),
        ),
        entry(3, latency_ms=None, targets=(("shop", 0.9), ("other", 0.1))),
    ]
    assert {one.member_id for one in matching(pool, wanted)} == numbers


def test_an_empty_pool_says_how_to_fill_it() -> None:
    assert shortfall([], MemberFilter()) == "the pool is empty; `proxywell refresh` fills it"


def test_the_reason_counts_every_member_once() -> None:
    pool = [
        entry(1),
        entry(2, protocols=(Protocol.HTTP,), country="DE"),
        entry(3, state=MemberState.COOLING),
        entry(4, state=MemberState.COOLING, stale=True),
        entry(5, state=MemberState.BARRED),
        entry(6, state=MemberState.FROZEN),
    ]
    wanted = MemberFilter(protocols=frozenset({Protocol.HTTP}), countries=frozenset({"FR"}))
    assert shortfall(pool, wanted) == (
        "none of 6 members fits: 1 not checked lately, 1 failed the last check, 1 frozen, "
        "1 barred, 1 not http, 1 exit not in FR; "
        "`proxywell refresh` checks anew"
    )
