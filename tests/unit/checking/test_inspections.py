"""What stage 2 concludes, with judges and proxies that follow a script."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from proxywell.checking.inspections import (
    AnonymityInspection,
    ExitInspection,
    SecondRequest,
    Siblings,
    default_inspections,
)
from proxywell.checking.judge import Judge, Request, parse_judge
from proxywell.checking.ports import (
    Examined,
    Finding,
    JudgeRequest,
    ProbeReport,
    Sighting,
    Stream,
)
from proxywell.config.schema import Settings
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import Anonymity, CheckState, CheckStep, JudgeTrust

EXIT, OTHER_EXIT, OWN = "203.0.113.9", "203.0.113.77", "198.51.100.7"
HTTP, CONNECT = Protocol.HTTP, Protocol.CONNECT
SOCKS4, SOCKS4A, SOCKS5 = Protocol.SOCKS4, Protocol.SOCKS4A, Protocol.SOCKS5
ONE, TWO = "azenv:http://one.test/", "azenv:http://two.test/"
Outcome = Sighting | FailureKind | tuple[FailureKind, int]


class ScriptedPanel:
    """Judges by name; grants requests while there are some left."""

    def __init__(self, *names: str, grants: int = 1_000, well: bool = True) -> None:
        self.judges = {name: Judge(parse_judge(name)) for name in names}
        self.grants = grants
        self.well = well
        self.own = frozenset({OWN})
        self.asked: list[str] = []

    @property
    def own_addresses(self) -> frozenset[str]:
        return self.own

    @property
    def https_context(self) -> ssl.SSLContext | None:
        return None

    def request(
        self, *, avoid: str | None = None, https: bool = False, ipv6: bool = False
    ) -> Request | None:
        if self.grants <= 0 or not self.well or https:
            return None
        self.grants -= 1
        name = next((name for name in self.judges if name != avoid), next(iter(self.judges)))
        self.asked.append(name)
        return self.judges[name].request()

    def unwell_since_s(self) -> float | None:
        return None if self.well else 0.0

    def well_at_s(self) -> float | None:
        return 0.0

    def control_latency_s(self) -> float | None:
        return None

    def doubt(self) -> None:
        pass

    async def still_well(self, judge: str) -> bool:
        return self.well


def sighting(exit_ip: str = EXIT, *extra: tuple[str, str], inside_tls: bool = False) -> Sighting:
    sent = (("Host", "judge.test"),)
    return Sighting(exit_ip, (*sent, *extra), "1.1", JudgeTrust.UNSIGNED, inside_tls, sent)


class ScriptedSubject:
    """A candidate whose probes follow a rule."""

    def __init__(
        self,
        panel: ScriptedPanel,
        rule: Callable[[Protocol, str], Outcome],
        *,
        first: Protocol = HTTP,
        seen: Sighting | None = None,
        hints: tuple[Protocol, ...] = (),
        host: str = EXIT,
    ) -> None:
        self.panel = panel
        self.rule = rule
        self.candidate = Candidate(Endpoint(host, 8080), hints)
        request = panel.request()
        assert request is not None
        self.first = ProbeReport(
            first, None, sighting=seen or sighting(), request=request, latency_ms=10.0
        )
        self.examined: Examined = ()
        self.probed: list[Protocol] = []

    async def probe(self, protocol: Protocol, request: JudgeRequest) -> ProbeReport:
        self.probed.append(protocol)
        outcome = self.rule(protocol, request.judge)
        match outcome:
            case Sighting():
                return ProbeReport(
                    protocol, None, sighting=outcome, request=request, latency_ms=12.0
                )
            case (kind, detail):
                return ProbeReport(protocol, kind, detail=detail, request=request)
            case kind:
                return ProbeReport(protocol, kind, request=request)

    async def tunnel(self, protocol: Protocol, host: str, port: int) -> Stream | FailureKind:
        return FailureKind.CONNECT_REFUSED


def second(patience_s: float = 0.0) -> SecondRequest:
    return SecondRequest(SystemClock(), patience_s=patience_s)


# --- the second request


async def test_the_second_request_goes_to_another_judge_where_there_is_one() -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE, TWO), lambda _p, _j: sighting(OTHER_EXIT))
    found = await second().inspect(subject)
    assert subject.panel.asked == [ONE, TWO]
    assert found.failure is None
    assert found.step.state is CheckState.PASSED
    assert found.step.target == TWO
    assert [one.exit_ip for one in found.sightings] == [OTHER_EXIT]


async def test_with_one_judge_the_second_request_has_another_nonce() -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE), lambda _p, _j: sighting())
    found = await second().inspect(subject)
    assert subject.panel.asked == [ONE, ONE]
    assert found.step.state is CheckState.PASSED


@pytest.mark.parametrize(
    "kind", [FailureKind.ANSWER_TIMEOUT, FailureKind.RESET, FailureKind.WRONG_ANSWER]
)
async def test_a_proxy_that_fails_the_second_request_is_not_working(kind: FailureKind) -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE, TWO), lambda _p, _j: kind)
    found = await second().inspect(subject)
    assert found.failure is FailureKind.FIRST_REQUEST_ONLY
    assert found.step.state is CheckState.FAILED
    assert found.step.reason == kind.value


@pytest.mark.parametrize(
    "kind",
    [FailureKind.JUDGE_BAD_SIGNATURE, FailureKind.JUDGE_REPLAY, FailureKind.NOT_A_PROXY],
)
async def test_a_lie_in_the_second_answer_is_called_by_its_name(kind: FailureKind) -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE), lambda _p, _j: kind)
    assert (await second().inspect(subject)).failure is kind


async def test_a_judge_that_is_unwell_leaves_the_verdict_open() -> None:
    panel = ScriptedPanel(ONE)
    subject = ScriptedSubject(panel, lambda _p, _j: FailureKind.ANSWER_TIMEOUT)

    async def unwell(judge: str) -> bool:
        return False

    panel.still_well = unwell  # type: ignore[method-assign]  # the judge fell ill meanwhile
    found = await second().inspect(subject)
    assert found.step.state is CheckState.UNAVAILABLE
    assert found.failure is FailureKind.JUDGE_UNWELL


async def test_no_judge_at_all_leaves_the_verdict_open_at_once() -> None:
    panel = ScriptedPanel(ONE)
    subject = ScriptedSubject(panel, lambda _p, _j: sighting())
    panel.well = False
    found = await second(patience_s=3_600.0).inspect(subject)
    assert found.step.state is CheckState.UNAVAILABLE
    assert found.failure is FailureKind.JUDGE_UNWELL
    assert subject.probed == []


async def test_no_allowance_within_our_patience_leaves_the_verdict_open() -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE, grants=1), lambda _p, _j: sighting())
    found = await second(patience_s=0.0).inspect(subject)
    assert found.step.state is CheckState.UNAVAILABLE
    assert found.failure is FailureKind.JUDGE_UNWELL


async def test_our_own_fault_is_not_the_proxys() -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE), lambda _p, _j: FailureKind.LOCAL_FAULT)
    found = await second().inspect(subject)
    assert found.step.state is CheckState.UNAVAILABLE
    assert found.failure is FailureKind.LOCAL_FAULT


async def test_a_judge_that_is_tired_of_an_exit_is_not_the_last_word() -> None:
    tired = (FailureKind.HTTP_STATUS, 429)
    subject = ScriptedSubject(
        ScriptedPanel(ONE, TWO), lambda _p, judge: tired if judge == TWO else sighting()
    )
    found = await second().inspect(subject)
    assert found.step.state is CheckState.PASSED
    assert found.step.target == ONE
    always = ScriptedSubject(ScriptedPanel(ONE, TWO), lambda _p, _j: tired)
    assert (await second().inspect(always)).failure is FailureKind.FIRST_REQUEST_ONLY


# --- siblings


@pytest.mark.parametrize(
    ("speaks", "first", "tried"),
    [
        ({HTTP}, HTTP, [CONNECT, SOCKS5]),
        ({HTTP, CONNECT}, HTTP, [CONNECT, SOCKS5]),
        ({CONNECT}, CONNECT, [HTTP, SOCKS5]),
        ({SOCKS5}, SOCKS5, [SOCKS4, HTTP]),
        ({SOCKS4}, SOCKS4, [SOCKS5, HTTP, SOCKS4A]),
        ({SOCKS4, SOCKS4A, SOCKS5}, SOCKS5, [SOCKS4, HTTP, SOCKS4A]),
        (set(Protocol), HTTP, [CONNECT, SOCKS5, SOCKS4, SOCKS4A]),
        (set(Protocol), SOCKS5, [SOCKS4, HTTP, CONNECT, SOCKS4A]),
        ({HTTP, SOCKS5}, HTTP, [CONNECT, SOCKS5, SOCKS4]),
    ],
)
async def test_siblings_are_tried_and_what_works_is_told(
    speaks: set[Protocol], first: Protocol, tried: list[Protocol]
) -> None:
    subject = ScriptedSubject(
        ScriptedPanel(ONE),
        lambda protocol, _j: sighting() if protocol in speaks else FailureKind.NOT_THIS_PROTOCOL,
        first=first,
    )
    found = await Siblings(longest_s=5.0).inspect(subject)
    assert found.failure is None
    assert found.step.state is CheckState.PASSED
    assert set(found.protocols) | {first} == speaks
    assert len(found.sightings) == len(found.protocols)
    assert set(tried) <= set(subject.probed)
    assert len(subject.probed) == len(set(subject.probed))


async def test_what_lists_named_is_tried_too() -> None:
    subject = ScriptedSubject(
        ScriptedPanel(ONE), lambda _p, _j: FailureKind.RESET, hints=(SOCKS4, HTTP)
    )
    found = await Siblings(longest_s=5.0).inspect(subject)
    assert set(subject.probed) == {CONNECT, SOCKS5, SOCKS4}
    assert found.protocols == ()
    assert found.failure is None


async def test_siblings_for_which_there_is_no_request_are_skipped_and_not_denied() -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE, grants=1), lambda _p, _j: sighting())
    found = await Siblings(longest_s=5.0).inspect(subject)
    assert found.step.state is CheckState.SKIPPED
    assert found.step.detail is None


# --- anonymity and exit


def after(*sightings: Sighting) -> Examined:
    step = CheckStep("second", CheckState.PASSED)
    return (Finding(step=step, sightings=sightings),)


@pytest.mark.parametrize(
    ("extra", "label"),
    [
        ((), Anonymity.ELITE),
        ((("Via", "1.1 x"),), Anonymity.ANONYMOUS),
        ((("X-Forwarded-For", OWN),), Anonymity.TRANSPARENT),
    ],
)
async def test_the_label_is_that_of_the_worst_sighting(
    extra: tuple[tuple[str, str], ...], label: Anonymity
) -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE), lambda _p, _j: sighting())
    subject.examined = after(sighting(EXIT, *extra))
    found = await AnonymityInspection().inspect(subject)
    assert found.anonymity is label
    assert found.step.state is CheckState.PASSED
    assert found.failure is None


@pytest.mark.parametrize(
    ("own", "host", "label"),
    [
        ({OWN}, EXIT, Anonymity.ELITE),
        (set(), EXIT, Anonymity.UNKNOWN),
        ({OWN}, "2001:db8::5", Anonymity.UNKNOWN),  # our IPv6 address might be in it
        ({OWN, "2001:db8::7"}, "2001:db8::5", Anonymity.ELITE),
        ({OWN}, "proxy.test", Anonymity.ELITE),
    ],
)
async def test_an_own_address_that_is_not_known_leaves_it_unknown(
    own: set[str], host: str, label: Anonymity
) -> None:
    panel = ScriptedPanel(ONE)
    panel.own = frozenset(own)
    subject = ScriptedSubject(panel, lambda _p, _j: sighting(), host=host)
    found = await AnonymityInspection().inspect(subject)
    assert found.anonymity is label
    told = label is not Anonymity.UNKNOWN
    assert found.step.state is (CheckState.PASSED if told else CheckState.UNAVAILABLE)


@pytest.mark.parametrize(
    ("first", "later", "host", "detail"),
    [
        (EXIT, [], EXIT, "listed"),
        (EXIT, [], "203.0.113.1", "same24"),
        (EXIT, [EXIT], "192.0.2.1", "other"),
        (EXIT, [OTHER_EXIT], EXIT, f"same24; changes: {EXIT}, {OTHER_EXIT}"),
    ],
)
async def test_exits_are_compared_with_the_list_and_with_each_other(
    first: str, later: list[str], host: str, detail: str
) -> None:
    subject = ScriptedSubject(
        ScriptedPanel(ONE), lambda _p, _j: sighting(), seen=sighting(first), host=host
    )
    subject.examined = after(*(sighting(ip) for ip in later))
    found = await ExitInspection().inspect(subject)
    assert found.step.detail == detail
    assert found.step.state is CheckState.PASSED


async def test_an_exit_that_differs_for_https_is_told() -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE), lambda _p, _j: sighting())
    subject.examined = after(sighting(OTHER_EXIT, inside_tls=True))
    found = await ExitInspection().inspect(subject)
    assert found.step.detail is not None
    assert "differs for https" in found.step.detail


async def test_an_exit_that_no_judge_could_see_is_unavailable() -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE), lambda _p, _j: sighting(), seen=sighting(""))
    found = await ExitInspection().inspect(subject)
    assert found.step.state is CheckState.UNAVAILABLE


def test_the_inspections_come_in_their_order_and_under_their_names() -> None:
    names = [one.name for one in default_inspections(Settings())]
    assert names == ["second", "siblings", "https", "anonymity", "exit"]


async def test_without_an_https_judge_https_is_unavailable_and_not_false() -> None:
    subject = ScriptedSubject(ScriptedPanel(ONE), lambda _p, _j: sighting())
    https = next(one for one in default_inspections(Settings()) if one.name == "https")
    found = await https.inspect(subject)
    assert found.step.state is CheckState.UNAVAILABLE
    assert found.https is None
    assert found.failure is None
