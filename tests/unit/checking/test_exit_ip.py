"""Addresses in what others wrote: whole tokens, one canonical text."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.checking.exit_ip import (
    ExitMatch,
    addresses_in,
    canonical_ip,
    exit_match,
    stated_addresses_in,
)

v4 = st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number)))
v6 = st.integers(2**64, 2**128 - 1).map(IPv6Address).filter(
    lambda ip: not ip.ipv4_mapped and not ip.sixtofour and not str(ip).startswith("64:ff9b:")
).map(str)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("1.2.3.4", "1.2.3.4"),
        (" 1.2.3.4\r\n", "1.2.3.4"),
        ('"1.2.3.4"', "1.2.3.4"),
        ("1.2.3.4:80", "1.2.3.4"),
        ("001.002.003.004", "1.2.3.4"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::ffff:102:304]:80", "1.2.3.4"),
        ("64:ff9b::1.2.3.4", "1.2.3.4"),
        ("2002:102:304::", "1.2.3.4"),
        ("", None),
        ("unknown", None),
        ("1.2.3", None),
        ("1.2.3.4.5", None),
        ("256.1.1.1", None),
        ("1.2.3.4 5.6.7.8", None),
        ("1.2.3.4:x", None),
        ("[2001:db8::1", None),
        ("[2001:db8::1]x", None),
        ("<html>1.2.3.4</html>", None),
        ("1" * 100, None),
        ("\uff11.2.3.4", None),
    ],
)
def test_one_address_and_nothing_else_is_read(text: str, ip: str | None) -> None:
    assert canonical_ip(text) == ip


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("1.2.3.4", ["1.2.3.4"]),
        ("11.2.3.45", ["11.2.3.45"]),
        ("1.2.3.4, 5.6.7.8", ["1.2.3.4", "5.6.7.8"]),
        ("1.2.3.4,1.2.3.4", ["1.2.3.4"]),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", ["192.0.2.60", "203.0.113.43"]),
        ('For="[2001:db8:cafe::17]:4711"', ["2001:db8:cafe::17"]),
        ('for="192.0.2.43:47011", for=unknown', ["192.0.2.43"]),
        ("for=_hidden, for=_SEVKISEK", []),
        ("for=_1.2.3.4", ["1.2.3.4"]),
        ("http://1.2.3.4:8080/x", ["1.2.3.4"]),
        ("::ffff:1.2.3.4", ["1.2.3.4"]),
        ("2001:db8::1, 1.2.3.4", ["2001:db8::1", "1.2.3.4"]),
        ("1.2.3.4.5", []),
        ("v1.2.3.4", []),
        ("1.2.3.4x", []),
        ("x1.2.3.4", []),
        ("12:30:45", []),
        ("1.2.3.4.", ["1.2.3.4"]),
        ("(1.2.3.4)", ["1.2.3.4"]),
        ("300.2.3.4", []),
        ("", []),
        ("::", ["::"]),
    ],
)
def test_whole_tokens_are_found_wherever_they_stand(value: str, found: list[str]) -> None:
    assert list(addresses_in(value)) == found


def test_a_version_is_no_stated_address() -> None:
    assert stated_addresses_in("1.1 host (squid/5.7.0.1)") == ()
    assert stated_addresses_in("http://5.7.0.1/") == ("5.7.0.1",)
    assert stated_addresses_in("1.1 5.7.0.1 (squid/5.7.0.1)") == ("5.7.0.1",)
    assert addresses_in("squid/5.7.0.1") == ("5.7.0.1",)


@given(ip=st.one_of(v4, v6), before=st.sampled_from(["", "for=", '"[', "a, ", "(", "_"]))
def test_any_address_is_found_behind_any_mark(ip: str, before: str) -> None:
    after = {'"[': ']"', "(": ")"}.get(before, "")
    assert addresses_in(before + ip + after) == (ip,)


@given(ip=v4, digit=st.sampled_from("0123456789"))
def test_a_longer_number_is_another_address_or_none(ip: str, digit: str) -> None:
    for longer in (digit + ip, ip + digit):
        found = addresses_in(longer)
        assert found == () or found[0] != ip or canonical_ip(longer) == ip


@given(st.text(max_size=300))
def test_any_text_can_be_searched(text: str) -> None:
    for ip in addresses_in(text):
        assert canonical_ip(ip) == ip


def test_a_long_hostile_value_takes_no_time() -> None:
    for piece in ("1.", ":", "a:", "1.2.3.", "[:", "0:" * 3):
        addresses_in(piece * 5_000)


@pytest.mark.parametrize(
    ("exit_ip", "listed", "match"),
    [
        ("1.2.3.4", "1.2.3.4", ExitMatch.LISTED),
        ("1.2.3.4", "1.2.3.9", ExitMatch.SAME_24),
        ("1.2.3.4", "1.2.4.4", ExitMatch.OTHER),
        ("2001:db8:1::1", "2001:db8:1:2::9", ExitMatch.SAME_24),
        ("2001:db8:1::1", "2001:db8:2::1", ExitMatch.OTHER),
        ("1.2.3.4", "2001:db8::1", ExitMatch.OTHER),
        ("1.2.3.4", "proxy.test", ExitMatch.OTHER),
    ],
)
def test_the_exit_is_compared_with_the_list(exit_ip: str, listed: str, match: ExitMatch) -> None:
    assert exit_match(exit_ip, listed) is match
