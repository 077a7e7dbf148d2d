"""Which members fit a wish, and a draw among them in proportion to their scores: pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from itertools import accumulate
from math import log

from msgspec import Struct

from proxywell.model.endpoint import Protocol
from proxywell.model.member import MemberState
from proxywell.model.verdict import Anonymity

WEIGHT_MIN = 1e-3  # a member that fits is never out of reach
TARGET_SHARE_MIN = 0.5


class MemberFilter(Struct, frozen=True, kw_only=True):
    """What a member must be; an empty set or None asks for nothing.

    Attributes:
        protocols: Works through at least one of these.
        anonymities: Has exactly one of these levels.
        countries: Its exit is in one of these; ISO 3166 codes in upper case.
        max_latency_ms: Its median latency is known and not above this, milliseconds.
        target: Is not known to fail for this target more often than not.
    """

    protocols: frozenset[Protocol] = frozenset()
    anonymities: frozenset[Anonymity] = frozenset()
    countries: frozenset[str] = frozenset()
    max_latency_ms: float | None = None
    target: str | None = None


class Entry(Struct, frozen=True, kw_only=True):
    """A member as selection sees it; ``key`` is its identity, ``score`` its weight."""

    member_id: int
    key: str
    score: float
    state: MemberState
    stale: bool
    protocols: tuple[Protocol, ...]
    anonymity: Anonymity
    country: str | None = None
    asn: int | None = None
    latency_ms: float | None = None
    targets: tuple[tuple[str, float], ...] = ()


class NothingFits(Struct, frozen=True):
    """No member may be handed out for this wish; ``reason`` says in words what removed how many."""

    reason: str


_Gate = tuple[str, Callable[[Entry], bool]]


def wish_gates(wanted: MemberFilter) -> list[_Gate]:
    """The parts of a wish: what is said of a member that fails one, and the test."""
    gates: list[_Gate] = []
    if wanted.protocols:
        words = "|".join(sorted(wanted.protocols))
        gates.append(
            (
                f"not {words}",
                lambda entry: not wanted.protocols.isdisjoint(entry.protocols),
            )
        )
    if wanted.anonymities:
        words = "|".join(sorted(wanted.anonymities))
        gates.append((f"not {words}", lambda entry: entry.anonymity in wanted.anonymities))
    if wanted.countries:
        words = "|".join(sorted(wanted.countries))
        gates.append((f"exit not in {words}", lambda entry: entry.country in wanted.countries))
    if wanted.max_latency_ms is not None:
        most_ms = wanted.max_latency_ms
        gates.append(
            (
                f"slower than {most_ms:g} ms",
                lambda entry: entry.latency_ms is not None and entry.latency_ms <= most_ms,
            )
        )
    if wanted.target is not None:
        target = wanted.target
        gates.append(
            (
                f"failing for {target}",
                lambda entry: dict(entry.targets).get(target, 1.0) >= TARGET_SHARE_MIN,
            )
        )
    return gates


def matching(entries: Iterable[Entry], wanted: MemberFilter) -> list[Entry]:
    """The entries that are what is asked for, whatever their state, in their order."""
    gates = [test for _, test in wish_gates(wanted)]
    return [entry for entry in entries if all(test(entry) for test in gates)]


def _may_be_handed_out(entry: Entry, *, stale_too: bool) -> bool:
    return entry.state is MemberState.FRESH or (stale_too and entry.stale)


def presentable(entries: Iterable[Entry], *, stale_too: bool = False) -> list[Entry]:
    """Those that may be handed out; with ``stale_too`` also those that only lack a check."""
    return [entry for entry in entries if _may_be_handed_out(entry, stale_too=stale_too)]


def draw_distinct(
    entries: Sequence[Entry],
    count: int,
    draw: Callable[[], float],
    *,
    running: Sequence[float] | None = None,
) -> list[Entry]:
    """Draw different entries, each with a chance in proportion to its score.

    Args:
        entries: Whom to choose from.
        count: How many at most; from 1.
        draw: Gives numbers in [0, 1).
        running: ``running_weights(entries)`` if the caller keeps it.

    Returns:
        ``min(count, len(entries))`` entries in the order of the draw.

    Source: P. S. Efraimidis and P. G. Spirakis, "Weighted random sampling with a reservoir",
    Information Processing Letters 97 (2006): the largest ``u ** (1 / weight)`` win.
    """
    if not entries:
        return []
    if count == 1:
        sums = running if running is not None else running_weights(entries)
        at = bisect_right(sums, draw() * sums[-1])
        return [entries[min(at, len(entries) - 1)]]
    keyed = [
        (log(max(draw(), 1e-300)) / max(entry.score, WEIGHT_MIN), place)
        for place, entry in enumerate(entries)
    ]
    return [entries[place] for _, place in nlargest(count, keyed)]


def accepted(entry: Entry, draw: Callable[[], float]) -> bool:
    """Accept an entry that was drawn blindly with a chance in proportion to its score.

    Whoever draws from all members with equal chance until one is accepted, and fits, has drawn
    among those that fit in proportion to score, without having seen the others.

    Source: J. von Neumann, "Various techniques used in connection with random digits", 1951.
    """
    return draw() < max(entry.score, WEIGHT_MIN)


def running_weights(entries: Iterable[Entry]) -> list[float]:
    """Running sums of the weights, for a draw by bisection."""
    return list(accumulate(max(entry.score, WEIGHT_MIN) for entry in entries))


def shortfall(entries: Sequence[Entry], wanted: MemberFilter, *, stale_too: bool = False) -> str:
    """Say in words why nothing fits: how many members there are, and what removes how many."""
    if not entries:
        return "the pool is empty; `proxywell refresh` fills it"
    removed: list[str] = []
    left: list[Entry] = []
    by_state = dict.fromkeys(MemberState, 0)
    stale = 0
    for entry in entries:
        if _may_be_handed_out(entry, stale_too=stale_too):
            left.append(entry)
        elif entry.stale:
            stale += 1
        else:
            by_state[entry.state] += 1
    if stale:
        removed.append(f"{stale} not checked lately")
    words = {
        MemberState.COOLING: "failed the last check",
        MemberState.FROZEN: "frozen",
        MemberState.BARRED: "barred",
    }
    removed += [f"{by_state[state]} {text}" for state, text in words.items() if by_state[state]]
    for text, test in wish_gates(wanted):
        passed = [entry for entry in left if test(entry)]
        if len(passed) < len(left):
            removed.append(f"{len(left) - len(passed)} {text}")
        left = passed
    if left:
        removed.append(f"{len(left)} tried already")
    advice = "; `proxywell refresh` checks anew" if stale else ""
    return f"none of {len(entries)} members fits: {', '.join(removed)}{advice}"
