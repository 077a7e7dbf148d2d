"""What a check does to a history, and what state follows."""

from __future__ import annotations

import msgspec
import pytest

from proxywell.config.schema import PoolSettings
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.member import MemberState
from proxywell.model.verdict import Verdict
from proxywell.pool.member_state import History, after_check, caught_at, standing_of
from tests.pool_makers import NOON_S, endpoint, failed, passed

SETTINGS = PoolSettings()
WHOM = endpoint(1)


def history(*verdicts: Verdict) -> History:
    record = History()
    for verdict in verdicts:
        record = after_check(record, verdict, SETTINGS)
    return record


def state(record: History, at_s: float = NOON_S) -> MemberState:
    return standing_of(record, now_s=at_s, fresh_s=SETTINGS.fresh_s).state


def test_a_member_is_fresh_until_its_last_pass_is_too_old_and_then_stale() -> None:
    record = history(passed(WHOM))
    assert state(record, NOON_S + SETTINGS.fresh_s) is MemberState.FRESH
    late = standing_of(record, now_s=NOON_S + SETTINGS.fresh_s + 1, fresh_s=SETTINGS.fresh_s)
    assert (late.state, late.stale) == (MemberState.COOLING, True)


def test_one_failure_sets_a_member_aside_and_one_pass_brings_it_back() -> None:
    record = history(passed(WHOM), failed(WHOM, at_s=NOON_S + 60))
    assert state(record, NOON_S + 60) is MemberState.COOLING
    assert not standing_of(record, now_s=NOON_S + 60, fresh_s=1_800).stale
    assert record.failing_since_s == NOON_S + 60
    back = after_check(record, passed(WHOM, at_s=NOON_S + 120), SETTINGS)
    assert state(back, NOON_S + 120) is MemberState.FRESH
    assert (back.failures_in_row, back.failing_since_s) == (0, None)


@pytest.mark.parametrize(
    "kind", [kind for kind in FailureKind if kind.blame is not Blame.PROXY], ids=str
)
def test_what_the_proxy_did_not_do_leaves_its_history_as_it_is(kind: FailureKind) -> None:
    before = history(passed(WHOM))
    assert after_check(before, failed(WHOM, at_s=NOON_S + 60, kind=kind), SETTINGS) == before


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        (failed(WHOM, kind=FailureKind.TAMPERED), "tampering"),
        (failed(WHOM, kind=FailureKind.TAMPERED, tampering="script"), "tampering: script"),
        (
            failed(WHOM, kind=FailureKind.TLS_UNTRUSTED, intercepts_tls=True),
            "intercepts TLS",
        ),
        (passed(WHOM, tampering="cookie"), "tampering: cookie"),
    ],
)
def test_tampering_and_interception_bar_for_good(verdict: Verdict, why: str) -> None:
    assert caught_at(verdict) == why
    record = history(passed(WHOM, at_s=NOON_S - 60), verdict, passed(WHOM, at_s=NOON_S + 60))
    assert record.barred_why == why
    assert state(record, NOON_S + 60) is MemberState.BARRED


def test_an_untrusted_certificate_of_the_judge_alone_bars_nobody() -> None:
    assert caught_at(failed(WHOM, kind=FailureKind.TLS_ALERT)) is None


def test_frozen_by_hand_wins_over_fresh_and_loses_to_barred() -> None:
    frozen = msgspec.structs.replace(history(passed(WHOM)), frozen_at_s=NOON_S)
    assert state(frozen) is MemberState.FROZEN
    assert state(msgspec.structs.replace(frozen, barred_why="x")) is MemberState.BARRED


def test_a_verdict_that_arrives_late_counts_but_is_not_the_last_one() -> None:
    record = history(passed(WHOM), failed(WHOM, at_s=NOON_S - 600))
    assert record.passed_last
    assert (record.times_checked, record.times_passed) == (2, 1)
    assert state(record) is MemberState.FRESH


def test_a_pass_that_lies_ahead_of_the_clock_is_not_fresh_for_ever() -> None:
    record = history(passed(WHOM, at_s=NOON_S + 86_400))
    standing = standing_of(record, now_s=NOON_S, fresh_s=1_800)
    assert (standing.state, standing.stale) == (MemberState.COOLING, True)
    assert state(record, NOON_S + 86_400 - 200) is MemberState.FRESH  # clocks differ a little


def test_only_the_latest_nine_latencies_are_kept() -> None:
    record = history(*(passed(WHOM, at_s=NOON_S + n, latency_ms=float(n)) for n in range(12)))
    assert record.latencies_ms == tuple(float(n) for n in range(3, 12))
