from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.refresh.deadline import Speed, adaptive_s, chunk_p95_s, floor_s, in_force_s


@pytest.mark.parametrize(
    ("chunks", "expected_s"), [(0, 600), (29, 600), (50, 945), (100, 1755), (200, 3375)]
)
def test_the_floor_follows_the_formula(chunks: int, expected_s: float) -> None:
    assert floor_s(chunks, time_per_chunk_s=90, workers=8, factor=1.5, least_s=600) == expected_s


def speed(*, open_chunks: int = 10, at_once: int = 2, item_s: tuple[float, ...] = ()) -> Speed:
    return Speed(open_chunks=open_chunks, at_once=at_once, item_s=item_s, chunk_size=100)


def test_few_samples_say_nothing_and_the_prior_holds() -> None:
    assert chunk_p95_s(speed(item_s=(9.0,) * 4), prior_s=90) == 90
    assert chunk_p95_s(speed(item_s=(0.5,) * 5), prior_s=90) == 50


def test_the_95th_percentile_leaves_one_straggler_in_twenty_out() -> None:
    assert chunk_p95_s(speed(item_s=(0.1,) * 19 + (9.0,)), prior_s=90) == pytest.approx(10)
    assert chunk_p95_s(speed(item_s=(0.1,) * 18 + (9.0,) * 2), prior_s=90) == pytest.approx(900)


def test_the_adaptive_bound_adds_the_rounds_that_are_left() -> None:
    assert adaptive_s(7, speed(item_s=(0.2,) * 5), prior_s=90, recovery_s=6) == 7 + 1.5 * 5 * 20 + 6
    assert adaptive_s(0, speed(at_once=0), prior_s=90, recovery_s=0) == 1.5 * 10 * 90
    assert adaptive_s(5, speed(open_chunks=0), prior_s=90, recovery_s=1) == 6


seconds = st.floats(0, 1e6)


@given(before_s=seconds, floor=seconds, adaptive=seconds, cap=seconds)
def test_the_bound_in_force_only_grows_and_never_passes_the_cap(
    before_s: float, floor: float, adaptive: float, cap: float
) -> None:
    now_s = in_force_s(before_s, floor_s=floor, adaptive_s=adaptive, cap_s=cap)
    assert now_s <= cap
    assert now_s >= min(before_s, cap)
    assert now_s == cap or now_s >= max(floor, adaptive)
