from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.shown import visible
from proxywell.telemetry.events import Event, JobCreated, emit
from proxywell.telemetry.remarks import REPEAT_S, JsonFormatter, NotAgain, TextFormatter, listen


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListTurnedEmpty(Event):
    """{source} turned empty; its last good copy is {age_s:.0f} s old."""

    name = "test.list_turned_empty"
    level = logging.WARNING
    source: str
    age_s: float
    colours: tuple[Colour, ...] = (Colour.RED,)


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("proxywell")
    handlers, level = list(root.handlers), own.level
    yield
    root.handlers[:] = handlers
    own.setLevel(level)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_a_remark_is_one_short_line_with_its_tone(capsys: pytest.CaptureFixture[str]) -> None:
    listen(form="text", level="info")
    emit(ListTurnedEmpty(source="lists/a", age_s=12.4))
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d \[WARNING\] lists/a turned empty; its last good copy is 12 s old\.\n",
        said(capsys),
    )


def test_json_carries_the_event_and_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    listen(form="json", level="info")
    emit(ListTurnedEmpty(source="http://me:hunter2@a/\x1b[31m", age_s=float("inf")))
    text = said(capsys)
    line = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {
        "level": "warning",
        "event": "test.list_turned_empty",
        "text": "http://***@a/\\x1b[31m turned empty; its last good copy is inf s old.",
        "source": "http://***@a/\\x1b[31m",
        "age_s": "inf",
        "colours": ["red"],
    }
    assert "hunter2" not in text


def test_the_level_decides_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    listen(form="text", level="error")
    emit(ListTurnedEmpty(source="a", age_s=1))
    assert said(capsys) == ""
    listen(form="text", level="warning")
    emit(ListTurnedEmpty(source="a", age_s=1))
    assert said(capsys).count("\n") == 1


def test_what_other_libraries_warn_of_is_shown_in_the_same_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listen(form="json", level="info")
    logging.getLogger("somewhere.else").warning("lost %s", "http://u:p@h")
    logging.getLogger("somewhere.else").info("chatter")
    line = json.loads(said(capsys))
    assert (line["event"], line["text"]) == ("somewhere.else", "lost http://***@h")


@pytest.mark.parametrize(("tracebacks", "lines"), [(False, 1), (True, 4)])
def test_a_traceback_is_only_shown_when_asked_for(
    capsys: pytest.CaptureFixture[str], tracebacks: bool, lines: int
) -> None:
    listen(form="text", level="info", tracebacks=tracebacks)
    try:
        int("at\nhttp://u:p@h")
    except ValueError:
        logging.getLogger("proxywell").exception("it broke")
    text = said(capsys)
    assert ("Traceback" in text) == tracebacks
    assert "u:p" not in text
    assert text.count("\n") >= lines


def test_a_stderr_that_is_gone_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _text: str) -> None:
            raise BrokenPipeError

    listen(form="text", level="info")
    monkeypatch.setattr("sys.stderr", Gone())
    emit(ListTurnedEmpty(source="a", age_s=1))


@given(source=st.text(), formatter=st.sampled_from([TextFormatter(), JsonFormatter()]))
def test_one_remark_is_one_line_whatever_a_list_calls_itself(
    source: str, formatter: logging.Formatter
) -> None:
    record = logging.LogRecord("proxywell", logging.INFO, "", 0, "%s", ("x",), None)
    record.event = ListTurnedEmpty(source=source, age_s=0)
    line = formatter.format(record)
    assert visible(line) == line


def test_the_same_warning_is_said_once_to_a_person_and_each_time_to_a_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for form, times in (("text", 2), ("json", 4)):
        listen(form=form, level="info")
        for source in "aaab":
            emit(ListTurnedEmpty(source=source, age_s=1))
        assert said(capsys).count("turned empty") == times


def test_a_warning_is_said_again_after_a_while() -> None:
    once = NotAgain()
    record = logging.makeLogRecord({"msg": "full", "levelno": logging.WARNING, "created": 100.0})
    assert [once.filter(record), once.filter(record)] == [True, False]
    record.created += REPEAT_S
    assert once.filter(record)


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (1, "Refresh job j: 1 candidate in 1 chunk; over within 9 s."),
        (2, "Refresh job j: 2 candidates in 2 chunks; over within 9 s."),
    ],
)
def test_what_is_counted_has_the_right_number(count: int, sentence: str) -> None:
    created = JobCreated(job_id="j", items=count, chunks=count, bound_s=9.0)
    assert created.sentence() == sentence
