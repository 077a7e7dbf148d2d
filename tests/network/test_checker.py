"""The checker against real sockets: every kind of proxy and of junk, on both back ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from proxywell.checking.checker import WAITING_MAX, Checker
from proxywell.checking.doubts import JUDGE_WAIT_S
from proxywell.checking.ports import Finding, Subject
from proxywell.config.schema import CheckingSettings
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.verdict import CheckState, CheckStep, JudgeTrust, Verdict
from proxywell.net.guard import Guard
from tests.network.checker_fleet import BEHAVIOURS, IPV6, fleet
from tests.network.echo_panel import EchoPanel

OUR_ADDRESS = "127.0.0.2"
WORKS = {  # behaviour -> protocols by which it may be found
    "http": {Protocol.HTTP},
    "http_split": {Protocol.HTTP},
    "http_fin": {Protocol.HTTP},
    "http_slow": {Protocol.HTTP},
    "connect": {Protocol.CONNECT},
    "connect_split": {Protocol.CONNECT},
    "socks4": {Protocol.SOCKS4},
    "socks4_split": {Protocol.SOCKS4},
    "socks4a": {Protocol.SOCKS4A},
    "socks5": {Protocol.SOCKS5},
    "socks5_split": {Protocol.SOCKS5},
    "dual": {Protocol.SOCKS4, Protocol.SOCKS5},
    "mixed": {Protocol.HTTP, Protocol.SOCKS5},
}
FAILS = {  # behaviour -> how it may be told
    "forger": {FailureKind.JUDGE_REPLAY},
    "silent": {FailureKind.ANSWER_TIMEOUT, FailureKind.HANDSHAKE_TIMEOUT},
    "reset": {FailureKind.RESET, FailureKind.EOF_EARLY},
    "close": {FailureKind.RESET, FailureKind.EOF_EARLY},
    "error_page": {FailureKind.HTTP_STATUS},
    "http_late_judge": {FailureKind.HTTP_STATUS},
    "login_page": {FailureKind.WRONG_ANSWER},
    "garbage": {FailureKind.NOT_THIS_PROTOCOL},
    "banner": {FailureKind.NOT_THIS_PROTOCOL},
    "socks_no": {FailureKind.AUTH_REQUIRED, FailureKind.SOCKS_REFUSED},
    "refuse": {FailureKind.CONNECT_REFUSED},
    "black_hole": {FailureKind.CONNECT_TIMEOUT},
}


class WellPanel(EchoPanel):
    """A panel whose judge was seen to be well this very moment."""

    def well_at_s(self) -> float | None:
        return time.monotonic() if self.unwell_since is None else None


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with fleet() as listening:
        yield listening


def settings(**changed: object) -> CheckingSettings:
    quick: dict[str, object] = {
        "connect_soft_s": 0.8,
        "connect_hard_s": 1.0,
        "answer_soft_s": 0.8,
        "answer_hard_s": 2.0,
        "source_address": OUR_ADDRESS,
    }
    return CheckingSettings(**{**quick, **changed})  # type: ignore[arg-type]  # checked by the class


def checker(panel: EchoPanel | None = None, **changed: object) -> Checker:
    return Checker(
        settings(**changed),
        panel=panel or WellPanel(),
        guard=Guard(allow_private=True),
        inspections=(),
        clock=SystemClock(),
    )


def address(number: int) -> str:
    number += 1_000
    return f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def candidates(
    ports: dict[str, int], kinds: list[str], hints: tuple[Protocol, ...] = ()
) -> dict[Candidate, str]:
    return {
        Candidate(Endpoint(address(number), ports[kind]), hints): kind
        for number, kind in enumerate(kinds)
    }


async def verdicts(checking: Checker, some: dict[Candidate, str]) -> dict[Candidate, Verdict]:
    found: dict[Candidate, Verdict] = {}
    async for candidate, verdict in checking.check(some):
        assert candidate not in found, "a candidate has one verdict"
        found[candidate] = verdict
    assert found.keys() == some.keys()
    return found


@pytest.mark.parametrize("backend", ["epoll", "selectors"])
@pytest.mark.parametrize("hints", [(), (Protocol.HTTP,), (Protocol.SOCKS5,), (Protocol.SOCKS4,)])
async def test_every_kind_is_told_for_what_it_is_whatever_the_hint(
    ports: dict[str, int], backend: str, hints: tuple[Protocol, ...]
) -> None:
    some = candidates(ports, [*BEHAVIOURS, "refuse", "black_hole"], hints)
    async with checker(backend=backend) as checking:
        found = await verdicts(checking, some)
    for candidate, verdict in found.items():
        kind = some[candidate]
        if kind in WORKS:
            assert verdict.working, (kind, verdict)
            assert verdict.protocol in WORKS[kind]
            assert verdict.exit_ip == candidate.endpoint.host
            assert verdict.judge is JudgeTrust.UNSIGNED
            assert verdict.latency_ms is not None
            assert verdict.connect_ms is not None
            assert verdict.latency_ms >= verdict.connect_ms
        else:
            assert not verdict.working, kind
            assert verdict.failure in FAILS[kind], (kind, verdict)
            assert verdict.blame is Blame.PROXY
    assert checking.figures().faults == 0


async def test_steps_say_how_far_a_candidate_got(ports: dict[str, int]) -> None:
    some = candidates(ports, ["refuse", "banner", "login_page", "http"])
    async with checker() as checking:
        found = {some[one]: verdict for one, verdict in (await verdicts(checking, some)).items()}
    states = {kind: [step.state for step in verdict.checks] for kind, verdict in found.items()}
    passed, failed, skipped = CheckState.PASSED, CheckState.FAILED, CheckState.SKIPPED
    assert states == {
        "refuse": [failed, skipped, skipped],
        "banner": [passed, failed, skipped],
        "login_page": [passed, passed, failed],
        "http": [passed, passed, passed],
    }
    assert found["refuse"].checks[0].reason == "connect_refused"
    assert found["http"].checks[2].target == "azenv:http://judge.test/"


async def test_only_the_protocol_that_was_asked_for_is_tried(ports: dict[str, int]) -> None:
    some = candidates(ports, ["http", "socks5", "silent", "error_page"], (Protocol.HTTP,))
    async with Checker(
        settings(),
        panel=WellPanel(),
        guard=Guard(allow_private=True),
        inspections=(),
        clock=SystemClock(),
        protocol=Protocol.SOCKS5,
    ) as checking:
        found = {some[one]: v.working for one, v in (await verdicts(checking, some)).items()}
        assert checking.figures().connections_stage_1 == len(some)
    assert found == {"http": False, "socks5": True, "silent": False, "error_page": False}


@pytest.mark.parametrize("backend", ["epoll", "selectors"])
async def test_a_full_reactor_defers_the_slow_and_finds_them_in_the_end(
    ports: dict[str, int], backend: str
) -> None:
    some = candidates(ports, ["black_hole"] * 40 + ["http_slow"] * 40 + ["refuse"] * 40)
    async with checker(
        backend=backend, max_sockets=20, connect_soft_s=0.1, answer_soft_s=0.1, connect_hard_s=0.4
    ) as checking:
        found = await verdicts(checking, some)
        figures = checking.figures()
    assert sum(verdict.working for verdict in found.values()) == 40
    assert figures.deferred > 0
    assert figures.patient_checks == figures.deferred
    assert figures.peak_sockets <= 20


@pytest.mark.parametrize("backend", ["epoll", "selectors"])
async def test_a_refused_socket_serves_again_and_nothing_is_mixed_up(
    ports: dict[str, int], backend: str
) -> None:
    """Descriptors change hands all the time; each verdict must be its own candidate's."""
    kinds = ["refuse", "http", "reset", "socks5", "close", "connect_split"] * 200
    some = candidates(ports, kinds)
    async with checker(backend=backend, max_sockets=64) as checking:
        found = await verdicts(checking, some)
    for candidate, verdict in found.items():
        assert verdict.working is (some[candidate] in WORKS), (some[candidate], verdict)
        if verdict.working:
            assert verdict.exit_ip == candidate.endpoint.host


async def test_the_guard_is_asked_at_the_connect(ports: dict[str, int]) -> None:
    some = candidates(ports, ["http"])
    async with Checker(
        settings(),
        panel=WellPanel(),
        guard=Guard(),
        inspections=(),
        clock=SystemClock(),
    ) as checking:
        (verdict,) = (await verdicts(checking, some)).values()
    assert verdict.failure is FailureKind.ADDRESS_REFUSED
    assert verdict.inconclusive


async def test_candidates_may_come_one_by_one(ports: dict[str, int]) -> None:
    some = candidates(ports, ["http", "refuse", "socks4"])

    async def dripping() -> AsyncIterator[Candidate]:
        for candidate in some:
            await asyncio.sleep(0.02)
            yield candidate

    async with checker() as checking:
        found = [verdict async for _, verdict in checking.check(dripping())]
    assert sorted(verdict.working for verdict in found) == [False, True, True]


async def test_when_the_judge_stays_away_nobody_waits_for_it_one_by_one(
    ports: dict[str, int],
) -> None:
    some = candidates(ports, ["http"] * 4 * WAITING_MAX)
    panel = WellPanel()
    panel.unwell_since = time.monotonic() - JUDGE_WAIT_S
    async with checker(panel) as checking, asyncio.timeout(20):
        found = await verdicts(checking, some)
    assert {verdict.blame for verdict in found.values()} == {Blame.JUDGE}


async def test_whoever_leaves_early_cancels_the_rest(ports: dict[str, int]) -> None:
    some = candidates(ports, ["http", *["black_hole"] * 50])
    async with checker() as checking:
        async with aclosing(checking.check(some)) as coming:
            async for _, verdict in coming:
                assert verdict.working
                break
        assert checking.reactor.in_use == 0
        assert not checking.reactor.busy


@pytest.mark.parametrize("backend", ["epoll", "selectors"])
@pytest.mark.parametrize("hint", [Protocol.HTTP, Protocol.SOCKS5])
async def test_ipv6_and_ipv4_are_checked_side_by_side(
    ports: dict[str, int], backend: str, hint: Protocol
) -> None:
    if IPV6 not in ports:
        pytest.skip("no IPv6 on loopback here: sysctl net.ipv6.conf.lo.disable_ipv6=0")
    six = Candidate(Endpoint("::1", ports[IPV6]), (hint,))
    refused = Candidate(Endpoint("::1", ports["refuse"]), (hint,))
    some = candidates(ports, ["mixed", "refuse"] * 10, (hint,)) | {six: "mixed", refused: "refuse"}
    async with checker(backend=backend, max_sockets=3) as checking:
        found = await verdicts(checking, some)
    assert all(verdict.working is (some[one] == "mixed") for one, verdict in found.items())
    assert found[six].exit_ip == "::1"
    assert found[six].proxy.endswith(f"://[::1]:{ports[IPV6]}")


async def test_a_name_is_resolved_and_checked_at_its_address(ports: dict[str, int]) -> None:
    some = {Candidate(Endpoint("localhost", ports["socks5"]), (Protocol.SOCKS5,)): "socks5"}
    async with checker(source_address=None) as checking:
        (verdict,) = (await verdicts(checking, some)).values()
    assert verdict.working
    assert verdict.host == "localhost"


# --- stage 2


class Second:
    """An inspection: the same again, on the reactor."""

    name = "second"

    async def inspect(self, subject: Subject) -> Finding:
        request = subject.panel.request()
        assert request is not None
        again = await subject.probe(subject.first.protocol, request)
        state = CheckState.PASSED if again.failure is None else CheckState.FAILED
        sightings = () if again.sighting is None else (again.sighting,)
        return Finding(step=CheckStep(self.name, state), failure=again.failure, sightings=sightings)


class Breaks:
    """An inspection with a bug."""

    name = "breaks"

    async def inspect(self, subject: Subject) -> Finding:
        raise ZeroDivisionError(subject.candidate.endpoint.port)


class Hangs:
    """An inspection that never ends."""

    name = "hangs"

    async def inspect(self, subject: Subject) -> Finding:
        await asyncio.Event().wait()
        raise AssertionError


def examining(*inspections: Second | Breaks | Hangs) -> Checker:
    return Checker(
        settings(),
        panel=WellPanel(),
        guard=Guard(allow_private=True),
        inspections=inspections,
        clock=SystemClock(),
    )


async def test_who_passes_is_inspected_and_the_verdict_tells_of_it(ports: dict[str, int]) -> None:
    some = candidates(ports, ["http", "connect", "socks4", "socks5", "refuse"])
    async with examining(Second()) as checking:
        found = {some[one]: verdict for one, verdict in (await verdicts(checking, some)).items()}
        assert checking.figures().connections_stage_2 == 4
    assert found["refuse"].checks[-1].state is CheckState.SKIPPED
    assert all(
        verdict.working and verdict.checks[-1].state is CheckState.PASSED
        for kind, verdict in found.items()
        if kind != "refuse"
    )


async def test_a_bug_in_an_inspection_is_ours_and_stops_nobody_else(ports: dict[str, int]) -> None:
    some = candidates(ports, ["http", "refuse", "socks5"])
    async with examining(Breaks()) as checking:
        found = {some[one]: verdict for one, verdict in (await verdicts(checking, some)).items()}
        assert checking.figures().faults == 2
    assert found["http"].failure is found["socks5"].failure is FailureKind.INTERNAL
    assert found["http"].inconclusive
    assert found["refuse"].failure is FailureKind.CONNECT_REFUSED


async def test_leaving_the_checker_ends_inspections_that_hang(ports: dict[str, int]) -> None:
    told: list[Verdict | None] = []
    async with examining(Hangs()) as checking:
        (candidate,) = candidates(ports, ["http"])
        running = checking.start(candidate, patient=False, done=told.append)
        await asyncio.sleep(0.3)
        assert running.errand is not None, "it passed stage 1 and is being inspected"
    assert told == []


# --- what a shift uses


async def test_a_bug_in_a_callers_callback_stops_nobody_else(ports: dict[str, int]) -> None:
    one, two = candidates(ports, ["http", "socks5"])
    told = asyncio.get_running_loop().create_future()

    def breaks(verdict: Verdict | None) -> None:
        raise KeyError(verdict)

    async with checker() as checking:
        checking.start(one, patient=False, done=breaks)
        await asyncio.sleep(0.2)
        checking.start(two, patient=False, done=told.set_result)
        assert (await asyncio.wait_for(told, 5)).working
        assert checking.figures().faults == 1


async def test_a_cancelled_check_is_not_told_of_any_more(ports: dict[str, int]) -> None:
    told: list[Verdict | None] = []
    async with checker() as checking:
        running = [
            checking.start(one, patient=False, done=told.append)
            for one in candidates(ports, ["http_slow"] * 10 + ["black_hole"] * 10)
        ]
        for one in running[:5]:
            one.cancel()  # before its socket is open
        await asyncio.sleep(0.1)
        for one in running:
            one.cancel()
            one.cancel()
        await asyncio.sleep(0.8)
        assert told == []
        assert checking.reactor.in_use == 0


async def test_room_counts_what_may_be_deferred(ports: dict[str, int]) -> None:
    async with checker(max_sockets=8, connect_soft_s=0.05) as checking:
        empty = checking.room()
        for one in candidates(ports, ["black_hole"] * 8):
            checking.start(one, patient=False, done=lambda _: None)
        assert checking.room() == empty - 8
        await asyncio.sleep(0.3)
        assert checking.room() == empty  # all eight are past their soft time
