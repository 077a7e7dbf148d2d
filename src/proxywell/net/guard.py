"""Which addresses and ports may be dialled: the gate at parse and again at connect.

A hostile list turns a checker into a scanner of the network that it runs in. So an address is
dialled only if the whole internet can reach it, judged on its canonical form, and ports where
an unexpected HTTP or SOCKS request does harm are left alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from proxywell.model.report import RefusalReason

# Remote shells, mail, name service, directories, file sharing, databases.
SERVICE_PORTS = frozenset(
    (22, 23, 25, 53, 110, 143, 389, 445, 465, 587, 993, 995, 3306, 5432, 6379, 9200, 11211, 27017)
)

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_QUAD = re.compile(r"\.".join([_OCTET] * 4))
_V6_LETTERS = re.compile(r"[0-9a-fA-F:.]{2,45}")

# Not globally reachable (IANA special-purpose registries, RFC 6890), and further addresses that
# are routable on paper only: 6to4 relays (RFC 7526), and one cloud's host service.
_NEVER_V4 = (
    "0.0.0.0/8",
    "100.64.0.0/10",  # carrier NAT, also the metadata service 100.100.100.200
    "169.254.0.0/16",  # link-local, also the metadata service 169.254.169.254
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "168.63.129.16/32",  # a cloud's host service, the same address on every machine there
    "224.0.0.0/4",
    "240.0.0.0/4",  # reserved, and the broadcast address
)
_OWN_V4 = ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")  # all that is assigned as global unicast
_NEVER_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",
    )
)
_OWN_V6 = (ipaddress.IPv6Network("::1/128"), ipaddress.IPv6Network("fc00::/7"))
_METADATA_V6 = frozenset(
    ipaddress.IPv6Address(text) for text in ("fd00:ec2::254", "fd20:ce::254", "fd00:42::42")
)
_ISATAP = frozenset((0x0000_5EFE, 0x0200_5EFE))  # bits 32 to 63 (RFC 5214, section 6.1)


def _by_first_octet() -> dict[str, tuple[tuple[int, int, bool], ...]]:
    """Special IPv4 ranges as (first, last, own network), found by the text of the first octet."""
    table: dict[str, list[tuple[int, int, bool]]] = {}
    for texts, own in ((_NEVER_V4, False), (_OWN_V4, True)):
        for network in map(ipaddress.IPv4Network, texts):
            first, last = int(network.network_address), int(network.broadcast_address)
            for octet in range(first >> 24, (last >> 24) + 1):
                table.setdefault(str(octet), []).append((first, last, own))
    return {octet: tuple(ranges) for octet, ranges in table.items()}


_SPECIAL_V4 = _by_first_octet()


def canonical_address(text: str) -> str | None:
    """Read an address strictly, and give it in its one canonical form.

    Four decimal octets without leading zeros, or IPv6 without zone and brackets. Octal, hex and
    short forms (``127.1``) are never repaired: programs disagree about what they mean.

    Args:
        text: Anything, also hostile.

    Returns:
        The dotted quad as it is; IPv6 compressed and in lower case (RFC 5952, but with an
        embedded IPv4 address in hex, so that one address has one form); None if ``text`` is
        not an address.
    """
    if _QUAD.fullmatch(text):
        return text
    address = _v6(text)
    return None if address is None else _v6_text(address)


def _v6(text: str) -> ipaddress.IPv6Address | None:
    if ":" not in text or not _V6_LETTERS.fullmatch(text):
        return None
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        return None


def _v6_text(address: ipaddress.IPv6Address) -> str:
    if address.ipv4_mapped is not None:  # its text form differs between versions of Python
        low = int(address.ipv4_mapped)
        return f"::ffff:{low >> 16:x}:{low & 0xFFFF:x}"
    return address.compressed


class Guard:
    """Says no to what must not be dialled; cheap enough to be asked for every entry of a list.

    Refused are all addresses that are not globally reachable: private, loopback, link-local,
    carrier NAT, metadata services, multicast, broadcast, reserved and documentation ranges, and
    every IPv6 form that carries an IPv4 address (mapped, compatible, 6to4, Teredo, NAT64,
    ISATAP), because what is inside would escape the examination.

    Args:
        allow_private: Admit loopback (127.0.0.0/8, ::1) and private (RFC 1918, fc00::/7)
            addresses in their plain form. Link-local, metadata, multicast, unspecified and
            broadcast addresses, and embedded forms, stay refused.
        allow_service_ports: Admit ``SERVICE_PORTS``.
        denied: Addresses to refuse in any case, for example our own.

    Raises:
        ValueError: ``denied`` holds something that is not an address.
    """

    def __init__(
        self,
        allow_private: bool = False,
        allow_service_ports: bool = False,
        denied: Iterable[str] = (),
    ) -> None:
        self.allow_private = allow_private
        self.allow_service_ports = allow_service_ports
        self.denied = frozenset(map(_must_be_address, denied))
        self._refused_ports = frozenset() if allow_service_ports else SERVICE_PORTS

    def refusal(self, host: str, port: int) -> RefusalReason | None:
        """Say why an address and port must not be dialled, or None if they may.

        Args:
            host: An address as ``canonical_address`` gives it. Anything else is examined all the
                same and never waved through; what is not an address is a name.
            port: 1 to 65535.

        Returns:
            ``private_address`` before ``service_port``; ``host_name`` for what is not an
            address: resolve it and ask again about what came out.
        """
        quad = _QUAD.fullmatch(host)
        if quad is None:
            reason = self._refusal_of_other(host)
            if reason is not None:
                return reason
        else:
            special = _SPECIAL_V4.get(quad[1])
            if special is not None and not self._admits_v4(quad, special):
                return RefusalReason.PRIVATE_ADDRESS
            if host in self.denied:
                return RefusalReason.PRIVATE_ADDRESS
        return RefusalReason.SERVICE_PORT if port in self._refused_ports else None

    def refuses_port(self, port: int) -> bool:
        """True for a service port that is not allowed; for names, whose address is not known."""
        return port in self._refused_ports

    def _admits_v4(self, quad: re.Match[str], special: tuple[tuple[int, int, bool], ...]) -> bool:
        first_octet, second, third, fourth = quad.groups()
        value = int(first_octet) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)
        for first, last, own in special:
            if first <= value <= last:
                return own and self.allow_private
        return True

    def _refusal_of_other(self, host: str) -> RefusalReason | None:
        address = _v6(host)
        if address is None:
            return RefusalReason.HOST_NAME
        if not self._admits_v6(address) or (self.denied and _v6_text(address) in self.denied):
            return RefusalReason.PRIVATE_ADDRESS
        return None

    def _admits_v6(self, address: ipaddress.IPv6Address) -> bool:
        if self.allow_private and any(address in network for network in _OWN_V6):
            return address not in _METADATA_V6 and not _is_isatap(address)
        if address not in _GLOBAL_V6 or any(address in network for network in _NEVER_V6):
            return False
        return not _is_isatap(address)


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    return int(address) >> 32 & 0xFFFF_FFFF in _ISATAP


def _must_be_address(text: str) -> str:
    canonical = canonical_address(text)
    if canonical is None:
        raise ValueError(f"{text!r} is not an address")
    return canonical
