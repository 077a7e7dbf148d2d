"""A defect in the Lua is found, by random schedules or by the comparison with the rules' home."""

from __future__ import annotations

import pytest

from proxywell.errors import ProxywellError
from tests.contract.ledger_fuzz import Schedule
from tests.contract.lua_mutants import MUTANTS
from tests.services.redis_server import RedisServer

SCHEDULES = 400
FEW = ("no_reaper", "errors_are_not_fenced", "counts_twice", "claimed_stays_ready")


@pytest.mark.parametrize("mutant", FEW)
def test_a_defect_in_the_lua_is_found(redis_server: RedisServer, mutant: str) -> None:
    assert found_by(redis_server, MUTANTS[mutant])


@pytest.mark.deep
@pytest.mark.parametrize("mutant", sorted(set(MUTANTS) - set(FEW)))
def test_every_defect_in_the_lua_is_found(redis_server: RedisServer, mutant: str) -> None:
    assert found_by(redis_server, MUTANTS[mutant])


def found_by(server: RedisServer, defect: str) -> str:
    """What the first schedule says that finds it; nothing if none does."""
    for seed in range(SCHEDULES):
        try:
            Schedule(seed, server, defect).run()
        except (AssertionError, LookupError, ProxywellError) as error:
            return f"seed {seed}: {error!r}"
    return ""
