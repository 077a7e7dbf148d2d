"""Read members from the pool's file: all of them as selection sees them, a few in full."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from proxywell.config.schema import PoolSettings
from proxywell.model.endpoint import Protocol
from proxywell.model.member import PoolMember
from proxywell.model.verdict import Anonymity, Verdict
from proxywell.pool.geo import Geo
from proxywell.pool.member_state import standing_of
from proxywell.pool.rows import HISTORY_COLUMNS, history_of
from proxywell.pool.score import Tally, estimate, typical_latency_ms
from proxywell.pool.selection import Entry, MemberFilter, matching, presentable, running_weights

_IDS_PER_QUERY: Final = 500
_WISHES_MAX: Final = 256

_decode_verdict = msgspec.msgpack.Decoder(Verdict).decode
_decode_sources = msgspec.json.Decoder(tuple[str, ...]).decode
_ANONYMITY: Final = {level.value: level for level in Anonymity}


class Roster:
    """All members as selection sees them at one instant, with what was asked of them so far."""

    def __init__(self, entries: Sequence[Entry], made_s: float) -> None:
        self.entries, self.made_s = entries, made_s
        self._wishes: dict[tuple[MemberFilter, bool], tuple[list[Entry], list[float]]] = {}
        self._full: dict[int, PoolMember] = {}

    def for_wish(self, wanted: MemberFilter, *, stale_too: bool) -> tuple[list[Entry], list[float]]:
        """Those that may be handed out for a wish, and their running weights."""
        known = self._wishes.get((wanted, stale_too))
        if known is None:
            fitting = matching(presentable(self.entries, stale_too=stale_too), wanted)
            known = (fitting, running_weights(fitting))
            if len(self._wishes) >= _WISHES_MAX:
                self._wishes.clear()
            self._wishes[wanted, stale_too] = known
        return known

    def unread(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those whose members have not been read in full yet."""
        return [entry for entry in entries if entry.member_id not in self._full]

    def learn(self, members: Mapping[int, PoolMember]) -> None:
        """Keep members that were read in full, by their number."""
        self._full.update(members)

    def in_full(self, entries: Sequence[Entry]) -> list[PoolMember]:
        """The members behind entries, in their order; one that has left meanwhile is left out."""
        full = self._full
        return [full[entry.member_id] for entry in entries if entry.member_id in full]


def read_entries(
    reader: sqlite3.Connection,
    *,
    now_s: float,
    settings: PoolSettings,
    geo: Geo,
    only: Sequence[int] | None = None,
) -> list[Entry]:
    """Read members as selection sees them.

    Args:
        reader: The pool's file.
        now_s: The instant that scores and states are for, seconds since the epoch.
        settings: The constants of the score.
        geo: Where exits are.
        only: Numbers of the members to read, a few hundred at most; None: all of them.
    """
    where = "" if only is None else f"IN ({','.join('?' * len(only))})"
    targets = _read_targets(reader, where, only or (), now_s=now_s, settings=settings)
    rows = reader.execute(
        f"SELECT id, key, protocols, anonymity, exit_ip, {HISTORY_COLUMNS} "  # noqa: S608 - constants
        f"FROM member {where and f'WHERE id {where}'}",
        only or (),
    )
    spoken_by_text: dict[str, tuple[Protocol, ...]] = {}
    entries: list[Entry] = []
    for member_id, key, text, anonymity, exit_ip, *row in rows:
        history = history_of(row)
        standing = standing_of(history, now_s=now_s, fresh_s=settings.fresh_s)
        spoken = spoken_by_text.get(text)
        if spoken is None:
            spoken = tuple(Protocol(word) for word in text.split(",") if word)
            spoken_by_text[text] = spoken
        latency_ms = typical_latency_ms(history.latencies_ms)
        score = estimate(
            history.tally,
            passed_last=history.passed_last,
            last_at_s=history.last_at_s,
            latency_ms=latency_ms,
            protocol=spoken[0] if spoken else None,
            now_s=now_s,
            settings=settings,
        ).score
        place = geo.place(exit_ip)
        entries.append(
            Entry(
                member_id=member_id,
                key=key,
                score=score,
                state=standing.state,
                stale=standing.stale,
                protocols=spoken,
                anonymity=_ANONYMITY[anonymity],
                country=place.country,
                asn=place.asn,
                latency_ms=latency_ms,
                targets=targets.get(member_id, ()),
            )
        )
    return entries


def _read_targets(
    reader: sqlite3.Connection,
    where: str,
    only: Sequence[int],
    *,
    now_s: float,
    settings: PoolSettings,
) -> dict[int, tuple[tuple[str, float], ...]]:
    """Per member, for each of its targets, the share that worked lately."""
    shares: dict[int, tuple[tuple[str, float], ...]] = {}
    for member_id, name, passed, tried, at_s in reader.execute(
        "SELECT member, name, passed, tried, tallied_at FROM target "  # noqa: S608 - constants
        f"{where and f'WHERE member {where}'} ORDER BY member, name",
        only,
    ):
        seen = Tally(passed, tried, at_s).at(now_s, settings.half_life_s)
        share = (name, round(seen.passed / seen.tried, 4) if seen.tried > 0 else 0.0)
        shares[member_id] = (*shares.get(member_id, ()), share)
    return shares


def read_members(reader: sqlite3.Connection, entries: Iterable[Entry]) -> dict[int, PoolMember]:
    """Read the latest verdict and the figures of some members, by their number."""
    found: dict[int, PoolMember] = {}
    wanted = list(entries)
    for start in range(0, len(wanted), _IDS_PER_QUERY):
        some = {entry.member_id: entry for entry in wanted[start : start + _IDS_PER_QUERY]}
        rows = reader.execute(
            "SELECT id, verdict, times_checked, times_passed, last_ok_at, sources "  # noqa: S608 - question marks
            f"FROM member WHERE id IN ({','.join('?' * len(some))})",
            list(some),
        )
        for member_id, verdict, checked, passed, last_ok_s, sources in rows:
            found[member_id] = _member(
                some[member_id],
                _decode_verdict(verdict),
                times_checked=checked,
                times_passed=passed,
                last_ok_s=last_ok_s,
                sources=_decode_sources(sources),
            )
    return found


def _member(
    entry: Entry,
    verdict: Verdict,
    *,
    times_checked: int,
    times_passed: int,
    last_ok_s: float | None,
    sources: tuple[str, ...],
) -> PoolMember:
    known = {name: getattr(verdict, name) for name in Verdict.__struct_fields__}
    known["latency_ms"] = entry.latency_ms  # the median: one sample says little
    return PoolMember(
        **known,
        score=round(entry.score, 4),
        times_checked=times_checked,
        times_passed=times_passed,
        last_ok_at=None if last_ok_s is None else datetime.fromtimestamp(last_ok_s, UTC),
        country=entry.country,
        asn=entry.asn,
        sources=sources,
        state=entry.state,
        targets=dict(entry.targets),
    )
