from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test as run_machine

from proxywell.refresh.closing import LedgerRules
from tests.contract.test_ledger_machine import MANY, MemoryMachine
from tests.simulation.ledger_mutants import MUTANTS

FIND = settings(MANY, max_examples=3_000, derandomize=True, database=None, phases=[Phase.generate])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_defect_in_the_rules_is_found(mutant: type[LedgerRules]) -> None:
    broken: Any = type("Broken", (MemoryMachine,), {"rule_book": mutant})
    with pytest.raises(AssertionError):
        run_machine(broken, settings=FIND)
