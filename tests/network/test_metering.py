"""Figures for Prometheus: each job once, whoever counts and whatever was killed before."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxywell.app.metering import metered
from proxywell.config.schema import MetricsSettings, Settings
from proxywell.errors import SettingsError, StateError
from proxywell.refresh.metering import settle
from proxywell.refresh.report import Dossier
from proxywell.telemetry.events import JobNamed, MetricsNotWritten, emit
from proxywell.telemetry.metrics import Meter
from tests.network.refresh_fakes import FakePool, candidates
from tests.network.test_refresh_run import room


def ended_job(state: Path, count: int = 40) -> None:
    with room(state, FakePool()) as refresh:
        refresh.wait_for(refresh.create(candidates(count), Dossier()))


def figures(textfile: Path) -> dict[str, float]:
    """Values by name, with the labels' values behind it."""
    return {
        " ".join([sample.name.removeprefix("proxywell_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(textfile.read_text(encoding="utf-8"))
        for sample in family.samples
    }


def count(state: Path, textfile: Path) -> dict[str, float]:
    with room(state, FakePool()) as looking:
        settle(looking, state, Meter(), textfile)
    return figures(textfile)


def test_a_job_is_counted_once_however_often_it_is_counted(tmp_path: Path) -> None:
    textfile = tmp_path / "proxywell.prom"
    ended_job(tmp_path)
    for _ in range(2):
        told = count(tmp_path, textfile)
        assert told["refresh_jobs_total local complete"] == 1
        assert told["refresh_candidates_checked_total working"] == 2
        assert told["refresh_chunk_attempts_total"] == told["refresh_chunks_total done"]
    ended_job(tmp_path)
    assert count(tmp_path, textfile)["refresh_jobs_total local complete"] == 2
    assert [one.name for one in tmp_path.glob("*.prom*")] == ["proxywell.prom"]
    assert textfile.stat().st_mode & 0o777 == 0o644


def test_a_job_that_still_runs_is_not_counted(tmp_path: Path) -> None:
    with room(tmp_path, FakePool()) as refresh:
        job_id = refresh.create(candidates(40), Dossier())
        settle(refresh, tmp_path, Meter(), tmp_path / "m.prom")
        assert figures(tmp_path / "m.prom")["refresh_jobs_total local complete"] == 0
        refresh.wait_for(job_id)
        settle(refresh, tmp_path, Meter(), tmp_path / "m.prom")
    assert figures(tmp_path / "m.prom")["refresh_jobs_total local complete"] == 1


def test_two_that_count_at_one_time_count_once(tmp_path: Path) -> None:
    for _ in range(3):
        ended_job(tmp_path, 20)
    both = threading.Barrier(2)

    def one() -> None:
        both.wait()
        count(tmp_path, tmp_path / "m.prom")

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert figures(tmp_path / "m.prom")["refresh_jobs_total local complete"] == 3


def test_remarks_add_up_over_commands_and_a_failure_of_ours_is_none_of_the_jobs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    settings = Settings(metrics=MetricsSettings(textfile=str(place / "m.prom")))
    for _ in range(2):
        with metered(settings, tmp_path):
            emit(JobNamed(job_id="j1", sources=1))
    assert figures(place / "m.prom")["remarks_total refresh.job_named info"] == 2
    with pytest.raises(StateError, match="of the job's own"):
        fail_without_a_place(settings, tmp_path, place)
    events = [getattr(record, "event", None) for record in caplog.records]
    (said,) = [event for event in events if isinstance(event, MetricsNotWritten)]
    assert "No such file" in said.reason


def fail_without_a_place(settings: Settings, state: Path, place: Path) -> None:
    with metered(settings, state):
        (place / "m.prom").unlink()
        place.rmdir()
        raise StateError("of the job's own")


def test_what_was_not_written_is_not_lost(tmp_path: Path) -> None:
    ended_job(tmp_path)
    with pytest.raises(StateError, match="cannot be written"):
        count(tmp_path, tmp_path / "none" / "m.prom")
    assert count(tmp_path, tmp_path / "m.prom")["refresh_jobs_total local complete"] == 1


@pytest.mark.parametrize(
    ("named", "said"), [("m.txt", "does not end in .prom"), ("none/m.prom", "no directory")]
)
def test_a_file_that_nobody_would_read_is_refused_before_the_work(
    tmp_path: Path, named: str, said: str
) -> None:
    settings = Settings(metrics=MetricsSettings(textfile=str(tmp_path / named)))
    with pytest.raises(SettingsError, match=said), metered(settings, tmp_path):
        pytest.fail("the work began")
