from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from proxywell.cli import output
from proxywell.cli.options import Output
from proxywell.cli.output import Rows, json_text, show_object, template_line
from proxywell.errors import UsageError
from proxywell.model.endpoint import Protocol


class Shown(Struct):
    proxy: str
    protocol: Protocol | None = None
    latency_ms: float | None = None
    https: bool | None = None
    exits: tuple[str, ...] = ()
    seen_at: datetime | None = None


FULL = Shown(
    "socks5://1.2.3.4:1080",
    Protocol.SOCKS5,
    123.456,
    True,
    ("1.2.3.4", "2001:db8::1"),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
COLUMNS = tuple(Shown.__struct_fields__)
FORMS = list(Output)
hostile = st.text(
    st.one_of(
        st.sampled_from("\x1b\x07\x9b\x7f\r\n\t\x00\u202e\u2066=+-@'\",;"),
        st.characters(exclude_categories=["Cs"]),
    )
)


def printed(rows: list[Shown], form: Output, columns: tuple[str, ...] = COLUMNS) -> str:
    out = io.StringIO()
    with Rows(form, columns, line=lambda row: row.proxy, out=out) as printer:
        for row in rows:
            printer.row(row)
    return out.getvalue()


GOLDEN = {
    Output.CSV: (
        "proxy,protocol,latency_ms,https,exits,seen_at\n"
        'socks5://1.2.3.4:1080,socks5,123.456,true,"1.2.3.4,2001:db8::1",2026-01-02T03:04:05Z\n'
        "'=cmd(),,,,,\n"
    ),
    Output.TXT: "socks5://1.2.3.4:1080\n=cmd()\n",
    Output.JSONL: (
        '{"proxy":"socks5://1.2.3.4:1080","protocol":"socks5","latency_ms":123.456,"https":true,'
        '"exits":["1.2.3.4","2001:db8::1"],"seen_at":"2026-01-02T03:04:05Z"}\n'
        '{"proxy":"=cmd()","protocol":null,"latency_ms":null,"https":null,"exits":[],"seen_at":null}\n'
    ),
}


@pytest.mark.parametrize("form", [Output.CSV, Output.TXT, Output.JSONL])
def test_each_form_has_its_exact_text(form: Output) -> None:
    assert printed([FULL, Shown("=cmd()")], form) == GOLDEN[form]


def test_a_table_lines_up_and_shows_what_is_not_known_as_a_dash() -> None:
    lines = printed([FULL, Shown("1.2.3.4:80")], Output.TABLE).splitlines()
    assert lines[0].split("  ")[0] == "proxy"
    assert len({len(line) for line in lines if line.strip()}) == 1
    assert "123" in lines[2]
    assert "yes" in lines[2]
    assert lines[3].split() == ["1.2.3.4:80", "-", "-", "-", "-", "-"]


@pytest.mark.parametrize("rows", [[], [FULL], [FULL, FULL]])
def test_json_is_one_array_however_many_rows_there_are(rows: list[Shown]) -> None:
    assert [row["proxy"] for row in json.loads(printed(rows, Output.JSON))] == [
        row.proxy for row in rows
    ]


def test_json_stays_whole_when_the_rows_break_off() -> None:
    out = io.StringIO()

    def interrupted() -> None:
        with Rows(Output.JSON, COLUMNS, out=out) as printer:
            printer.row(FULL)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(json.loads(out.getvalue())) == 1


@given(text=hostile, form=st.sampled_from(FORMS))
def test_no_form_lets_a_control_character_through(text: str, form: Output) -> None:
    shown = printed([Shown(text)], form)
    layout = {"\n"}
    assert all(unicodedata.category(one) != "Cc" or one in layout for one in shown)
    assert not set("\u202e\u2066\u2028") & set(shown)


@given(hostile)
def test_json_says_the_same_text_that_went_in(text: str) -> None:
    assert json.loads(json_text(Shown(text)))["proxy"] == text
    assert json.loads(json_text([Shown(text)], indent=2))[0]["proxy"] == text


def opens_as_formula(text: str) -> bool:
    return text[:1] in {"=", "+", "-", "@", "\t", "\r"}


@given(hostile)
def test_no_text_of_a_list_becomes_a_formula(text: str) -> None:
    _, row = csv.reader(io.StringIO(printed([Shown(text)], Output.CSV, ("proxy", "https"))))
    assert not opens_as_formula(row[0])


def test_the_formula_property_sees_a_cell_that_is_not_guarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "_csv_cell", str)
    _, row = csv.reader(io.StringIO(printed([Shown("=1+1")], Output.CSV, ("proxy", "https"))))
    assert opens_as_formula(row[0])


def test_a_number_below_zero_is_no_formula() -> None:
    text = printed([Shown("x", latency_ms=-1.5)], Output.CSV, ("latency_ms",))
    assert text.splitlines()[1] == "-1.5"


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{proxy}} {{protocol}} {{latency_ms}}", "socks5://1.2.3.4:1080 socks5 123.456"),
        ("{{ proxy }}", "socks5://1.2.3.4:1080"),
        ("{{exits}}|{{https}}|{{seen_at}}", "1.2.3.4,2001:db8::1|true|2026-01-02T03:04:05Z"),
        ("{proxy} %s {0} $HOME {{https}}", "{proxy} %s {0} $HOME true"),
    ],
)
def test_a_template_fills_in_fields_and_nothing_else(template: str, line: str) -> None:
    assert template_line(template, COLUMNS)(FULL) == line


def test_a_value_that_looks_like_a_template_is_not_filled_in_again() -> None:
    assert template_line("{{proxy}}", COLUMNS)(Shown("{{exits}}")) == "{{exits}}"


def test_an_unknown_field_in_a_template_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="no field 'latency'; did you mean latency_ms") as caught:
        template_line("{{latency}}", COLUMNS)
    assert caught.value.exit_status == 2


def words(thing: Shown) -> str:
    return f"first\n\x1b[31m{thing.proxy}"


@pytest.mark.parametrize(
    ("form", "check"),
    [
        (Output.TABLE, lambda text: text == "first\n\\x1b[31msocks5://1.2.3.4:1080\n"),
        (Output.JSON, lambda text: json.loads(text)["protocol"] == "socks5"),
    ],
)
def test_an_object_is_shown_in_words_or_as_json(
    form: Output, check: Callable[[str], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    show_object(FULL, form, words)
    assert check(capsys.readouterr().out)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


MEMBER: dict[str, object] = {
    "proxy": "socks4a://203.113.187.145:65535",
    "anonymity": "transparent",
    "exit_ip": "203.113.187.146",
    "country": None,
    "https": True,
    "protocols": ("socks4", "socks4a", "socks5"),
    "latency_ms": 1234.5,
}


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (70, ["proxy", "anonymity", "exit", "ip", "ms"]),
        (80, ["proxy", "anonymity", "exit", "ip", "ms"]),
        (100, ["proxy", "anonymity", "exit", "ip", "protocols", "ms"]),
        (160, ["proxy", "anonymity", "exit", "ip", "https", "protocols", "ms"]),
    ],
)
def test_a_narrow_terminal_loses_columns_and_never_folds_what_people_copy(
    width: int, header: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with Rows(Output.TABLE, tuple(MEMBER), spare=("https", "protocols"), out=out) as printer:
        printer.row(MEMBER)
    lines = out.getvalue().splitlines()
    assert lines[0].split() == header
    assert "socks4a://203.113.187.145:65535" in lines[2]
    assert "203.113.187.146" in lines[2]
    if width >= 80:
        assert len(lines) == 3
        assert max(len(line) for line in lines) <= width


def test_a_column_that_is_known_of_no_row_can_be_left_out() -> None:
    assert "country" not in printed_table([MEMBER])
    assert "country" in printed_table([MEMBER, MEMBER | {"country": "DE"}])


def printed_table(rows: list[dict[str, object]]) -> str:
    out = io.StringIO()
    with Rows(Output.TABLE, tuple(MEMBER), out=out) as printer:
        for row in rows:
            printer.row(row)
    return out.getvalue()


def test_a_template_without_a_field_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no field in '\{proxy\}'") as caught:
        template_line("{proxy}", COLUMNS)
    assert caught.value.exit_status == 2
