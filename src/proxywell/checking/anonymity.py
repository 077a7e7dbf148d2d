"""What a target learns about us through a proxy: a comparison, then a table. Pure.

The comparison is between the headers that were sent and those that arrived, less what the
direct path to the judge adds; no list of names is needed to notice a header that nobody sent.
The table's first row that fits decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from proxywell.checking.exit_ip import (
    addresses_in,
    is_inside_address,
    is_public,
    stated_addresses_in,
)
from proxywell.checking.ports import Baseline, Sighting
from proxywell.model.verdict import Anonymity

Headers: TypeAlias = Sequence[tuple[str, str]]

# Between two neighbours (RFC 9110, section 7.6.1) or the message's framing: every hop writes
# its own, so that one arrives says nothing. Proxy-Connection is none of them: no server sends it.
_EVERY_HOPS_OWN = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "content-length", "upgrade"}
)
_PEER = "{peer}"
_NOT_PLAIN = re.compile(r"[^!-~]")
_NAME_MAX_CHARS = 64
_NAMES_MAX = 20


class Level(StrEnum):
    """The rows of the table, finer than the label that a verdict carries."""

    LIAR = "liar"
    NOT_A_PROXY = "not_a_proxy"
    UNKNOWN = "unknown"
    TUNNEL = "tunnel"  # only seen inside TLS, where nothing can be added
    TRANSPARENT = "transparent"
    TRANSPARENT_LAN = "transparent_lan"  # an inside address of ours arrived
    DISTORTING = "distorting"  # a public address arrived that is neither ours nor the proxy's
    ANONYMOUS = "anonymous"
    ELITE = "elite"

    @property
    def label(self) -> Anonymity:
        """What the verdict says."""
        return _LABELS.get(self, Anonymity.UNKNOWN)


_LABELS = {
    Level.TRANSPARENT: Anonymity.TRANSPARENT,
    Level.TRANSPARENT_LAN: Anonymity.TRANSPARENT,
    Level.DISTORTING: Anonymity.ANONYMOUS,
    Level.ANONYMOUS: Anonymity.ANONYMOUS,
    Level.ELITE: Anonymity.ELITE,
}
_WORST_FIRST = tuple(Level)


class Evidence(Struct, frozen=True, kw_only=True):
    """The columns of the table for one sighting.

    Attributes:
        believed: Nonce, time and signature (where there is one) were in order.
        own_known: We know an address of ours of the kind that could arrive.
        exit_is_ours: The judge saw one of our own addresses.
        headers_seen: The judge told what arrived, outside TLS.
        inside_tls: It was seen inside TLS.
        ours_arrived: An own address stands in what arrived otherwise than sent.
        inside_arrived: So does an own address of a private network.
        stranger_arrived: A public address that is neither ours nor the proxy's was added.
        marked: A header was added that nobody sent.
    """

    believed: bool = True
    own_known: bool = True
    exit_is_ours: bool = False
    headers_seen: bool = True
    inside_tls: bool = False
    ours_arrived: bool = False
    inside_arrived: bool = False
    stranger_arrived: bool = False
    marked: bool = False


class Difference(Struct, frozen=True):
    """What arrived otherwise than it was sent; names as they arrived.

    Attributes:
        otherwise: All pairs that were not sent exactly so, whoever changed them.
        added: Pairs of names that were not sent, less the direct path's and every hop's own.
        changed: Pairs of names that were sent with another value.
        dropped: Names that were sent and did not arrive.
    """

    otherwise: tuple[tuple[str, str], ...]
    added: tuple[tuple[str, str], ...]
    changed: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...]


class Assessment(Struct, frozen=True):
    """What all sightings of one check amount to.

    Attributes:
        level: The worst level seen where headers were seen, else ``tunnel`` or ``unknown``.
        adds_headers, drops_headers, changes_headers: Names, each once, in order.
        downgrades: An HTTP/1.1 request arrived as HTTP/1.0.
    """

    level: Level
    adds_headers: tuple[str, ...] = ()
    drops_headers: tuple[str, ...] = ()
    changes_headers: tuple[str, ...] = ()
    downgrades: bool = False

    @property
    def detail(self) -> str | None:
        """The facts beside the label in a few words; None if there are none."""
        facts = [] if self.level.value == self.level.label.value else [self.level.value]
        for word, names in (
            ("adds", self.adds_headers),
            ("drops", self.drops_headers),
            ("changes", self.changes_headers),
        ):
            if names:
                facts.append(f"{word} {', '.join(names)}")
        if self.downgrades:
            facts.append("sends HTTP/1.0")
        return "; ".join(facts) or None


def level(evidence: Evidence) -> Level:
    """Look one sighting up in the table: the first row that fits."""
    rows = (
        (not evidence.believed, Level.LIAR),
        (evidence.exit_is_ours, Level.NOT_A_PROXY),
        (evidence.inside_tls, Level.TUNNEL),
        (not evidence.headers_seen, Level.UNKNOWN),
        (evidence.ours_arrived, Level.TRANSPARENT),
        (evidence.inside_arrived, Level.TRANSPARENT_LAN),
        (not evidence.own_known, Level.UNKNOWN),  # what we do not know may be in it: no guess
        (evidence.stranger_arrived, Level.DISTORTING),
        (evidence.marked, Level.ANONYMOUS),
    )
    return next((row for fits, row in rows if fits), Level.ELITE)


def difference(sent: Headers, received: Headers, *, baseline: Baseline, exit_ip: str) -> Difference:
    """Compare multisets of headers; names without regard to case, values without to spaces.

    Args:
        sent: What we sent.
        received: What the judge says that arrived.
        baseline: What it sees added without a proxy; not counted as added here.
        exit_ip: The address that the judge saw, which the direct path may write down.
    """
    waiting = Counter((name.lower(), _value(value)) for name, value in sent)
    otherwise = []
    for name, value in received:
        pair = (name.lower(), _value(value))
        if waiting[pair] > 0:
            waiting[pair] -= 1
        else:
            otherwise.append((name, value))
    unmatched = Counter(name for (name, _), count in waiting.items() for _ in range(count))
    direct = {(name, value.replace(_PEER, exit_ip)) for name, value in baseline.fixed}
    added, changed = [], []
    for name, value in otherwise:
        key = name.lower()
        of_the_path = key in baseline.volatile or (key, _value(value)) in direct
        if unmatched[key] > 0:
            unmatched[key] -= 1
            if not of_the_path and key not in _EVERY_HOPS_OWN:
                changed.append((name, value))
        elif not of_the_path and key not in _EVERY_HOPS_OWN:
            added.append((name, value))
    dropped = []
    for name, _ in sent:
        if unmatched[name.lower()] > 0:
            unmatched[name.lower()] -= 1
            if name.lower() not in _EVERY_HOPS_OWN:
                dropped.append(name)
    return Difference(tuple(otherwise), tuple(added), tuple(changed), tuple(dropped))


def learn_baseline(
    known: Baseline | None, sent: Headers, received: Headers, *, peer_ip: str
) -> Baseline:
    """Note what the direct path adds.

    Args:
        known: What was learnt so far; None at the first direct request.
        sent: What we sent.
        received: What arrived.
        peer_ip: The address of ours that the judge saw.

    Returns:
        The baseline after this request: a name whose values differ from those known is
        volatile from now on.
    """
    found = difference(sent, received, baseline=Baseline(), exit_ip=peer_ip)
    pairs = sorted({(name.lower(), _templated(value, peer_ip)) for name, value in found.otherwise})
    if known is None:
        return Baseline(fixed=tuple(pairs))
    unsteady = {name for name, _ in set(pairs) ^ set(known.fixed)} | known.volatile
    fixed = tuple(pair for pair in pairs if pair[0] not in unsteady)
    return Baseline(fixed=fixed, volatile=frozenset(unsteady))


def assess(
    sightings: Iterable[Sighting],
    *,
    own: frozenset[str],
    own_known: bool,
    proxy_addresses: frozenset[str],
) -> Assessment:
    """Weigh all sightings of one check; the worst one counts.

    Args:
        sightings: Believed ones, in order.
        own: Our canonical addresses.
        own_known: Whether they cover the kind of address by which we reach the proxy.
        proxy_addresses: Addresses that are the proxy's own to name: where it listens.
    """
    levels: list[Level] = []
    adds: list[str] = []
    drops: list[str] = []
    changes: list[str] = []
    downgrades = False
    sightings = tuple(sightings)
    exits = frozenset(sighting.exit_ip for sighting in sightings)
    for sighting in sightings:
        evidence, found = _evidence(
            sighting, own=own, own_known=own_known, proxys_own=proxy_addresses | exits
        )
        levels.append(level(evidence))
        if found is not None:
            adds += [name for name, _ in found.added]
            changes += [name for name, _ in found.changed]
            drops += found.dropped
            downgrades |= sighting.http_version == "1.0"
    return Assessment(
        _worst(levels), _each_once(adds), _each_once(drops), _each_once(changes), downgrades
    )


def _evidence(
    sighting: Sighting, *, own: frozenset[str], own_known: bool, proxys_own: frozenset[str]
) -> tuple[Evidence, Difference | None]:
    exit_is_ours = sighting.exit_ip in own
    if sighting.headers is None or sighting.inside_tls:
        unseen = Evidence(
            own_known=own_known,
            exit_is_ours=exit_is_ours,
            headers_seen=False,
            inside_tls=sighting.inside_tls,
        )
        return unseen, None
    found = difference(
        sighting.sent, sighting.headers, baseline=sighting.baseline, exit_ip=sighting.exit_ip
    )
    arrived = {ip for _, value in found.otherwise for ip in addresses_in(value)} & own
    strangers = {ip for _, value in found.added for ip in stated_addresses_in(value)}
    evidence = Evidence(
        own_known=own_known,
        exit_is_ours=exit_is_ours,
        ours_arrived=any(not is_inside_address(ip) for ip in arrived),
        inside_arrived=any(is_inside_address(ip) for ip in arrived),
        stranger_arrived=any(is_public(ip) for ip in strangers - proxys_own - own),
        marked=bool(found.added),
    )
    return evidence, found


def _worst(levels: list[Level]) -> Level:
    told = [one for one in levels if one not in (Level.TUNNEL, Level.UNKNOWN)]
    if told:
        return min(told, key=_WORST_FIRST.index)
    return min(levels, key=_WORST_FIRST.index, default=Level.UNKNOWN)


def _each_once(names: Iterable[str]) -> tuple[str, ...]:
    """Names for people: a public judge may have been made to print anything as a name."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.lower(), _NOT_PLAIN.sub("?", name[:_NAME_MAX_CHARS]))
    return tuple(first.values())[:_NAMES_MAX]


def _value(value: str) -> str:
    return " ".join(value.split())


def _templated(value: str, peer_ip: str) -> str:
    if not peer_ip:
        return _value(value)
    whole = rf"(?<![0-9A-Za-z.:]){re.escape(peer_ip)}(?![0-9A-Za-z]|[.:][0-9A-Za-z])"
    return re.sub(whole, _PEER, _value(value))
