"""When a judge counts as well, and how often a public one is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxywell.checking.health import Health, TokenBucket


def well(health: Health) -> bool:
    return health.well


def in_doubt(health: Health) -> bool:
    return health.in_doubt


def test_a_judge_is_not_well_before_it_answered_and_well_after_one_answer() -> None:
    health = Health()
    assert not well(health)
    health.answered(1.0)
    assert well(health)
    assert health.well_at_s == 1.0


def test_two_failures_in_a_row_make_it_unwell_and_one_answer_mends_it() -> None:
    health = Health()
    health.answered(0.0)
    health.failed(10.0)
    assert well(health)
    assert in_doubt(health)
    health.answered(11.0)
    assert not in_doubt(health)
    health.failed(20.0)
    health.failed(21.0)
    assert not well(health)
    assert health.failing_since_s == 20.0
    health.answered(30.0)
    assert well(health)
    assert health.failing_since_s is None


def test_the_first_failure_ever_is_enough() -> None:
    health = Health()
    health.failed(5.0)
    assert not well(health)
    assert health.failing_since_s == 5.0


def test_an_overloaded_judge_is_left_alone_for_a_time_that_doubles() -> None:
    health = Health()
    health.answered(0.0)
    waits = []
    now_s = 100.0
    for _ in range(8):
        health.failed(now_s, overloaded=True)
        assert not well(health)
        waits.append(health.leave_until_s - now_s)
        now_s = health.leave_until_s
    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0, 900.0]
    health.answered(now_s)
    health.failed(now_s, overloaded=True)
    assert health.leave_until_s - now_s == 30.0


@given(
    rate=st.floats(0.1, 100),
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=80),
)
def test_a_bucket_never_grants_more_than_its_rate_and_a_burst(
    rate: float, gaps: list[float]
) -> None:
    bucket = TokenBucket(rate)
    now_s = 1_000.0
    granted = 0
    for gap in gaps:
        now_s += gap
        granted += bucket.take(now_s)
        assert granted <= max(1.0, 2 * rate) + rate * (now_s - 1_000.0) + 1e-6


def test_a_bucket_grants_again_when_time_has_passed_and_not_before() -> None:
    bucket = TokenBucket(1.0, burst=1)
    assert [bucket.take(t) for t in (0.0, 0.5, 0.99, 1.0, 1.5, 2.0)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip


def test_a_clock_that_goes_back_grants_nothing() -> None:
    bucket = TokenBucket(1.0, burst=1)
    assert bucket.take(10.0)
    assert not bucket.take(5.0)
    assert not bucket.take(5.5)
