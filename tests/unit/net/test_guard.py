from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.report import RefusalReason
from proxywell.net.guard import SERVICE_PORTS, Guard, canonical_address

PRIVATE = RefusalReason.PRIVATE_ADDRESS

# What a list may say to reach us, our network, or the cloud that we run in.
NEVER_DIALLED = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200",
    "100.127.255.255", "127.0.0.1", "127.1.2.3", "127.255.255.255", "168.63.129.16",
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.7", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::a00:1", "::7f00:1", "::ffff:10.0.0.1", "::ffff:7f00:1", "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b::808:808",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1",
    "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1",
    "2a00:1450:4001::5efe:a00:1", "2a00:1450:4001::200:5efe:7f00:1", "4000::1", "fc00::1",
    "fd00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::5efe:10.0.0.1", "fec0::1",
    "ff02::1", "ff0e::1",
)  # fmt: skip
NOT_AN_ADDRESS = (
    "127.1", "127.0.1", "0x7f.1", "0x7f000001", "017700000001", "2130706433", "010.0.0.1",
    "127.0.0.01", "127.0.0.1.", ".127.0.0.1", "127.0.0.256", "1.2.3.4.5", "1.2.3", "", " ",
    "127.0.0.1 ", " 127.0.0.1", "127.0.0.1\n", "127.0.0.1/8", "1.2.3.+4", "1.2.3.-4", "1.2.3.a",
    "127\u30020\u30020\u30021", "\uff11\uff12\uff17.0.0.1", "\u0660.0.0.1",
    "localhost", "metadata.google.internal",
    "[::1]", "::1%lo", "fe80::1%eth0", "1::2::3", "12345::", ":::", "::ffff:010.0.0.1",
    "::1 ", "0:0:0:0:0:0:0:0:1", "::g",
)  # fmt: skip


@pytest.mark.parametrize("host", NEVER_DIALLED)
def test_what_is_not_reachable_from_the_whole_internet_is_never_dialled(host: str) -> None:
    canonical = canonical_address(host)
    assert canonical is not None
    assert Guard().refusal(canonical, 8080) is PRIVATE
    assert Guard().refusal(host, 8080) is PRIVATE  # nor in another spelling


def test_there_are_at_least_sixty_such_forms() -> None:
    assert len(set(NEVER_DIALLED)) >= 60


@pytest.mark.parametrize("text", NOT_AN_ADDRESS)
def test_short_octal_hex_and_decorated_forms_are_no_addresses(text: str) -> None:
    assert canonical_address(text) is None
    assert Guard(allow_private=True).refusal(text, 8080) is RefusalReason.HOST_NAME


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "11.0.0.1",
                                  "172.15.0.1", "172.32.0.1", "192.0.1.1", "192.169.0.1",
                                  "198.17.0.1", "223.255.255.1", "2606:4700::1111",
                                  "2a00:1450:4001::5efe", "2001:200::1"])  # fmt: skip
def test_public_addresses_are_admitted(host: str) -> None:
    assert Guard().refusal(host, 8080) is None


OWN = ("127.0.0.1", "127.200.0.9", "10.1.2.3", "172.16.9.9", "192.168.1.1", "::1", "fd12:3456::1")


@pytest.mark.parametrize("host", NEVER_DIALLED)
def test_allowing_private_admits_loopback_and_private_ones_and_nothing_else(host: str) -> None:
    plain = ipaddress.ip_address(host)
    own = any(
        plain in ipaddress.ip_network(network)
        for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
        if plain.version == 4
    ) or host in ("::1", "fc00::1", "fd00::1")
    assert Guard(allow_private=True).refusal(host, 8080) is (None if own else PRIVATE)


@pytest.mark.parametrize("host", OWN)
def test_own_networks_are_admitted_when_allowed(host: str) -> None:
    assert Guard().refusal(host, 8080) is PRIVATE
    assert Guard(allow_private=True).refusal(host, 8080) is None


def test_service_ports_are_refused_behind_the_address_and_can_be_allowed() -> None:
    for port in (22, 23, 25, 53, 110, 143, 389, 445, 465, 587, 993, 995, 3306, 5432, 6379, 9200,
                 11211, 27017):  # fmt: skip
        assert port in SERVICE_PORTS
        assert Guard().refusal("8.8.8.8", port) is RefusalReason.SERVICE_PORT
        assert Guard().refusal("2606:4700::1111", port) is RefusalReason.SERVICE_PORT
        assert Guard().refusal("10.0.0.1", port) is PRIVATE
        assert Guard().refuses_port(port)
        assert Guard(allow_service_ports=True).refusal("8.8.8.8", port) is None
        assert not Guard(allow_service_ports=True).refuses_port(port)
    assert Guard().refusal("8.8.8.8", 80) is None


def test_our_own_addresses_are_refused_in_every_spelling() -> None:
    guard = Guard(allow_private=True, denied=("9.9.9.9", "2606:4700:0::0001", "10.0.0.7"))
    assert guard.refusal("9.9.9.9", 80) is PRIVATE
    assert guard.refusal("10.0.0.7", 80) is PRIVATE
    assert guard.refusal("2606:4700::1", 80) is PRIVATE
    assert guard.refusal("2606:4700::0:1", 80) is PRIVATE
    assert guard.refusal("9.9.9.8", 80) is None


def test_a_denied_text_that_is_no_address_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match=re.escape("'127.1' is not an address")):
        Guard(denied=("127.1",))


# Global by the registries, refused by us: they carry or stand for something else.
REFUSED_ALTHOUGH_GLOBAL = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "224.0.0.0/4",
                               "2001::/23", "2002::/16", "3fff::/20", "64:ff9b::/96",
                               "64:ff9b:1::/48", "::ffff:0:0/96", "ff00::/8"))
)  # fmt: skip
EDGES = st.sampled_from(
    [
        int(edge) + step
        for text in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
                     "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16",
                     "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3")
        for edge in (ipaddress.ip_network(text)[0], ipaddress.ip_network(text)[-1])
        for step in (-1, 0, 1)
        if 0 <= int(edge) + step < 2**32
    ]
)  # fmt: skip
V4 = st.one_of(EDGES, st.integers(0, 2**32 - 1)).map(ipaddress.IPv4Address)
V6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.builds(lambda top, low: top << 112 | low, st.sampled_from(
        [0, 0x64, 0x2001, 0x2002, 0x2606, 0x2A00, 0x3FFE, 0x3FFF, 0x5F00, 0xFC00, 0xFE80, 0xFF02]
    ), st.integers(0, 2**112 - 1)),
    st.integers(0, 2**33),
).map(ipaddress.IPv6Address)  # fmt: skip


def disagreement(guard: Guard, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Compare with the standard library; empty when both say the same."""
    host = canonical_address(str(address))
    if host is None:
        return "not canonical"
    admitted = guard.refusal(host, 8080) is None
    reachable = address.is_global and not address.is_multicast
    known = any(address in network for network in REFUSED_ALTHOUGH_GLOBAL)
    isatap = address.version == 6 and int(address) >> 32 & 0xFFFF_FFFF in (0x5EFE, 0x0200_5EFE)
    outside = address.version == 6 and int(address) >> 125 != 1  # not assigned as global unicast
    if admitted and (not reachable or known or isatap):
        return "admitted"
    if not admitted and reachable and not (known or isatap or outside):
        return "refused"
    return ""


@given(address=st.one_of(V4, V6))
def test_the_guard_agrees_with_the_standard_library_on_what_is_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert disagreement(Guard(), address) == ""


class ForgetsTheLastHalfOfAnOctet(Guard):
    """A planted bug: 172.16.0.0/12 is taken for 172.16.0.0/13."""

    def refusal(self, host: str, port: int) -> RefusalReason | None:
        if re.fullmatch(r"172\.(2[4-9]|3[01])\..*", host):
            return None
        return super().refusal(host, port)


def test_the_comparison_catches_a_range_that_is_one_bit_short() -> None:
    address = ipaddress.IPv4Address("172.24.0.1")
    assert disagreement(ForgetsTheLastHalfOfAnOctet(), address) == "admitted"


@given(address=st.one_of(V4, V6))
def test_a_canonical_address_is_its_own_canonical_form(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    for spelling in (str(address), address.exploded, str(address).upper()):
        host = canonical_address(spelling)
        assert host is not None
        assert canonical_address(host) == host
        assert ipaddress.ip_address(host) == address


@given(text=st.one_of(st.text(max_size=24), st.text("0123456789.abcdefx:%[]/ \n", max_size=24)))
def test_only_what_the_standard_library_takes_is_an_address(text: str) -> None:
    try:
        expected: object = ipaddress.ip_address(text)
    except ValueError:
        expected = None
    if "%" in text:
        expected = None
    host = canonical_address(text)
    assert (None if host is None else ipaddress.ip_address(host)) == expected
