from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from proxywell.cli.main import program
from proxywell.sources.catalog import catalogue
from proxywell.sources.harvest import Harvest
from proxywell.sources.yields import YieldBook

LISTS = Path(__file__).parents[2] / "data" / "lists"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{place}_HOME", str(tmp_path / place))


def sources(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        program(["sources", *arguments])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


def told(capsys: pytest.CaptureFixture[str], content: bytes, *more: str) -> dict[str, Any]:
    Path("list").write_bytes(content)
    status, out, _ = sources(capsys, "test", "list", "--output", "json", *more)
    assert status == 0
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def test_a_list_is_told_in_the_fields_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    content = (
        b"# comment\n\nhttp://1.2.3.4:80\nsocks5://1.2.3.4:80\n1.2.3.4:80\n9.9.9.9:8080\n"
        b"10.0.0.1:80\n10.0.0.1:80\n9.9.9.9:22\nlocalhost:6379\nhttp://joe:pw@300.1.1.1:80\n"
        b"1.2.3.4:80:joe:secret\n\x1b[31mred\x1b[0m\n"
    )
    assert told(capsys, content) == {
        "read": 11,
        "unique": 6,
        "refused": {
            "private_address": 2, "service_port": 1, "host_name": 1, "malformed": 2,
        },
        "by_protocol": {"http": 1, "socks5": 1, "unknown": 5},
        "malformed_examples": ["http://***@300.1.1.1:80", "?[31mred?[0m"],
    }  # fmt: skip


def test_private_addresses_are_counted_as_candidates_where_they_are_allowed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = b"10.0.0.1:80\n127.0.0.1:81\n169.254.169.254:80\n"
    assert told(capsys, content)["refused"] == {"private_address": 3}
    assert told(capsys, content, "--allow-private")["refused"] == {"private_address": 1}


def test_the_table_says_the_same_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = sources(capsys, "test", str(LISTS / "clarketm-proxy-list.txt"))
    rows = [line.split() for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert rows[:3] == [["read", "406"], ["unique", "400"], ["refused:", "malformed", "6"]]
    assert ["malformed:", "Support", "by", "donations:"] in rows


@pytest.mark.parametrize("output", ["json", "table"])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x7fELF" + bytes(1_000), "it is binary data, not a list in text, JSON or HTML"),
        (b"<html><h1>502</h1></html>", "it is an HTML page without a table of proxies"),
        (b'{"error": "no"}', "the JSON holds no list of proxies"),
        (None, "No such file or directory; check the path"),
    ],
)
def test_what_is_no_list_is_one_sentence_and_status_2(
    content: bytes | None, complaint: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("list").write_bytes(content)
    status, out, err = sources(capsys, "test", "list", "--output", output)
    assert (status, out) == (2, "")
    assert err == f"proxywell: source list: {complaint}\n"


def test_a_directory_and_other_schemes_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert sources(capsys, "test", ".")[0::2] == (
        2, "proxywell: source .: it is a directory; name a file in it\n",
    )  # fmt: skip
    status, out, err = sources(capsys, "test", "file:///etc/passwd")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_a_url_that_must_not_be_asked_is_one_sentence_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for url, complaint in (
        ("http://example.com/list", "plain http"),
        ("https://169.254.169.254/", "must not be dialled"),
    ):
        status, out, err = sources(capsys, "test", url)
        assert (status, out) == (1, "")
        assert complaint in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (b"", "it holds no entries"),
        (b"# nothing yet\n", "it holds no entries"),
        (b"Array\n", "none of its 1 entries is well-formed"),
        (b"10.0.0.1:80\n", "the only entry was refused: private_address 1; --allow-private"),
    ],
)
def test_a_list_that_gives_nothing_is_told_with_a_remark(
    content: bytes, remark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list").write_bytes(content)
    status, out, err = sources(capsys, "test", "list", "--output", "json")
    assert status == 0
    assert json.loads(out)["read"] == content.count(b":80") + content.count(b"Array")
    assert remark in err
    assert err.count("\n") == 1


def test_standard_input_is_a_list_too(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    kept = os.dup(0)
    os.write(writing, b"1.2.3.4:80\n1.2.3.5:80")
    os.close(writing)
    try:
        os.dup2(reading, 0)
        status, out, _ = sources(capsys, "test", "-", "--output", "json")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)
    assert (status, json.loads(out)["unique"]) == (0, 2)


def test_nothing_in_a_list_is_expanded_or_obeyed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-value")
    Path("list").write_bytes(
        b"http://x:{{AWS_SECRET_ACCESS_KEY}}@evil:80\n${AWS_SECRET_ACCESS_KEY}\n"
        b"%(AWS_SECRET_ACCESS_KEY)s\n{0.__class__}\n\xe2\x80\xaegnp.exe\n\x9b2J\n"
    )
    for output in ("json", "table"):
        status, out, err = sources(capsys, "test", "list", "--output", output)
        assert status == 0
        assert "the-secret-value" not in out + err
        assert not set("\x1b\x9b\u202e") & set(out + err)


def test_the_catalogue_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = sources(capsys, "list", "--output", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert [row["name"] for row in rows] == [spec.name for spec in catalogue()]
    assert all(row["licence"] and row["form"] and row["place"] for row in rows)
    Path("proxywell.toml").write_text("[sources]\nlists = ['mine.txt']\n", encoding="utf-8")
    assert [
        each["name"] for each in json.loads(sources(capsys, "list", "--output", "json")[1])
    ] == ["mine.txt"]


def test_yields_are_shown_best_first_and_their_absence_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = sources(capsys, "yields", "--state", "state")
    assert (status, out) == (0, "")
    assert "no source has been through a refresh yet" in err
    good = catalogue()[0]
    YieldBook(Path("state/sources")).record(
        {"gone": Harvest(9, 9, 90), good.name: Harvest(100, 9, 90, 30, 30)}, now_s=1e9
    )
    rows = json.loads(sources(capsys, "yields", "--state", "state", "--output", "json")[1])
    assert [(row["source"], row["working"], row["rests_s"]) for row in rows] == [
        (good.name, 30.0, good.interval_s),
        ("gone", 0.0, None),
    ]
