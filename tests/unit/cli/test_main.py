"""The frame of the command line: statuses, sentences, flags that win over settings."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rich_click as click

from proxywell.cli import main as frame
from proxywell.cli.commands import COMMANDS
from proxywell.cli.exit_codes import exit_status
from proxywell.cli.main import program
from proxywell.cli.options import (
    Output,
    loaded_option,
    output_option,
    setting_flag,
    settings_option,
)
from proxywell.config.loader import Loaded
from proxywell.config.schema import Settings
from proxywell.errors import NoJudgeError, StateError
from proxywell.model.report import ItemCounts, Outcome, RefreshReport


@click.command()
@setting_flag("--max-sockets", "checking.max_sockets")
@setting_flag("--judge", "judges", metavar="KIND:URL")
@setting_flag("--allow-private", "network.allow_private")
@output_option(Output.TABLE, Output.JSON)
@settings_option
def probe(settings: Settings, state_dir: Path, output: Output) -> None:
    """Print what a command receives."""
    click.echo(
        json.dumps(
            {
                "sockets": settings.checking.max_sockets,
                "judges": settings.judges,
                "private": settings.network.allow_private,
                "state": str(state_dir),
                "ready": state_dir.is_dir(),
                "output": output.value,
            }
        )
    )


@click.command()
@setting_flag("--max-sockets", "checking.max_sockets")
@loaded_option
def looker(loaded: Loaded, state_dir: Path) -> None:
    """Print where a setting came from, and leave the state alone."""
    click.echo(f"{loaded.origins['checking.max_sockets']} {state_dir.exists()}")


def failing(error: BaseException) -> click.Command:
    @click.command()
    def fail() -> None:
        raise error

    return fail


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{place}_HOME", str(tmp_path / place))
    commands = {"probe": probe, "looker": looker}
    load_command = frame.load_command
    monkeypatch.setattr(frame, "COMMANDS", {**COMMANDS, **dict.fromkeys(commands, ("", "", ""))})
    monkeypatch.setattr(
        frame, "load_command", lambda name: commands.get(name) or load_command(name)
    )


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            program(list(arguments))
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return call


def test_a_command_receives_its_settings_and_a_state_directory_that_is_ready(
    run: Run, tmp_path: Path
) -> None:
    status, out, _ = run("probe")
    assert status == 0
    assert json.loads(out) == {
        "sockets": 2000, "judges": [], "private": False, "ready": True, "output": "table",
        "state": str(tmp_path / "STATE" / "proxywell"),
    }  # fmt: skip


def test_flags_win_over_environment_and_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own.toml").write_text(
        "judges = ['ip:http://a/']\n[checking]\nmax_sockets = 5\n", encoding="utf-8"
    )
    _, out, _ = run("probe", "--config", "own.toml", "--state", "here")
    assert json.loads(out)["sockets"] == 5
    assert json.loads(out)["judges"] == ["ip:http://a/"]
    monkeypatch.setenv("PROXYWELL_CHECKING__MAX_SOCKETS", "6")
    monkeypatch.setenv("PROXYWELL_NETWORK__ALLOW_PRIVATE", "true")
    _, out, _ = run("probe", "--config", "own.toml")
    assert (json.loads(out)["sockets"], json.loads(out)["private"]) == (6, True)
    _, out, _ = run(
        "probe", "--config", "own.toml", "--max-sockets", "7", "--judge", "ip:http://b/,c",
        "--judge", "ip:http://d/", "--allow-private", "--output", "json",
    )  # fmt: skip
    found = json.loads(out)
    assert (found["sockets"], found["output"]) == (7, "json")
    assert found["judges"] == ["ip:http://b/,c", "ip:http://d/"]


def test_a_flag_out_of_range_is_said_like_any_setting(run: Run) -> None:
    for wrong in ("0", "many"):
        status, out, err = run("probe", "--max-sockets", wrong)
        assert (status, out) == (2, "")
        assert err.startswith("proxywell: checking.max_sockets is ")
        assert err.endswith("(flag --max-sockets); give a whole number from 1 to 100000\n")


def test_a_command_that_only_looks_leaves_no_state_behind(run: Run, tmp_path: Path) -> None:
    assert run("looker", "--max-sockets", "9") == (0, "flag --max-sockets False\n", "")
    assert not (tmp_path / "STATE").exists()


def test_check_stores_nothing_so_it_needs_no_state_directory(run: Run, tmp_path: Path) -> None:
    status, _, err = run("check", "absent.txt", "--state", str(tmp_path / "state"))
    assert status == 2
    assert "absent.txt" in err
    assert not (tmp_path / "state").exists()


LOOKING = [
    ["list"], ["random"], ["explain", "1.2.3.4:80"], ["export"], ["backup", "copy"],
    ["job", "list"], ["job", "show", "j"], ["job", "wait", "j"], ["sources", "yields"],
]  # fmt: skip


@pytest.mark.parametrize("command", LOOKING)
def test_a_state_directory_that_is_a_file_is_said_in_our_words(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for place in ("file", "file/below"):
        status, out, err = run(*command, "--state", str(tmp_path / place))
        assert (status, out) == (1, "")
        assert f"state directory {tmp_path / place} " in err
        assert err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
@pytest.mark.parametrize("command", LOOKING)
def test_a_state_directory_that_may_not_be_read_is_said_in_our_words(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "closed").mkdir(mode=0o000)
    for place in ("closed", "closed/below"):
        status, out, err = run(*command, "--state", str(tmp_path / place))
        assert (status, out) == (1, "")
        assert f"state directory {tmp_path / place} cannot be " in err
        assert err.count("\n") == 1


def test_no_job_yet_is_said_on_stderr(run: Run) -> None:
    status, out, err = run("job", "list")
    assert (status, out) == (0, "")
    assert err == "proxywell: there is no refresh job yet; run: proxywell refresh\n"
    assert run("job", "list", "--output", "json")[1] == "[]\n"


def test_the_help_of_a_flag_comes_from_the_setting(run: Run) -> None:
    status, out, _ = run("probe", "--help")
    assert status == 0
    assert "Most sockets open at one time" in out
    assert "KIND:URL" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rfresh"], "no command 'rfresh'; did you mean refresh? (proxywell --help)"),
        (["zzz"], "no command 'zzz' (proxywell --help)"),
        (["probe", "--max-socket", "1"], "no such option '--max-socket'"),
        (["probe", "extra"], "unexpected extra argument"),
        (["probe", "--output", "xml"], "'xml' is not one of"),
        (["probe", "--config", "absent.toml"], "settings file absent.toml is not there"),
        (["refresh", "--deadline-s", "nan"], "nan is no number of seconds"),
        (["refresh", "--deadline-s", "inf"], "inf is no number of seconds"),
        (["demo", "--profile", "nosuch"], "no lab profile 'nosuch'"),
        (["check", "x", "--template", "{{proxy}}", "--output", "csv"], "--output csv asks for"),
        (["check", "x", "--template", "proxy"], "no field in 'proxy'"),
        (["job", "wait", "a", "--deadline-s", "0.5"], "0.5 is not in the range x>=1"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(run: Run, arguments: list[str], said: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (StateError("state directory /x is full"), 1, "proxywell: state directory /x is full\n"),
        (NoJudgeError("no judge\x1b[31m at http://u:p@j"), 1,
         "proxywell: no judge\\x1b[31m at http://***@j\n"),
        (OSError(28, "No space left on device", "/x"), 1,
         "proxywell: No space left on device: /x\n"),
        (ExceptionGroup("", [ValueError("v"), ExceptionGroup("", [StateError("inner")])]), 1,
         "proxywell: inner\n"),
        (BaseExceptionGroup("", [StateError("s"), KeyboardInterrupt()]), 130, ""),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("by zero"), 1, ("proxywell: a bug of ours, ZeroDivisionError: by zero; "
         "--debug shows where, please report it\n")),
        (SystemExit(3), 3, ""),
        (SystemExit(None), 0, ""),
    ],
)  # fmt: skip
def test_an_error_is_a_sentence_and_a_status_and_a_traceback_only_for_debug(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    monkeypatch.setattr(frame, "load_command", lambda _: failing(error))
    assert (ended := run("probe"))[0] == status
    assert ended[2].strip("\n") == said.strip("\n")
    for arguments in (["--debug", "probe"], ["probe", "--debug"]):
        debugged, _, err = run(*arguments)
        assert debugged == status
        assert ("Traceback" in err) == (not isinstance(error, SystemExit))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_stdout_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # what could not be written is tried again when the file is closed
    with contextlib.suppress(OSError), Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        for arguments in (["config", "show"], ["job", "list", "--output", "json"], ["--help"]):
            status, _, err = run(*arguments)
            assert status == 1
            assert err.endswith("proxywell: No space left on device: standard output\n")


def test_debug_behind_a_double_dash_is_an_argument_like_any_other() -> None:
    assert frame._debug_first(["a", "--", "--debug"]) == (["a", "--", "--debug"], False)
    assert frame._debug_first(["a", "--debug", "--", "b"]) == (["--debug", "a", "--", "b"], True)


def report(outcome: Outcome | None, checked: int) -> RefreshReport:
    return RefreshReport(job_id="j", outcome=outcome, items=ItemCounts(checked=checked))


@pytest.mark.parametrize(
    ("outcome", "nothing", "something"),
    [
        (Outcome.COMPLETE, 0, 0), (Outcome.USABLE, 0, 0), (Outcome.PARTIAL, 3, 3),
        (Outcome.STALLED, 4, 3), (Outcome.TIMED_OUT, 4, 3), (Outcome.CANCELLED, 3, 3),
        (Outcome.FAILED, 1, 1), (None, 0, 0),
    ],
)  # fmt: skip
def test_every_outcome_has_its_documented_status(
    outcome: Outcome | None, nothing: int, something: int
) -> None:
    assert exit_status(report(outcome, 0)) == nothing
    assert exit_status(report(outcome, 1)) == something
