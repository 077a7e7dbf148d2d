"""How many sockets may be open, as events go."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from proxywell.net.limits import CALM_S, GROWTH_S, SocketLimit, socket_ceiling


def test_a_shortage_lowers_the_number_below_what_is_in_use() -> None:
    limit = SocketLimit(2_000)
    limit.shrink(500, now_s=10.0)
    assert limit.now == 400


def test_one_shortage_told_by_many_sockets_counts_once() -> None:
    limit = SocketLimit(2_000)
    for n in range(100):
        limit.shrink(500, now_s=10.0 + n / 1_000)
    assert limit.now == 400
    limit.shrink(400, now_s=10.0 + GROWTH_S)
    assert limit.now == 320


def test_it_grows_back_slowly_and_only_when_calm() -> None:
    limit = SocketLimit(2_000)
    limit.shrink(500, now_s=0.0)
    limit.grow(CALM_S - 0.01)
    assert limit.now == 400
    sizes = []
    for second in range(100):
        limit.grow(CALM_S + second)
        limit.grow(CALM_S + second + 0.1)
        sizes.append(limit.now)
    assert sizes[-1] == 2_000
    assert all(later <= sooner * 1.06 for sooner, later in pairwise(sizes))


def test_a_full_line_lowers_it_but_never_below_an_eighth() -> None:
    limit = SocketLimit(800)
    limit.follow(0.05, 800, 0.0)
    limit.follow(0.9, 800, 1.0)
    assert limit.now == 800, "less than a second is not slow"
    for second in range(2, 40):
        limit.follow(3.0, limit.now, float(second))
    assert 50 < limit.now <= 100


def test_a_judge_that_was_always_slow_says_nothing_about_our_line() -> None:
    limit = SocketLimit(800)
    for second in range(20):
        limit.follow(2.0, 800, float(second))
    assert limit.now == 800


@given(
    ceiling=st.integers(1, 10_000),
    events=st.lists(
        st.tuples(st.booleans(), st.integers(0, 10_000), st.floats(0, 10)), max_size=40
    ),
)
def test_it_stays_between_one_and_its_ceiling(
    ceiling: int, events: list[tuple[bool, int, float]]
) -> None:
    limit, now_s = SocketLimit(ceiling), 0.0
    for shortage, in_use, later_s in events:
        now_s += later_s
        if shortage:
            limit.shrink(in_use, now_s)
        else:
            limit.grow(now_s)
        assert 1 <= limit.now <= ceiling


def test_the_setting_is_the_most_that_is_used() -> None:
    assert socket_ceiling(1) == 1
    assert 1 <= socket_ceiling(100_000) <= 100_000
