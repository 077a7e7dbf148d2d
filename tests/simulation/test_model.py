"""Every order in which the parties of a job can act, while any two faults happen.

    faults in one run     states       edges   seconds
    none                   1 662       4 171         0
    any one of seven      45 615     179 744         4
    any two of them      416 147   2 190 244        35
    three named ones   to 1 000 000  to 6 000 000  to 90   (make deep)

Of one core. No state breaks an invariant, none cannot be ended, no run without faults is endless.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import pytest

from proxywell.errors import StoreBusyError
from proxywell.refresh import ledger
from proxywell.refresh.books import JobRow
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ledgers import journaled
from proxywell.refresh.ledgers.journal import Cursor
from proxywell.refresh.ledgers.journaled import JournaledLedger
from tests.simulation import ledger_mutants as mutants
from tests.simulation.model import Fault, System
from tests.simulation.model_check import Graph, cannot_return, explore, in_cycles
from tests.simulation.model_truths import Violation

TRIPLES = (
    (Fault.CRASH, Fault.LEASE_OUT, Fault.REPLY_LOST),
    (Fault.CRASH, Fault.BELL_LOST, Fault.WAITER_DIES),
    (Fault.CRASH, Fault.LEASE_OUT, Fault.FORGOTTEN),
    (Fault.LEASE_OUT, Fault.WAITER_DIES, Fault.FORGOTTEN),
    (Fault.REPLY_LOST, Fault.FINALISER_DIES, Fault.FORGOTTEN),
    (Fault.FINALISER_DIES, Fault.WAITER_DIES, Fault.FORGOTTEN),
)


@pytest.fixture(autouse=True)
def smaller_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that a waiter lets pass are time, and the model has none.

    One loss with others makes a suspect: that it takes three is a longer way through the same.
    """
    monkeypatch.setattr(journaled, "GIVEN_LOOKS", 1)
    monkeypatch.setattr(ledger, "SHARED_ALONE", 1)


def explored(system: System) -> Graph:
    began_s = time.perf_counter()
    try:
        graph = explore(system)
    finally:
        system.close()
    took_s = time.perf_counter() - began_s
    print(f"{len(graph.states)} states, {graph.edges} edges, {took_s:.0f} s")  # noqa: T201 - for the table above
    return graph


def assert_ends(graph: Graph) -> None:
    for stuck in (cannot_return(graph), in_cycles(graph)):
        assert not stuck, f"{len(stuck)} states, such as {graph.states[stuck[0]]}"


@pytest.mark.timeout(600)
def test_whatever_two_faults_meet_a_job_it_ends_and_accounts_for_everybody(tmp_path: Path) -> None:
    assert_ends(explored(System(tmp_path / "ledger.sqlite", most=2)))


@pytest.mark.deep
@pytest.mark.parametrize("faults", TRIPLES)
def test_whatever_three_faults_meet_a_job_it_ends_and_accounts_for_everybody(
    tmp_path: Path, faults: tuple[int, ...]
) -> None:
    chosen = reduce(or_, faults)
    assert_ends(explored(System(tmp_path / "ledger.sqlite", faults=chosen, most=3)))


class NotCreatedAgain(JournaledLedger):
    """Waits for a job that the server has lost."""

    def _lost(self, job_id: str, cursor: Cursor, known: int) -> None:
        raise StoreBusyError("the server has lost the job")


class FallsOverALoss(JournaledLedger):
    """Takes a server that has lost the job between two calls for a fault of its own."""

    def status(self, job_id: str) -> JobRow:
        return self._pull(self._home.status(job_id))


@pytest.mark.parametrize(
    ("rules", "view", "faults"),
    [
        (mutants.NoReaper, JournaledLedger, 0),
        (mutants.NoRingAgain, JournaledLedger, Fault.BELL_LOST),
        (mutants.NoSplit, JournaledLedger, 0),
        (mutants.SplitLosesAPart, JournaledLedger, 0),
        (mutants.FinalIsNotFinal, JournaledLedger, Fault.REPLY_LOST),
        (mutants.BeatsAreNotFenced, JournaledLedger, Fault.LEASE_OUT),
        (mutants.NoEpoch, JournaledLedger, Fault.FORGOTTEN),
        (mutants.NeverClosesOnSubmit, JournaledLedger, 0),
        (mutants.CountsTwice, JournaledLedger, Fault.REPLY_LOST),
        (mutants.AnyoneFinalises, JournaledLedger, Fault.FINALISER_DIES),
        (mutants.FinalisesAgain, JournaledLedger, Fault.FINALISER_DIES),
        (mutants.ChordsTwoSteps, JournaledLedger, Fault.CRASH),
        (LedgerRules, NotCreatedAgain, Fault.FORGOTTEN),
        (LedgerRules, FallsOverALoss, Fault.FORGOTTEN),
    ],
)
def test_a_planted_defect_is_found(
    tmp_path: Path, rules: type[LedgerRules], view: Callable[..., Any], faults: int
) -> None:
    two_steps = rules is mutants.ChordsTwoSteps
    system = System(
        tmp_path / "ledger.sqlite",
        rules=rules, view=view, two_steps=two_steps, faults=faults, most=1,
    )  # fmt: skip
    try:
        graph = explored(system)
    except Violation:
        return
    assert cannot_return(graph) or in_cycles(graph)
