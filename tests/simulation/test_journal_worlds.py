"""A waiter's journal: whatever the server forgets, every item is accounted for, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from proxywell.errors import StateError, StoreBusyError
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import FinAnswer, JobRow, JobState
from proxywell.refresh.ledgers.journal import Cursor, Journal
from proxywell.refresh.ledgers.journaled import JournaledLedger
from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.ports import Block, NewJob
from tests.network.refresh_fakes import works
from tests.simulation.journal_world import JOB, TERMS, Faults, MortalJournal, World, cancel

KINDS = {
    "none": Faults(),
    "forgets": Faults(forgets=0.1),
    "rewinds": Faults(rewinds=0.15),
    "away": Faults(away=0.1, reply_lost=0.1),
    "waiter": Faults(waiter_dies=0.1, worker_dies=0.05),
    "sealing": Faults(sealing_dies=0.9, forgets=0.02),
    "dies anywhere": Faults(dies_at_call=0.03),
    "dies and forgets anywhere": Faults(dies_at_call=0.05, forgets_at_call=0.03),
    "forgets anywhere": Faults(forgets_at_call=0.03),
    "two waiters": Faults(second_at_call=0.2),
    "two, and all anywhere": Faults(
        forgets=0.02,
        rewinds=0.03,
        away=0.02,
        reply_lost=0.02,
        dies_at_call=0.01,
        forgets_at_call=0.01,
        second_at_call=0.1,
    ),
    "all": Faults(0.04, 0.06, 0.04, 0.04, 0.04, 0.04, 0.5),
}
SEEDS = range(4)
DEEP_SEEDS = range(60)


def assert_accounted(world: World, line: JobRow) -> None:
    assert line.checked + line.items_given_up == world.items
    assert line.items_given_up == 0, line.given_up
    assert sorted(world.pool.told) == list(range(world.items))
    assert line.working == sum(map(works, world.all))
    sealed_or_given_up = int(line.fin_error is None)  # three finalisers died
    assert len(world.pool.seals) in (1, sealed_or_given_up), f"sealed in {world.pool.seals}"
    with_journal = world.ledger._journal
    assert with_journal.settled(JOB) == (0, world.items)
    assert sum(n for n in _settled_per_part(with_journal)) == world.items, "an item was taken twice"


def _settled_per_part(journal: Journal) -> list[int]:
    return [sum(part.items[1::2]) - sum(part.items[::2]) for part in journal.parts(JOB, 0, 10_000)]


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what there is to read takes several steps."""
    monkeypatch.setattr("proxywell.refresh.ledgers.journaled.PULLED_AT_ONCE", 3)


def run_world(
    seed: int, faults: Faults, path: Path, view: Callable[..., Any], bound_s: float = 1_000.0
) -> None:
    world = World(seed, faults, path, view=view)
    try:
        assert_accounted(world, world.run(bound_s=bound_s))
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


def test_a_job_that_needs_only_the_pool_is_finalised_without_its_server(tmp_path: Path) -> None:
    world = World(3, Faults(), tmp_path / "ledger.sqlite", items=20)
    while world.ledger.tick(JOB).job.state is JobState.OPEN:
        world._work(0.5)
    world.away_until_s = float("inf")
    began_s = world.now_s
    line = world.run()
    assert world.now_s - began_s < 2.0
    assert (line.checked, line.epoch, world.pool.seals) == (20, 1, [1])
    world.close()


def test_a_journal_that_went_back_to_a_copy_checks_what_it_forgot_again(tmp_path: Path) -> None:
    world = World(3, Faults(), tmp_path / "ledger.sqlite", items=40)
    world._work(1.0)
    world.ledger.tick(JOB)
    world.ledger.close()
    copy = (tmp_path / "ledger.sqlite").read_bytes()
    world.ledger = world._open()
    world._work(3.0)
    world.ledger.tick(JOB)
    world.home._jobs.clear()
    assert world.ledger.tick(JOB).job.epoch == 2
    world._work(3.0)
    world.ledger.close()
    (tmp_path / "ledger.sqlite").write_bytes(copy)
    world.ledger = world._open()
    line = world.run()
    assert line.epoch == 3
    assert_accounted(world, line)
    world.close()


def test_a_server_that_takes_no_jobs_leaves_none_behind(tmp_path: Path) -> None:
    class Refusing(MemoryLedger):
        def create(self, job: NewJob, blocks: Iterable[Block]) -> bool:
            raise StateError("not with this password")

    journal = Journal(tmp_path / "ledger.sqlite")
    ledger = JournaledLedger(Refusing(lambda: 0.0), journal)
    with pytest.raises(StateError, match="not with this password"):
        ledger.create(NewJob(JOB, 5, TERMS, b"{}", 0.0), [Block(0, 5, b"")])
    assert ledger.jobs() == []
    assert journal.copies() == {}
    ledger.close()


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

    def append(self, line: JobRow, read: Cursor, *given: Any, **more: Any) -> JobRow | None:
        return super().append(line, self.cursor(line.job_id) or read, *given, **more)


class NothingSettled(Journal):
    def next_epoch(self, job_id: str, read: Cursor, beyond: int = 0) -> NewJob | None:
        job = super().next_epoch(job_id, read, beyond)
        return None if job is None else replace(job, settled=(), working=0)


class SameEpoch(Journal):
    def next_epoch(self, job_id: str, read: Cursor, beyond: int = 0) -> NewJob | None:
        job = super().next_epoch(job_id, read, beyond)
        return None if job is None else replace(job, epoch=read.epoch)


class NoMark(JournaledLedger):
    """Does not look whether what it read is still there."""

    def _new_parts(self, line: JobRow, cursor: Cursor) -> Any:
        return self._home.parts(line.job_id, cursor.part, 100)


class BelievesTheLine(Journal):
    """Notes that a job is closed before all was read of it, and takes that for complete."""

    def append(
        self, line: JobRow, read: Cursor, *given: Any, whole: bool = True, **more: Any
    ) -> JobRow | None:
        return super().append(line, read, *given, whole=True, **more)

    def is_complete(self, job_id: str) -> bool:
        return self.status(job_id).state is not JobState.OPEN


class GivenAgainAfterTheSeal(JournaledLedger):
    """Lets a sealed job be created again when its server has lost it."""

    def fin_commit(self, job_id: str, token: str, summary: bytes) -> FinAnswer:
        if self._is_here(job_id):
            return super().fin_commit(job_id, token, summary)
        return self._fin(job_id, lambda ledger: ledger.fin_commit(job_id, token, summary))

    def _lost(self, job_id: str, cursor: Cursor, known: int) -> None:
        job = self._journal.next_epoch(job_id, cursor, known)
        assert job is not None
        self._home.create(job, self._journal.all_blocks(job_id))


class GivesUpAtOnce(JournaledLedger):
    """Takes a job home at the first silence."""

    def _lost(self, job_id: str, cursor: Cursor, known: int) -> None:
        self._journal.come_home(job_id, told=True)


def with_journal(kind: type[Journal]) -> Callable[[Any, Journal], JournaledLedger]:
    mortal = type("Mortal", (kind, MortalJournal), {})

    def view(home: Any, journal: Journal) -> JournaledLedger:
        journal.__class__ = mortal
        return JournaledLedger(home, journal)

    return view


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        (with_journal(NoCursor), "two waiters"),
        (with_journal(BelievesTheLine), "dies and forgets anywhere"),
        (GivenAgainAfterTheSeal, "sealing"),
        (with_journal(NothingSettled), "forgets"),
        (with_journal(SameEpoch), "forgets"),
        (NoMark, "rewinds"),
        (GivesUpAtOnce, "forgets"),
    ],
    ids=[
        "no cursor",
        "believes",
        "sealed again",
        "nothing settled",
        "same epoch",
        "no mark",
        "gives up",
    ],
)
def test_a_planted_defect_is_found(view: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    def shows(seed: int) -> bool:
        try:
            run_world(seed, KINDS[kind], tmp_path / f"{seed}.sqlite", view, bound_s=200.0)
        except Exception:  # noqa: BLE001 - whatever shows it
            return True
        return False

    assert any(shows(seed) for seed in range(60)), "no world showed the defect"


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


def test_a_waiter_leaves_another_one_the_time_to_give_a_job_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(5, Faults(), tmp_path / "ledger.sqlite", items=60)
    other = world._open()
    while world.ledger.tick(JOB).job.checked < 10:
        world._work(0.5)
    world.home._jobs.clear()
    create = world.home.create

    def slowly(job: NewJob, blocks: Iterable[Block]) -> bool:
        for _ in range(20):
            with pytest.raises(StoreBusyError):
                other.tick(JOB)
        return create(job, blocks)

    monkeypatch.setattr(world.home, "create", slowly)
    assert world.ledger.tick(JOB).job.epoch == 2
    assert other.tick(JOB).job.epoch == 2
    assert_accounted(world, world.run())
    other.close()
    world.close()
