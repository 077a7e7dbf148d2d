"""From a profile to a fleet: shares, determinism, and what is true of each proxy."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from proxywell.lab.behaviours import BEHAVIOURS
from proxywell.lab.fleet import build_fleet
from proxywell.lab.lists import MALFORMED, publish
from proxywell.lab.profile import FleetShares, Profile, load_profile
from proxywell.lab.proxy import Proxy, truth_of
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import Blame
from proxywell.model.verdict import Anonymity
from proxywell.sources.grammar import HINT_BITS, Entry
from proxywell.sources.parse import ListParser


def of_size(name: str, candidates: int) -> Profile:
    profile = load_profile(name)
    fleet = msgspec.structs.replace(profile.fleet, candidates=candidates)
    return msgspec.structs.replace(profile, fleet=fleet)


@pytest.fixture(scope="module")
def realistic() -> list[Proxy]:
    return build_fleet(of_size("realistic", 20_000), 7)


def placed(fleet: list[Proxy]) -> list[Proxy]:
    for proxy in fleet:
        proxy.port = 20_000 + proxy.slot
    return fleet


def test_the_same_seed_makes_the_same_fleet_and_another_seed_another() -> None:
    profile = load_profile("small")
    assert build_fleet(profile, 1) == build_fleet(profile, 1)
    assert build_fleet(profile, 1) != build_fleet(profile, 2)
    first, second = (publish(placed(build_fleet(profile, 1)), profile, 1) for _ in range(2))
    assert first == second


def test_shares_are_those_of_the_profile(realistic: list[Proxy]) -> None:
    groups = Counter(proxy.behaviour.group for proxy in realistic)
    assert groups == {"working": 950, "liars": 100, "junk": 18_950}
    kinds = Counter(proxy.behaviour.name for proxy in realistic)
    assert kinds["black_hole"] / groups["junk"] == pytest.approx(0.78, abs=0.01)
    assert kinds["refuse"] / groups["junk"] == pytest.approx(0.12, abs=0.01)
    forwarding = [p for p in realistic if p.behaviour.group == "working" and "http" in p.protocols]
    levels = Counter(proxy.anonymity for proxy in forwarding)
    assert levels[Anonymity.ELITE] / len(forwarding) == pytest.approx(0.50, abs=0.07)
    assert levels[Anonymity.TRANSPARENT] / len(forwarding) == pytest.approx(0.35, abs=0.07)


def test_exits_differ_from_what_is_listed_as_often_as_the_profile_says(
    realistic: list[Proxy],
) -> None:
    forwarding = [p for p in realistic if p.exits and p.behaviour.name != "changing_exit"]
    http = [p for p in forwarding if p.protocols[0] is Protocol.HTTP]
    socks5 = [p for p in forwarding if p.protocols[0] is Protocol.SOCKS5]
    for group, share in ((http, 0.33), (socks5, 0.68)):
        other = [p for p in group if p.exits[0] != p.host]
        assert len(other) / len(group) == pytest.approx(share, abs=0.08)
        rotating = [p for p in group if len(p.exits) > 1]
        assert len(rotating) / len(group) == pytest.approx(0.14, abs=0.05)


def test_no_two_proxies_share_a_place_and_none_lives_where_judges_or_clients_do(
    realistic: list[Proxy],
) -> None:
    kinds = {"black_hole", "refuse"}
    places = [
        (p.host, p.slot, p.behaviour.name if p.behaviour.name in kinds else "live")
        for p in realistic
    ]
    assert len(set(places)) == len(places)
    for proxy in realistic:
        for host in (proxy.host, *proxy.exits):
            first, second, _, last = (int(part) for part in host.split("."))
            assert first == 127
            assert second >= 16
            assert 1 <= last <= 254


def test_one_network_holds_its_share_of_socks5(realistic: list[Proxy]) -> None:
    socks5 = [
        p.host.rpartition(".")[0]
        for p in realistic
        if p.behaviour.group == "working" and p.protocols == (Protocol.SOCKS5,)
    ]
    largest = Counter(socks5).most_common(1)[0][1]
    assert largest / len(socks5) == pytest.approx(0.39, abs=0.12)


def test_every_behaviour_that_has_a_weight_is_there_in_the_profiles_that_promise_it() -> None:
    for name in ("small", "hostile"):
        profile = load_profile(name)
        fleet = build_fleet(profile, 3)
        weighted = {*profile.working, *profile.liars, *profile.junk}
        assert {proxy.behaviour.name for proxy in fleet} == weighted
        assert set(BEHAVIOURS) - weighted <= {"http_login", "socks5_login"}


def test_the_truth_of_every_behaviour_holds_together() -> None:
    for proxy in build_fleet(load_profile("hostile"), 5):
        truth = truth_of(proxy)
        assert truth.working == (truth.group == "working") == (not truth.failures)
        assert (truth.blame == "proxy") != truth.working
        assert all(kind.blame is Blame.PROXY for kind in truth.failures)
        assert (truth.https is not None) == truth.working
        if truth.working:
            assert truth.protocols
            assert truth.exit_ips
            assert truth.exit_ip == truth.exit_ips[0]
            assert truth.anonymity in set(Anonymity) - {Anonymity.UNKNOWN}
            assert not truth.tampering
            assert not truth.intercepts_tls


def test_what_is_off_does_not_work_and_says_how_it_fails() -> None:
    fleet = build_fleet(load_profile("small"), 5)
    for proxy in fleet:
        truth = truth_of(proxy, on=False)
        assert not truth.working
        assert truth.failures
        assert truth.blame == "proxy"


def test_ipv6_ones_are_working_ones_and_only_where_there_is_ipv6() -> None:
    profile = load_profile("small")
    with_ipv6 = [p for p in build_fleet(profile, 1) if p.host == "::1"]
    assert len(with_ipv6) == profile.fleet.ipv6
    assert len({proxy.slot for proxy in with_ipv6}) == len(with_ipv6)
    assert all(proxy.behaviour.group == "working" for proxy in with_ipv6)
    assert not [p for p in with_ipv6 if p.anonymity is Anonymity.TRANSPARENT]
    assert not [p for p in build_fleet(profile, 1, ipv6=False) if p.host == "::1"]


def test_lists_publish_every_proxy_once_or_twice_and_count_what_is_well_formed() -> None:
    profile = load_profile("small")
    fleet = placed(build_fleet(profile, 9))
    lists = publish(fleet, profile, 9)
    known = {proxy.netloc: proxy for proxy in fleet}
    seen: Counter[str] = Counter()
    dirty = 0
    for entry in lists:
        if entry.kind == "application/json":
            found = [f"[{o['ip']}]:{o['port']}" if ":" in o["ip"] else f"{o['ip']}:{o['port']}"
                     for o in msgspec.json.decode(entry.text)]  # fmt: skip
        else:
            lines = [line for line in entry.text.splitlines() if line not in MALFORMED]
            dirty += len(entry.text.splitlines()) - len(lines)
            found = [line.rpartition("@")[2].rpartition("//")[2] for line in lines]
        assert len(found) == entry.entries
        for netloc in found:
            assert netloc in known
            if entry.protocol is not None:
                assert known[netloc].hint is entry.protocol
        seen.update(found)
    assert set(seen) == set(known)
    assert max(seen.values()) <= 2
    assert dirty == profile.lists.malformed_lines


@pytest.mark.parametrize("candidates", range(1, 12))
def test_a_fleet_of_any_size_has_exactly_that_size(candidates: int) -> None:
    for name in ("small", "hostile"):
        assert len(build_fleet(of_size(name, candidates), 1)) == candidates
    half = msgspec.structs.replace(
        load_profile("small"),
        fleet=FleetShares(candidates=candidates, working_share=0.5, liar_share=0.5),
    )
    assert len(build_fleet(half, 1)) == candidates


def test_only_the_list_of_logins_has_logins() -> None:
    profile = load_profile("small")
    for entry in publish(placed(build_fleet(profile, 2)), profile, 2):
        assert ("@" in entry.text) == (entry.name == "logins.txt")


def test_our_own_reader_finds_in_each_list_what_the_lab_says_is_in_it() -> None:
    profile = load_profile("small")
    fleet = placed(build_fleet(profile, 4))
    known = {proxy.netloc: proxy for proxy in fleet}
    malformed = 0
    for entry in publish(fleet, profile, 4):
        parser = ListParser()
        found = [*parser.feed(entry.text.encode()), *parser.finish()]
        good = [each for each in found if isinstance(each, Entry)]
        malformed += len(found) - len(good)
        assert len(good) == entry.entries
        for each in good:
            proxy = known[Endpoint(each.host, each.port).netloc]
            assert (each.user, each.password) == (proxy.user, proxy.password)
            if entry.protocol is None and proxy.user is None:
                assert each.hints == HINT_BITS[proxy.hint]
    assert malformed == profile.lists.malformed_lines
