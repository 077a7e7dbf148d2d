from __future__ import annotations

import json

import msgspec
import pytest
from msgspec.structs import replace

from proxywell.model.report import (
    CandidateCounts,
    GivenUpWhy,
    Outcome,
    PoolChange,
    SourceReport,
    VerdictCounts,
)
from proxywell.refresh.books import JobRow, JobState, Terms
from proxywell.refresh.report import Dossier, outcome_of, report_of

TERMS = Terms(
    lease_s=5, attempt_hard_s=300, attempts_max=8, errors_max=2, blames_max=2, fan=8,
    stalled_s=30, chunk_size=100, min_count=10, want=None, floor_s=600, cap_s=2_400,
    time_per_chunk_s=90,
)  # fmt: skip


def job(**changes: object) -> JobRow:
    done = JobRow(
        "j", TERMS, items=10, created_s=100.0, created_at_s=0.0, deadline_s=700.0, cap_s=2_500.0,
        state=JobState.DONE, checked=10, closed_s=130.0, finalised_s=131.5, usable_s=104.0,
    )  # fmt: skip
    return replace(done, **changes)


def given_up(why: GivenUpWhy, *, because: str | None = None, **more: object) -> JobRow:
    return job(checked=4, given_up={why: 6}, why=because, **more)


@pytest.mark.parametrize(
    ("line", "outcome", "told"),
    [
        (job(), Outcome.COMPLETE, None),
        (given_up(GivenUpWhy.POISON), Outcome.PARTIAL, "6 by poison"),
        (given_up(GivenUpWhy.ERROR), Outcome.PARTIAL, "6 by error"),
        (given_up(GivenUpWhy.DEADLINE, because="timed_out"), Outcome.TIMED_OUT, "600 s"),
        (given_up(GivenUpWhy.ENOUGH, because="enough", working=3), Outcome.USABLE, "3 work"),
        (given_up(GivenUpWhy.CANCELLED, because="cancelled"), Outcome.CANCELLED, "6 unchecked"),
        (given_up(GivenUpWhy.CANCELLED, because="stalled"), Outcome.STALLED, "30 s"),
        (
            given_up(GivenUpWhy.CANCELLED, because="failed", detail="no judge"),
            Outcome.FAILED,
            "no judge",
        ),
        (job(fin_error="disk full"), Outcome.FAILED, "disk full"),
        (given_up(GivenUpWhy.ENOUGH, because="enough", fin_error="x"), Outcome.FAILED, "x"),
        (job(state=JobState.OPEN), None, None),
        (job(state=JobState.CLOSED), None, None),
    ],
)
def test_the_outcome_says_how_the_job_ended_and_why(
    line: JobRow, outcome: Outcome | None, told: str | None
) -> None:
    said, reason = outcome_of(line)
    assert said is outcome
    assert (reason is None) if told is None else (told in (reason or ""))


def test_the_report_is_the_contracts_object() -> None:
    dossier = Dossier(
        sources=[SourceReport("a", 5, 4)],
        candidates=CandidateCounts(12, 11, {"malformed": 1}, 10),
        read_s=2.0,
        lead_s=3.0,
    )
    line = given_up(GivenUpWhy.DEADLINE, because="timed_out", chunks=2, chunks_done=1)
    report = report_of(line, dossier, VerdictCounts(1, 2, 1), PoolChange(0, 1, 1, 0))
    shown = json.loads(msgspec.json.encode(report))
    assert shown["items"] == {
        "planned": 10, "checked": 4, "given_up": 6,
        "given_up_why": {"deadline": 6, "poison": 0, "error": 0, "cancelled": 0, "enough": 0},
    }  # fmt: skip
    assert shown["timing_s"] == {
        "read": 2.0, "first_working": None, "usable": 7.0, "closed": 33.0, "finalised": 34.5,
        "total": 34.5,
    }  # fmt: skip
    assert shown["deadline"] == {"floor_s": 600.0, "in_force_s": 600.0, "cap_s": 2400.0}
    assert list(shown) == [
        "job_id", "outcome", "reason", "engine", "sources", "candidates", "items", "chunks",
        "verdicts", "timing_s", "deadline", "pool", "poison",
    ]  # fmt: skip


def test_an_open_job_balances_with_what_is_pending() -> None:
    line = given_up(GivenUpWhy.POISON, state=JobState.OPEN, finalised_s=None, seen_s=110.0)
    line.given_up = {GivenUpWhy.POISON: 1}
    report = report_of(line, Dossier(), VerdictCounts(4), PoolChange())
    items = report.items
    assert items.planned == items.checked + items.given_up + items.pending
    assert report.timing_s.total == 10
