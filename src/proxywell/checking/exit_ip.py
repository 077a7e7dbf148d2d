"""Addresses as judges and proxies write them: one canonical text, and all that a value holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_QUAD = re.compile(r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])")
_COLONS = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
_PRODUCT_VERSION = re.compile(r"[A-Za-z]/\Z")
_NAT64 = ip_network("64:ff9b::/96")
_INSIDE = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_LONGEST_TEXT = 80


class ExitMatch(StrEnum):
    """How the exit address relates to the address in the list."""

    LISTED = "listed"
    SAME_24 = "same24"  # IPv6: the same /48
    OTHER = "other"


def canonical_ip(text: str) -> str | None:
    """Read one address that somebody wrote, and nothing else.

    Takes IPv4 (leading zeros read as decimal), IPv6, IPv6 in brackets, either with a port
    where that is unambiguous, a zone, and quotes around it all. IPv4 inside IPv6 (mapped,
    RFC 4291; NAT64, RFC 6052; 6to4, RFC 3056) comes out as IPv4.

    Returns:
        The canonical text, or None if it is no address.
    """
    text = text.strip().strip('"')
    if len(text) > _LONGEST_TEXT:
        return None
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(":" + port):
            return None
    return _canonical(text.partition("%")[0])


def addresses_in(value: str) -> tuple[str, ...]:
    """Every address in a header's value, canonical, in order, each once.

    Whole tokens only: ``1.2.3.4`` is not in ``11.2.3.45`` nor in ``1.2.3.4.5``. Understands
    lists, ports, brackets, and the ``for=`` syntax of RFC 7239, whose obfuscated names
    (``_hidden``) count only if they spell an address.
    """
    return tuple(dict.fromkeys(address for address, _ in _located(value)))


def stated_addresses_in(value: str) -> tuple[str, ...]:
    """As ``addresses_in``, without what is rather a version (``squid/5.7.0.1``)."""
    return tuple(
        dict.fromkeys(
            address
            for address, begin in _located(value)
            if not _PRODUCT_VERSION.search(value, max(0, begin - 2), begin)
        )
    )


def exit_match(exit_ip: str, listed: str) -> ExitMatch:
    """Compare the exit with the host that the list named.

    Args:
        exit_ip: Canonical address that the judge saw.
        listed: The endpoint's host; a name matches nothing.
    """
    if exit_ip == listed:
        return ExitMatch.LISTED
    try:
        mine, theirs = ip_address(exit_ip), ip_address(listed)
    except ValueError:
        return ExitMatch.OTHER
    if mine.version != theirs.version:
        return ExitMatch.OTHER
    kept_bits = 24 if mine.version == 4 else 48
    shift = mine.max_prefixlen - kept_bits
    return ExitMatch.SAME_24 if int(mine) >> shift == int(theirs) >> shift else ExitMatch.OTHER


def is_public(address: str) -> bool:
    """Whether a canonical address is globally routable."""
    parsed = ip_address(address)
    return parsed.is_global and not parsed.is_multicast


def is_inside_address(address: str) -> bool:
    """Whether a canonical address is one of a network behind a router (RFC 1918, 6598, 4193)."""
    parsed = ip_address(address)
    return parsed.is_link_local or any(parsed in network for network in _INSIDE)


def distinct(addresses: Iterable[str]) -> tuple[str, ...]:
    """Each once, in order of first appearance."""
    return tuple(dict.fromkeys(addresses))


def _located(value: str) -> list[tuple[str, int]]:
    found = []
    taken: list[tuple[int, int]] = []
    if value.count(":") >= 2:
        for match in _COLONS.finditer(value):
            address = _canonical(match.group().rstrip("."))
            if address is not None:
                found.append((address, match.start()))
                taken.append(match.span())
    for match in _QUAD.finditer(value):
        if any(begin <= match.start() < end for begin, end in taken):
            continue
        address = _canonical(match.group())
        if address is not None:
            found.append((address, match.start()))
    return sorted(found, key=lambda pair: pair[1])


def _canonical(text: str) -> str | None:
    if ":" not in text:
        if not _QUAD.fullmatch(text):
            return None
        octets = [int(part) for part in text.split(".")]
        return ".".join(map(str, octets)) if max(octets) <= 255 else None
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFF_FFFF)
    return str(inner or address)


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text.startswith(":") and digits.isascii() and digits.isdecimal() and len(digits) <= 5
