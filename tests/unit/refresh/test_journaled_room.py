"""Waits for a job whose server answers, is silent, comes back or never was; on simulated time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxywell.config.schema import RefreshSettings
from proxywell.errors import StoreAwayError
from proxywell.model.report import GivenUpWhy, Outcome, RefreshReport
from proxywell.refresh.books import Claim, JobRow, Settled, Worker
from proxywell.refresh.ledgers.journal import Journal
from proxywell.refresh.ledgers.journaled import JournaledLedger
from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.packing import pack_verdicts
from proxywell.refresh.report import Dossier
from proxywell.refresh.run import FINAL_S, RefreshRoom
from proxywell.refresh.spans import items_of, spans_of
from proxywell.refresh.wait import GRACE_S, Until
from proxywell.telemetry.events import Event, ServerBack, ServerSilent, tapped
from tests.network.refresh_fakes import FakePool, candidates, verdict_of, works

ANSWER_S = 2.0
WORKER = Worker("n", "n/1")
SETTINGS = RefreshSettings(min_count=1)


class Site:
    """A server with a worker, and the time of all; it is also the bell and the kind of engine."""

    name = "celery"
    server: str | None = None

    def __init__(self, state: Path, items: int = 60) -> None:
        self.clock_s = 1_000.0
        self.all = candidates(items)
        self.home = MemoryLedger(lambda: 90_000.0 + self.clock_s)
        self.silent: Callable[[], bool] = lambda: False
        self.works = True
        self.boot = "b"
        self.pool = FakePool()
        self.events: list[Event] = []
        self._path = state / "ledger.sqlite"
        self._serial = 0

    # --- the clock, the bell

    def now_s(self) -> float:
        return 1.79e9 + self.clock_s

    def monotonic_s(self) -> float:
        return self.clock_s

    def wait(self, timeout_s: float) -> None:
        self.clock_s += timeout_s
        if self.works:
            self.home.node_beat("n", "", term_s=9.0)
            self._check_a_chunk()

    def ring(self) -> None: ...
    def close(self) -> None: ...

    # --- the kind of engine

    def open_ledger(self) -> Any:
        journal = Journal(self._path, clock=lambda: 10.0 + self.clock_s, boot=self.boot)
        return JournaledLedger(_Distant(self), journal)

    def engine(self, job: JobRow) -> None:
        return None

    def bell(self, job_id: str) -> Site:
        return self

    # --- the worker

    def _check_a_chunk(self) -> None:
        for job in self.home.jobs():
            self._serial += 1
            claim = self.home.claim(job.job_id, WORKER, f"t{self._serial}")
            if isinstance(claim, Claim):
                told = [
                    (at, self.all[at], verdict_of(self.all[at])) for at in items_of(claim.items)
                ]
                good = spans_of(at for at, candidate, _ in told if works(candidate))
                settled = Settled(claim.items, good, pack_verdicts(told))
                self.home.submit(job.job_id, claim.chunk_id, claim.token, claim.epoch, settled)

    # --- a refresh

    def room(self) -> RefreshRoom:
        return RefreshRoom(
            self._path.parent,
            SETTINGS,
            sink=self.pool,
            kind=self,
            clock=self,
            announce=lambda _event: None,
        )

    def refresh(
        self, *, until: Until = Until.FINALISED, deadline_s: float | None = None, **more: Any
    ) -> RefreshReport:
        with self.room() as room, tapped(self.events.append):
            job_id = room.create(list(self.all), Dossier(), size=3, deadline_s=deadline_s)
            return room.wait_for(job_id, until=until, **more)

    def told(self, kind: type[Event]) -> int:
        return Counter(map(type, self.events))[kind]


class _Distant:
    """The server as it is reached: silent for as long as a call may take, or answering."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            site = self._site
            if name != "close" and site.silent():
                site.clock_s += ANSWER_S
                raise StoreAwayError("no answer")
            return getattr(site.home, name)(*given, **named)

        return call


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    seals = made.pool.seals
    assert len(seals) <= 1


def assert_balanced(report: RefreshReport) -> None:
    items, verdicts = report.items, report.verdicts
    assert items.planned == items.checked + items.given_up == 60
    found = verdicts.working + verdicts.not_working + verdicts.inconclusive
    assert found == items.checked
    assert report.chunks.planned == report.chunks.done + report.chunks.given_up


def test_a_job_on_a_server_is_carried_to_its_end(site: Site) -> None:
    report = site.refresh()
    assert (report.outcome, report.engine) == (Outcome.COMPLETE, "celery")
    assert_balanced(report)
    assert report.pool.added == report.verdicts.working == sum(map(works, site.all))
    assert site.told(ServerSilent) == 0


@pytest.mark.parametrize("deadline_s", [None, 50.0])
def test_a_server_that_never_answers_ends_the_wait_at_its_hard_end(
    site: Site, deadline_s: float | None
) -> None:
    site.silent = lambda: True
    report = site.refresh(deadline_s=deadline_s)
    took_s = site.clock_s - 1_000
    cap_s = report.deadline.cap_s
    assert cap_s == (deadline_s or 2_400)
    assert cap_s <= took_s <= cap_s + GRACE_S + 5 * ANSWER_S
    assert report.outcome is Outcome.TIMED_OUT
    assert_balanced(report)
    assert report.items.given_up_why[GivenUpWhy.DEADLINE] == 60
    assert site.told(ServerSilent) == 1


def test_what_a_server_told_before_it_fell_silent_is_kept(site: Site) -> None:
    site.silent = lambda: len(site.pool.verdicts) >= 15
    report = site.refresh(deadline_s=100)
    assert report.outcome is Outcome.TIMED_OUT
    assert_balanced(report)
    assert 15 <= report.items.checked < 60
    assert len(site.pool.verdicts) == report.items.checked
    assert report.pool.added == report.verdicts.working
    assert site.clock_s - 1_000 <= 100 + GRACE_S + FINAL_S


def test_an_outage_is_told_once_and_its_end_once(site: Site) -> None:
    site.silent = lambda: 1_003 < site.clock_s < 1_060
    report = site.refresh()
    assert report.outcome is Outcome.COMPLETE
    assert_balanced(report)
    assert (site.told(ServerSilent), site.told(ServerBack)) == (1, 1)


def test_a_wait_until_usable_leaves_the_job_to_others(site: Site) -> None:
    report = site.refresh(until=Until.USABLE)
    assert report.outcome is Outcome.USABLE
    assert report.items.checked < 60
    with site.room() as room:
        (job,) = room.jobs()
        waited = room.wait_for(job.job_id)
    assert waited.outcome is Outcome.COMPLETE
    assert_balanced(waited)


def test_nobody_works_there_ends_the_job_as_stalled_at_once(site: Site) -> None:
    site.works = False
    report = site.refresh()
    assert report.outcome is Outcome.STALLED
    assert_balanced(report)
    assert SETTINGS.stalled_s <= site.clock_s - 1_000 <= SETTINGS.stalled_s + 2


def test_a_pool_that_fails_twice_is_written_at_the_third_time(site: Site) -> None:
    site.pool.fails = 2
    report = site.refresh()
    assert report.outcome is Outcome.COMPLETE
    assert len(site.pool.seals) == 1


def test_a_pool_that_fails_three_times_ends_the_job_and_keeps_the_verdicts(site: Site) -> None:
    site.pool.fails = 3
    report = site.refresh()
    assert report.outcome is Outcome.FAILED
    assert report.reason is not None
    assert "the pool is out of order" in report.reason
    assert_balanced(report)
    assert report.items.checked == report.verdicts.working + report.verdicts.not_working == 60
    assert site.pool.seals == []


def test_a_wait_with_a_bound_of_its_own_leaves_the_job_open(site: Site) -> None:
    site.works = False
    site.home.node_beat("n", "", term_s=1e6)
    report = site.refresh(bound_s=20.0, close_at_bound=False)
    assert report.outcome is Outcome.TIMED_OUT
    assert report.items.pending == 60
    site.works = True
    with site.room() as room:
        assert room.wait_for(report.job_id).outcome is Outcome.COMPLETE


def test_a_job_is_cancelled_also_where_its_server_is_silent(site: Site) -> None:
    site.refresh(until=Until.USABLE)
    site.silent = lambda: True
    began_s = site.clock_s
    with site.room() as room:
        (job,) = room.jobs()
        report = room.cancel(job.job_id)
    assert report.outcome is Outcome.CANCELLED
    assert_balanced(report)
    assert 0 < report.items.checked < 60
    assert site.clock_s - began_s <= 6 * ANSWER_S


@pytest.mark.parametrize(("away_s", "boot"), [(7_200.0, "b"), (7_200.0, "c"), (-900.0, "c")])
def test_time_in_which_nobody_waited_does_not_count_for_a_job_that_its_server_lost(
    site: Site, away_s: float, boot: str
) -> None:
    site.works = False
    with site.room() as room:
        job_id = room.create(list(site.all), Dossier(), size=3, deadline_s=600)
        room.wait_for(job_id, bound_s=10, close_at_bound=False)
    site.home = MemoryLedger(lambda: 90_000.0 + site.clock_s)
    site.clock_s, site.boot = site.clock_s + away_s, boot
    site.works = True
    with site.room() as room:
        report = room.wait_for(job_id)
    assert report.outcome is Outcome.COMPLETE
    assert report.timing_s.total is not None
    assert report.timing_s.total <= 40
    assert_balanced(report)
