"""A check that keeps its worker's loop ends its attempt, not the worker and not the job."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from proxywell.config.schema import RefreshSettings
from proxywell.model.report import GivenUpWhy, Outcome
from proxywell.refresh.engines.local import WorkerFailedError
from proxywell.refresh.report import Dossier
from tests.network.refresh_fakes import FakePool, Habits, candidates, number

HUNG = 77
QUICK = RefreshSettings(lease_s=1.5, beat_s=0.25, attempt_hard_s=60.0, hang_s=0.75)


@pytest.mark.parametrize(
    ("habits", "workers"),
    [
        (Habits(spins=frozenset({HUNG})), 1),
        (Habits(spins=frozenset({HUNG})), 2),
        (Habits(sleeps=frozenset({HUNG})), 2),
    ],
    ids=["python-thread", "python-processes", "system-processes"],
)
def test_the_one_candidate_that_hangs_is_found_and_all_others_are_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, habits: Habits, workers: int
) -> None:
    pool = FakePool()
    with habits.room(tmp_path, QUICK, pool, workers=workers) as room:
        job_id = room.create(candidates(160), Dossier(workers=workers), size=16)
        report = room.wait_for(job_id, bound_s=60.0)
    assert report.outcome is Outcome.PARTIAL
    assert report.items.given_up_why[GivenUpWhy.POISON] == report.items.given_up == 1
    checked = {number(candidate) for candidate, _ in pool.verdicts.values()}
    assert checked == set(range(160)) - {HUNG}
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def test_what_hangs_and_cannot_be_interrupted_ends_the_wait_with_a_sentence(
    tmp_path: Path,
) -> None:
    habits = Habits(sleeps=frozenset({HUNG}))
    with habits.room(tmp_path, QUICK, FakePool(), workers=1) as room:
        job_id = room.create(candidates(160), Dossier(), size=16)
        with pytest.raises(WorkerFailedError, match="start the next job with --workers 2"):
            room.wait_for(job_id, bound_s=60.0)
    with Habits().room(tmp_path, QUICK, FakePool(), workers=1) as room:
        assert room.wait_for(job_id, bound_s=60.0).outcome is Outcome.COMPLETE
