"""The pool that a refresh has filled, from the command line; and the demo."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from tests.acceptance.command import Home
from tests.acceptance.conftest import Filled
from tests.acceptance.test_check import VERDICT

MEMBER = VERDICT | {
    "score", "times_checked", "times_passed", "last_ok_at", "country", "asn", "sources", "state",
    "targets",
}  # fmt: skip


def test_members_have_the_fields_of_the_contract(refreshed: Filled) -> None:
    members = refreshed.home.members()
    assert {frozenset(member) for member in members} == {frozenset(MEMBER)}
    assert {member["state"] for member in members} == {"fresh"}
    assert {member["judge"] for member in members} == {"signed"}


@pytest.mark.parametrize("command", ["list", "random"])
def test_every_form_of_output_tells_so_many_members(refreshed: Filled, command: str) -> None:
    def lines(form: str) -> list[str]:
        done = refreshed.home.run(command, "--count", "5", "--output", form)
        assert done.status == 0
        return done.out.splitlines()

    assert len(lines("table")) == 2 + 5
    assert len(json.loads("\n".join(lines("json")))) == 5
    assert len({json.loads(line)["proxy"] for line in lines("jsonl")}) == 5
    assert len(lines("csv")) == 1 + 5
    assert all("://" in line for line in lines("txt"))


def test_filters_hold_and_say_why_nothing_fits(refreshed: Filled) -> None:
    home = refreshed.home
    wanted = ["--protocol", "socks5", "--anonymity", "elite", "--max-latency-ms", "1000"]
    for member in home.run("list", *wanted, "--output", "json").json:
        assert "socks5" in member["protocols"]
        assert member["anonymity"] == "elite"
        assert member["latency_ms"] <= 1000
    none = home.run("random", "--max-latency-ms", "0.01")
    assert (none.status, none.out) == (4, "")
    assert none.sentence.startswith("proxywell: ")


def test_verified_members_were_checked_just_now(filled: Home) -> None:
    done = filled.run("random", "--count", "2", "--verify", "--output", "json")
    assert done.status == 0
    checked = {one["proxy"]: one["times_checked"] for one in filled.members()}
    assert all(checked[one["proxy"]] >= 2 for one in done.json)


def test_export_writes_the_files_of_the_contract(filled: Home) -> None:
    done = filled.run("export", "--format", "clash", "--format", "squid")
    assert done.status == 0
    place = filled.directory / "proxies"
    names = {"all.txt", "http.txt", "connect.txt", "socks4.txt", "socks5.txt"}
    assert names | {"proxies.json", "proxies.csv"} <= {file.name for file in place.iterdir()}
    members = {one["proxy"] for one in filled.members()}
    assert set((place / "all.txt").read_text().split()) == members
    assert {one["proxy"] for one in json.loads((place / "proxies.json").read_text())} == members


def test_explain_tells_of_members_and_of_those_that_never_worked(refreshed: Filled) -> None:
    home = refreshed.home
    member = home.members()[0]
    told = home.run("explain", member["proxy"])
    assert told.status == 0
    assert "score, step by step" in told.out
    assert refreshed.refresh.json["job_id"] in told.out
    unknown = home.run("explain", "1.2.3.4:80")
    assert unknown.status == 2
    assert "1.2.3.4:80" in unknown.sentence


def test_a_frozen_member_is_not_handed_out_until_it_is_thawed(filled: Home) -> None:
    proxy = filled.members()[0]["proxy"]

    def state() -> str:
        found: str = next(one["state"] for one in filled.members() if one["proxy"] == proxy)
        return found

    assert filled.run("freeze", proxy).status == 0
    assert state() == "frozen"
    assert proxy not in filled.run("random", "--count", "200").out.split()
    assert filled.run("thaw", proxy).status == 0
    assert state() == "fresh"
    assert filled.run("freeze", "1.2.3.4:80").status == 2


def test_a_backup_opens_elsewhere(filled: Home) -> None:
    assert filled.run("backup", "copy.sqlite").status == 0
    assert filled.run("backup", "copy.sqlite").status == 2
    elsewhere = filled.directory / "elsewhere"
    elsewhere.mkdir()
    shutil.move(filled.directory / "copy.sqlite", elsewhere / "pool.sqlite")
    there = filled.run("list", "--state", "elsewhere", "--output", "json").json
    assert {one["proxy"] for one in there} == {one["proxy"] for one in filled.members()}


def test_an_empty_pool_says_what_fills_it(home: Home) -> None:
    done = home.run("random")
    assert done.status == 4
    assert "proxywell refresh" in done.sentence
    assert home.run("list").status == 0


def test_the_demo_ends_in_under_a_minute_with_an_answer(home: Home) -> None:
    started_s = time.monotonic()
    done = home.run("demo")
    assert done.status == 0, done.err
    assert time.monotonic() - started_s < 60
    assert ": 200, and the site saw 127." in done.out
    assert home.members() == []
