from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxywell.cli.main import program
from proxywell.config.schema import Settings
from proxywell.config.tree import table_of


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{place}_HOME", str(tmp_path / place))
    Path("proxywell.toml").write_text(
        "judges = ['azenv:http://me:hunter2@judge/']\n[refresh]\nmin_count = 3\n", encoding="utf-8"
    )
    monkeypatch.setenv("PROXYWELL_LOG__LEVEL", "warning")


def config(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        program(["config", *arguments])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


def test_show_names_every_setting_with_its_value_and_origin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = config(capsys, "show", "--origin", "--state", "here")
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()[2:]}
    assert status == 0
    assert set(rows) == {*table_of(Settings), "(state"}
    assert rows["refresh.min_count"] == "3 file proxywell.toml"
    assert rows["log.level"] == "warning environment PROXYWELL_LOG__LEVEL"
    assert rows["checking.max_sockets"] == "2000 default"
    assert rows["sources.lists"] == "- default"
    assert rows["(state"].endswith("here flag --state")


def test_show_gives_json_with_and_without_origins(capsys: pytest.CaptureFixture[str]) -> None:
    tree: dict[str, Any] = json.loads(config(capsys, "show", "--output", "json")[1])
    assert msgspec.convert(tree, Settings).refresh.min_count == 3
    table = json.loads(config(capsys, "show", "--origin", "--output", "json")[1])
    assert table["refresh.min_count"] == {"value": 3, "origin": "file proxywell.toml"}
    assert set(table) == set(table_of(Settings))


@pytest.mark.parametrize("form", ["table", "json"])
def test_show_never_shows_credentials(capsys: pytest.CaptureFixture[str], form: str) -> None:
    _, out, _ = config(capsys, "show", "--output", form)
    assert "hunter2" not in out
    assert "azenv:http://***@judge/" in out


def test_check_says_where_settings_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    Path("proxywell.toml").write_text(
        "judges = ['azenv:http://judge.example/']\n[refresh]\nmin_count = 3\n", encoding="utf-8"
    )
    assert config(capsys, "check")[:2] == (
        0, "settings are right: settings file proxywell.toml, 3 given, the rest by default\n"
    )  # fmt: skip


def test_check_says_what_is_wrong_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXYWELL_LOG__LEVEL", "loud")
    assert config(capsys, "check") == (
        2, "", ("proxywell: log.level is 'loud' (environment PROXYWELL_LOG__LEVEL); give one of "
        "debug, error, info, warning\n"),
    )  # fmt: skip


def test_the_schema_knows_every_setting_and_its_range(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(config(capsys, "schema")[1])
    sections = schema["$defs"]
    sockets = sections["CheckingSettings"]["properties"]["max_sockets"]
    assert (sockets["minimum"], sockets["maximum"], sockets["default"]) == (1, 100_000, 2_000)
    assert all(section["additionalProperties"] is False for section in sections.values())
    assert sum(len(section["properties"]) for section in sections.values()) == len(
        table_of(Settings)
    ) + len(sections) - 1  # fmt: skip


def test_a_wrong_subcommand_is_answered_with_the_nearest_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, err = config(capsys, "shw")
    assert status == 2
    assert "did you mean 'show'" in err.lower()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("judges = ['foo:http://x.example/']", "foo"),
        ("[judge]\npublic_keys = ['zzz']", "judge.public_keys"),
        ("[judge]\nca_file = '/nowhere/ca.pem'", "/nowhere/ca.pem"),
        ("[checking]\nsource_address = 'foo'", "checking.source_address"),
    ],
)
def test_check_finds_what_would_only_be_told_when_a_job_starts(
    capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    Path("proxywell.toml").write_text(line + "\n", encoding="utf-8")
    status, out, err = config(capsys, "check")
    assert (status, out) == (2, "")
    assert told in err
