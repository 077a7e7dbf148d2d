from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxywell.model.report import (
    CandidateCounts,
    ChunkCounts,
    GivenUpWhy,
    ItemCounts,
    Outcome,
    PoolChange,
    RefreshReport,
    Timing,
    VerdictCounts,
)
from proxywell.telemetry.events import JobNamed, emit, tapped
from proxywell.telemetry.losses import ChunksRescued
from proxywell.telemetry.metrics import METRICS, Meter

Read = dict[tuple[str, frozenset[tuple[str, str]]], float]


def report(**more: object) -> RefreshReport:
    fields = {
        "job_id": "j1",
        "outcome": Outcome.PARTIAL,
        "engine": "celery",
        "candidates": CandidateCounts(120, 100, {"private_address": 7, "poison": 3}, 90),
        "items": ItemCounts(90, 80, 10, {GivenUpWhy.DEADLINE: 9, GivenUpWhy.POISON: 1}),
        "chunks": ChunkCounts(9, 8, 1, rescued=2, split=1, attempts=12, stale_reports=4),
        "verdicts": VerdictCounts(20, 55, 5, by_failure={"reset": 60}),
        "timing_s": Timing(usable=2.5, finalised=61.0, total=61.0),
        "pool": PoolChange(5, 25, 20, 0),
    }
    return RefreshReport(**(fields | more))  # type: ignore[arg-type] # all are the report's own


def read(text: str) -> Read:
    """As Prometheus reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(told: Read, name: str, **labels: str) -> float:
    return told[f"proxywell_{name}", frozenset(labels.items())]


def test_a_report_is_counted_where_prometheus_finds_it() -> None:
    meter = Meter()
    meter.count_report(report(), ended_at_s=1_800_000_000.5)
    told = read(meter.exposition())
    assert value(told, "refresh_jobs_total", engine="celery", outcome="partial") == 1
    assert value(told, "refresh_entries_read_total") == 120
    assert value(told, "refresh_candidates_refused_total", reason="poison") == 3
    assert value(told, "refresh_candidates_checked_total", verdict="not_working") == 55
    assert value(told, "refresh_candidates_given_up_total", why="deadline") == 9
    assert value(told, "refresh_candidates_failed_total", failure="reset") == 60
    assert value(told, "refresh_chunks_total", end="given_up") == 1
    assert value(told, "refresh_chunks_rescued_total") == 2
    assert value(told, "refresh_last_end_timestamp_seconds") == 1_800_000_000.5
    assert value(told, "pool_members") == 25
    assert value(told, "refresh_duration_seconds_sum") == 61
    assert value(told, "refresh_usable_seconds_bucket", le="2.5") == 1, "an end is inclusive"
    assert value(told, "refresh_usable_seconds_bucket", le="1") == 0
    assert value(told, "refresh_duration_seconds_bucket", le="60") == 0
    assert value(told, "refresh_duration_seconds_bucket", le="+Inf") == 1


def test_what_may_come_is_shown_as_nought_before_it_comes() -> None:
    told = read(Meter().exposition())
    assert value(told, "refresh_jobs_total", engine="local", outcome="stalled") == 0
    assert value(told, "refresh_candidates_given_up_total", why="poison") == 0
    assert value(told, "refresh_duration_seconds_count") == 0
    assert ("proxywell_pool_members", frozenset()) not in told, "nobody has looked yet"


def test_every_metric_is_exposed_with_its_kind_and_help() -> None:
    meter = Meter()
    meter.count_report(report(), ended_at_s=1.0)
    families = {one.name: one for one in text_string_to_metric_families(meter.exposition())}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert metric.help.endswith(".")
        assert metric.name.endswith("_total") == (metric.kind == "counter")


def test_what_is_kept_goes_on() -> None:
    first = Meter()
    first.count_report(report(), ended_at_s=10.0)
    second = Meter(first.kept())
    second.count_report(report(), ended_at_s=5.0)
    told = read(second.exposition())
    assert value(told, "refresh_jobs_total", engine="celery", outcome="partial") == 2
    assert value(told, "refresh_duration_seconds_count") == 2
    assert value(told, "refresh_last_end_timestamp_seconds") == 10, "an older job is not the last"


def test_a_job_that_failed_says_nothing_about_the_pool() -> None:
    meter = Meter()
    meter.count_report(report(), ended_at_s=10.0)
    failed = report(outcome=Outcome.FAILED, pool=PoolChange())
    meter.count_report(failed, ended_at_s=20.0)
    told = read(meter.exposition())
    assert value(told, "pool_members") == 25
    assert value(told, "refresh_last_end_timestamp_seconds") == 20
    assert value(told, "refresh_last_success_timestamp_seconds") == 10


def test_every_remark_is_counted_by_its_event_and_only_while_tapped() -> None:
    meter, kept = Meter(), Meter()
    emit(JobNamed(job_id="j1", sources=1))
    with tapped(meter.count_event):
        emit(JobNamed(job_id="j1", sources=1))
        emit(ChunksRescued(job_id="j1", chunks=9))
        emit(ChunksRescued(job_id="j1", chunks=9))
    emit(ChunksRescued(job_id="j1", chunks=9))
    kept.take(meter)
    kept.take(meter)
    told = read(kept.exposition())
    assert value(told, "remarks_total", event="refresh.job_named", level="info") == 1
    assert value(told, "remarks_total", event="refresh.chunks_rescued", level="warning") == 2


def test_remarks_of_many_threads_are_all_counted() -> None:
    meter = Meter()
    event = JobNamed(job_id="j1", sources=1)

    def remark() -> None:
        for _ in range(2_000):
            meter.count_event(event)

    threads = [threading.Thread(target=remark) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = read(meter.exposition())
    assert value(told, "remarks_total", event="refresh.job_named", level="info") == 8_000


@given(
    st.dictionaries(st.text(max_size=8), st.integers(0, 10**12), max_size=4),
    st.floats(0, 1e6) | st.none(),
)
def test_whatever_a_report_names_is_read_back_as_it_was(
    failures: dict[str, int], seconds: float | None
) -> None:
    meter = Meter()
    told = report(verdicts=VerdictCounts(by_failure=failures), timing_s=Timing(finalised=seconds))
    meter.count_report(told, ended_at_s=1.0)
    shown = read(Meter(meter.kept()).exposition())
    for failure, count in failures.items():
        assert value(shown, "refresh_candidates_failed_total", failure=failure) == count
    assert value(shown, "refresh_duration_seconds_sum") == pytest.approx(seconds or 0.0)
