"""The score is what its formula says, and moves the right way."""

from __future__ import annotations

from math import exp, isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.config.schema import PoolSettings
from proxywell.model.endpoint import Protocol
from proxywell.pool.score import Estimate, Tally, estimate, typical_latency_ms

SETTINGS = PoolSettings()
HALF_S = SETTINGS.half_life_s

checks = st.lists(
    st.tuples(st.booleans(), st.floats(0, 7 * 86_400, allow_nan=False)), min_size=1, max_size=12
)


def tallied(seen: list[tuple[bool, float]]) -> Tally:
    tally = Tally()
    for passed, at_s in seen:
        tally = tally.with_check(passed=passed, at_s=at_s, half_life_s=HALF_S)
    return tally


def weigh(
    tally: Tally,
    *,
    passed_last: bool = True,
    age_s: float = 0.0,
    latency_ms: float | None = 1_000.0,
    protocol: Protocol | None = Protocol.SOCKS5,
) -> Estimate:
    return estimate(
        tally.at(1e6, HALF_S),
        passed_last=passed_last,
        last_at_s=1e6 - age_s,
        latency_ms=latency_ms,
        protocol=protocol,
        now_s=1e6,
        settings=SETTINGS,
    )


@given(seen=checks, order=st.randoms(use_true_random=False))
def test_the_order_in_which_checks_arrive_does_not_matter(
    seen: list[tuple[bool, float]], order: object
) -> None:
    shuffled = list(seen)
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands out a Random
    one, other = tallied(seen), tallied(shuffled)
    assert one.at_s == other.at_s
    assert isclose(one.passed, other.passed, abs_tol=1e-9)
    assert isclose(one.tried, other.tried, abs_tol=1e-9)


class ForgetsLateChecks(Tally, frozen=True):
    """Planted: a check that arrives late counts as if it were made now."""

    def with_check(self, *, passed: bool, at_s: float, half_life_s: float) -> Tally:
        ahead = self.at(at_s, half_life_s)
        return ForgetsLateChecks(ahead.passed + passed, ahead.tried + 1, ahead.at_s)


def test_a_tally_that_counts_late_checks_in_full_is_caught() -> None:
    early, late = (True, 0.0), (False, HALF_S)
    sums = []
    for order in ([early, late], [late, early]):
        tally: Tally = ForgetsLateChecks()
        for passed, at_s in order:
            tally = tally.with_check(passed=passed, at_s=at_s, half_life_s=HALF_S)
        sums.append(tally.tried)
    assert not isclose(*sums)


def test_after_one_half_life_a_check_counts_half() -> None:
    later = tallied([(True, 0.0)]).at(HALF_S, HALF_S)
    assert (later.passed, later.tried) == (0.5, 0.5)


def test_a_clock_that_jumps_back_changes_no_tally() -> None:
    tally = tallied([(True, 1e6)])
    assert tally.at(1e6 - 86_400, HALF_S) is tally


@given(
    seen=checks,
    passed_last=st.booleans(),
    age_s=st.floats(-1e6, 1e7),
    latency_ms=st.none() | st.floats(0, 1e6),
    protocol=st.none() | st.sampled_from(Protocol),
)
def test_every_step_of_a_score_is_a_share(
    seen: list[tuple[bool, float]],
    passed_last: bool,
    age_s: float,
    latency_ms: float | None,
    protocol: Protocol | None,
) -> None:
    got = weigh(
        tallied(seen),
        passed_last=passed_last,
        age_s=age_s,
        latency_ms=latency_ms,
        protocol=protocol,
    )
    for share in (got.prior, got.long_run, got.likely, got.doubt, got.lower, got.speed, got.score):
        assert 0 <= share <= 1


def test_the_steps_follow_the_formula_to_the_figure() -> None:
    tally = Tally(passed=6.0, tried=8.0, at_s=1e6)
    got = weigh(tally, age_s=240.0, latency_ms=2_500.0)
    long_run = (6 + 0.19 * 3) / (8 + 3)
    likely = long_run + (1 - long_run) * exp(-(240 + 480) / 360)
    lower = likely - 0.7 * sqrt(likely * (1 - likely) / 11)
    assert isclose(got.long_run, long_run)
    assert isclose(got.likely, likely)
    assert isclose(got.lower, lower)
    assert isclose(got.score, lower / 1.5)


def test_a_long_record_beats_a_newcomer_that_passed_at_the_same_moment() -> None:
    newcomer = weigh(Tally(1, 1, 1e6))
    steady = weigh(Tally(20, 20, 1e6))
    assert steady.score > 2 * newcomer.score


def test_a_failure_now_weighs_more_than_one_an_hour_ago() -> None:
    record = Tally(10, 12, 1e6)
    assert (
        weigh(record, passed_last=False).likely
        < weigh(record, passed_last=False, age_s=3_600).likely
    )


def test_the_slower_of_two_equals_scores_less() -> None:
    record = Tally(5, 5, 1e6)
    assert weigh(record, latency_ms=5_000).score == pytest.approx(
        weigh(record, latency_ms=0).score / 2
    )


def test_latency_is_a_median_so_one_outlier_does_not_move_it() -> None:
    assert typical_latency_ms((900.0, 1_000.0, 1_100.0, 60_000.0, 1_050.0)) == 1_050.0
    assert typical_latency_ms(()) is None
