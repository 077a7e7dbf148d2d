from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.endpoint import Protocol
from proxywell.sources.errors import BrokenListError, SourceLimitError
from proxywell.sources.grammar import HINT_BITS, Entry, Malformed
from proxywell.sources.html_lists import HTML_MAX_BYTES
from proxywell.sources.parse import LINE_MAX_BYTES, Form, ListParser
from tests.unit.protocols.planted import finds_a_counterexample

HTTP, CONNECT, SOCKS4, SOCKS4A, SOCKS5 = (HINT_BITS[protocol] for protocol in Protocol)


def parse(data: bytes, *, block: int = 1 << 16, **limits: int) -> list[Entry | Malformed]:
    parser = ListParser(**limits)
    items: list[Entry | Malformed] = []
    for at in range(0, len(data), block):
        items += parser.feed(data[at : at + block])
    return items + list(parser.finish())


def places(data: bytes) -> list[str | None]:
    return [f"{item.host}:{item.port}" if isinstance(item, Entry) else None for item in parse(data)]


def form(data: bytes) -> Form:
    parser = ListParser()
    list(parser.feed(data))
    list(parser.finish())
    return parser.form


def test_blank_lines_and_comments_are_no_entries() -> None:
    assert places(b"\n# a comment\n \t\n  # another\n1.2.3.4:80\n\n") == ["1.2.3.4:80"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_three_line_ends_are_understood(end: bytes) -> None:
    assert places(end.join([b"1.2.3.4:80", b"", b"1.2.3.5:80"])) == ["1.2.3.4:80", "1.2.3.5:80"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_understood(encoding: str) -> None:
    text = "1.2.3.4:80\r\n1.2.3.5:81:Việt Nam\r\n"
    assert places(text.encode(encoding)) == ["1.2.3.4:80", "1.2.3.5:81"]
    assert places(codecs.BOM_UTF16_BE + text.encode("utf-16-be")) == ["1.2.3.4:80", "1.2.3.5:81"]


def test_a_stray_nul_spoils_its_line_alone() -> None:
    text = b"1.2.3.4:80\n1.2.3.5:80\x00\n" + b"1.2.3.6:80\n" * 5
    assert places(text)[:3] == ["1.2.3.4:80", None, "1.2.3.6:80"]


def test_a_second_line_smuggled_into_an_entry_is_a_line_of_its_own() -> None:
    assert places(b"1.2.3.4:80\r\nX-Header: y\n") == ["1.2.3.4:80", None]


@pytest.mark.parametrize(
    "junk",
    [
        random.Random(1).randbytes(3_000),
        gzip.compress(b"1.2.3.4:80\n" * 100),
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        bytes(5_000),
        "1.2.3.4:80\n".encode("utf-16-le"),
    ],
)
def test_binary_junk_is_one_clear_error(junk: bytes) -> None:
    with pytest.raises(BrokenListError, match="binary data"):
        parse(junk)


def test_an_empty_list_has_no_entries() -> None:
    for nothing in (b"", b"\n\n", b"  ", b"# nothing\n", b"[]", b'{"data": []}', codecs.BOM_UTF8):
        if nothing == b'{"data": []}':
            with pytest.raises(BrokenListError, match="no list"):
                parse(nothing)
        else:
            assert parse(nothing) == []


def test_a_line_beyond_the_limit_is_one_malformed_entry_and_the_next_is_read() -> None:
    parser = ListParser()
    got: list[Entry | Malformed] = []
    got += parser.feed(b"1.2.3.4:80\n")
    for _ in range(64):
        got += parser.feed(b"1.2.3.4:80," * 3_000)
        assert len(parser._line) <= LINE_MAX_BYTES  # the rest is dropped as it comes
    got += parser.feed(b"\n1.2.3.5:80\n")
    got += parser.finish()
    assert [type(item) for item in got] == [Entry, Malformed, Entry]
    assert parser.long_lines == 1


@pytest.mark.parametrize("block", [1_000, 1 << 16])
def test_blanks_around_an_entry_are_no_part_of_it_however_many(block: int) -> None:
    blanks = b" " * (LINE_MAX_BYTES + 5)
    items = parse(blanks + b"1.2.3.4:80\n" + blanks + b"\n1.2.3.5:80" + blanks, block=block)
    assert [type(item) for item in items] == [Entry, Malformed]


def test_an_endless_comment_is_still_a_comment() -> None:
    assert places(b"#" + b"x" * 100_000 + b"\n1.2.3.4:80\n") == ["1.2.3.4:80"]


CSV = """IP Address,Port,Protocols,Country,Https,User,Password
1.2.3.4,80,"HTTP, SOCKS5",Viet Nam,no,,
1.2.3.5,81,socks4,,yes,joe,secret
"2606:4700::1111",1080,SOCKS5,,,,
1.2.3.6,none,http,,,,
"""


def test_a_header_names_the_columns_and_is_no_entry() -> None:
    assert parse(CSV.encode()) == [
        Entry("1.2.3.4", 80, HTTP | SOCKS5),
        Entry("1.2.3.5", 81, SOCKS4 | CONNECT, "joe", "secret"),
        Entry("2606:4700::1111", 1080, SOCKS5),
        Malformed("1.2.3.6,none,http,,,,"),
    ]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_header_may_use_other_separators_and_any_order(separator: str) -> None:
    rows = [["country", "PORT", "type", "ip"], ["US", "80", "https", "1.2.3.4"]]
    assert parse("\n".join(separator.join(row) for row in rows).encode()) == [
        Entry("1.2.3.4", 80, CONNECT)
    ]


def test_prose_above_a_list_is_malformed_entries() -> None:
    assert places(b"Free proxies, updated hourly\n\n1.2.3.4:80\n") == [None, "1.2.3.4:80"]


OBJECTS: list[dict[str, object]] = [
    {"ip": "1.2.3.4", "port": 80, "protocol": "http"},
    {"host": "1.2.3.5", "port": "1080", "protocols": ["socks4", "SOCKS5"], "more": {"deep": [1]}},
    {"IP_Address": "1.2.3.6", "Port": 8080, "type": "https"},
    {"address": "2606:4700::1111", "port": 80, "username": None, "password": None},
    {"addr": "1.2.3.7", "port": 80, "username": "jo\u00e9", "password": "\u540d"},
    {"proxy": "socks5://1.2.3.8:1080", "country": "US"},
    {"host": "1.2.3.9:81", "port": None},
    {"ip": "1.2.3.4"},
    {"ip": "1.2.3.4", "port": 80.5},
    {"ip": "1.2.3.4", "port": True},
    {"ip": "1.2.3.4", "port": "080"},
    {"ip": "1.2.3.4", "port": -1},
    {"ip": "127.1", "port": 80},
    {"error": "rate limited"},
]
READ = [
    Entry("1.2.3.4", 80, HTTP),
    Entry("1.2.3.5", 1080, SOCKS4 | SOCKS5),
    Entry("1.2.3.6", 8080, CONNECT),
    Entry("2606:4700::1111", 80),
    Entry("1.2.3.7", 80, 0, "jo\u00e9", "\u540d"),
    Entry("1.2.3.8", 1080, SOCKS5),
    Entry("1.2.3.9", 81),
]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("wrap", ["", "data", "proxies", "anything"])
def test_objects_of_a_json_list_are_entries(
    wrap: str, indent: int | None, ascii_only: bool
) -> None:
    document: object = OBJECTS
    if wrap:
        document = {"status": "ok", "total": 9, "countries": ["US", "VN"], wrap: OBJECTS, "a": {}}
    items = parse(json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode(), block=999)
    assert items[: len(READ)] == READ
    assert all(isinstance(item, Malformed) for item in items[len(READ) :])
    assert len(items) == len(OBJECTS)


def test_json_lines_are_entries_and_a_broken_one_spoils_itself_alone() -> None:
    data = "\n".join(json.dumps(each) for each in OBJECTS[:3]) + '\n{"ip": "1.2.3\n[]\n'
    assert form(data.encode()) is Form.TEXT
    assert parse(data.encode())[:3] == READ[:3]
    assert places(data.encode())[3:] == [None, None]


def test_texts_in_json_have_the_forms_of_lines() -> None:
    assert places(b'["1.2.3.4:80", "http://1.2.3.5:81", "junk", 5, null]') == [
        "1.2.3.4:80", "1.2.3.5:81", None, None, None,
    ]  # fmt: skip
    assert parse(b'[["1.2.3.4", 80, "http"]]') == [Entry("1.2.3.4", 80, HTTP)]


def test_a_yes_under_https_is_a_hint_for_tunnels() -> None:
    data = b'[{"ip":"1.2.3.4","port":80,"https":true},{"ip":"1.2.3.5","port":80,"ssl":"no"}]'
    assert parse(data) == [Entry("1.2.3.4", 80, CONNECT), Entry("1.2.3.5", 80)]


def test_a_list_named_for_a_protocol_gives_its_hint() -> None:
    data = b'{"updated": "now", "https": ["1.2.3.4:80"], "socks5": [{"ip":"1.2.3.5","port":1}]}'
    assert parse(data) == [Entry("1.2.3.4", 80, CONNECT), Entry("1.2.3.5", 1, SOCKS5)]


def test_a_list_inside_an_object_inside_an_object_is_found() -> None:
    data = {"response": {"paging": {"pages": [1, 2]}, "data": [{"ip": "1.2.3.4", "port": 80}]}}
    assert places(json.dumps(data).encode()) == ["1.2.3.4:80"]


def test_json_that_breaks_off_gives_what_came_before() -> None:
    parser = ListParser()
    list(parser.feed(b'[{"ip":"1.2.3.4","port":80},{"ip":"1.2.3.5","po'))
    rest = parser.finish()
    assert next(rest) == Entry("1.2.3.4", 80)
    with pytest.raises(BrokenListError, match="breaks off"):
        list(rest)


@pytest.mark.parametrize(
    "data",
    [b'{"error": "rate limited"}', b'{"a": {"b": {}}}', b'{"a": [1, 2]}', b'["1"] x', b'["1",,2]',
     b'{"data": [}', b'["abc', b'{"data', b'{"data":', b"[{]", b'{"x" 1}', b"[" * 5_000,
     b'{"a":' * 5_000, b'{"a":[' * 5_000, b'["\\', b'{"data":[{"a":"\\"'],
)  # fmt: skip
def test_damaged_json_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(BrokenListError, match="JSON"):
        parse(data)


def test_hostile_json_is_bounded_in_memory_and_work() -> None:
    for nested in (b"[" + b"[],[]," * 50_000 + b"[]]", b'{"data":[' + b'{"a":[[[]]]},' * 30_000,
                   b'{"x":[' + b"[]," * 700_000, b"{" + b'"a":1,' * 50_000 + b'"b":2}',
                   b'["' + b'\\"' * 500_000, b'["' + b"a" * 2_000_000 + b'"]'):  # fmt: skip
        parser = ListParser()
        list(parser.feed(nested))
        with contextlib.suppress(BrokenListError):
            assert not any(isinstance(item, Entry) for item in parser.finish())
    with pytest.raises(SourceLimitError, match="longer than 1000 bytes"):
        parse(b'["' + b"x" * 20_000, document_max_bytes=1_000)


def test_text_that_only_begins_like_json_is_text() -> None:
    for first in (b"[2606:4700::1111]:80", b"{{SECRET}}", b"{0.__class__}", b"[x] 1.2.3.4"):
        assert form(first + b"\n1.2.3.4:80\n") is Form.TEXT


PAGE = """<!DOCTYPE html><html><head><style>.x7{display:none} .y{color:red}</style></head><body>
<table class="menu"><tr><td>Home</td><td>1.2.3.4</td></tr></table>
<table><thead><tr><th>IP Address</th><th>Port</th><th>Version</th><th>Https</th></tr></thead>
<tbody>
<tr><td>1.2.3.4</td><td>80</td><td>Socks4</td><td>no</td></tr>
<tr><td><b>1.2</b>.3.<span class="y">5</span></td><td> 81 </td><td></td><td>yes</td></tr>
<tr><td><span style="display:none">9</span>1.2.3.6<span class="x7">7</span></td><td>82</td></tr>
<tr><td>1.2.3.7<script>document.write("8")</script></td><td>83</td></tr>
<tr><td>1.2.3.8</td><td><script>document.write(8080)</script></td></tr>
<tr><td colspan="4">advertisement</td></tr>
</tbody></table></body></html>"""


def test_rows_of_a_table_are_read_as_a_person_sees_them() -> None:
    items = parse(PAGE.encode())
    assert items[:4] == [
        Entry("1.2.3.4", 80, SOCKS4),
        Entry("1.2.3.5", 81, CONNECT),
        Entry("1.2.3.6", 82),
        Entry("1.2.3.7", 83),
    ]
    assert [type(item) for item in items[4:]] == [Malformed, Malformed]


def test_a_table_without_a_header_counts_if_a_row_of_it_is_well_formed() -> None:
    rows = "<tr><td>1</td><td>1.2.3.4</td><td>80</td></tr><tr><td>socks5://1.2.3.5:1080</td></tr>"
    page = f"<html><table>{rows}<tr><td>junk</td></tr></table><table><tr><td>x</table>"
    assert parse(page.encode()) == [
        Entry("1.2.3.4", 80),
        Entry("1.2.3.5", 1080, SOCKS5),
        Malformed("junk"),
    ]


def test_rows_of_a_table_inside_a_table_are_counted_once() -> None:
    inner = "<table><tr><td>1.2.3.4</td><td>80</td></tr></table>"
    assert places(f"<html><table><tr><td>{inner}</td></tr></table>".encode()) == ["1.2.3.4:80"]


def test_a_table_without_rows_and_a_second_header_are_no_entries() -> None:
    page = (
        b"<html><table></table><table><tr><th>IP</th><th>Port</th></tr>"
        b"<tr><td>1.2.3.4</td><td>80</td></tr><tr><th>IP</th><th>Port</th></tr></table>"
    )
    assert places(page) == ["1.2.3.4:80"]


def test_a_page_without_tables_is_read_from_its_preformatted_text() -> None:
    page = b"<html><pre>\nUpdated now\n# x\n1.2.3.4:80 US-N\n</pre><pre>art</pre></html>"
    assert places(page) == [None, "1.2.3.4:80"]


@pytest.mark.parametrize(
    "page",
    [b"<!DOCTYPE html><h1>404 Not Found</h1>", b"<html>", b"<?xml version='1.0'?><e>no</e>",
     b"<html><table><tr><td>no</td><td>thing</td></tr></table>", b"<p>1.2.3.4:80</p>"],
)  # fmt: skip
def test_an_error_page_is_one_clear_error(page: bytes) -> None:
    with pytest.raises(BrokenListError, match="HTML page without a table of proxies"):
        parse(page)


def test_a_page_beyond_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(SourceLimitError):
        parse(b"<html>" + b"<b>" * (HTML_MAX_BYTES // 3))


def loses_the_tail(data: bytes, block: int) -> list[Entry | Malformed]:
    """A planted bug: each block is parsed by itself, and what is cut is read twice."""
    items: list[Entry | Malformed] = []
    for at in range(0, len(data), block):
        items += parse(data[at : at + block])
    return items


def test_the_property_below_catches_a_parser_that_forgets_half_a_line() -> None:
    drawn = st.tuples(st.lists(pieces, max_size=30).map(b"".join), st.integers(1, 60))

    def claim(case: tuple[bytes, int]) -> None:
        with contextlib.suppress(BrokenListError, SourceLimitError):
            assert loses_the_tail(*case) == parse(case[0])

    assert finds_a_counterexample(drawn, claim)


pieces = st.one_of(
    st.sampled_from([b"1.2.3.4:80", b"http://1.2.3.5:81", b"\n", b"\r\n", b"\r", b"#", b"junk",
                     b'{"ip":"1.2.3.4","port":80}', b"ip,port", b"1.2.3.4,80", b"<table>", b"[",
                     codecs.BOM_UTF8, b'"', b"\x00", b'["1.2.3.4:80",', b"]"]),
    st.binary(max_size=8),
)  # fmt: skip


@given(data=st.lists(pieces, max_size=30).map(b"".join), block=st.integers(1, 60))
def test_how_the_bytes_arrive_does_not_change_what_is_read(data: bytes, block: int) -> None:
    assert _outcome(data, block=block) == _outcome(data, block=1 << 16)


@given(data=st.lists(pieces, max_size=1_500).map(b"".join), block=st.integers(1, 9_000))
def test_nor_does_it_beyond_the_bytes_that_decide_the_form(data: bytes, block: int) -> None:
    assert _outcome(data, block=block) == _outcome(data, block=1 << 16)


def _outcome(data: bytes, *, block: int) -> list[Entry | Malformed] | str:
    try:
        return parse(data, block=block)
    except (BrokenListError, SourceLimitError) as error:
        return str(error)


def test_nothing_in_a_list_reaches_into_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "SECRET", "the-secret-value")
    lines = ["http://x:{{SECRET}}@1.2.3.4:80", "${SECRET}", "%(SECRET)s", "{0.__class__}",
             "$SECRET:80", "`echo $SECRET`", "http://{{SECRET}}.example.com:80",
             "1.2.3.4:80:x:{{SECRET}}"]  # fmt: skip
    items = parse("\n".join(lines).encode())
    assert len(items) == len(lines)
    assert "the-secret-value" not in repr(items)
    assert [item for item in items if isinstance(item, Entry)] == [
        Entry("1.2.3.4", 80, 0, "x", "{{SECRET}}")
    ]
