"""The lab as a whole: started, embedded, side by side, churning, on one port per proxy, stopped."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest

from proxywell.lab.answers import read_answer
from proxywell.lab.fronts import Malformed
from proxywell.lab.lab import Lab
from proxywell.lab.listening import raise_file_limit
from proxywell.lab.profile import Churn, Profile, load_profile, parse_profile
from proxywell.lab.proxy import Truth
from proxywell.model.failure import FailureKind
from tests.network.lab_client import CLIENT_S, OUR_ADDRESS, STARTED_S, curl, needs_curl, serving

TINY = """
every_behaviour = true
[fleet]
candidates = 40
working_share = 0.8
[working]
http = 1
http_connect = 1
socks4a = 1
socks5 = 1
[latency]
median_s = 0.0
p95_s = 0.0
[junk]
black_hole = 1
refuse = 1
silent = 1
"""


def tiny(**changes: object) -> Profile:
    return msgspec.structs.replace(parse_profile(TINY, where="here", name="tiny"), **changes)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxywell", "lab", "serve", *arguments]


async def ask(truth: Truth, judge: str) -> str:
    """One plain request of an http proxy; answers the body."""
    reader, writer = await asyncio.open_connection(
        truth.host, truth.port, local_addr=(OUR_ADDRESS, 0)
    )
    try:
        writer.write(f"GET {judge} HTTP/1.1\r\nHost: judge\r\n\r\n".encode())
        async with asyncio.timeout(CLIENT_S):
            whole = await reader.read(-1)
    finally:
        writer.close()
    page = read_answer(whole, ended=True)
    assert page is not None
    return page.body.decode()


def judge_of(lab: Lab, kind: str) -> str:
    return next(j for j in lab.offer.judges if j.startswith(f"{kind}:")).partition(":")[2]


def test_it_stops_on_sigterm_and_leaves_nothing_behind() -> None:
    with subprocess.Popen(
        command("--seed", "21"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        offer = json.loads(process.stdout.readline())
        folder = Path(offer["ca_file"]).parent
        assert folder.is_dir()
        process.send_signal(signal.SIGTERM)
        started_s = time.monotonic()
        _, remarks = process.communicate(timeout=STARTED_S)
        assert time.monotonic() - started_s < 5
    assert (process.returncode, remarks) == (0, "")
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(offer["truth"].split(":")[2].split("/")[0])))


def test_it_stops_by_itself_after_the_seconds_that_it_was_given() -> None:
    done = subprocess.run(
        command("--seconds", "0.2", "--candidates", "50", "--output", "table"),
        capture_output=True,
        text=True,
        timeout=STARTED_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "checking.source_address  127.0.0.2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "smal"], "did you mean 'small'"),
        (["--profile", "/nowhere/own.toml"], "cannot be read"),
        (["--candidates", "0"], "--candidates"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_two(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=STARTED_S, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_directory_that_cannot_be_had_is_one_sentence_and_status_one(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("here already")
    done = subprocess.run(
        command("--directory", str(in_the_way / "below")),
        capture_output=True,
        text=True,
        timeout=STARTED_S,
        check=False,
    )
    assert done.returncode == 1
    assert str(in_the_way) in done.stderr
    assert "Traceback" not in done.stderr


def test_lists_are_served_as_they_are_written_to_files() -> None:
    with serving("--seed", "4") as lab:
        for entry in lab.offer["lists"]:
            with urlopen(entry["url"], timeout=CLIENT_S) as answer:
                assert answer.read() == Path(entry["path"]).read_bytes()
        truth = json.loads(Path(lab.offer["truth_file"]).read_bytes())
        assert len(truth["proxies"]) == lab.offer["counts"]["groups"]["candidates"] == 240


async def test_two_labs_of_one_seed_have_the_same_fleet_on_other_ports() -> None:
    async with Lab(tiny(), 6) as first, Lab(tiny(), 6) as second:
        one, two = first.truths().proxies, second.truths().proxies
        assert [truth.host for truth in one] == [truth.host for truth in two]
        assert not {truth.port for truth in one} & {truth.port for truth in two}
        for lab in (first, second):
            truth = next(t for t in lab.truths().proxies if "http" in t.protocols)
            assert await ask(truth, judge_of(lab, "ip")) == f"{truth.exit_ip}\n"


async def test_one_port_per_proxy_works_where_one_device_does_not() -> None:
    async with Lab(tiny(), 8, one_device=False) as lab:
        truths = lab.truths().proxies
        assert {truth.host for truth in truths} == {"127.0.0.1"}
        assert len({truth.port for truth in truths}) == len(truths)
        for truth in truths:
            if truth.working and "http" in truth.protocols:
                assert await ask(truth, judge_of(lab, "ip")) == f"{truth.exit_ip}\n"
            elif truth.behaviour == "refuse":
                with pytest.raises(ConnectionRefusedError):
                    await ask(truth, judge_of(lab, "ip"))
            elif truth.behaviour == "black_hole":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.4):
                        await ask(truth, judge_of(lab, "ip"))


async def test_the_truth_follows_the_churn_and_the_proxies_follow_the_truth() -> None:
    churn = Churn(mode="model", speed=600.0)
    only_http = msgspec.structs.replace(tiny(), working={"http": 1.0})
    async with Lab(msgspec.structs.replace(only_http, churn=churn), 5) as lab:
        on: Counter[tuple[str, int]] = Counter()
        agreed = asked = 0
        for _ in range(10):
            await asyncio.sleep(0.2)
            for truth in lab.truths().proxies:
                if truth.group != "working":
                    continue
                on[truth.host, truth.port] += truth.working
                if truth.working or FailureKind.RESET in truth.failures:  # silence takes long
                    asked += 1
                    agreed += await works(lab, truth) == truth.working
        assert agreed >= 0.95 * asked  # a switch may fall between the question and the request
        assert len(set(on.values())) > 1  # not all alike


async def works(lab: Lab, truth: Truth) -> bool:
    try:
        async with asyncio.timeout(1):
            return await ask(truth, judge_of(lab, "ip")) == f"{truth.exit_ip}\n"
    except (OSError, Malformed):
        return False


@needs_curl
def test_a_replayed_trace_decides_who_is_on(tmp_path: Path) -> None:
    from tests.unit.lab.test_churn import write_trace

    trace = write_trace(tmp_path / "trace.npz")
    profile = tmp_path / "replay.toml"
    profile.write_text(
        TINY.replace("http_connect = 1\n", "")
        .replace("http = 1\n", "connect = 1\n")
        .replace("candidates = 40", "candidates = 14")
        + f'[churn]\nmode = "trace"\nspeed = 0.001\ntrace = "{trace}"\n'
    )
    with serving("--profile", str(profile)) as lab:
        on = {truth["protocols"][0]: truth["on"] for truth in lab.proxies if truth["protocols"]}
        assert on == {"connect": False, "socks4a": False, "socks5": True}
        for truth in lab.proxies:
            if truth["group"] == "working":
                seen = curl(truth, truth["protocols"][0], lab.azenv, "--max-time", "1")
                assert (seen.code == 0) == truth["on"]


@pytest.mark.deep
async def test_it_holds_ten_thousand_connections_and_still_serves() -> None:
    files = raise_file_limit()
    crowd = min(10_000, files // 2 - 500)  # each connection has two ends in this process
    async with Lab(tiny(), 9) as lab:
        silent = [truth for truth in lab.truths().proxies if truth.behaviour == "silent"]
        held = []
        for number in range(crowd):
            truth = silent[number % len(silent)]
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((truth.host, truth.port))
            held.append(sock)
            if number % 500 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert lab.figures["accepted"] >= crowd
        truth = next(t for t in lab.truths().proxies if "http" in t.protocols)
        assert await ask(truth, judge_of(lab, "ip")) == f"{truth.exit_ip}\n"
        watcher = select.poll()
        for sock in held:
            watcher.register(sock, select.POLLIN)
        assert watcher.poll(0) == []  # none was dropped
        for sock in held:
            sock.close()


async def test_forty_thousand_candidates_start_within_seconds() -> None:
    started_s = time.monotonic()
    async with Lab(load_profile("hard"), 1) as lab:
        assert time.monotonic() - started_s < 20
        groups = lab.offer.counts["groups"]
        assert groups == {"candidates": 40_000, "working": 2_000, "junk": 38_000}
        assert sum(entry.entries for entry in lab.offer.lists) >= 40_000
