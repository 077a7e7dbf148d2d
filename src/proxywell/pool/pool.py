"""The pool's front: record what checks found, choose a member, tell what is known."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final, Self

import msgspec

from proxywell.config.schema import PoolSettings
from proxywell.model.candidate import Candidate
from proxywell.model.clock import Clock, SystemClock
from proxywell.model.member import MemberState, PoolMember
from proxywell.model.report import PoolChange
from proxywell.model.verdict import Verdict
from proxywell.pool.explanation import Explanation, explain_member, explain_rejected
from proxywell.pool.geo import Geo
from proxywell.pool.lookup import UnknownProxyError, endpoint_of, find_key
from proxywell.pool.recorder import Item, Recorder
from proxywell.pool.roster import Roster, read_entries, read_members
from proxywell.pool.score import Tally
from proxywell.pool.selection import (
    Entry,
    MemberFilter,
    NothingFits,
    accepted,
    draw_distinct,
    matching,
    presentable,
    shortfall,
)
from proxywell.pool.store import FILE_NAME, Store

ANY: Final = MemberFilter()
_ROSTER_S: Final = 5.0  # scores relax over minutes
_BLIND_DRAWS: Final = 64  # members per round of ``choose_once``
_BLIND_ROUNDS: Final = 12
_FOREIGN_S: Final = 1.0  # how soon another process's writes are looked for
_RANKS: Final = {state: rank for rank, state in enumerate(MemberState)}


class Pool:
    """The members of one state directory. Calls may come from any thread.

    ``record``, ``seal`` and ``sealed`` make it a ``refresh.ports.VerdictSink``.
    """

    def __init__(self, store: Store, settings: PoolSettings, clock: Clock) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._recorder = Recorder(store, settings, clock)
        self._geo = Geo(settings.geo_file, settings.asn_file)
        self._roster: Roster | None = None
        self._version = 0

    @classmethod
    def open(
        cls,
        state_dir: Path,
        settings: PoolSettings,
        clock: Clock | None = None,
        *,
        read_only: bool = False,
    ) -> Self:
        """Open the pool of a state directory, making it if it is not there.

        Args:
            state_dir: Where ``pool.sqlite`` lives.
            settings: The constants of score and freshness, and what is kept.
            clock: Where the time comes from; the machine's own unless given.
            read_only: Write nothing; a pool that is not there reads as empty.

        Raises:
            StateError: The file cannot be opened, is damaged, or is of a later version.
        """
        store = Store(state_dir / FILE_NAME, read_only=read_only)
        return cls(store, settings, clock or SystemClock())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pool's file; works twice."""
        self._store.close()

    def record(self, job_id: str, epoch: int, verdicts: Iterable[Item]) -> None:
        """Keep a job's verdicts as they come; see ``Recorder.record``."""
        self._recorder.record(job_id, epoch, verdicts)
        self._roster = None

    def observe(self, verdicts: Iterable[tuple[Candidate, Verdict]], *, origin: str) -> None:
        """Keep verdicts that no job asked for; see ``Recorder.observe``."""
        self._recorder.observe(verdicts, origin=origin)
        self._roster = None

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        """Write that a job is finalised, and what it changed; see ``Recorder.seal``."""
        change = self._recorder.seal(job_id, epoch)
        self._roster = None
        return change

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        """The change that was sealed; None if it was not."""
        return self._recorder.sealed(job_id, epoch)

    def members(self, wanted: MemberFilter = ANY) -> list[PoolMember]:
        """All members that are what is asked for, in whatever state.

        Returns:
            Fresh ones first, then cooling, frozen and barred ones; within a state the best
            score first.
        """
        roster = self._current_roster()
        fitting = sorted(
            matching(roster.entries, wanted),
            key=lambda entry: (_RANKS[entry.state], -entry.score, entry.key),
        )
        return self._in_full(roster, fitting, wanted)

    def choose(
        self,
        wanted: MemberFilter,
        count: int,
        draw: Callable[[], float],
        *,
        stale_too: bool = False,
        but_not: AbstractSet[str] = frozenset(),
    ) -> list[PoolMember] | NothingFits:
        """Choose different members that may be handed out, by chance in proportion to score.

        Args:
            wanted: What they must be.
            count: How many at most; from 1.
            draw: Gives numbers in [0, 1).
            stale_too: Also those that passed last, but too long ago: for a caller who
                checks them before use.
            but_not: Keys of endpoints that are not to be chosen.

        Returns:
            At least one member and at most ``count``, or why there is none.
        """
        roster = self._current_roster()
        fitting, running = roster.for_wish(wanted, stale_too=stale_too)
        if but_not:
            fitting = [entry for entry in fitting if entry.key not in but_not]
            chosen = draw_distinct(fitting, count, draw)
        else:
            chosen = draw_distinct(fitting, count, draw, running=running)
        if not chosen:
            return NothingFits(shortfall(roster.entries, wanted, stale_too=stale_too))
        return self._in_full(roster, chosen, wanted)

    def choose_once(
        self,
        wanted: MemberFilter,
        count: int,
        draw: Callable[[], float],
        *,
        stale_too: bool = False,
        but_not: AbstractSet[str] = frozenset(),
    ) -> list[PoolMember] | NothingFits:
        """Choose as ``choose`` does, for a process that asks once: without reading everybody.

        Members are drawn blindly and accepted with a chance in proportion to their scores,
        which comes to the same; when that does not lead to enough of them soon (few fit, or
        the pool is small), all are read.
        """
        found: dict[str, Entry] = {}
        with self._store.snapshot() as reader:
            last_id = reader.execute("SELECT max(id) FROM member").fetchone()[0] or 0
            for _ in range(_BLIND_ROUNDS if last_id > _BLIND_ROUNDS * _BLIND_DRAWS else 0):
                drawn = [1 + int(draw() * last_id) for _ in range(_BLIND_DRAWS)]
                by_id = {entry.member_id: entry for entry in self._read(reader, drawn)}
                known = [by_id[member_id] for member_id in drawn if member_id in by_id]
                for entry in matching(presentable(known, stale_too=stale_too), wanted):
                    if entry.key not in but_not and accepted(entry, draw):
                        found.setdefault(entry.key, entry)
                if len(found) >= count:
                    chosen = list(found.values())[:count]
                    members = read_members(reader, chosen)
                    return [_as_wanted(members[entry.member_id], wanted) for entry in chosen]
        return self.choose(wanted, count, draw, stale_too=stale_too, but_not=but_not)

    def standing(self) -> Mapping[str, float]:
        """The score of every member that is not barred, by endpoint key: whom to check first."""
        return {
            entry.key: entry.score
            for entry in self._current_roster().entries
            if entry.state is not MemberState.BARRED
        }

    def find(self, text: str) -> str:
        """The key of the endpoint that a person means; see ``lookup.find_key``.

        Raises:
            UsageError: No proxy, or not clear which one.
            UnknownProxyError: Nothing is known about it.
        """
        with self._store.reading() as reader:
            return find_key(reader, text)

    def explain(self, key: str) -> Explanation | None:
        """Tell all that is known about an endpoint, member or rejected; None if nothing is."""
        with self._store.snapshot() as reader:
            row = reader.execute("SELECT id FROM member WHERE key = ?", (key,)).fetchone()
            entries = self._read(reader, row) if row is not None else []
            if not entries:
                return explain_rejected(reader, key)
            member_id = entries[0].member_id
            return explain_member(
                reader,
                member_id,
                read_members(reader, entries)[member_id],
                now_s=self._clock.now_s(),
                settings=self._settings,
            )

    def freeze(self, key: str) -> None:
        """Set a member aside by hand until ``thaw``; again changes nothing.

        Raises:
            UnknownProxyError: The endpoint is not a member.
        """
        self._set_frozen(key, self._clock.now_s())

    def thaw(self, key: str) -> None:
        """Take back ``freeze``; a member that is not frozen stays as it is.

        Raises:
            UnknownProxyError: The endpoint is not a member.
        """
        self._set_frozen(key, None)

    def _set_frozen(self, key: str, at_s: float | None) -> None:
        with self._store.transaction(lasting=True) as writer:
            changed = writer.execute("UPDATE member SET frozen_at = ? WHERE key = ?", (at_s, key))
            if changed.rowcount == 0:
                raise UnknownProxyError(
                    f"{endpoint_of(key).netloc} is no member of the pool: it never worked"
                )
        self._roster = None

    def report(self, key: str, target: str, *, passed: bool, at_s: float) -> None:
        """Keep how a member did for one target of the user; its score is not touched.

        Args:
            key: The member's endpoint.
            target: The user's name for the target.
            passed: Whether a request to it succeeded.
            at_s: When, seconds since the epoch.

        Raises:
            UnknownProxyError: The endpoint is not a member.
        """
        with self._store.transaction() as writer:
            row = writer.execute("SELECT id FROM member WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise UnknownProxyError(f"{endpoint_of(key).netloc} is no member of the pool")
            known = writer.execute(
                "SELECT passed, tried, tallied_at FROM target WHERE member = ? AND name = ?",
                (row[0], target),
            ).fetchone()
            tally = Tally(*known) if known else Tally()
            tally = tally.with_check(
                passed=passed, at_s=at_s, half_life_s=self._settings.half_life_s
            )
            writer.execute(
                "INSERT OR REPLACE INTO target VALUES (?, ?, ?, ?, ?)",
                (row[0], target, tally.passed, tally.tried, tally.at_s),
            )
        self._roster = None

    def back_up(self, target: Path) -> int:
        """Copy the pool into a new file that opens elsewhere; say its size in bytes."""
        return self._store.back_up(target)

    def _current_roster(self) -> Roster:
        roster, now_s = self._roster, self._clock.monotonic_s()
        if roster is not None:
            age_s = now_s - roster.made_s
            if age_s < _FOREIGN_S:
                return roster
            if age_s < _ROSTER_S and self._store.version() == self._version:
                return roster
        self._version = self._store.version()
        with self._store.reading() as reader:
            entries = self._read(reader)
        self._roster = roster = Roster(entries, now_s)
        return roster

    def _in_full(
        self, roster: Roster, entries: Sequence[Entry], wanted: MemberFilter
    ) -> list[PoolMember]:
        if unread := roster.unread(entries):
            with self._store.reading() as reader:
                roster.learn(read_members(reader, unread))
        return [_as_wanted(member, wanted) for member in roster.in_full(entries)]

    def _read(self, reader: sqlite3.Connection, only: Sequence[int] | None = None) -> list[Entry]:
        return read_entries(
            reader, now_s=self._clock.now_s(), settings=self._settings, geo=self._geo, only=only
        )


def _as_wanted(member: PoolMember, wanted: MemberFilter) -> PoolMember:
    """Show the member with the protocol that was asked for, where it speaks several."""
    if not wanted.protocols or member.protocol in wanted.protocols:
        return member
    protocol = next((spoken for spoken in member.protocols if spoken in wanted.protocols), None)
    if protocol is None:
        return member
    where = member.proxy.partition("://")[2]
    return msgspec.structs.replace(member, protocol=protocol, proxy=f"{protocol.scheme}://{where}")
