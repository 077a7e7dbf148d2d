"""A waiter's journal: whatever the server forgets, every item is accounted for, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import JobRow, JobState
from proxywell.refresh.ledgers.journal import Cursor, Journal
from proxywell.refresh.ledgers.journaled import JournaledLedger
from tests.network.refresh_fakes import works
from tests.simulation.journal_world import JOB, Faults, World, cancel

KINDS = {
    "none": Faults(),
    "forgets": Faults(forgets=0.1),
    "rewinds": Faults(rewinds=0.15),
    "away": Faults(away=0.1, reply_lost=0.1),
    "waiter": Faults(waiter_dies=0.1, worker_dies=0.05),
    "sealing": Faults(sealing_dies=0.9, forgets=0.02),
    "all": Faults(0.04, 0.06, 0.04, 0.04, 0.04, 0.04, 0.5),
}
SEEDS = range(4)
DEEP_SEEDS = range(100)


def assert_accounted(world: World, line: JobRow) -> None:
    assert line.checked + line.items_given_up == world.items
    assert line.items_given_up == 0, line.given_up
    assert sorted(world.pool.told) == list(range(world.items))
    assert line.working == sum(map(works, world.all))
    seals = world.pool.seals
    assert len(seals) == len(set(seals)), f"an epoch was sealed twice: {seals}"
    with_journal = world.ledger._journal
    assert with_journal.settled(JOB) == (0, world.items)
    assert sum(n for n in _settled_per_part(with_journal)) == world.items, "an item was taken twice"


def _settled_per_part(journal: Journal) -> list[int]:
    return [sum(part.items[1::2]) - sum(part.items[::2]) for part in journal.parts(JOB, 0, 10_000)]


def run_world(seed: int, faults: Faults, path: Path, view: Callable[..., Any]) -> None:
    world = World(seed, faults, path, view=view)
    try:
        assert_accounted(world, world.run())
    finally:
        world.close()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_item_is_accounted_for_once(kind: str, seed: int, tmp_path: Path) -> None:
    run_world(seed, KINDS[kind], tmp_path / "ledger.sqlite", JournaledLedger)


@pytest.mark.deep
@pytest.mark.parametrize("seed", DEEP_SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_item_is_accounted_for_once_in_many_worlds(
    kind: str, seed: int, tmp_path: Path
) -> None:
    run_world(1_000 + seed, KINDS[kind], tmp_path / "ledger.sqlite", JournaledLedger)


def test_a_pool_is_sealed_once_although_its_server_was_lost_behind_the_seal(
    tmp_path: Path,
) -> None:
    for seed in range(12):
        faults = Faults(sealing_dies=1.0)
        world = World(seed, faults, tmp_path / f"{seed}.sqlite", items=10)
        world.run()
        assert world.pool.seals == [1]
        world.close()


def test_what_was_journaled_is_not_checked_again(tmp_path: Path) -> None:
    world = World(7, Faults(), tmp_path / "ledger.sqlite", items=100)
    collector = world._collector()
    while world.ledger.tick(JOB).job.checked < 50:
        world._work(0.5)
        collector.collect()
    known = world.ledger.status(JOB).checked
    before, in_hand = world.checks, sum(len(claim.items) for claim, _ in world._held) * 5
    world.home._jobs.clear()
    line = world.run()
    assert line.epoch == 2
    assert world.checks - before <= 100 - known + in_hand
    world.close()


# --- a server that does not come back


def test_a_job_comes_home_when_its_bound_is_met_and_the_server_is_away(tmp_path: Path) -> None:
    world = World(3, Faults(), tmp_path / "ledger.sqlite", items=100)
    while world.ledger.tick(JOB).job.checked < 40:
        world._work(0.5)
    known = world.ledger.status(JOB).checked
    world.away_until_s = float("inf")
    assert cancel(world)
    line = world.run()
    assert (line.checked, line.given_up) == (known, {GivenUpWhy.DEADLINE: 100 - known})
    assert len(world.pool.told) == known
    world.away_until_s = -1.0
    world.ledger.sweep(0.0)
    assert world.home.status(JOB).state is not JobState.OPEN, "the server was not told"
    world.close()


def test_a_job_that_was_closed_and_lost_is_not_opened_again(tmp_path: Path) -> None:
    world = World(3, Faults(), tmp_path / "ledger.sqlite", items=20)
    while world.ledger.tick(JOB).job.state is JobState.OPEN:
        world._work(0.5)
    world.home._jobs.clear()
    line = world.run()
    assert line.epoch == 1
    assert world.pool.seals == [1]
    world.close()


def test_a_cancelled_job_that_was_lost_stays_cancelled(tmp_path: Path) -> None:
    world = World(3, Faults(), tmp_path / "ledger.sqlite", items=100)
    while world.ledger.tick(JOB).job.checked < 40:
        world._work(0.5)
    world.ledger.cancel(JOB, GivenUpWhy.CANCELLED, "cancelled")
    world.ledger.tick(JOB)
    world.home._jobs.clear()
    line = world.run()
    assert line.why == "cancelled"
    assert line.checked + line.items_given_up == 100
    world.close()


# --- planted defects


class NoCursor(Journal):
    """Takes in what was read, whoever else has read it."""

    def append(self, line: JobRow, read: Cursor, *given: Any) -> JobRow | None:
        return super().append(line, self.cursor(line.job_id) or read, *given)


class NothingSettled(Journal):
    def next_epoch(self, job_id: str, lost: int) -> Any:
        job = super().next_epoch(job_id, lost)
        return None if job is None else replace(job, settled=(), working=0)


class SameEpoch(Journal):
    def next_epoch(self, job_id: str, lost: int) -> Any:
        job = super().next_epoch(job_id, lost)
        return None if job is None else replace(job, epoch=lost)


class NoMark(JournaledLedger):
    """Does not look whether what it read is still there."""

    def _new_parts(self, line: JobRow, cursor: Cursor) -> Any:
        return self._home.parts(line.job_id, cursor.part, 100)


class GivesUpAtOnce(JournaledLedger):
    """Takes a job home at the first silence."""

    def _lost(self, job_id: str, cursor: Cursor) -> None:
        self._journal.come_home(job_id, told=True)


def with_journal(kind: type[Journal]) -> Callable[[Any, Journal], JournaledLedger]:
    def view(home: Any, journal: Journal) -> JournaledLedger:
        journal.__class__ = kind
        return JournaledLedger(home, journal)

    return view


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        (with_journal(NothingSettled), "forgets"),
        (with_journal(SameEpoch), "forgets"),
        (NoMark, "rewinds"),
        (GivesUpAtOnce, "forgets"),
    ],
    ids=["nothing settled", "same epoch", "no mark", "gives up"],
)
def test_a_planted_defect_is_found(view: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    found = 0
    for seed in range(10):
        try:
            run_world(seed, KINDS[kind], tmp_path / f"{seed}.sqlite", view)
        except Exception:  # noqa: BLE001 - whatever shows it
            found += 1
    assert found, "no world showed the defect"


def test_two_waiters_take_each_part_once(tmp_path: Path) -> None:
    world = World(5, Faults(), tmp_path / "ledger.sqlite", items=60)
    other = world._open()
    while world.ledger.tick(JOB).job.state is JobState.OPEN:
        world._work(0.5)
        assert other.tick(JOB).job.items == 60
    assert sum(_settled_per_part(world.ledger._journal)) == 60
    assert_accounted(world, world.run())
    assert other.status(JOB).state is JobState.DONE
    other.close()
    world.close()


def test_a_waiter_that_lost_the_race_takes_nothing_in(tmp_path: Path) -> None:
    world = World(5, Faults(), tmp_path / "ledger.sqlite", items=60)
    world._work(6.0)
    journal: Journal = world.ledger._journal
    read = journal.cursor(JOB)
    assert read is not None
    line = world.home.status(JOB)
    parts = world.home.parts(JOB, 0, 100)
    assert parts
    assert journal.append(line, read, parts) is not None
    assert journal.append(line, read, parts) is None
    assert len(journal.parts(JOB, 0, 100)) == len(parts)
    world.close()
