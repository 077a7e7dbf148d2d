from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import pytest

from proxywell.config.schema import RefreshSettings
from proxywell.errors import ProxywellError, UnknownJobError
from proxywell.model.progress import Progress
from proxywell.model.report import GivenUpWhy, Outcome, RefreshReport
from proxywell.refresh.report import Dossier
from proxywell.refresh.run import RefreshRoom
from proxywell.refresh.wait import Until
from tests.network.refresh_fakes import FakePool, Habits, candidates, number, works

QUICK = RefreshSettings(lease_s=1.5, beat_s=0.4, attempt_hard_s=2.0)


def balanced(report: RefreshReport) -> bool:
    items, verdicts = report.items, report.verdicts
    told = verdicts.working + verdicts.not_working + verdicts.inconclusive
    given_up = sum(items.given_up_why.values())
    return (
        items.planned == items.checked + items.given_up + items.pending
        and items.checked == told
        and items.given_up == given_up
    )


def room(
    state: Path,
    pool: FakePool,
    habits: Habits = Habits(),  # noqa: B008 - frozen
    *,
    workers: int = 1,
    settings: RefreshSettings = QUICK,
) -> RefreshRoom:
    return habits.room(state, settings, pool, workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_checks_everybody_and_balances(tmp_path: Path, workers: int) -> None:
    pool, seen = FakePool(), list[Progress]()
    with room(tmp_path, pool, workers=workers) as refresh:
        job_id = refresh.create(candidates(3_000), Dossier(read_s=0.5, lead_s=1.0))
        report = refresh.wait_for(job_id, show=seen.append)
        assert report == refresh.report(job_id)
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)
    assert (report.items.checked, report.verdicts.working) == (3_000, 150)
    assert len(pool.verdicts) == 3_000
    assert all(works(c) == v.working for c, v in pool.verdicts.values())
    assert pool.seals == [(job_id, 1)]
    assert report.verdicts.by_failure == {"connect_timeout": 2_850}
    assert report.chunks.planned == report.chunks.done == report.chunks.attempts
    assert seen[-1].checked == 3_000
    assert report.timing_s.usable is not None
    assert report.timing_s.usable > 1.0


def test_deferred_candidates_are_checked_again_by_patient_chunks(tmp_path: Path) -> None:
    pool = FakePool()
    with room(tmp_path, pool, Habits(deferred=3)) as refresh:
        job_id = refresh.create(candidates(900), Dossier(), size=100)
        report = refresh.wait_for(job_id)
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)
    assert report.items.checked == 900
    assert report.chunks.planned == 9 + 9
    assert len(pool.verdicts) == 900


def test_enough_stops_the_job_and_the_rest_is_left(tmp_path: Path) -> None:
    pool = FakePool()
    with room(tmp_path, pool, Habits(sockets=50)) as refresh:
        job_id = refresh.create(candidates(5_000), Dossier(), want=20)
        report = refresh.wait_for(job_id)
    assert report.outcome is Outcome.USABLE
    assert balanced(report)
    assert 20 <= report.verdicts.working < 100
    assert report.items.given_up_why[GivenUpWhy.ENOUGH] == report.items.given_up > 0
    assert "wanted; " in (report.reason or "")


def test_the_deadline_ends_a_job_with_full_accounting(tmp_path: Path) -> None:
    pool = FakePool()
    with room(tmp_path, pool, Habits(delay_s=0.2, sockets=10)) as refresh:
        job_id = refresh.create(candidates(5_000), Dossier(), deadline_s=1.0)
        began = time.monotonic()
        report = refresh.wait_for(job_id)
    assert time.monotonic() - began < 5
    assert report.outcome is Outcome.TIMED_OUT
    assert balanced(report)
    assert report.items.given_up_why[GivenUpWhy.DEADLINE] == report.items.given_up > 4_000


def test_the_bound_of_a_wait_closes_the_job_or_leaves_it_open(tmp_path: Path) -> None:
    pool = FakePool()
    with room(tmp_path, pool, Habits(delay_s=0.2, sockets=10)) as refresh:
        job_id = refresh.create(candidates(3_000), Dossier())
        open_still = refresh.wait_for(job_id, bound_s=0.5, close_at_bound=False)
        assert open_still.outcome is Outcome.TIMED_OUT
        assert open_still.items.pending > 2_000
        assert balanced(open_still)
        ended = refresh.wait_for(job_id, bound_s=0.5)
    assert ended.outcome is Outcome.TIMED_OUT
    assert ended.items.pending == 0
    assert balanced(ended)
    assert len(pool.verdicts) == ended.items.checked > 0


def test_usable_returns_while_the_job_goes_on(tmp_path: Path) -> None:
    pool = FakePool()
    with room(tmp_path, pool, Habits(delay_s=0.05, sockets=50)) as refresh:
        job_id = refresh.create(candidates(2_000), Dossier(), min_count=5)
        report = refresh.wait_for(job_id, until=Until.USABLE)
        assert report.outcome is Outcome.USABLE
        assert report.items.pending > 0
        assert balanced(report)
        assert refresh.wait_for(job_id).outcome is Outcome.COMPLETE


def test_a_checker_that_raises_costs_only_its_candidate(tmp_path: Path) -> None:
    pool = FakePool()
    with room(tmp_path, pool, Habits(raises=frozenset({7}))) as refresh:
        job_id = refresh.create(candidates(1_000), Dossier())
        report = refresh.wait_for(job_id)
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)
    assert report.verdicts.inconclusive == report.verdicts.by_failure["internal"] == 1


def test_a_hung_candidate_is_given_up_alone(tmp_path: Path) -> None:
    pool = FakePool()
    hung = Habits(hangs=frozenset({7}))
    with room(tmp_path, pool, hung) as refresh:
        job_id = refresh.create(candidates(300), Dossier())
        report = refresh.wait_for(job_id)
    assert report.outcome is Outcome.PARTIAL
    assert report.items.given_up_why[GivenUpWhy.POISON] == report.items.given_up == 1
    assert balanced(report)
    assert {number(c) for c, _ in pool.verdicts.values()} == set(range(300)) - {7}


def test_a_pool_that_raises_is_tried_three_times_and_the_verdicts_stay(tmp_path: Path) -> None:
    pool = FakePool(fails=2)
    with room(tmp_path, pool) as refresh:
        job_id = refresh.create(candidates(300), Dossier())
        assert refresh.wait_for(job_id).outcome is Outcome.COMPLETE
        pool.fails = 3
        job_id = refresh.create(candidates(300), Dossier())
        report = refresh.wait_for(job_id)
    assert report.outcome is Outcome.FAILED
    assert "out of order" in (report.reason or "")
    assert balanced(report)
    assert report.items.checked == 300


def test_a_cancelled_job_balances_and_keeps_what_was_checked(tmp_path: Path) -> None:
    pool = FakePool()
    slow = Habits(delay_s=0.1, sockets=20)
    with room(tmp_path, pool, slow) as refresh:
        job_id = refresh.create(candidates(2_000), Dossier())
        reports: list[RefreshReport] = []

        def cancel() -> None:
            time.sleep(0.8)
            with room(tmp_path, FakePool(), slow) as other:
                other.cancel(job_id)

        canceller = threading.Thread(target=cancel)
        canceller.start()
        reports.append(refresh.wait_for(job_id))
        canceller.join()
        assert refresh.cancel(job_id).outcome is Outcome.CANCELLED
    report = reports[0]
    assert report.outcome is Outcome.CANCELLED
    assert balanced(report)
    assert report.items.checked > 0
    assert report.items.given_up_why[GivenUpWhy.CANCELLED] > 0


def test_two_jobs_on_one_state_run_side_by_side(tmp_path: Path) -> None:
    reports: list[RefreshReport] = []

    def run() -> None:
        with room(tmp_path, FakePool(), Habits(sockets=50)) as refresh:
            job_id = refresh.create(candidates(1_000), Dossier())
            reports.append(refresh.wait_for(job_id))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.outcome for report in reports] == [Outcome.COMPLETE] * 2
    assert all(balanced(report) and report.items.checked == 1_000 for report in reports)
    assert len({report.job_id for report in reports}) == 2


def test_a_job_of_nobody_is_complete_at_once(tmp_path: Path) -> None:
    with room(tmp_path, FakePool()) as refresh:
        report = refresh.wait_for(refresh.create([], Dossier()))
    assert report.outcome is Outcome.COMPLETE
    assert balanced(report)


def test_a_job_that_is_not_there_is_said(tmp_path: Path) -> None:
    with room(tmp_path, FakePool()) as refresh, pytest.raises(UnknownJobError, match="job list"):
        refresh.wait_for("nope")


def test_a_limit_plans_only_so_many(tmp_path: Path) -> None:
    with room(tmp_path, FakePool()) as refresh:
        report = refresh.wait_for(refresh.create(candidates(500), Dossier(), limit=120))
    assert report.items.planned == report.candidates.planned == 120


@pytest.mark.parametrize("workers", [1, 2])
def test_a_checker_that_cannot_start_is_said_and_the_job_is_closed(
    tmp_path: Path, workers: int
) -> None:
    with room(tmp_path, FakePool(), Habits(no_judge=True), workers=workers) as refresh:
        job_id = refresh.create(candidates(300), Dossier())
        with pytest.raises(ProxywellError, match="no judge answers") as error:
            refresh.wait_for(job_id)
        report = refresh.report(job_id)
    assert error.value.exit_status == 1
    assert report.outcome is Outcome.FAILED
    assert "no judge answers" in (report.reason or "")
    assert balanced(report)


def test_workers_that_end_before_they_work_do_not_spin_until_the_deadline(tmp_path: Path) -> None:
    with room(tmp_path, FakePool(), Habits(crashes=True), workers=2) as refresh:
        job_id = refresh.create(candidates(300), Dossier())
        with pytest.raises(ProxywellError, match="status 7"):
            refresh.wait_for(job_id, bound_s=60)
        assert refresh.report(job_id).outcome is Outcome.FAILED


def test_what_the_caller_keeps_with_the_job_comes_back(tmp_path: Path) -> None:
    extra = msgspec.Raw(b'{"judges":["azenv:http://judge/"]}')
    with room(tmp_path, FakePool()) as refresh:
        job_id = refresh.create(candidates(3), Dossier(extra=extra))
    with room(tmp_path, FakePool()) as later:
        assert bytes(later.dossier(job_id).extra) == bytes(extra)
