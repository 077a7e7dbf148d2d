"""Decide every entry of one source exactly once, and count. Pure.

The first reason that holds refuses an entry, in this order: ``malformed``, ``host_name``,
``private_address``, ``service_port``, ``credentials``, ``too_many_per_address``,
``too_many_per_network``, ``too_many``. What is refused for one of the first five is so
for what it is; the caps count distinct candidates in the order of the list. A second entry of
the same endpoint shares the decision: it is refused again, or is a duplicate, which is no refusal.
So, for entries: ``read == accepted + duplicates + sum(refused)``, and ``unique`` counts distinct
endpoints of all that is not malformed, refused or not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address
from typing import TypeAlias

from proxywell.config.schema import SourceSettings
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.report import RefusalReason
from proxywell.net.guard import Guard, canonical_address
from proxywell.sources.columns import as_utf8
from proxywell.sources.grammar import ALL_HINTS, HINT_BITS, Entry, Malformed

# An IPv4 endpoint as address << 16 | port, IPv6 with one more bit above; the rest as it is.
Identity: TypeAlias = int | Endpoint

EXAMPLES_MAX = 5
_KNOWN_MIN = 1_000
_EXAMPLE_CHARS = 80
_V6_MARK = 1 << 144
_DECISION_SHIFT = len(HINT_BITS)
_SECRETS = (  # where a password may stand, even in what no form fits
    (re.compile(r"[^\s/@,;|\"']+@(?=[^\s@]*[:.])"), "***@"),
    (re.compile(r'(?i)("(?:user(?:name)?|login|pass\w*)"\s*:\s*)"[^"]*"?'), r'\1"***"'),
    (re.compile(r"^([^\s:{\[]+:[^\s:]+):[^\s:]+:\S+"), r"\1:***:***"),
    (re.compile(r"(?i)^((?:https?|socks\d\w?)\s+\S+\s+\S+)\s+\S+\s+\S+\s*$"), r"\1 *** ***"),
)
_REASONS: tuple[RefusalReason | None, ...] = (None, *RefusalReason)
_CODES = {reason: code << _DECISION_SHIFT for code, reason in enumerate(_REASONS)}


class SourceTally:
    """The books of one source while it is read.

    Args:
        guard: Says which addresses and ports may be dialled.
        settings: The caps, and whether names are taken.
        keep_credentials: The user named this file; lists of strangers have theirs refused,
            since using them may be unauthorised access.
        default_hints: For entries that name no protocol, as a sum of ``HINT_BITS``.

    Attributes:
        read: Entries so far.
        refused: Entries by reason.
        examples: The first few malformed entries, cleaned, for people.
    """

    def __init__(
        self,
        guard: Guard,
        settings: SourceSettings,
        *,
        keep_credentials: bool,
        default_hints: int = 0,
    ) -> None:
        self.read = 0
        self.refused: dict[RefusalReason, int] = {}
        self.examples: list[str] = []
        self._guard = guard
        self._settings = settings
        self._keep_credentials = keep_credentials
        self._default_hints = default_hints
        self._known: dict[Identity, int] = {}  # hints, and above them the decision's code
        self._known_max = max(_KNOWN_MIN, 2 * settings.per_source_max)
        self._accepted = 0
        self._per_address: dict[int | str, int] = {}
        self._per_network: dict[int, int] = {}

    @property
    def unique(self) -> int:
        """Distinct well-formed endpoints; a lower bound beyond twice ``per_source_max``.

        That keeps an endless list from filling the memory: what is refused there is still
        counted as refused, but not remembered.
        """
        return len(self._known)

    @property
    def accepted(self) -> int:
        """Distinct endpoints that are not refused."""
        return self._accepted

    def add(self, item: Entry | Malformed) -> None:
        """Decide one entry."""
        self.read += 1
        if type(item) is Malformed:
            self._refuse(RefusalReason.MALFORMED)
            if len(self.examples) < EXAMPLES_MAX:
                self.examples.append(shown(item.excerpt))
            return
        assert type(item) is Entry
        hints = item.hints or self._default_hints
        identity = identity_of(item)
        known = self._known.get(identity)
        if known is not None:
            if hints & ~known:
                self._known[identity] = known | hints
            reason = _REASONS[known >> _DECISION_SHIFT]
            if reason is not None:
                self._refuse(reason)
            return
        reason = self._decide(item, identity)
        if reason is not None:
            self._refuse(reason)
            if len(self._known) >= self._known_max:
                return
        else:
            self._accepted += 1
        self._known[identity] = hints | _CODES[reason]

    def endpoints(self) -> Iterator[tuple[Identity, int, bool]]:
        """Give each distinct endpoint with its hints and whether it is accepted, in order."""
        for identity, known in self._known.items():
            yield identity, known & ALL_HINTS, known >> _DECISION_SHIFT == 0

    def by_protocol(self) -> dict[str, int]:
        """Count distinct endpoints per hint; ``unknown`` for those without."""
        masks: dict[int, int] = {}
        for known in self._known.values():
            hints = known & ALL_HINTS
            masks[hints] = masks.get(hints, 0) + 1
        counts: dict[str, int] = {}
        for protocol in Protocol:
            count = sum(n for mask, n in masks.items() if mask & HINT_BITS[protocol])
            if count:
                counts[protocol.value] = count
        if 0 in masks:
            counts["unknown"] = masks[0]
        return counts

    def _refuse(self, reason: RefusalReason) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _decide(self, entry: Entry, identity: Identity) -> RefusalReason | None:
        if entry.named:
            if not self._settings.allow_host_names:
                return RefusalReason.HOST_NAME
            if self._guard.refuses_port(entry.port):
                return RefusalReason.SERVICE_PORT
        else:
            reason = self._guard.refusal(entry.host, entry.port)
            if reason is not None:
                return reason
        if entry.user is not None and not self._keep_credentials:
            return RefusalReason.CREDENTIALS
        return self._cap(entry, identity)

    def _cap(self, entry: Entry, identity: Identity) -> RefusalReason | None:
        settings = self._settings
        address, network = _places(entry, identity)
        loopback = entry.host.startswith("127.") or entry.host == "::1"  # allowed, or not here
        of_address = self._per_address.get(address, 0)
        of_network = 0 if network is None else self._per_network.get(network, 0)
        if not loopback:
            if of_address >= settings.per_address_max:
                return RefusalReason.TOO_MANY_PER_ADDRESS
            if of_network >= settings.per_network_max:
                return RefusalReason.TOO_MANY_PER_NETWORK
        if self._accepted >= settings.per_source_max:
            return RefusalReason.TOO_MANY
        if not loopback:
            self._per_address[address] = of_address + 1
            if network is not None:
                self._per_network[network] = of_network + 1
        return None


def identity_of(entry: Entry) -> Identity:
    """Give the identity of an entry in its most compact form."""
    if entry.user is not None or entry.named:
        return Endpoint(entry.host, entry.port, entry.user, entry.password)
    if ":" in entry.host:
        return _V6_MARK | int(IPv6Address(entry.host)) << 16 | entry.port
    first, second, third, fourth = entry.host.split(".")
    return int(first) << 40 | int(second) << 32 | int(third) << 24 | int(fourth) << 16 | entry.port


def endpoint_of(identity: Identity, ports: Sequence[int] = range(65536)) -> Endpoint:
    """Give the endpoint behind an identity; the inverse of ``identity_of``.

    Args:
        identity: What ``identity_of`` gave.
        ports: The numbers 0 to 65535 as objects to share; by default each is made anew.
    """
    if isinstance(identity, Endpoint):
        return identity
    port = ports[identity & 0xFFFF]
    if identity >= _V6_MARK:
        host = canonical_address(str(IPv6Address((identity ^ _V6_MARK) >> 16)))
        assert host is not None
        return Endpoint(host, port)
    return Endpoint(
        f"{identity >> 40}.{identity >> 32 & 255}.{identity >> 24 & 255}.{identity >> 16 & 255}",
        port,
    )


def shown(excerpt: str) -> str:
    """Make a stranger's text fit to be shown: one short line, nothing that steers a terminal.

    Control, direction and other invisible characters become ``?``; what may be a password
    becomes ``***``.
    """
    text = as_utf8(excerpt)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    clean = "".join(char if char == " " or _is_plain(char) else "?" for char in text)
    return clean if len(clean) <= _EXAMPLE_CHARS else clean[: _EXAMPLE_CHARS - 1] + "…"


def _is_plain(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CZ"  # control, format, unassigned; separators


def _places(entry: Entry, identity: Identity) -> tuple[int | str, int | None]:
    """The address and the network (/24, IPv6 /48) that the caps count by; names have no network."""
    if entry.named:
        return entry.host, None
    if isinstance(identity, Endpoint):
        bare = identity_of(Entry(entry.host, entry.port))
        assert isinstance(bare, int)
        identity = bare
    return identity >> 16, identity >> (96 if identity >= _V6_MARK else 24)
