from __future__ import annotations

from proxywell.refresh.books import Facts, LedgerEvent
from proxywell.refresh.tidings import NAMED_MAX, tidings

HOLDER = "box/4026531836:4711:998877:a1b2c3/1"


def said(*told: tuple[str, int | None, Facts]) -> list[str]:
    events = [
        LedgerEvent(at, 0.0, kind, chunk, facts) for at, (kind, chunk, facts) in enumerate(told)
    ]
    return [one.sentence() for one in tidings("j1", events, whose=lambda item: f"http://{item}")]


def test_what_is_lost_is_told_in_a_calm_tone_and_by_name() -> None:
    lines = said(
        ("claimed", 12, {"attempt": 1, "holder": HOLDER}),
        ("rescued", 12, {"attempt": 1, "holder": HOLDER}),
        ("split", 12, {"parts": 8}),
        ("given_up", 13, {"why": "poison", "item": 4, "items": 1}),
        ("given_up", 14, {"why": "error", "item": 9, "items": 7, "detail": "too many attempts"}),
        ("closed", None, {"why": ""}),
    )
    assert lines == [
        "Chunk 12 was rescued from a silent worker (attempt 1); it runs again.",
        "Chunk 12 ended its workers: cut into 8 parts to find the candidate.",
        "Candidate http://4 ends whoever checks it: given up alone, the others go on.",
        "Chunk 14 was given up with 7 candidates unchecked: too many attempts.",
    ]


def test_the_node_is_named_by_host_and_process_for_machines() -> None:
    event = LedgerEvent(1, 0.0, "rescued", 12, {"attempt": 2, "holder": HOLDER})
    (remark,) = tidings("j1", [event], whose=str)
    assert remark.facts() == {"job_id": "j1", "chunk_id": 12, "attempt": 2, "node": "box:4711"}


def test_many_at_one_look_are_counted_and_do_not_fill_the_screen() -> None:
    many = NAMED_MAX + 1
    rescued: list[tuple[str, int | None, Facts]] = [("rescued", at, {}) for at in range(many)]
    given_up: list[tuple[str, int | None, Facts]] = [
        ("given_up", at, {"why": "error", "items": 10}) for at in range(many)
    ]
    assert said(*rescued[:-1]) != said(*rescued)
    assert said(*rescued, *given_up) == [
        "4 chunks were rescued from silent workers; they run again.",
        "4 chunks were given up with 40 candidates unchecked.",
    ]


def test_an_event_of_another_version_is_no_reason_to_fail() -> None:
    assert said(("rescued", 1, {"attempt": "x"}), ("from_the_future", 2, {})) == [
        "Chunk 1 was rescued from a silent worker (attempt 0); it runs again."
    ]
