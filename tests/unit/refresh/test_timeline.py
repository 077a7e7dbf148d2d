from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import Facts, JobRow, LedgerEvent, Worker
from proxywell.refresh.ledger import LAST_TRIES
from proxywell.refresh.ledgers.memory import MemoryLedger
from proxywell.refresh.ports import Ledger
from proxywell.refresh.spans import items_of
from proxywell.refresh.timeline import (
    LOSSES_SHOWN,
    Chronicle,
    Moment,
    Timeline,
    events_of,
    shown_node,
    since_asked,
    with_the_end,
)
from tests.contract.ledger_steps import claim, create, pass_time, submit
from tests.contract.ledger_world import JOB, TERMS, Clock

Told: TypeAlias = tuple[float, str, int | None, Facts]
NODE = "box/4026531836:4711:998877:a1b2c3"


def line(created_s: float = 0.0, **more: object) -> JobRow:
    fields = {
        "job_id": JOB, "terms": TERMS, "items": 9, "created_s": created_s, "created_at_s": 0.0,
        "deadline_s": 600.0, "cap_s": 2_400.0,
    }  # fmt: skip
    return JobRow(**(fields | more))  # type: ignore[arg-type] # all are the row's own


def events(*told: Told) -> list[LedgerEvent]:
    return [LedgerEvent(at + 1, *one) for at, one in enumerate(told)]


def folded(
    events: Iterable[LedgerEvent], job: JobRow, there: frozenset[str] | None = None
) -> Timeline:
    return Chronicle(events).timeline(job, there=there)


def told(ledger: Ledger) -> Timeline:
    return folded(events_of(ledger, JOB), ledger.status(JOB), ledger.nodes(JOB))


def by_kind(timeline: Timeline) -> dict[str, Moment]:
    return {moment.what: moment for moment in timeline.moments}


def test_a_job_without_trouble_has_its_moments_in_order() -> None:
    clock = Clock()
    ledger = MemoryLedger(clock)
    create(ledger, 6)
    ledger.node_beat("n1", "", term_s=99.0)
    ledger.tick(JOB)
    for token in "ab":
        clock.now_s += 1
        held = claim(ledger, Worker("n1", "n1/1"), token)
        clock.now_s += 1
        submit(ledger, held)
    ledger.fin_claim(JOB, "f")
    before = told(ledger)
    clock.now_s += 0.5
    ledger.fin_commit(JOB, "f", b"{}")
    timeline = told(ledger)
    assert [(moment.what, moment.at_s) for moment in timeline.moments] == [
        ("created", 0.0), ("dispatched", 0.0), ("claimed", 1.0), ("works", 2.0), ("usable", 4.0),
        ("closed", 4.0), ("finalised", 4.5),
    ]  # fmt: skip
    moments = by_kind(timeline)
    assert moments["created"].says == "6 candidates in 2 chunks"
    assert (moments["claimed"].count, moments["claimed"].last_s) == (2, 3.0)
    assert moments["closed"].says == "every chunk is settled"
    (node,) = timeline.nodes
    assert (node.attempts, node.chunks, node.items, node.lost) == (2, 2, 6, 0)
    assert (node.last_s, node.there) == (4.0, True)
    assert with_the_end(before, ledger.status(JOB)).moments == timeline.moments


def test_a_killer_is_told_as_rescue_split_and_poison_with_the_latest_losses() -> None:
    clock = Clock()
    ledger = MemoryLedger(clock)
    create(ledger, 9, chunk_size=9, fan=3)
    for serial in range(12 + LAST_TRIES):
        if ledger.status(JOB).open == 0:
            break
        held = claim(ledger, Worker(NODE, f"{NODE}/{serial}"), f"t{serial}")
        if 4 in items_of(held.items):
            pass_time((ledger, clock), 7, nodes=(NODE,))
        else:
            submit(ledger, held)
    timeline = told(ledger)
    moments = by_kind(timeline)
    assert moments["rescued"].count == 1 + LAST_TRIES
    assert moments["split"].count == 2
    assert moments["poison"].count == 1
    assert "given_up" not in moments
    says = ["runs again", "cut into parts", "cut into parts"]
    says += ["runs again"] * LAST_TRIES + ["given up"]
    assert [loss.says for loss in timeline.losses] == says[-len(timeline.losses) :]
    assert {loss.node for loss in timeline.losses} == {"box:4711"}
    assert [loss.attempt for loss in timeline.losses[-2:]] == [LAST_TRIES, LAST_TRIES + 1]
    assert timeline.nodes[0].lost == 4 + LAST_TRIES
    assert Chronicle(events_of(ledger, JOB)).poison == {4}


def test_of_many_losses_the_latest_are_named_and_all_are_counted() -> None:
    story: list[Told] = [(0.0, "created", None, {"items": 99, "chunks": 50})]
    for chunk in range(50):
        story += [
            (float(chunk), "claimed", chunk, {"attempt": 1, "holder": "n1/1"}),
            (chunk + 0.5, "rescued", chunk, {"attempt": 1, "holder": "n1/1"}),
        ]
    timeline = folded(events(*story), line())
    rescued = by_kind(timeline)["rescued"]
    assert (rescued.count, rescued.at_s, rescued.last_s) == (50, 0.5, 49.5)
    assert [loss.chunk for loss in timeline.losses] == list(range(50 - LOSSES_SHOWN, 50))
    assert timeline.nodes[0].lost == 50
    assert timeline.nodes[0].there is None


def test_time_in_which_nobody_was_there_is_told_where_it_was() -> None:
    story = events(
        (100.0, "created", None, {"items": 9, "chunks": 3}),
        (101.0, "claimed", 0, {"attempt": 1, "holder": "n1/1"}),
        (5_101.0, "rescued", 0, {"attempt": 1, "holder": "n1/1"}),
        (5_102.0, "claimed", 0, {"attempt": 2, "holder": "n2/1"}),
    )
    timeline = folded(story, line(created_s=5_095.0))
    assert [moment.what for moment in timeline.moments] == [
        "created", "claimed", "left_alone", "rescued",
    ]  # fmt: skip
    assert "4,995 s" in by_kind(timeline)["left_alone"].says
    assert "left_alone" not in by_kind(folded(story, line(created_s=100.5)))


def test_a_clock_that_begins_anew_goes_on_from_where_it_was() -> None:
    story = events(
        (90_000.0, "created", None, {"items": 9, "chunks": 3}),
        (90_010.0, "claimed", 0, {"attempt": 1, "holder": "n1/1"}),
        (30.0, "rescued", 0, {"attempt": 1, "holder": "n1/1"}),
        (40.0, "closed", None, {"why": ""}),
    )
    timeline = folded(story, line(created_s=20.0))
    assert [(moment.what, moment.at_s) for moment in timeline.moments] == [
        ("created", 0.0), ("claimed", 10.0), ("rescued", 10.0), ("restarted", 10.0),
        ("closed", 20.0),
    ]  # fmt: skip


def test_a_job_that_the_store_lost_is_told_as_created_again() -> None:
    story = events(
        (0.0, "created", None, {"items": 9, "chunks": 3}),
        (5.0, "created", None, {"items": 6, "chunks": 2}),
    )
    moments = by_kind(folded(story, line(created_s=5.0)))
    assert (moments["created"].count, moments["created_again"].at_s) == (1, 5.0)


def test_seconds_count_from_when_the_job_was_asked_for() -> None:
    story = events(
        (0.0, "created", None, {"items": 9, "chunks": 3}),
        (1.0, "claimed", 0, {"attempt": 1, "holder": "n1/1"}),
        (2.0, "rescued", 0, {"attempt": 1, "holder": "n1/1"}),
    )
    timeline = since_asked(folded(story, line()), 10.0)
    assert [(moment.what, moment.at_s) for moment in timeline.moments] == [
        ("asked_for", 0.0), ("created", 10.0), ("claimed", 11.0), ("rescued", 12.0),
    ]  # fmt: skip
    assert (timeline.losses[0].at_s, timeline.nodes[0].last_s) == (12.0, 11.0)
    assert since_asked(folded(story, line()), 0.0).moments[0].what == "created"


@pytest.mark.parametrize(
    ("why", "says"),
    [
        ("", "every chunk is settled"),
        ("timed_out", "the time was over"),
        ("stalled", "nobody worked on it any more"),
        ("from_the_future", "from_the_future"),
    ],
)
def test_the_end_says_why(why: str, says: str) -> None:
    story = events((0.0, "created", None, {}), (1.0, "closed", None, {"why": why}))
    assert by_kind(folded(story, line()))["closed"].says == says


def test_a_pool_that_could_not_be_written_is_told() -> None:
    story = events((0.0, "created", None, {}), (1.0, "closed", None, {"why": ""}))
    end = line(closed_s=1.0, finalised_s=3.0, fin_error="the disk is full")
    finalised = by_kind(with_the_end(folded(story, end), end))["finalised"]
    assert (finalised.at_s, finalised.says) == (
        3.0, "the pool could not be written: the disk is full",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("node", "shown"),
    [(NODE, "box:4711"), ("n1", "n1"), ("a:b", "a:b"), ("", ""), ("h/x:1:-:ff", "h:1")],
)
def test_a_node_is_shown_by_host_and_process(node: str, shown: str) -> None:
    assert shown_node(node) == shown


kinds = st.sampled_from(
    ["created", "rung", "claimed", "settled", "rescued", "taken_back", "released", "failed",
     "split", "given_up", "done", "usable", "closed", "final", "from_the_future"]
)  # fmt: skip
facts = st.dictionaries(
    st.sampled_from(["attempt", "holder", "items", "working", "why", "detail", "error", "bells"]),
    st.one_of(st.integers(0, 9), st.sampled_from(["n1/1", "n2/1", "", "{x}", *GivenUpWhy])),
)
anything = st.lists(
    st.tuples(st.floats(0, 1e6), kinds, st.one_of(st.none(), st.integers(0, 5)), facts),
    max_size=40,
)


@given(anything, st.floats(0, 1e6))
def test_whatever_the_events_are_the_story_is_told_in_order(
    story: list[Told], created_s: float
) -> None:
    timeline = folded(events(*story), line(created_s=created_s))
    instants = [moment.at_s for moment in timeline.moments]
    assert instants == sorted(instants)
    assert all(0 <= moment.at_s <= moment.last_s for moment in timeline.moments)
    counted = {"settled", "done"}
    told_of = sum(m.count for m in timeline.moments if m.what not in {"works", "left_alone"})
    restarts = sum(moment.what == "restarted" for moment in timeline.moments)
    assert told_of - restarts == sum(kind not in counted for _, kind, _, _ in story)
    claims = sum(
        kind == "claimed" and chunk is not None and facts.get("holder") not in (None, "")
        for _, kind, chunk, facts in story
    )
    assert sum(share.attempts for share in timeline.nodes) == claims
