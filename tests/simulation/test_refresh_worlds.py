from __future__ import annotations

import random

import pytest

from proxywell.model.report import GivenUpWhy, Outcome
from proxywell.refresh.closing import LedgerRules
from tests.simulation import ledger_mutants as mutants
from tests.simulation.refresh_world import Faults, World, assert_accounted

ITEMS = 60


def drawn_faults(seed: int) -> Faults:
    """A world's faults: some kinds, each more or less often."""
    draw = random.Random(seed)

    def chance(most: float) -> float:
        return draw.uniform(0, most) if draw.random() < 0.5 else 0.0

    return Faults(
        worker_dies=chance(0.02),
        worker_freezes=chance(0.02),
        node_dies=chance(0.03),
        request_lost=chance(0.3),
        answer_lost=chance(0.3),
        late=chance(0.3),
        bell_lost=chance(0.8),
        bell_doubled=chance(0.5),
        waiter_dies=chance(1.0),
        pool_raises=draw.choice([0, 0, 0, 1, 2]),
        poison=frozenset(draw.sample(range(ITEMS), draw.choice([0, 0, 0, 1, 2]))),
    )


def live(seed: int, rules: type[LedgerRules] = LedgerRules) -> None:
    faults = drawn_faults(seed)
    worked = World(seed, faults, items=ITEMS, rules=rules).run_refresh()
    assert_accounted(worked, faults, ITEMS)


def test_a_quiet_world_is_complete_with_one_attempt_a_chunk() -> None:
    worked = World(0, Faults(), items=ITEMS).run_refresh()
    assert_accounted(worked, Faults(), ITEMS)
    report = worked.report
    assert report.outcome is Outcome.COMPLETE
    assert report.chunks.attempts == report.chunks.planned
    assert report.chunks.rescued == report.chunks.stale_reports == 0
    assert worked.ended_s < 60


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_every_world_ends_within_its_bound_and_accounts_for_everybody(first: int) -> None:
    for seed in range(first, first + 20):
        live(seed)


@pytest.mark.deep
@pytest.mark.parametrize("first", range(1_000, 6_000, 100))
def test_thousands_of_worlds_end_and_account_for_everybody(first: int) -> None:
    for seed in range(first, first + 100):
        live(seed)


def test_a_job_closes_when_a_worker_dies_holding_chunks() -> None:
    faults = Faults(worker_dies=0.05, until_s=20)
    worked = World(2, faults, items=ITEMS).run_refresh()
    assert_accounted(worked, faults, ITEMS)
    assert worked.report.outcome is Outcome.COMPLETE
    assert worked.report.chunks.rescued > 0
    assert worked.ended_s < 120  # leases, not the deadline


def test_poison_is_found_alone_and_everybody_else_is_checked() -> None:
    for seed in range(10):
        faults = Faults(poison=frozenset({7, 31}))
        worked = World(seed, faults, items=ITEMS).run_refresh()
        assert_accounted(worked, faults, ITEMS)
        why = worked.report.items.given_up_why
        assert why[GivenUpWhy.POISON] + why[GivenUpWhy.ERROR] == worked.report.items.given_up == 2


def test_a_candidate_that_hangs_is_given_up_and_costs_only_itself() -> None:
    faults = Faults(hangs=frozenset({11}))
    worked = World(1, faults, items=ITEMS).run_refresh()
    assert_accounted(worked, faults, ITEMS)
    assert worked.report.items.given_up == 1


def test_waiters_that_die_change_nothing() -> None:
    faults = Faults(waiter_dies=1.0, until_s=40)
    worked = World(5, faults, items=ITEMS).run_refresh()
    assert_accounted(worked, faults, ITEMS)
    assert worked.report.outcome is Outcome.COMPLETE


@pytest.mark.parametrize(
    "mutant",
    [
        mutants.NoReaper,
        mutants.NoRingAgain,
        mutants.NoSplit,
        mutants.PatientChildLost,
        mutants.NeverClosesOnSubmit,
        mutants.DeadlineForgetsReady,
        mutants.FinalIsNotFinal,
        mutants.CountsTwice,
        mutants.AttemptsNeverEnd,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_a_defect_in_the_rules_turns_some_world_red(mutant: type[LedgerRules]) -> None:
    def lives(seed: int) -> bool:
        try:
            live(seed, mutant)
            for world in special_worlds(seed, mutant):
                assert_accounted(world.run_refresh(), world.faults, ITEMS)
        except (AssertionError, IndexError, KeyError):
            return False
        return True

    assert not all(lives(seed) for seed in range(60))  # ends at the first that is red


def special_worlds(seed: int, rules: type[LedgerRules]) -> list[World]:
    """One where a candidate hangs, one whose first bells are all lost, one with little time."""
    hung, mute = Faults(hangs=frozenset({11})), Faults(bell_lost=1.0, until_s=5)
    return [
        World(seed, hung, items=ITEMS, rules=rules),
        World(seed, mute, items=ITEMS, rules=rules),
        World(seed, Faults(), items=ITEMS, cap_s=4.0, rules=rules),
    ]


def test_hung_mute_and_hurried_worlds_end_and_account_for_everybody() -> None:
    for seed in range(20):
        for world in special_worlds(seed, LedgerRules):
            assert_accounted(world.run_refresh(), world.faults, ITEMS)
