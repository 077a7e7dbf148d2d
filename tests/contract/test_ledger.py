from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest
from msgspec.structs import replace

from proxywell.errors import LedgerBusyError, StateError, UnknownJobError
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    NOTHING,
    Beat,
    BeatAnswer,
    ChunkState,
    Claim,
    FinAnswer,
    JobState,
    NoClaim,
    Settled,
    SubmitAnswer,
    Worker,
)
from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.ledgers.sqlite import SqliteLedger, open_ledger
from proxywell.refresh.ports import Block, Ledger, NewJob
from proxywell.refresh.spans import count, items_of
from tests.contract.ledger_world import JOB, TERMS, Clock, all_chunks, blocks_of, settled

ONE, TWO = Worker("n1", "h1"), Worker("n1", "h2")
FAR = Worker("n2", "h3")
Home: TypeAlias = tuple[Ledger, Clock]


@pytest.fixture(params=["memory", "sqlite"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    clock = Clock()
    ledger: Ledger
    if request.param == "memory":
        ledger = MemoryLedger(clock)
    else:
        ledger = SqliteLedger(tmp_path / "ledger.sqlite", clock=clock, boot="b1")
    yield ledger, clock
    ledger.close()


def create(ledger: Ledger, items: int = 9, **terms: float | None) -> None:
    agreed = replace(TERMS, **terms)
    job = NewJob(JOB, items, agreed, b"{}", 0.0)
    assert ledger.create(job, blocks_of(items, agreed.chunk_size))


def claim(ledger: Ledger, worker: Worker, token: str) -> Claim:
    answer = ledger.claim(JOB, worker, token)
    assert isinstance(answer, Claim), answer
    return answer


def submit(ledger: Ledger, held: Claim, items: list[int] | None = None) -> SubmitAnswer:
    told = settled(list(items_of(held.items)) if items is None else items)
    return ledger.submit(JOB, held.chunk_id, held.token, held.epoch, told)


def pass_time(home: Home, seconds: int, *, nodes: tuple[str, ...] = ("n1", "n2")) -> None:
    ledger, clock = home
    for _ in range(seconds):
        clock.now_s += 1.0
        for node in nodes:
            ledger.node_beat(node, "", term_s=3.75)
        ledger.tick(JOB)


def test_chunks_are_claimed_in_the_order_of_the_plan(home: Home) -> None:
    ledger, _ = home
    create(ledger)
    assert [claim(ledger, ONE, f"t{at}").items for at in range(3)] == [(0, 3), (3, 6), (6, 9)]
    assert ledger.claim(JOB, ONE, "t9") is NoClaim.EMPTY


def test_the_last_submit_closes_the_job_in_the_same_step(home: Home) -> None:
    ledger, _ = home
    create(ledger, 6)
    first, last = claim(ledger, ONE, "a"), claim(ledger, TWO, "b")
    assert submit(ledger, first) is SubmitAnswer.OK
    assert submit(ledger, last) is SubmitAnswer.CLOSED
    assert ledger.status(JOB).state is JobState.CLOSED
    assert ledger.claim(JOB, ONE, "c") is NoClaim.CLOSED
    assert submit(ledger, last) is SubmitAnswer.DUP


def test_a_lost_chunk_is_ready_again_within_lease_and_tick(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    claim(ledger, ONE, "a")
    pass_time(home, 6)
    assert ledger.status(JOB).ready == 1
    assert ledger.status(JOB).rescued == 1
    assert claim(ledger, TWO, "b").attempt == 2


def test_what_a_lost_holder_reported_is_not_done_again(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a", settled([0, 2]))])
    pass_time(home, 7)
    assert claim(ledger, TWO, "b").items == (1, 2)


def test_a_beat_told_twice_counts_once(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    beat = Beat(held.chunk_id, "a", settled([0]))
    assert ledger.beat(JOB, ONE, [beat]) == ledger.beat(JOB, ONE, [beat]) == [BeatAnswer.OK]
    job = ledger.status(JOB)
    assert (job.checked, job.working, len(ledger.parts(JOB, 0, 9))) == (1, 1, 1)


def test_a_late_beat_takes_back_a_chunk_that_nobody_took(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    pass_time(home, 6)
    assert ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a")]) == [BeatAnswer.OK]
    chunk = all_chunks(ledger)[held.chunk_id]
    assert (chunk.state, chunk.blamed, chunk.suspect) == (ChunkState.RUNNING, 0, False)
    assert ledger.claim(JOB, TWO, "b") is NoClaim.EMPTY


def test_a_chunk_that_was_taken_back_gives_company_to_what_was_held_alone(home: Home) -> None:
    ledger, _ = home
    create(ledger, 6)
    first, second = claim(ledger, ONE, "a"), claim(ledger, ONE, "b")
    ledger.expire(JOB, [(first.chunk_id, "a"), (second.chunk_id, "b")])  # their node is gone
    assert claim(ledger, ONE, "c").chunk_id == first.chunk_id
    assert all_chunks(ledger)[first.chunk_id].alone
    assert ledger.beat(JOB, ONE, [Beat(second.chunk_id, "b")]) == [BeatAnswer.OK]
    assert {chunk.alone for chunk in all_chunks(ledger).values()} == {False}


def test_an_error_counts_only_from_the_current_holder(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    old = claim(ledger, ONE, "a")
    pass_time(home, 6)
    new = claim(ledger, TWO, "b")
    said = ledger.submit(JOB, old.chunk_id, "a", 1, NOTHING, error="raised")
    assert said is SubmitAnswer.LATE
    assert ledger.submit(JOB, new.chunk_id, "b", 1, NOTHING, error="raised") is SubmitAnswer.AGAIN
    third = claim(ledger, TWO, "c")
    assert ledger.submit(JOB, third.chunk_id, "c", 1, NOTHING, error="r") is SubmitAnswer.CLOSED
    assert ledger.status(JOB).given_up == {GivenUpWhy.ERROR: 3}


def test_a_whole_submit_is_taken_from_a_holder_whose_lease_is_over(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    old = claim(ledger, ONE, "a")
    pass_time(home, 6)
    new = claim(ledger, TWO, "b")
    assert submit(ledger, old) is SubmitAnswer.CLOSED
    assert ledger.beat(JOB, TWO, [Beat(new.chunk_id, "b")]) == [BeatAnswer.STOP]
    assert submit(ledger, new) is SubmitAnswer.DUP
    assert ledger.status(JOB).checked == 3


def test_another_epoch_is_stale(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    said = ledger.submit(JOB, held.chunk_id, "a", 2, settled([0, 1, 2]))
    assert said is SubmitAnswer.STALE
    assert ledger.status(JOB).checked == 0


def test_deferred_items_become_a_patient_chunk_that_comes_last(home: Home) -> None:
    ledger, _ = home
    create(ledger, 6)
    held = claim(ledger, ONE, "a")
    said = ledger.submit(JOB, held.chunk_id, "a", 1, settled([1]), deferred=(0, 1, 2, 3))
    assert said is SubmitAnswer.OK
    assert claim(ledger, ONE, "b").items == (3, 6)
    patient = claim(ledger, ONE, "c")
    assert (patient.items, patient.patient) == ((0, 1, 2, 3), True)
    said = ledger.submit(JOB, patient.chunk_id, "c", 1, settled([0]), deferred=(2, 3))
    assert said is SubmitAnswer.INCOMPLETE, "a patient chunk does not defer"
    assert ledger.status(JOB).chunks == 3


def test_one_dead_worker_makes_suspects_and_whoever_dies_alone_is_blamed(home: Home) -> None:
    ledger, _ = home
    create(ledger, 9)
    for token in "abc":
        claim(ledger, ONE, token)
    pass_time(home, 7)
    assert {chunk.suspect for chunk in all_chunks(ledger).values()} == {True}
    assert {chunk.blamed for chunk in all_chunks(ledger).values()} == {0}
    alone = claim(ledger, TWO, "d")
    assert ledger.claim(JOB, TWO, "e") is NoClaim.ALONE
    pass_time(home, 7)
    blamed = {number for number, chunk in all_chunks(ledger).items() if chunk.blamed}
    assert blamed == {alone.chunk_id}


def test_a_suspect_is_not_given_to_a_holder_that_holds_something(home: Home) -> None:
    ledger, _ = home
    create(ledger, 6)
    claim(ledger, ONE, "a")
    claim(ledger, ONE, "b")
    pass_time(home, 7)
    suspect = claim(ledger, TWO, "c")
    assert ledger.claim(JOB, TWO, "d") is NoClaim.ALONE
    assert submit(ledger, suspect) is SubmitAnswer.OK
    claim(ledger, TWO, "e")


def test_a_killer_is_split_down_to_one_item_and_only_that_is_given_up(home: Home) -> None:
    ledger, clock = home
    create(ledger, 9, chunk_size=9, fan=3)
    deaths = serial = 0
    while ledger.status(JOB).state is JobState.OPEN and deaths < 20:
        serial += 1
        held = claim(ledger, Worker("n1", f"h{serial}"), f"t{serial}")
        if 4 in items_of(held.items):
            deaths += 1
            pass_time((ledger, clock), 7)
        else:
            submit(ledger, held)
    job = ledger.status(JOB)
    assert (job.checked, job.given_up) == (8, {GivenUpWhy.POISON: 1})
    assert deaths == 4  # twice whole, then a third, then the item
    assert job.split == 2


def test_the_death_of_a_node_is_no_chunks_fault(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    for serial in range(12):
        claim(ledger, FAR, f"t{serial}")
        pass_time(home, 7, nodes=("n1",))
    chunk = all_chunks(ledger)[0]
    assert (chunk.state, chunk.blamed, chunk.suspect) == (ChunkState.READY, 0, False)


def test_a_pause_of_the_books_is_no_loss(home: Home) -> None:
    ledger, clock = home
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    clock.now_s += 20
    assert ledger.tick(JOB).job.running == 1
    clock.now_s += 1
    assert ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a")]) == [BeatAnswer.OK]


def test_time_in_which_nobody_was_there_does_not_count_against_the_deadline(home: Home) -> None:
    ledger, clock = home
    create(ledger, 3)
    clock.now_s += 100_000
    job = ledger.tick(JOB).job
    assert job.state is JobState.OPEN
    assert job.deadline_s - clock.now_s == pytest.approx(600)


def test_the_deadline_gives_up_ready_and_running_and_closes(home: Home) -> None:
    ledger, _ = home
    create(ledger, 9, floor_s=10.0, cap_s=20.0, time_per_chunk_s=1.0)
    held = claim(ledger, ONE, "a")
    ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a", settled([0]))])
    pass_time(home, 21)
    job = ledger.status(JOB)
    assert (job.state, job.why, job.given_up) == (
        JobState.CLOSED,
        "timed_out",
        {GivenUpWhy.DEADLINE: 8},
    )


def test_an_attempt_without_progress_ends_at_its_hard_limit(home: Home) -> None:
    ledger, clock = home
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    answers: list[BeatAnswer] = []
    while not answers or answers == [BeatAnswer.OK]:
        pass_time((ledger, clock), 1)
        answers = ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a")])
    assert answers == [BeatAnswer.STOP]
    assert clock.now_s == pytest.approx(1_000 + TERMS.attempt_hard_s + 1)
    assert all_chunks(ledger)[0].blamed == 1
    assert ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a")]) == [BeatAnswer.STOP]


def test_a_slow_attempt_that_moves_is_stopped_but_not_blamed(home: Home) -> None:
    ledger, clock = home
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a", settled([0]))])
    for _ in range(41):
        pass_time((ledger, clock), 1)
        ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a")])
    chunk = all_chunks(ledger)[0]
    assert (chunk.state, chunk.blamed, count(chunk.items)) == (ChunkState.READY, 0, 2)


def test_a_draining_node_is_told_and_what_it_releases_is_ready_at_once(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    ledger.node_beat("n1", "", term_s=9, draining=True)
    held = claim(ledger, ONE, "a")
    assert ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a")]) == [BeatAnswer.DRAIN]
    assert ledger.release(JOB, held.chunk_id, "a", settled([1])) is BeatAnswer.OK
    again = claim(ledger, FAR, "b")
    assert again.items == (0, 1, 2, 3)
    assert ledger.release(JOB, held.chunk_id, "a") is BeatAnswer.STOP


def test_usable_is_told_by_the_beat_that_brought_it(home: Home) -> None:
    ledger, _ = home
    create(ledger, 9, min_count=2, chunk_size=9)
    held = claim(ledger, ONE, "a")
    ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a", settled([0]))])
    assert ledger.status(JOB).usable_s is None
    ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a", settled([3]))])
    assert ledger.status(JOB).usable_s == 1_000


def test_enough_closes_the_job_in_the_step_that_brought_it(home: Home) -> None:
    ledger, _ = home
    create(ledger, 9, want=1)
    held = claim(ledger, ONE, "a")
    said = ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a", settled([0]))])
    job = ledger.status(JOB)
    assert said == [BeatAnswer.STOP]
    assert (job.state, job.why, job.given_up) == (
        JobState.CLOSED,
        "enough",
        {GivenUpWhy.ENOUGH: 8},
    )


def test_nobody_there_for_long_is_stalled_and_a_full_worker_is_not(home: Home) -> None:
    ledger, clock = home
    create(ledger, 6, stalled_s=10.0)
    for _ in range(11):
        clock.now_s += 1
        tick = ledger.tick(JOB)
    assert tick.stalled
    claim(ledger, ONE, "a")
    assert not ledger.tick(JOB).stalled


def test_a_bell_is_rung_again_when_nobody_comes_but_ever_more_rarely(home: Home) -> None:
    ledger, clock = home
    create(ledger, 3)
    rings = []
    for second in range(1, 70):
        clock.now_s += 1
        if ledger.tick(JOB).ring:
            rings.append(second)
    gaps = [b - a for a, b in pairwise(rings)]
    assert rings[0] <= 2
    assert gaps == sorted(gaps)
    assert 20 <= gaps[-1] <= 31


def test_finalisation_is_fenced_and_happens_once(home: Home) -> None:
    ledger, clock = home
    create(ledger, 3)
    assert ledger.fin_claim(JOB, "x") is FinAnswer.WAIT
    submit(ledger, claim(ledger, ONE, "a"))
    assert ledger.fin_claim(JOB, "x") is FinAnswer.OK
    assert ledger.fin_claim(JOB, "y") is FinAnswer.WAIT
    clock.now_s += 4
    assert ledger.fin_beat(JOB, "x") is FinAnswer.OK
    clock.now_s += 6
    assert ledger.fin_claim(JOB, "y") is FinAnswer.OK
    assert ledger.fin_commit(JOB, "x", b"no") is FinAnswer.FENCED
    assert ledger.fin_commit(JOB, "y", b"yes") is FinAnswer.OK
    assert ledger.fin_commit(JOB, "y", b"again") is FinAnswer.DUP
    assert ledger.summary(JOB) == b"yes"


def test_a_finaliser_that_raises_three_times_ends_the_job_with_the_error(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    submit(ledger, claim(ledger, ONE, "a"))
    for token in "xyz":
        assert ledger.fin_claim(JOB, token) is FinAnswer.OK
        ledger.fin_fail(JOB, token, "disk full")
    job = ledger.status(JOB)
    assert (job.state, job.fin_error) == (JobState.DONE, "disk full")
    assert len(ledger.parts(JOB, 0, 9)) == 1


def test_jobs_lie_side_by_side_newest_first(home: Home) -> None:
    ledger, _ = home
    for at, name in enumerate(["old", "new"]):
        ledger.create(NewJob(name, 3, TERMS, name.encode(), float(at)), blocks_of(3, 3))
    assert [job.job_id for job in ledger.jobs()] == ["new", "old"]
    assert ledger.spec("old") == b"old"
    ledger.cancel("old", GivenUpWhy.CANCELLED, "cancelled")
    assert ledger.status("new").state is JobState.OPEN


def test_blocks_are_those_that_hold_the_items(home: Home) -> None:
    ledger, _ = home
    create(ledger, 9)
    assert [block.lo for block in ledger.blocks(JOB, (4, 5))] == [3]
    assert [block.lo for block in ledger.blocks(JOB, (2, 4))] == [0, 3]
    assert ledger.blocks(JOB, ()) == []


def test_an_unknown_job_is_said_with_the_nearest_one(home: Home) -> None:
    ledger, _ = home
    create(ledger)
    with pytest.raises(UnknownJobError, match="did you mean j1"):
        ledger.status("j11")


def test_the_sweep_drops_what_is_past_keeping(home: Home) -> None:
    ledger, clock = home
    create(ledger, 3)
    submit(ledger, claim(ledger, ONE, "a"))
    ledger.fin_claim(JOB, "x")
    ledger.fin_commit(JOB, "x", b"{}")
    ledger.sweep(100.0)
    assert ledger.parts(JOB, 0, 9)
    clock.now_s += 3_700
    ledger.sweep(3_700.0)
    assert not ledger.parts(JOB, 0, 9)
    assert not ledger.blocks(JOB, (0, 3))
    assert ledger.status(JOB).checked == 3
    ledger.sweep(31 * 86_400.0)
    assert ledger.jobs() == []


def test_the_sweep_drops_what_nobody_collected_for_a_week(home: Home) -> None:
    ledger, _ = home
    create(ledger)
    ledger.sweep(6 * 86_400.0)
    assert len(ledger.jobs()) == 1
    ledger.sweep(8 * 86_400.0)
    assert ledger.jobs() == []


# --- SQLite alone: what only a file can do


def test_a_new_boot_ends_all_leases_and_keeps_the_rest_of_the_deadline(tmp_path: Path) -> None:
    clock = Clock()
    before = SqliteLedger(tmp_path / "l", clock=clock, boot="b1")
    create(before, 3)
    claim(before, ONE, "a")
    before.node_beat("n1", "", term_s=1e6)
    before.close()
    clock.now_s = 5.0  # the clock began anew
    after = SqliteLedger(tmp_path / "l", clock=clock, boot="b2")
    job = after.tick(JOB).job
    assert (job.ready, job.running) == (1, 0)
    assert job.deadline_s == pytest.approx(605)
    assert all_chunks(after)[0].blamed == 0
    after.close()


def test_a_creation_that_never_ended_left_no_job_and_is_swept(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", clock=Clock())

    def broken() -> Iterator[Block]:
        yield from blocks_of(900, 1)
        raise OSError("the list went away")

    with pytest.raises(OSError, match="went away"):
        ledger.create(NewJob(JOB, 900, TERMS, b"{}", 0.0), broken())
    with pytest.raises(UnknownJobError):
        ledger.status(JOB)
    assert ledger._db.execute("SELECT count(*) FROM block").fetchone()[0] > 0
    ledger.sweep(7_200.0)
    assert ledger._db.execute("SELECT count(*) FROM block").fetchone()[0] == 0
    ledger.close()


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateError, match="later proxywell"):
        open_ledger(tmp_path)


def test_what_is_no_ledger_is_said(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"junk" * 5_000)
    with pytest.raises(StateError, match="not a ledger"):
        open_ledger(tmp_path)


def test_a_state_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="--state"):
        open_ledger(tmp_path / "file" / "state")


def test_a_locked_ledger_is_said_and_the_step_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxywell.refresh.ledgers.sqlite.BUSY_MS", 50)
    ledger = open_ledger(tmp_path)
    create(ledger, 3)
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerBusyError, match="locked"):
        ledger.claim(JOB, ONE, "a")
    other.execute("ROLLBACK")
    other.close()
    claim(ledger, ONE, "a")
    ledger.close()


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    told = Settled((0, 3), (0, 1), bytes(200_000))
    with pytest.raises(StateError, match="disk is full"):
        ledger.submit(JOB, held.chunk_id, "a", 1, told)
    job = ledger.status(JOB)
    assert (job.checked, job.running) == (0, 1)
    big = [Block(at, at + 1, bytes(100_000)) for at in range(50)]
    with pytest.raises(StateError, match="disk is full"):
        ledger.create(NewJob("big", 50, TERMS, b"{}", 0.0), big)
    assert [job.job_id for job in ledger.jobs()] == [JOB]
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    assert ledger.submit(JOB, held.chunk_id, "a", 1, told) is SubmitAnswer.CLOSED
    ledger.close()
