"""Nothing is held against a proxy that a judge out of order would have caused as well."""

from __future__ import annotations

from typing import cast

import pytest

from proxywell.checking.check import Check, perhaps_the_judge
from proxywell.checking.doubts import ASK_AFTER_S, DOUBT_MAX_S, JUDGE_WAIT_S, Doubts
from proxywell.checking.ports import Panel
from proxywell.model.failure import FailureKind


class StatedPanel:
    """A panel whose health is stated."""

    def __init__(self) -> None:
        self.unwell: float | None = None
        self.well: float | None = None
        self.doubted = 0

    def unwell_since_s(self) -> float | None:
        return self.unwell

    def well_at_s(self) -> float | None:
        return self.well

    def doubt(self) -> None:
        self.doubted += 1


class HeldCheck:
    """As much of a check as doubts touch."""

    def __init__(self) -> None:
        self.waits_since_s = 0.0
        self.again = False


class Desk:
    """Doubts with a diary."""

    def __init__(self) -> None:
        self.panel = StatedPanel()
        self.settled: list[Check] = []
        self.begun_anew: list[Check] = []
        self.given_up: list[Check] = []
        self.doubts = Doubts(
            cast(Panel, self.panel),
            settle=self.settled.append,
            anew=self._anew,
            give_up=self.given_up.append,
        )

    def _anew(self, check: Check) -> None:
        check.again = True
        self.begun_anew.append(check)

    def hold(self, now_s: float) -> Check:
        check = cast(Check, HeldCheck())
        self.doubts.hold(check, now_s)
        return check


def test_a_failure_counts_once_another_proxy_passes_afterwards() -> None:
    desk = Desk()
    desk.doubts.passed(9.9)
    check = desk.hold(10.0)
    desk.doubts.look(10.1)
    assert desk.settled == [], "the judge was well before the failure, which proves nothing"
    desk.doubts.passed(10.2)
    desk.doubts.look(10.2)
    assert desk.settled == [check]
    assert len(desk.doubts) == 0


def test_a_failure_counts_once_the_judge_answers_us_directly() -> None:
    desk = Desk()
    check = desk.hold(10.0)
    desk.doubts.look(10.01 + ASK_AFTER_S)
    assert desk.panel.doubted == 1
    desk.panel.well = 10.5
    desk.doubts.look(10.5)
    assert desk.settled == [check]


def test_the_judge_is_not_asked_while_proxies_show_that_it_is_well() -> None:
    desk = Desk()
    for n in range(100):
        desk.hold(10.0 + n / 10)
        desk.doubts.passed(10.05 + n / 10)
        desk.doubts.look(10.05 + n / 10)
    assert len(desk.settled) == 100
    assert desk.panel.doubted == 0


def test_whoever_failed_before_the_judge_was_found_unwell_begins_anew() -> None:
    desk = Desk()
    before = desk.hold(10.0)
    desk.panel.unwell = 11.0
    desk.doubts.look(11.0)
    during = desk.hold(12.0)
    desk.doubts.look(12.0)
    assert desk.doubts.unwell
    assert desk.settled == desk.begun_anew == []
    desk.panel.unwell, desk.panel.well = None, 13.0
    desk.doubts.look(13.0)
    assert desk.begun_anew == [before, during]
    assert desk.settled == desk.given_up == []


def test_nobody_begins_anew_for_ever() -> None:
    desk = Desk()
    check = desk.hold(10.0)
    for n in range(2):
        desk.panel.unwell = 11.0 + n
        desk.doubts.look(11.0 + n)
        desk.panel.unwell = None
        desk.doubts.look(11.5 + n)
        if n == 0:
            assert desk.begun_anew == [check]
            desk.doubts.hold(check, 11.8)
    assert desk.given_up == [check]


def test_a_judge_that_stays_unwell_ends_the_wait() -> None:
    desk = Desk()
    check = desk.hold(10.0)
    desk.panel.unwell = 11.0
    desk.doubts.look(11.0 + JUDGE_WAIT_S - 0.1)
    assert desk.given_up == []
    desk.doubts.look(11.0 + JUDGE_WAIT_S)
    assert desk.given_up == [check]


def test_no_word_at_all_ends_the_wait_too() -> None:
    desk = Desk()
    check = desk.hold(10.0)
    desk.doubts.look(10.0 + DOUBT_MAX_S)
    assert desk.settled == [check]


def test_the_cancelled_are_forgotten() -> None:
    desk = Desk()
    one, two = desk.hold(10.0), desk.hold(10.0)
    desk.doubts.forget(one)
    desk.panel.unwell = 11.0
    desk.doubts.look(11.0)
    desk.doubts.forget(two)
    desk.doubts.forget(two)
    assert len(desk.doubts) == 0


@pytest.mark.parametrize(
    ("kind", "detail", "perhaps"),
    [
        (FailureKind.HTTP_STATUS, 502, True),
        (FailureKind.HTTP_STATUS, 403, False),
        (FailureKind.SOCKS_REFUSED, 5, True),
        (FailureKind.ANSWER_TIMEOUT, None, True),
        (FailureKind.EOF_EARLY, None, True),
        (FailureKind.JUDGE_REPLAY, 200, False),
        (FailureKind.NOT_THIS_PROTOCOL, 0x53, False),
        (FailureKind.AUTH_REQUIRED, 407, False),
    ],
)
def test_only_some_failures_may_be_the_judges(
    kind: FailureKind, detail: int | None, perhaps: bool
) -> None:
    assert perhaps_the_judge(kind, detail) is perhaps
