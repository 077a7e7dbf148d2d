from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from proxywell.cli import doctor_services
from proxywell.cli.doctor_services import (
    CHECKS,
    celery_engine_can_run,
    redis_in_words,
    work_in_words,
)
from proxywell.cli.findings import Finding, Patient, State
from proxywell.config.schema import RedisSettings, Settings
from proxywell.config.secret import Secret
from proxywell.orchestrator.survey import OpenJob, ServerFacts, Survey

SOUND = ServerFacts(
    name="Valkey", version="9.1.2", speaks=(7, 2, 4), mode="standalone", role="master",
    policy="noeviction", memory_used_bytes=2**20, memory_max_bytes=2**30, keeps_writes=True,
    save_trouble=None,
)  # fmt: skip
JOB = OpenJob(
    job_id="job-1", age_s=90.0, unwatched_s=0.2, ready=3, running=2, beat_s=1.0, closed=False
)
WELL = Survey(answer_ms=0.2, server=SOUND, versions={"a/1:2:3:1.0-ab": "1.0"}, jobs=(), jobs_open=0)


def of_server(**changes: Any) -> list[Finding]:
    survey = structs.replace(WELL, server=structs.replace(SOUND, **changes))
    return list(redis_in_words("redis://h:1/0", survey))


def of_work(**changes: Any) -> list[Finding]:
    return list(work_in_words(structs.replace(WELL, **changes), "1.0"))


def troubles(findings: list[Finding]) -> dict[str, State]:
    found = [one for one in findings if one.state is not State.WELL]
    assert all(one.remedy for one in found)
    return {one.check: one.state for one in found}


def test_a_sound_server_has_no_trouble() -> None:
    findings = of_server()
    assert troubles(findings) == {}
    assert findings[0].said == "Valkey 9.1.2 at redis://h:1/0, 0 ms an answer"


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({"speaks": (4, 0, 14), "version": "4.0.14"}, "redis version", State.WEAK),
        ({"mode": "cluster"}, "redis mode", State.FAILED),
        ({"role": "slave"}, "redis role", State.WEAK),
        ({"policy": "allkeys-lru"}, "redis policy", State.WEAK),
        ({"policy": "volatile-ttl", "memory_max_bytes": 0}, "redis policy", State.WEAK),
        ({"keeps_writes": False}, "redis disk", State.WEAK),
        ({"save_trouble": "its last snapshot failed"}, "redis disk", State.FAILED),
        ({"memory_used_bytes": 2**30 - 1}, "redis memory", State.WEAK),
    ],
)
def test_what_is_wrong_with_a_server_is_named_alone(
    changes: dict[str, Any], check: str, state: State
) -> None:
    assert troubles(of_server(**changes)) == {check: state}


def test_no_limit_no_policy_and_no_known_version_are_no_trouble() -> None:
    assert troubles(of_server(memory_max_bytes=0, policy=None, speaks=())) == {}


def test_a_server_that_does_not_let_us_ask_is_said_to_work() -> None:
    (finding,) = redis_in_words("redis://h:1/0", structs.replace(WELL, server=None))
    assert finding.state is State.WEAK
    assert "+info" in str(finding.remedy)


def test_a_server_far_away_is_told() -> None:
    findings = list(redis_in_words("redis://h:1/0", structs.replace(WELL, answer_ms=120.0)))
    assert troubles(findings) == {"redis": State.WEAK}


def test_workers_are_counted_by_version() -> None:
    (finding,) = of_work(versions={"a": "1.0", "b": "1.0", "c": None})
    assert finding.said == "2 of 1.0, 1 of an unknown version"
    assert finding.state is State.WELL


def test_a_worker_of_another_version_is_named_with_its_host() -> None:
    (finding,) = of_work(versions={"here/1:2:3:x": "1.0", "there/9:8:7:y": "0.9"})
    assert finding.state is State.WEAK
    assert finding.said == "1 of 0.9, 1 of 1.0; this is 1.0"
    assert str(finding.remedy).endswith("another one: there")


def test_no_worker_is_a_trouble_only_where_chunks_wait() -> None:
    assert troubles(of_work(versions={})) == {}
    assert troubles(of_work(versions={}, jobs=(JOB,), jobs_open=1)) == {"workers": State.WEAK}


def test_the_oldest_job_and_the_oldest_beat_are_told() -> None:
    late = structs.replace(JOB, job_id="job-2", age_s=10.0, beat_s=3.0)
    _, finding = of_work(jobs=(JOB, late), jobs_open=9)
    assert finding.state is State.WELL
    assert finding.said == (
        "9; oldest job-1, 90 s old, 3 chunks ready, 2 running, oldest beat 3 s ago"
    )


def test_a_job_that_nobody_waits_for_and_workers_that_are_silent_are_told() -> None:
    left = structs.replace(JOB, unwatched_s=7_300.0)
    _, finding = of_work(jobs=(left,), jobs_open=1)
    assert finding.state is State.WEAK
    assert "nobody has waited for it for 2 h" in finding.said
    assert "`proxywell job wait job-1`" in str(finding.remedy)
    _, finding = of_work(jobs=(structs.replace(JOB, beat_s=61.0),), jobs_open=1)
    assert finding.state is State.WEAK
    assert "silent" in str(finding.remedy)


@pytest.mark.parametrize(
    ("url", "state"), [(None, State.WELL), ("redis://127.0.0.1", State.FAILED)]
)
def test_without_the_extra_only_who_wants_a_redis_is_in_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None, state: State
) -> None:
    monkeypatch.setattr(doctor_services, "is_installed", lambda: False)
    redis = RedisSettings(url=None if url is None else Secret(url))
    patient = Patient(Settings(redis=redis), None, tmp_path)
    (finding,) = [one for check in CHECKS for one in check(patient)]
    assert finding.state is state
    assert finding.check == "celery engine"
    assert list(celery_engine_can_run(patient)) == [finding]
