from __future__ import annotations

import json
import resource
import select
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxywell.cli import doctor_services
from proxywell.cli.doctor import CHECKS, examine, in_words, judges_answer, judges_are_named
from proxywell.cli.findings import Finding, Patient, State
from proxywell.cli.main import program
from proxywell.config.schema import CheckingSettings, JudgeSettings, PoolSettings, Settings


@pytest.fixture(autouse=True)
def no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask a program for its version is to wait for it; tests/services does."""
    monkeypatch.setattr("proxywell.orchestrator.server._candidates", lambda: iter(()))


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Patient]:
    """Who has no Celery engine: what that needs is examined in tests/services."""
    monkeypatch.setattr(doctor_services, "is_installed", lambda: False)

    def with_settings(settings: Settings | None = None, error: str | None = None) -> Patient:
        return Patient(settings or Settings(), error, tmp_path / "state")

    return with_settings


Ward = Callable[..., Patient]


def found(patient: Patient, check: str) -> Finding:
    return next(finding for finding in examine(patient) if finding.check == check)


def test_a_healthy_patient_stays_as_it_is_and_is_told_so(patient: Ward, tmp_path: Path) -> None:
    findings = examine(patient())
    assert {finding.state for finding in findings} <= {State.WELL, State.WEAK}
    assert len(findings) >= len(CHECKS) - 2
    assert not (tmp_path / "state").exists()
    assert in_words(findings).splitlines()[-1].endswith(" 0 failed")


def test_every_trouble_has_a_remedy(patient: Ward) -> None:
    sick = patient(
        Settings(
            judges=("proxywell:https://10.0.0.1/",),
            judge=JudgeSettings(ca_file="/absent.pem"),
            pool=PoolSettings(geo_file="/absent.mmdb"),
            checking=CheckingSettings(max_sockets=100_000),
        )
    )
    (sick.state_dir).write_text("a file", encoding="utf-8")
    troubles = [one for one in examine(sick) if one.state is not State.WELL]
    assert {one.check for one in troubles} >= {
        "judge.ca_file", "pool.geo_file", "state directory", "judges", "judges answer",
    }  # fmt: skip
    assert all(one.remedy for one in troubles)


def test_settings_that_do_not_load_do_not_end_the_examination(patient: Ward) -> None:
    findings = examine(patient(error="log.level is 'loud'"))
    assert findings[0].state is State.FAILED
    assert findings[0].said == "log.level is 'loud'"
    assert len(findings) > 4


def test_a_store_that_is_broken_is_named_and_a_whole_one_is_well(patient: Ward) -> None:
    sick = patient()
    sick.state_dir.mkdir()
    store = sqlite3.connect(sick.state_dir / "pool.sqlite")
    store.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(20000));")
    store.close()
    (sick.state_dir / "ledger.sqlite").write_bytes(b"no store at all, but long enough" * 40)
    assert found(sick, "pool.sqlite").state is State.WELL
    broken = found(sick, "ledger.sqlite")
    assert broken.state is State.FAILED
    assert "ledger.sqlite: file is not a database" in broken.said
    content = bytearray((sick.state_dir / "pool.sqlite").read_bytes())
    content[5_000:] = b""
    (sick.state_dir / "pool.sqlite").write_bytes(content)
    assert found(sick, "pool.sqlite").state is State.FAILED


def test_a_disk_that_is_nearly_full_is_told(patient: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    for free_bytes, state in ((2**40, State.WELL), (2**27, State.WEAK), (2**20, State.FAILED)):
        usage = type("Usage", (), {"free": free_bytes})
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        assert found(patient(), "state directory").state is state


def test_a_file_limit_below_the_sockets_is_weak_with_the_figure_to_set(
    patient: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1_024))
    weak = found(patient(), "file limit")
    assert weak.state is State.WEAK
    assert weak.said == "1,024 files, 2,000 sockets wanted"
    assert "ulimit -n 20" in (weak.remedy or "")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    assert found(patient(), "file limit").state is State.WELL


@pytest.mark.parametrize(
    ("backend", "state"),
    [("auto", State.WEAK), ("selectors", State.WELL), ("epoll", State.FAILED)],
)
def test_without_epoll_it_depends_on_what_was_asked_for(
    patient: Ward, monkeypatch: pytest.MonkeyPatch, backend: str, state: State
) -> None:
    monkeypatch.delattr(select, "epoll")
    settings = Settings(checking=CheckingSettings(backend=backend))  # type: ignore[arg-type]
    assert found(patient(settings), "sockets").state is state


@pytest.mark.parametrize(
    ("judges", "keys", "state"),
    [
        ((), (), State.WEAK),
        (("azenv:http://j/",), (), State.WELL),
        (("proxywell:http://j/",), (), State.WEAK),
        (("proxywell:http://j/",), ("key",), State.WELL),
    ],
)
def test_a_judge_is_named_and_can_be_believed(
    patient: Ward, judges: tuple[str, ...], keys: tuple[str, ...], state: State
) -> None:
    settings = Settings(judges=judges, judge=JudgeSettings(public_keys=keys))
    (finding,) = judges_are_named(patient(settings))
    assert finding.state is state


@pytest.mark.parametrize(
    ("judge", "keys", "said"),
    [
        ("azenf:http://judge.example/", (), "azenv"),
        ("azenv:http://10.0.0.1/", (), "10.0.0.1"),
        ("proxywell:http://judge.example/", ("no key",), "public_keys"),
    ],
)
def test_a_judge_that_cannot_be_used_is_said_before_anybody_is_asked(
    patient: Ward, judge: str, keys: tuple[str, ...], said: str
) -> None:
    settings = Settings(judges=(judge,), judge=JudgeSettings(public_keys=keys))
    (finding,) = judges_answer(patient(settings))
    assert finding.state is State.FAILED
    assert said in finding.said


def test_a_check_that_breaks_is_a_finding_and_hides_no_other(patient: Ward) -> None:
    def broken(_: Patient) -> Iterator[Finding]:
        raise ZeroDivisionError("by zero")

    findings = examine(patient(), (broken, *CHECKS))
    assert findings[0].state is State.FAILED
    assert "ZeroDivisionError: by zero" in findings[0].said
    assert len(findings) == 1 + len(examine(patient()))


@pytest.mark.parametrize(("broken", "status"), [(False, 0), (True, 1)])
def test_the_status_says_whether_something_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: bool, status: int
) -> None:
    state = tmp_path / "state"
    if broken:
        state.write_text("", encoding="utf-8")
    (tmp_path / "own.toml").write_text("", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        program(
            ["doctor", "--config", str(tmp_path / "own.toml"), "--state", str(state),
             "--output", "json"]
        )  # fmt: skip
    assert ended.value.code == status
    findings = json.loads(capsys.readouterr().out)
    assert {"check", "state", "said", "remedy"} == set(findings[0])
