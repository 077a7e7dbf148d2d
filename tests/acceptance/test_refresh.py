"""``refresh`` from lists to pool, against the lab's truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.acceptance.command import Home, assert_balanced, job_id_in
from tests.acceptance.conftest import Filled
from tests.network.lab_client import Served

# what a refresh does not examine yet: pages other than the judge's
NOT_EXAMINED = {"bait", "many_baits", "other_host"}

SHAPE: dict[str, set[str]] = {
    "": {
        "job_id", "outcome", "reason", "engine", "sources", "candidates", "items", "chunks",
        "verdicts", "timing_s", "deadline", "pool", "poison",
    },
    "candidates": {"read", "unique", "refused", "planned"},
    "items": {"planned", "checked", "given_up", "given_up_why"},
    "chunks": {
        "planned", "done", "given_up", "rescued", "split", "attempts", "stale_reports",
    },
    "verdicts": {
        "working", "not_working", "inconclusive", "by_failure", "by_protocol", "by_anonymity",
    },
    "timing_s": {"read", "first_working", "usable", "closed", "finalised", "total"},
    "deadline": {"floor_s", "in_force_s", "cap_s"},
    "pool": {"before", "after", "added", "dropped"},
}  # fmt: skip


def test_the_report_has_the_fields_of_the_contract_and_no_others(refreshed: Filled) -> None:
    report: dict[str, Any] = refreshed.refresh.json
    assert {name: set(report if name == "" else report[name]) for name in SHAPE} == SHAPE
    assert set(report["items"]["given_up_why"]) == {
        "deadline", "poison", "error", "cancelled", "enough",
    }  # fmt: skip
    assert all(set(one) == {"source", "read", "unique", "error"} for one in report["sources"])


def test_every_candidate_is_accounted_for_and_the_status_is_0(
    refreshed: Filled, lab: Served
) -> None:
    report = refreshed.refresh.json
    assert refreshed.refresh.status == 0
    assert (report["outcome"], report["reason"], report["engine"]) == ("complete", None, "local")
    assert_balanced(report)
    assert report["candidates"]["unique"] == report["items"]["planned"] == len(lab.proxies)
    assert report["candidates"]["read"] == sum(one["read"] for one in report["sources"])
    timing = report["timing_s"]
    order = ["read", "first_working", "usable", "closed", "finalised", "total"]
    assert sorted(timing.values()) == [timing[name] for name in order]
    assert report["deadline"]["floor_s"] == 600
    assert timing["total"] <= report["deadline"]["cap_s"]
    working = report["verdicts"]["working"]
    assert report["pool"] == {"before": 0, "after": working, "added": working, "dropped": 0}


def test_the_first_line_of_stderr_names_the_job(refreshed: Filled) -> None:
    first = refreshed.refresh.err.splitlines()[0]
    assert job_id_in(first) == refreshed.refresh.json["job_id"]


def test_the_pool_holds_what_works_by_the_labs_truth(refreshed: Filled, lab: Served) -> None:
    members = {(one["host"], one["port"]): one for one in refreshed.home.members()}
    truths = {(one["host"], one["port"]): one for one in lab.proxies}
    honest = {place for place, truth in truths.items() if truth["working"]}
    assert honest - members.keys() == set()
    wrongly = members.keys() - honest
    told = {truths[place]["behaviour"]: truths[place]["needs"] for place in wrongly}
    assert {name for name, needs in told.items() if not NOT_EXAMINED & set(needs)} == set()
    for place in honest:
        member, truth = members[place], truths[place]
        about = f"{truth['behaviour']} {place}"
        assert set(member["protocols"]) == set(truth["protocols"]), about
        assert member["anonymity"] == truth["anonymity"], about
        assert member["exit_ip"] in {truth["exit_ip"], *truth["exit_ips"]}, about
        assert member["https"] == truth["https"], about
        assert member["judge"] == "signed", about


def test_the_kept_report_is_the_one_that_was_printed(refreshed: Filled) -> None:
    job_id = refreshed.refresh.json["job_id"]
    shown = refreshed.home.run("job", "show", job_id, "--output", "json").json
    assert set(shown) - SHAPE[""] == {"timeline", "losses", "nodes", "silent_s"}
    assert {name: shown[name] for name in SHAPE[""]} == refreshed.refresh.json
    assert refreshed.home.jobs() == [refreshed.refresh.json]
    waited = refreshed.home.run("job", "wait", job_id, "--output", "json")
    assert (waited.status, waited.json) == (0, refreshed.refresh.json)


def test_the_table_is_a_funnel_from_read_to_usable(refreshed: Filled) -> None:
    report = refreshed.refresh.json
    shown = refreshed.home.run("job", "show", report["job_id"]).out
    stages = ["read", "unique", "allowed", "reachable", "speaks a proxy protocol"]
    stages += ["answers the judge truthfully", "usable"]
    places = [shown.index(f"\n  {stage} ") for stage in stages]
    assert places == sorted(places)
    usable = re.search(r"\n  usable +(\d+) ", shown)
    assert usable is not None
    assert int(usable[1]) == report["verdicts"]["working"]


def test_the_time_line_of_a_finished_job_agrees_with_its_report(refreshed: Filled) -> None:
    report = refreshed.refresh.json
    shown = refreshed.home.run("job", "show", report["job_id"], "--output", "json").json
    moments = {moment["what"]: moment for moment in shown["timeline"]}
    order = [
        "asked_for", "created", "dispatched", "claimed", "works", "usable", "closed", "finalised",
    ]  # fmt: skip
    assert [moment for moment in moments if moment in order] == order
    timing = report["timing_s"]
    for what, name in (("works", "first_working"), ("closed", "closed"), ("finalised",) * 2):
        assert abs(moments[what]["at_s"] - timing[name]) < 0.1, what
    (node,) = shown["nodes"]
    assert node["items"] == report["items"]["checked"]
    assert node["chunks"] == report["chunks"]["done"]
    assert moments["claimed"]["count"] == report["chunks"]["attempts"]
    assert (shown["losses"], shown["silent_s"]) == ([], None)


def test_figures_for_prometheus_go_on_over_commands(home: Home, short_list: str) -> None:
    file = home.directory / "proxywell.prom"
    more = {"PROXYWELL_METRICS__TEXTFILE": str(file)}
    for times in (1, 2):
        done = home.run("refresh", "--source", short_list, "--output", "json", more=more)
        assert done.status == 0
        shown = file.read_text()
        ended = f'proxywell_refresh_jobs_total{{engine="local",outcome="complete"}} {times}\n'
        assert ended in shown
        assert f"proxywell_pool_members {done.json['pool']['after']}\n" in shown
    home.run("job", "wait", done.json["job_id"], more=more)
    assert ended in file.read_text(), "a job that was looked at again is no new one"


def test_a_second_refresh_starts_with_what_worked_before(filled: Home) -> None:
    again = filled.run("refresh", "--limit", "40", "--output", "json")
    report = again.json
    assert (again.status, report["outcome"]) == (0, "complete")
    assert report["items"]["planned"] == 40
    assert report["verdicts"]["working"] >= 38
    assert report["pool"]["added"] == 0
    assert report["pool"]["before"] == report["pool"]["after"] + report["pool"]["dropped"]


def test_limit_checks_no_more_than_that(home: Home) -> None:
    report = home.run("refresh", "--limit", "25", "--output", "json").json
    assert report["outcome"] == "complete"
    assert report["items"]["planned"] == report["candidates"]["planned"] == 25
    assert report["candidates"]["unique"] > 200
    assert_balanced(report)


def test_want_stops_as_soon_as_so_many_work(home: Home) -> None:
    done = home.run("refresh", "--want", "5", "--output", "json")
    report = done.json
    assert (done.status, report["outcome"]) == (0, "usable")
    assert_balanced(report)
    assert report["verdicts"]["working"] >= 5
    assert report["items"]["given_up_why"]["enough"] == report["items"]["given_up"] > 0
    assert report["pool"]["after"] == report["verdicts"]["working"] == len(home.members())


def test_a_deadline_that_is_met_ends_partly_done_and_balanced(home: Home) -> None:
    done = home.run("refresh", "--deadline-s", "1.5", "--output", "json")
    report = done.json
    assert (done.status, report["outcome"]) == (3, "timed_out")
    assert_balanced(report)
    assert report["items"]["given_up_why"]["deadline"] == report["items"]["given_up"] > 0
    assert report["deadline"]["cap_s"] == 1.5
    assert report["timing_s"]["total"] < 10
    assert len(home.members()) == report["verdicts"]["working"]


def test_two_worker_processes_find_what_one_finds(home: Home, refreshed: Filled) -> None:
    done = home.run(
        *("refresh", "--workers", "2", "--chunk-size", "40", "--output", "json"),
        more={"PROXYWELL_REDIS__URL": "redis://:secret@127.0.0.1:1"},  # not for this engine
    )
    assert (done.status, done.json["outcome"]) == (0, "complete")
    assert_balanced(done.json)
    assert done.json["items"]["checked"] == done.json["items"]["planned"]
    assert done.json["chunks"]["planned"] >= 6
    here = {one["host"] for one in home.members() if one["working"]}
    there = {one["host"] for one in refreshed.home.members() if one["working"]}
    assert len(here ^ there) <= 4  # liars that behave now and then


def test_lists_come_from_files_urls_and_stdin(home: Home, lab: Served, short_list: str) -> None:
    text = (home.directory / short_list).read_text()
    url = next(one["url"] for one in lab.offer["lists"] if one["url"].endswith("socks5.txt"))
    arguments = ["--source", short_list, "--source", "-", "--source", url, "--output", "json"]
    done = home.run("refresh", "--limit", "20", *arguments, stdin=text)
    assert done.status == 0
    read = {Path(one["source"]).name: one["read"] for one in done.json["sources"]}
    assert list(read) == [short_list, "-", "socks5.txt"]
    assert read[short_list] == read["-"] == 10


def test_usable_cannot_be_waited_for_where_nothing_carries_the_job_on(home: Home) -> None:
    done = home.run("refresh", "--wait", "usable")
    assert done.status == 2
    assert "--want" in done.sentence
    assert home.jobs() == []
