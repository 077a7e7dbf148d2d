"""``check``: a list in, verdicts out, nothing stored."""

from __future__ import annotations

import csv
import json

import pytest

from tests.acceptance.command import Home

VERDICT = {
    "proxy", "host", "port", "protocol", "protocols", "working", "failure", "blame", "anonymity",
    "exit_ip", "exit_ips", "tampering", "intercepts_tls", "https", "latency_ms", "connect_ms",
    "judge", "checked_at", "checks",
}  # fmt: skip


def test_verdicts_have_the_fields_of_the_contract(home: Home, short_list: str) -> None:
    done = home.run("check", short_list, "--all", "--output", "jsonl")
    verdicts = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 0
    assert [set(verdict) for verdict in verdicts] == [VERDICT] * 10
    assert sum(verdict["working"] for verdict in verdicts) == 7
    assert {one["failure"] for one in verdicts if not one["working"]} == {"connect_refused"}
    assert {one["judge"] for one in verdicts if one["working"]} == {"signed"}
    for verdict in verdicts:
        for check in verdict["checks"]:
            assert check["state"] in {"passed", "failed", "unavailable", "skipped"}


def shown_in(form: str, out: str) -> set[str]:
    """The proxies in one form of output."""
    lines = out.splitlines()
    if form == "json":
        return {one["proxy"] for one in json.loads(out)}
    if form == "jsonl":
        return {json.loads(line)["proxy"] for line in lines}
    if form == "csv":
        return {row["proxy"] for row in csv.DictReader(lines)}
    return {line.split()[0] for line in (lines[2:] if form == "table" else lines)}


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "txt"])
def test_every_form_of_output_holds_the_same_proxies(
    home: Home, short_list: str, form: str
) -> None:
    expected = set(home.run("check", short_list, "--template", "{{proxy}}").out.split())
    done = home.run("check", short_list, "--output", form)
    shown = shown_in(form, done.out)
    assert done.status == 0
    assert {_place(proxy) for proxy in shown} == {_place(proxy) for proxy in expected}
    assert len(shown) == 7


def _place(proxy: str) -> str:
    return proxy.partition("://")[2]  # which of several protocols comes first may differ


def test_a_template_is_one_line_for_each(home: Home, short_list: str) -> None:
    done = home.run("check", short_list, "--template", "{{proxy}} {{exit_ip}} {{latency_ms}}")
    rows = [line.split() for line in done.out.splitlines()]
    assert [len(row) for row in rows] == [3] * 7
    assert all(float(row[2]) > 0 for row in rows)
    wrong = home.run("check", short_list, "--template", "{{exit}}")
    assert wrong.status == 2
    assert "exit_ip" in wrong.sentence


def test_one_protocol_alone_and_enough_are_obeyed(home: Home, short_list: str) -> None:
    done = home.run("check", short_list, "--protocol", "socks5", "--output", "json")
    assert {tuple(one["protocols"]) for one in done.json} == {("socks5",)}
    done = home.run("check", short_list, "--want", "2")
    assert done.status == 0
    assert "stopped, as there were enough" in done.sentence


def test_stdin_is_read_and_nothing_is_stored(home: Home, short_list: str) -> None:
    text = (home.directory / short_list).read_text()
    for arguments in (["-"], []):
        done = home.run("check", *arguments, "--output", "txt", stdin=text)
        assert (done.status, len(done.out.split())) == (0, 7)
    assert home.members() == home.jobs() == []
