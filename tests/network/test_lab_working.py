"""What the truth calls working works for curl, exits where it says, adds what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxywell.lab.behaviours import BEHAVIOURS, FRONTS
from tests.network.lab_client import OUR_ADDRESS, Served, curl, needs_curl, serving

WORKING = [name for name, behaviour in BEHAVIOURS.items() if behaviour.group == "working"]
REVEALING = ("HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")
MORE = ("HTTP_CLIENT_IP", "HTTP_X_PROXY_ID")

pytestmark = needs_curl


@pytest.fixture(scope="module")
def lab() -> Iterator[Served]:
    with serving("--profile", "small", "--seed", "11") as served:
        yield served


@pytest.mark.parametrize("behaviour", WORKING)
def test_a_working_proxy_works_by_every_protocol_that_it_speaks(
    lab: Served, behaviour: str
) -> None:
    truth = lab.one(behaviour)
    assert truth["protocols"]
    for protocol in truth["protocols"]:
        seen = curl(truth, protocol, lab.azenv)
        assert seen.code == 0, (protocol, seen)
        assert seen.environment["REMOTE_ADDR"] in truth["exit_ips"]


def test_it_refuses_the_protocols_that_it_does_not_speak(lab: Served) -> None:
    for front, protocols in FRONTS.items():
        truth = lab.one(front)
        for protocol in {"http", "connect", "socks4", "socks4a", "socks5"} - set(protocols):
            seen = curl(truth, protocol, "http://site.lab.test:9/")
            assert seen.code != 0 or seen.status >= 400, (front, protocol, seen)


def test_the_headers_that_arrive_are_those_of_its_anonymity_level(lab: Served) -> None:
    forwarding = [truth for truth in lab.proxies if truth["group"] == "working"]
    forwarding = [truth for truth in forwarding if "http" in truth["protocols"]][:24]
    levels = set()
    for truth in forwarding:
        seen = curl(truth, "http", lab.azenv).environment
        marks = {name: seen[name] for name in (*REVEALING, *MORE) if name in seen}
        levels.add(truth["anonymity"])
        if truth["anonymity"] == "elite":
            assert not marks
        elif truth["anonymity"] == "transparent":
            assert any(OUR_ADDRESS in value for value in marks.values())
        else:
            assert marks
            assert not any(OUR_ADDRESS in value for value in marks.values())
    assert levels == {"elite", "anonymous", "transparent"}


def test_inside_a_tunnel_nothing_is_added(lab: Served) -> None:
    for behaviour in ("http_connect", "connect", "socks5"):
        truth = lab.one(behaviour)
        seen = curl(truth, truth["protocols"][-1], lab.azenv).environment
        assert not [name for name in (*REVEALING, *MORE) if name in seen]


def test_a_changing_exit_shows_all_of_its_addresses(lab: Served) -> None:
    truth = lab.one("changing_exit")
    protocol = truth["protocols"][0]
    seen = {curl(truth, protocol, lab.azenv).environment["REMOTE_ADDR"] for _ in range(8)}
    assert seen == set(truth["exit_ips"])
    assert len(seen) > 1


def test_a_login_is_demanded(lab: Served) -> None:
    for behaviour in ("http_login", "socks5_login"):
        truth = {**lab.one(behaviour), "user": None}
        seen = curl(truth, truth["protocols"][0], lab.azenv)
        assert seen.status == 407 or seen.code != 0
        wrong = {**truth, "user": "user", "password": "wrong"}
        seen = curl(wrong, truth["protocols"][0], lab.azenv)
        assert seen.status == 407 or seen.code != 0


def test_names_are_resolved_by_the_proxy(lab: Served) -> None:
    port = lab.offer["sites"]["http"].rpartition(":")[2]
    for protocol in ("http", "connect", "socks4a"):
        truth = lab.one("socks4a" if protocol == "socks4a" else "http_connect")
        assert "village library" in curl(truth, protocol, f"http://site.lab.test:{port}").body
    socks5 = curl(lab.one("socks5"), "socks5h", f"http://site.lab.test:{port}")
    assert "village library" in socks5.body


def test_nothing_beyond_loopback_is_ever_reached(lab: Served) -> None:
    for protocol in ("http", "connect", "socks4", "socks5"):
        truth = next(t for t in lab.proxies if t["working"] and protocol in t["protocols"])
        for target in ("http://192.0.2.1/", "http://10.0.0.1/", "http://[::1]:80/"):
            seen = curl(truth, protocol, target)
            assert seen.code != 0 or seen.status == 503, (protocol, target, seen)


def test_https_through_a_tunnel_shows_the_right_certificate(lab: Served) -> None:
    site = lab.offer["sites"]["https"]
    tunnelling = [truth for truth in lab.proxies if truth["https"]]
    for truth in tunnelling[:16]:
        protocol = next(name for name in truth["protocols"] if name != "http")
        seen = curl(truth, protocol, site, "--cacert", lab.offer["ca_file"])
        assert seen.code == 0, (truth, seen)
        assert "village library" in seen.body


def test_both_ends_of_early_tunnel_bytes_arrive(lab: Served) -> None:
    banner = lab.offer["sites"]["banner"].removeprefix("tcp://")
    truth = lab.one("early_tunnel_bytes", "connect")
    seen = curl(truth, "connect", f"telnet://{banner}", "--max-time", "1")
    assert "220 greeter" in seen.headers + seen.body
