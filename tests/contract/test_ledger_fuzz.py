"""Whatever happens to the Lua that is shipped, its books add up, and the job comes to its end."""

from __future__ import annotations

import pytest

from tests.contract.ledger_fuzz import Schedule
from tests.services.redis_server import RedisServer


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_every_schedule_keeps_the_books_and_ends(redis_server: RedisServer, first: int) -> None:
    for seed in range(first, first + 10):
        Schedule(seed, redis_server).run()


@pytest.mark.deep
@pytest.mark.parametrize("first", range(1_000, 2_000, 50))
def test_every_one_of_many_schedules_keeps_the_books_and_ends(
    redis_server: RedisServer, first: int
) -> None:
    for seed in range(first, first + 50):
        Schedule(seed, redis_server).run()
