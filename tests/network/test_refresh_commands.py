from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import proxywell.app
from proxywell.cli.main import program
from proxywell.config.schema import RefreshSettings, Settings
from proxywell.refresh.report import Dossier
from proxywell.refresh.run import RefreshRoom
from tests.network.refresh_fakes import FakePool, candidates


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{place}_HOME", str(tmp_path / place))


def job(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        program(["job", *arguments, "--state", "state"])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


@pytest.fixture
def job_id() -> str:
    with RefreshRoom(Path("state"), RefreshSettings(), sink=None) as room:
        return room.create(candidates(150), Dossier())


@contextmanager
def looking_room(
    settings: Settings, state_dir: Path, job_id: str, *, work: bool = True
) -> Iterator[RefreshRoom]:
    with RefreshRoom(state_dir, settings.refresh, sink=FakePool()) as room:
        yield room


def test_list_and_show_of_a_state_without_jobs_make_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert job(capsys, "list", "--output", "json")[:2] == (0, "[]\n")
    status, _, said = job(capsys, "show", "nope")
    assert status == 2
    assert "job list" in said
    assert not Path("state").exists()


def test_list_and_show_give_the_report_object(
    capsys: pytest.CaptureFixture[str], job_id: str
) -> None:
    listed: list[dict[str, Any]] = json.loads(job(capsys, "list", "--output", "json")[1])
    shown: dict[str, Any] = json.loads(job(capsys, "show", job_id, "--output", "json")[1])
    more = {name: shown.pop(name) for name in ("timeline", "losses", "nodes", "silent_s")}
    assert [moment["what"] for moment in more["timeline"]] == ["created"]
    assert listed == [shown]
    assert shown["outcome"] is None
    assert shown["items"]["pending"] == shown["items"]["planned"] == 150
    assert job_id in job(capsys, "list")[1]


def test_a_job_that_is_not_there_names_the_nearest_one(
    capsys: pytest.CaptureFixture[str], job_id: str
) -> None:
    status, out, said = job(capsys, "show", job_id[:-1] + "x")
    assert (status, out) == (2, "")
    assert job_id in said
    assert said.splitlines()[-1].startswith("proxywell: no refresh job")


def test_cancel_closes_the_job_and_the_report_balances(
    capsys: pytest.CaptureFixture[str], job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxywell.app, "job_room", looking_room)
    status, out, _ = job(capsys, "cancel", job_id, "--output", "json")
    report: dict[str, Any] = json.loads(out)
    assert status == 0
    assert report["outcome"] == "cancelled"
    assert report["items"]["given_up_why"]["cancelled"] == 150
    status, again, _ = job(capsys, "wait", job_id, "--output", "json")
    assert (status, json.loads(again)) == (3, report)


def test_a_wait_that_meets_its_bound_leaves_the_job_open(
    capsys: pytest.CaptureFixture[str], job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxywell.app, "job_room", looking_room)
    status, out, _ = job(capsys, "wait", job_id, "--deadline-s", "1", "--output", "json")
    report: dict[str, Any] = json.loads(out)
    assert (status, report["outcome"], report["items"]["pending"]) == (4, "timed_out", 150)
