"""What becomes of a chunk, in every home: claimed, beaten for, lost, split, submitted."""

from __future__ import annotations

import pytest

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    NOTHING,
    Beat,
    BeatAnswer,
    ChunkState,
    Claim,
    JobState,
    NoClaim,
    SubmitAnswer,
    Worker,
)
from proxywell.refresh.ledger import LAST_TRIES
from proxywell.refresh.spans import count, items_of
from tests.contract.ledger_steps import FAR, ONE, TWO, Home, claim, create, pass_time, submit
from tests.contract.ledger_world import JOB, TERMS, all_chunks, settled


def test_chunks_are_claimed_in_the_order_of_the_plan(home: Home) -> None:
    ledger, _ = home
    create(ledger)
    assert [claim(ledger, ONE, f"t{at}").items for at in range(3)] == [(0, 3), (3, 6), (6, 9)]
    assert ledger.claim(JOB, ONE, "t9") is NoClaim.EMPTY


def test_a_lost_chunk_is_ready_again_within_lease_and_tick(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    claim(ledger, ONE, "a")
    pass_time(home, 6)
    assert ledger.status(JOB).ready == 1
    assert ledger.status(JOB).rescued == 1
    assert claim(ledger, TWO, "b").attempt == 2


def test_a_clock_that_was_put_back_delays_no_rescue_and_no_deadline(home: Home) -> None:
    ledger, clock = home
    create(ledger, 6)
    claim(ledger, ONE, "a")
    before = ledger.status(JOB)
    clock.now_s -= 3_600
    pass_time(home, 7)
    job = ledger.status(JOB)
    assert (job.rescued, job.ready) == (1, 2)
    assert job.deadline_s - job.seen_s == pytest.approx(
        before.deadline_s - before.seen_s - 7, abs=1
    )
    rung = ledger.events(JOB, 0, 99)[-1]
    assert rung.kind == "rung", "nobody would be rung for before the clock is what it was"


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


def hold_all(home: Home, holder: str) -> int:
    """Let one worker claim as much as it gets."""
    ledger, _ = home
    worker = Worker("n1", holder)
    held = 0
    while isinstance(ledger.claim(JOB, worker, f"{holder}:{held}"), Claim):
        held += 1
    return held


def test_what_one_worker_drops_another_one_may_hold_at_once(home: Home) -> None:
    ledger, _ = home
    create(ledger, 18)
    assert hold_all(home, "h0") == 6
    pass_time(home, 7)
    assert {chunk.blamed for chunk in all_chunks(ledger).values()} == {0}
    assert hold_all(home, "h1") == 6


def test_what_is_dropped_with_others_again_and_again_is_held_among_few_and_then_alone(
    home: Home,
) -> None:
    ledger, _ = home
    create(ledger, 18)
    held = []
    for serial in range(4):
        held.append(hold_all(home, f"h{serial}"))
        pass_time(home, 7)
    assert held == [6, 6, 4, 1]
    chunks = all_chunks(ledger).values()
    assert [chunk.suspect for chunk in chunks] == [True] * 4 + [False] * 2
    assert [chunk.blamed for chunk in chunks] == [1, 0, 0, 0, 0, 0], "only what died alone"


def test_a_suspect_and_other_chunks_are_not_held_together(home: Home) -> None:
    ledger, _ = home
    create(ledger, 18)
    for serial in range(3):
        hold_all(home, f"h{serial}")
        pass_time(home, 7)
    suspects = [claim(ledger, Worker("n1", f"w{serial}"), f"w{serial}") for serial in range(4)]
    assert ledger.claim(JOB, Worker("n1", "w0"), "other") is NoClaim.ALONE
    assert hold_all(home, "w4") == 2, "those that are held among few"
    submit(ledger, suspects[0])
    assert ledger.claim(JOB, Worker("n1", "w0"), "last") is NoClaim.EMPTY
    ledger.release(JOB, suspects[1].chunk_id, suspects[1].token)
    assert ledger.claim(JOB, Worker("n1", "w4"), "other") is NoClaim.ALONE
    assert claim(ledger, Worker("n1", "w0"), "again").chunk_id == suspects[1].chunk_id


def test_an_accused_item_is_tried_once_more_behind_all_others(home: Home) -> None:
    ledger, clock = home
    create(ledger, 4, chunk_size=2, fan=2)
    for serial in range(3):  # the first chunk dies twice, then its first item once
        held = claim(ledger, Worker("n1", f"h{serial}"), f"t{serial}")
        assert held.items[0] == 0
        pass_time((ledger, clock), 7)
    order = []
    for serial in range(3, 6):
        held = claim(ledger, Worker("n1", f"h{serial}"), f"t{serial}")
        order.append(held.items)
        submit(ledger, held)
    assert order == [(1, 2), (2, 4), (0, 1)]
    job = ledger.status(JOB)
    assert (job.checked, job.given_up) == (4, {})


def test_a_death_that_had_settled_something_does_not_count_among_the_attempts(home: Home) -> None:
    ledger, clock = home
    create(ledger, 12, chunk_size=12, attempts_max=2, blames_max=50)
    for serial in range(10):
        held = claim(ledger, Worker("n1", f"h{serial}"), f"t{serial}")
        beat = Beat(held.chunk_id, held.token, settled([serial]))
        ledger.beat(JOB, Worker("n1", f"h{serial}"), [beat])
        pass_time((ledger, clock), 7)
    assert ledger.status(JOB).state is JobState.OPEN
    submit(ledger, claim(ledger, ONE, "last"))
    assert ledger.status(JOB).checked == 12


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
    assert deaths == 4 + LAST_TRIES  # twice whole, then a third, then the item, and in the end
    assert job.split == 2
    told = [one.facts for one in ledger.events(JOB, 0, 1_000) if one.kind == "given_up"]
    assert [(facts["why"], facts["item"], facts["items"]) for facts in told] == [("poison", 4, 1)]


def test_an_accused_item_that_dies_with_others_is_not_tried_for_ever(home: Home) -> None:
    ledger, _ = home
    create(ledger, 2, chunk_size=1, floor_s=9_000.0, cap_s=9_000.0)
    for token in "abcd":  # each alone and twice: both are accused
        claim(ledger, Worker("n1", f"h{token}"), token)
        pass_time(home, 7)
    serial = 0
    while ledger.status(JOB).state is JobState.OPEN:
        serial += 1
        assert serial < 20, "handed round for ever"
        for holder in ("x", "y"):  # both die at once, so that nobody is blamed
            ledger.claim(JOB, Worker("n1", f"{holder}{serial}"), f"{holder}{serial}")
        pass_time(home, 7)
    assert sum(ledger.status(JOB).given_up.values()) == 2


def test_the_death_of_a_node_is_no_chunks_fault(home: Home) -> None:
    ledger, _ = home
    create(ledger, 3)
    for serial in range(12):
        claim(ledger, FAR, f"t{serial}")
        pass_time(home, 7, nodes=("n1",))
    chunk = all_chunks(ledger)[0]
    assert (chunk.state, chunk.blamed, chunk.suspect) == (ChunkState.READY, 0, False)


def test_a_lease_that_is_named_twice_is_ended_once(home: Home) -> None:
    ledger, _ = home
    create(ledger, 6)
    held = claim(ledger, ONE, "a")
    assert ledger.expire(JOB, [(held.chunk_id, "a"), (held.chunk_id, "a")]) == 1
    job = ledger.status(JOB)
    assert (job.ready, job.running, job.rescued) == (2, 0, 1)


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
