"""What goes wrong on our side, or at the judge, is never held against a proxy."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from proxywell.checking.ports import JudgeRequest
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import Verdict
from tests.network.checker_fleet import fleet
from tests.network.echo_panel import EchoPanel
from tests.network.test_checker import WORKS, WellPanel, candidates, checker, verdicts


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with fleet() as listening:
        yield listening


# --- descriptors

FEW_FILES = """
import asyncio, json, resource, sys
from tests.network.test_checker import candidates, checker, verdicts
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
async def main():
    ports = json.loads(sys.argv[1])
    some = candidates(ports, ["http_slow", "socks5", "refuse", "close"] * 100)
    async with checker(max_sockets=2000) as checking:
        taken = [open("/dev/null") for _ in range(int(sys.argv[3]))]  # somebody else's
        found = await verdicts(checking, some)
        figures = checking.figures()
    kinds = {}
    for candidate, verdict in found.items():
        said = "working" if verdict.working else str(verdict.failure)
        kinds.setdefault(some[candidate], {}).setdefault(said, 0)
        kinds[some[candidate]][said] += 1
    print(json.dumps([kinds, figures.local_faults, figures.peak_sockets]))
asyncio.run(main())
"""


@pytest.mark.parametrize("taken", [0, 60])
def test_too_few_descriptors_blame_nobody_and_everybody_is_found(
    ports: dict[str, int], taken: int
) -> None:
    """The limit is known at the start; what others take of it only shows as EMFILE."""
    ended = subprocess.run(
        [sys.executable, "-c", FEW_FILES, json.dumps(ports), "128", str(taken)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    kinds, faults, peak = json.loads(ended.stdout)
    assert kinds["http_slow"] == kinds["socks5"] == {"working": 100}
    assert kinds["refuse"] == {"connect_refused": 100}
    assert set(kinds["close"]) <= {"reset", "eof_early"}
    assert peak < 128
    assert (faults > 0) is (taken > 0)


async def test_a_source_address_that_is_not_ours_blames_nobody(
    ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxywell.net.faults.FAULT_PATIENCE_S", 1.0)
    some = candidates(ports, ["http", "refuse"])
    async with checker(source_address="192.0.2.77") as checking:
        found = await verdicts(checking, some)
    assert {verdict.failure for verdict in found.values()} == {FailureKind.LOCAL_FAULT}
    assert all(verdict.inconclusive for verdict in found.values())


# --- the judge


class Outage(EchoPanel):
    """A judge that is out of order for a while; proxies then answer with 502 or not at all."""

    def well_at_s(self) -> float | None:
        return time.monotonic() if self.unwell_since is None and not self.lost else None

    lost = False  # out of order, and not yet known to be

    def lose(self) -> None:
        self.lost = True

    def notice(self) -> None:
        self.unwell_since = time.monotonic()

    def recover(self) -> None:
        self.lost, self.unwell_since = False, None


async def test_candidates_wait_while_the_judge_is_unwell_and_then_go_on(
    ports: dict[str, int],
) -> None:
    panel = Outage()
    panel.notice()
    some = candidates(ports, ["http"] * 20)
    async with checker(panel) as checking:
        checking_all = asyncio.create_task(verdicts(checking, some))
        await asyncio.sleep(0.6)
        assert not checking_all.done()
        assert checking.figures().connections_stage_1 <= 20
        panel.recover()
        found = await asyncio.wait_for(checking_all, 10)
    assert all(verdict.working for verdict in found.values())


async def test_a_pause_ends_also_when_nothing_was_under_way_meanwhile(
    ports: dict[str, int],
) -> None:
    panel = Outage()
    one, two = candidates(ports, ["http", "socks5"])
    go_on = asyncio.Event()

    async def coming() -> AsyncIterator[Candidate]:
        yield one
        await go_on.wait()
        yield two

    async with checker(panel) as checking:
        found = checking.check(coming())
        assert (await asyncio.wait_for(anext(found), 5))[1].working
        await asyncio.sleep(1.2)  # no timer of the first one is left to save the second
        panel.notice()
        checking.start(one, patient=True, done=lambda _: None).cancel()  # a turn sees it
        await asyncio.sleep(0.5)
        assert checking.room() == 0
        go_on.set()
        await asyncio.sleep(0.3)
        panel.recover()
        assert (await asyncio.wait_for(anext(found), 5))[1].working
        await found.aclose()


async def test_what_failed_because_of_the_judge_is_checked_again_when_it_is_well(
    ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the outage and its discovery proxies answer 502; they must not be blamed."""
    panel = Outage()
    panel.lose()
    monkeypatch.setattr(
        "tests.network.echo_panel.EchoRequest.read",
        lambda self, answer, *, now_s: FailureKind.WRONG_ANSWER,
    )
    some = candidates(ports, ["http", "socks5", "connect", "http_fin"] * 5)
    async with checker(panel) as checking:
        checking_all = asyncio.create_task(verdicts(checking, some))
        await asyncio.sleep(0.6)
        assert not checking_all.done(), "nothing shows that the judge is well: they are held"
        panel.notice()
        await asyncio.sleep(0.2)
        monkeypatch.undo()
        panel.recover()
        found = await asyncio.wait_for(checking_all, 10)
    assert all(verdict.working for verdict in found.values())


async def test_a_judge_that_stays_unwell_ends_in_inconclusive_verdicts(
    ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("checker", "doubts"):
        monkeypatch.setattr(f"proxywell.checking.{place}.JUDGE_WAIT_S", 0.5)
    panel = Outage()
    panel.notice()
    some = candidates(ports, ["http", "socks5", "http_late_judge"] * 3)
    async with checker(panel) as checking:
        found = await asyncio.wait_for(verdicts(checking, some), 20)
    assert {verdict.failure for verdict in found.values()} == {FailureKind.JUDGE_UNWELL}
    assert all(verdict.inconclusive for verdict in found.values())


async def test_a_line_that_carries_nothing_is_not_held_against_candidates(
    ports: dict[str, int],
) -> None:
    """Not one answer from anybody, and no judge either: it is our own line."""
    panel = Outage()
    panel.lose()
    some = candidates(ports, ["black_hole"] * 5)
    async with checker(panel) as checking:
        checking_all = asyncio.create_task(verdicts(checking, some))
        await asyncio.sleep(1.6)  # all have timed out
        assert not checking_all.done()
        panel.recover()
        found = await asyncio.wait_for(checking_all, 5)
    assert {verdict.failure for verdict in found.values()} == {FailureKind.CONNECT_TIMEOUT}


class Bucket(WellPanel):
    """A judge that allows a request every so often."""

    def __init__(self, every_s: float) -> None:
        super().__init__()
        self.every_s, self.next_s = every_s, 0.0
        self.refused = 0

    def request(
        self, *, avoid: str | None = None, https: bool = False, ipv6: bool = False
    ) -> JudgeRequest | None:
        now_s = time.monotonic()
        if now_s < self.next_s:
            self.refused += 1
            return None
        self.next_s = now_s + self.every_s
        return super().request()


async def test_a_judge_that_allows_few_requests_makes_candidates_wait_without_a_socket(
    ports: dict[str, int],
) -> None:
    panel = Bucket(0.05)
    some = candidates(ports, ["http", "socks5", "connect_split", "refuse"] * 10, ())
    async with checker(panel) as checking:
        found = await asyncio.wait_for(verdicts(checking, some), 30)
    assert panel.refused > 0
    for candidate, verdict in found.items():
        assert verdict.working is (some[candidate] in WORKS), verdict


async def test_a_silent_probe_may_pass_while_another_waits_for_a_request(
    ports: dict[str, int],
) -> None:
    panel = WellPanel()
    panel.allowed = 1
    some = candidates(ports, ["http_slow"], (Protocol.HTTP,))
    async with checker(panel, answer_soft_s=0.2) as checking:
        (verdict,) = (await asyncio.wait_for(verdicts(checking, some), 5)).values()
        panel.allowed = None
        await asyncio.sleep(0.3)  # the other one must not come back
        assert checking.figures().faults == 0
        assert checking.figures().judge_waits == 1
    assert verdict.working


# --- leaving no trace


async def test_the_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold()
    async with checker():
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before


async def test_finished_checks_are_freed_without_the_collector(ports: dict[str, int]) -> None:
    told: list[Verdict | None] = []
    async with checker() as checking:
        for one in candidates(ports, ["refuse", "close", "http", "error_page"] * 5):
            checking.start(one, patient=False, done=told.append)
        async with asyncio.timeout(10):
            while len(told) < 20:  # noqa: ASYNC110 - as callers of start do, without an event
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)  # time lines still hold what is over until it would be due
        gc.collect()
        gc.disable()
        try:
            for one in candidates(ports, ["refuse"] * 20):
                checking.start(one, patient=False, done=told.append)
            await asyncio.sleep(1.5)
            assert gc.collect() < 20, "each finished check leaves a cycle behind"
        finally:
            gc.enable()
