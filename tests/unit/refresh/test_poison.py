from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.refresh.poison import PoisonMemory, leave_out, shown, why_no_verdict

DAY_S = 86_400.0
BAD = Candidate(Endpoint("9.9.9.9", 1080, "user", "secret"), (Protocol.SOCKS5,))
SIX = Candidate(Endpoint("2001:db8::1", 80))
GOOD = Candidate(Endpoint("9.9.9.9", 1081))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[PoisonMemory]:
    memory = PoisonMemory(tmp_path, 7 * DAY_S)
    yield memory
    memory.close()


def test_poison_is_remembered_for_its_time_and_then_forgotten(memory: PoisonMemory) -> None:
    memory.remember([BAD, SIX], job_id="j1", now_s=1_000.0)
    assert memory.places(1_000.0 + 6.9 * DAY_S) == {"9.9.9.9:1080", "[2001:db8::1]:80"}
    assert memory.found_in_job("9.9.9.9:1080", 2_000.0) == ("j1", 1_000.0 + 7 * DAY_S)
    assert memory.found_in_job("9.9.9.9:1080", 1_000.0 + 7 * DAY_S) is None
    assert memory.places(1_000.0 + 7 * DAY_S) == frozenset()
    assert memory.found_in_job("9.9.9.9:1080", 2_000.0) is None, "it was only hidden"


def test_a_job_that_is_finalised_again_does_not_prolong_the_memory(memory: PoisonMemory) -> None:
    memory.remember([BAD], job_id="j1", now_s=1_000.0)
    memory.remember([BAD], job_id="j1", now_s=5_000.0)
    assert memory.found_in_job("9.9.9.9:1080", 5_000.0) == ("j1", 1_000.0 + 7 * DAY_S)
    memory.remember([BAD], job_id="j2", now_s=6_000.0)
    assert memory.found_in_job("9.9.9.9:1080", 6_000.0) == ("j2", 6_000.0 + 7 * DAY_S)


def test_what_another_object_remembered_is_known(memory: PoisonMemory, tmp_path: Path) -> None:
    memory.remember([BAD], job_id="j1", now_s=1_000.0)
    other = PoisonMemory(tmp_path, DAY_S)
    assert other.places(2_000.0) == {"9.9.9.9:1080"}
    other.close()
    other.close()


def test_with_no_time_to_keep_nothing_is_remembered(tmp_path: Path) -> None:
    memory = PoisonMemory(tmp_path, 0.0)
    memory.remember([BAD], job_id="j1", now_s=1_000.0)
    assert memory.places(1_000.0) == frozenset()
    memory.close()


def test_a_clock_that_was_far_ahead_leaves_nothing_behind_for_ever(memory: PoisonMemory) -> None:
    memory.remember([BAD], job_id="j1", now_s=1_000.0 + 365 * DAY_S)
    memory.remember([SIX], job_id="j1", now_s=1_000.0 + DAY_S)
    assert memory.places(1_000.0) == {"[2001:db8::1]:80"}


def test_a_plan_leaves_out_the_place_whatever_the_credentials() -> None:
    other = Candidate(Endpoint("9.9.9.9", 1080, "someone", "else"))
    plan = [GOOD, BAD, SIX, other]
    assert leave_out(plan, {"9.9.9.9:1080"}) == 2
    assert plan == [GOOD, SIX]
    assert leave_out(plan, frozenset()) == 0


def test_why_there_is_no_verdict_is_said_and_nothing_is_made_for_it(tmp_path: Path) -> None:
    assert why_no_verdict(tmp_path / "none", "9.9.9.9:1080", kept_s=DAY_S) is None
    assert list(tmp_path.iterdir()) == []
    memory = PoisonMemory(tmp_path, DAY_S)
    memory.remember([BAD], job_id="j1", now_s=SystemClock().now_s())
    memory.close()
    said = why_no_verdict(tmp_path, "9.9.9.9:1080", kept_s=DAY_S)
    assert said is not None
    assert "in job j1" in said
    assert "please report it" in said
    assert why_no_verdict(tmp_path, "9.9.9.9:1081", kept_s=DAY_S) is None


def test_what_is_shown_has_no_credentials() -> None:
    assert shown(BAD) == "socks5://9.9.9.9:1080"
    assert shown(SIX) == "http://[2001:db8::1]:80"
