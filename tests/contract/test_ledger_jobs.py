"""What becomes of a job, in every home: its time, its end, its finalisation, its keeping."""

from __future__ import annotations

from itertools import pairwise

import pytest

from proxywell.errors import UnknownJobError
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import Beat, BeatAnswer, FinAnswer, JobState, NoClaim, SubmitAnswer
from proxywell.refresh.ports import NewJob
from tests.contract.ledger_steps import ONE, TWO, Home, claim, create, pass_time, submit
from tests.contract.ledger_world import JOB, TERMS, blocks_of, settled


def test_a_finalisation_that_is_claimed_again_with_its_token_goes_on(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    submit(ledger, claim(ledger, ONE, "a"))
    assert ledger.fin_claim(JOB, "f") is FinAnswer.OK
    assert ledger.fin_claim(JOB, "f") is FinAnswer.OK
    assert ledger.fin_claim(JOB, "g") is FinAnswer.WAIT
    assert ledger.status(JOB).fin_fails == 0
    assert ledger.fin_commit(JOB, "f", b"{}") is FinAnswer.OK


def test_the_last_submit_closes_the_job_in_the_same_step(home: Home) -> None:
    ledger, _ = home
    create(ledger, 6)
    first, last = claim(ledger, ONE, "a"), claim(ledger, TWO, "b")
    assert submit(ledger, first) is SubmitAnswer.OK
    assert submit(ledger, last) is SubmitAnswer.CLOSED
    assert ledger.status(JOB).state is JobState.CLOSED
    assert ledger.claim(JOB, ONE, "c") is NoClaim.CLOSED
    assert submit(ledger, last) is SubmitAnswer.DUP


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


def test_nobody_is_missed_while_the_books_could_not_be_reached(home: Home) -> None:
    ledger, clock = home
    create(ledger, 6, stalled_s=30.0)
    ledger.tick(JOB)
    clock.now_s += 29
    assert not ledger.tick(JOB).stalled
    for second in range(31):
        clock.now_s += 1
        assert ledger.tick(JOB).stalled == (second >= 30)


def test_a_new_job_owes_a_bell_for_each_chunk_and_what_is_rung_is_told(home: Home) -> None:
    ledger, clock = home
    create(ledger, 600, chunk_size=3)
    assert [ledger.tick(JOB).ring for _ in range(2)] == [64, 0]
    clock.now_s += 2
    assert ledger.tick(JOB).ring == 1
    told = [one.facts for one in ledger.events(JOB, 0, 1_000) if one.kind == "rung"]
    assert told == [{"bells": 64}, {"bells": 1}]


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


def test_a_later_epoch_goes_on_with_what_was_not_settled(home: Home) -> None:
    ledger, clock = home
    create(ledger, 12)
    old = claim(ledger, ONE, "a")
    again = NewJob(
        JOB, 12, TERMS, b"again", 0.0, epoch=2, settled=(1, 2, 3, 6, 8, 10), working=1, age_s=100.0
    )
    assert ledger.create(again, blocks_of(12, 3))
    job = ledger.status(JOB)
    assert (job.epoch, job.state, job.chunks, job.ready, job.running) == (2, JobState.OPEN, 3, 3, 0)
    assert (job.checked, job.working, job.pending) == (6, 1, 6)
    assert (clock.now_s - job.created_s, job.deadline_s - clock.now_s) == (100, 500)
    assert ledger.spec(JOB) == b"again"
    assert submit(ledger, old) is SubmitAnswer.STALE
    items = [claim(ledger, ONE, token).items for token in "bcd"]
    assert items == [(0, 1, 2, 3), (6, 8), (10, 12)]
    assert [block.lo for block in ledger.blocks(JOB, (3, 6))] == [3], "verdicts refer to all blocks"


def test_an_epoch_that_is_there_or_past_creates_nothing(home: Home) -> None:
    ledger, _ = home
    assert ledger.create(NewJob(JOB, 3, TERMS, b"2", 0.0, epoch=2), blocks_of(3, 3))
    claim(ledger, ONE, "a")
    before = ledger.status(JOB)
    for epoch in (1, 2):
        new = NewJob(JOB, 3, TERMS, b"no", 0.0, epoch=epoch)
        assert not ledger.create(new, blocks_of(3, 3))
    assert ledger.status(JOB) == before
    assert ledger.spec(JOB) == b"2"


def test_a_job_whose_items_are_all_settled_is_closed_at_once(home: Home) -> None:
    ledger, _ = home
    new = NewJob(JOB, 7, TERMS, b"", 0.0, epoch=3, settled=(0, 7), working=4)
    assert ledger.create(new, blocks_of(7, 3))
    job = ledger.status(JOB)
    assert (job.state, job.checked, job.chunks) == (JobState.CLOSED, 7, 0)
    assert [block.hi for block in ledger.blocks(JOB, (0, 7))] == [3, 6, 7]
    assert ledger.fin_claim(JOB, "x") is FinAnswer.OK


def test_a_job_of_nothing_is_closed_at_once(home: Home) -> None:
    ledger, _ = home
    assert ledger.create(NewJob(JOB, 0, TERMS, b"", 0.0), [])
    assert ledger.status(JOB).state is JobState.CLOSED
    assert ledger.blocks(JOB, (0, 1)) == []


def test_a_job_that_is_as_old_as_its_cap_ends_with_the_next_tick(home: Home) -> None:
    ledger, _ = home
    new = NewJob(JOB, 3, TERMS, b"", 0.0, epoch=2, settled=(0, 1), age_s=TERMS.cap_s)
    ledger.create(new, blocks_of(3, 3))
    job = ledger.tick(JOB).job
    assert (job.state, job.why, job.given_up) == (
        JobState.CLOSED,
        "timed_out",
        {GivenUpWhy.DEADLINE: 2},
    )


def test_nodes_are_those_that_beat_within_their_term_for_this_job(home: Home) -> None:
    ledger, clock = home
    create(ledger)
    ledger.node_beat("all", "", term_s=4)
    ledger.node_beat("mine", JOB, term_s=2)
    ledger.node_beat("other", "j2", term_s=4)
    assert ledger.nodes(JOB) == {"all", "mine"}
    assert ledger.tick(JOB).nodes == 2
    clock.now_s += 3
    assert ledger.nodes(JOB) == {"all"}
    ledger.node_gone("all")
    assert ledger.nodes(JOB) == frozenset()


def test_events_and_parts_are_told_behind_a_number_and_no_more_than_asked(home: Home) -> None:
    ledger, clock = home
    create(ledger, 9)
    for token in "abc":
        clock.now_s += 0.1
        submit(ledger, claim(ledger, ONE, token))
    events = ledger.events(JOB, 0, 100)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert ledger.events(JOB, 3, 2) == events[3:5]
    assert events[-1].kind == "closed"
    assert events[-1].at_s == clock.now_s
    parts = ledger.parts(JOB, 0, 100)
    assert [(part.seq, part.items, part.body) for part in parts] == [
        (1, (0, 3), b"v"),
        (2, (3, 6), b"v"),
        (3, (6, 9), b"v"),
    ]
    assert ledger.parts(JOB, 1, 1) == parts[1:2]
    assert ledger.parts(JOB, 3, 9) == ledger.parts(JOB, 0, 0) == []
    assert ledger.events(JOB, 0, 0) == []
