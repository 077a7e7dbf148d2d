"""Write verdicts into the pool's file, each item of a job once, and seal what a job changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeAlias

import msgspec

from proxywell.config.schema import PoolSettings
from proxywell.model.candidate import Candidate
from proxywell.model.clock import Clock
from proxywell.model.member import MemberState
from proxywell.model.report import PoolChange
from proxywell.model.verdict import Verdict
from proxywell.pool import rejections
from proxywell.pool.member_state import History, after_check, caught_at, standing_of
from proxywell.pool.rows import HISTORY_COLUMNS, history_of, history_values
from proxywell.pool.store import Store

Item: TypeAlias = tuple[int, Candidate, Verdict]

PER_TRANSACTION: Final = 5_000  # keeps the file's only write lock for well under 0.1 s
_BLOCK_ITEMS: Final = 8_192  # items whose "told" marks share one row
_KEYS_PER_QUERY: Final = 500
_SOURCES_MAX: Final = 32

_encode = msgspec.msgpack.Encoder().encode
_decode_verdict = msgspec.msgpack.Decoder(Verdict).decode


class Recorder:
    """The one who writes checks; implements ``refresh.ports.VerdictSink``."""

    def __init__(self, store: Store, settings: PoolSettings, clock: Clock) -> None:
        self._store, self._settings, self._clock = store, settings, clock

    def record(self, job_id: str, epoch: int, verdicts: Iterable[Item]) -> None:
        """Keep verdicts as they come; an item of a job is counted once, however often told.

        The first telling of an item stands. What a job tells after its epoch, or a later one,
        was sealed is ignored. Large tellings are written in several transactions, which does
        no harm: told again, they change nothing.

        Args:
            job_id: The refresh job.
            epoch: From 1; the same job begun again has a higher one.
            verdicts: Number of the item in its job (from 0), whom, and what was found.

        Raises:
            StateError: The file cannot be written; of the last transaction nothing is in it.
        """
        told = iter(verdicts)
        while part := list(islice(told, PER_TRANSACTION)):
            with self._store.transaction() as writer:
                job = self._job_row(writer, job_id)
                if not _sealed_since(writer, job, epoch):
                    news = list(_not_told_before(writer, job, part))
                    added, dropped = self._write(writer, news, f"job {job_id}")
                    writer.execute(
                        "UPDATE job SET added = added + ?, dropped = dropped + ? WHERE id = ?",
                        (added, dropped, job),
                    )

    def observe(self, verdicts: Iterable[tuple[Candidate, Verdict]], *, origin: str) -> None:
        """Keep verdicts of checks that no refresh job asked for; each one counts.

        Args:
            verdicts: Whom, and what was found.
            origin: Who asked, as ``explain`` shows it: ``verify``, ``keeper``.

        Raises:
            StateError: The file cannot be written.
        """
        seen = iter(verdicts)
        while part := list(islice(seen, PER_TRANSACTION)):
            with self._store.transaction() as writer:
                self._write(writer, [(None, *each) for each in part], origin)

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        """Write ``finalised(job, epoch)`` with what the job changed, to last a loss of power.

        Sealing again returns what was sealed. Old checks and rejections over the bound of the
        settings are forgotten on the way.

        Raises:
            StateError: The file cannot be written; the job is then not sealed.
        """
        with self._store.transaction(lasting=True) as writer:
            job = self._job_row(writer, job_id)
            before = _sealed_change(writer, job_id, epoch)
            if before is not None:
                return before
            added, dropped = writer.execute(
                "SELECT added, dropped FROM job WHERE id = ?", (job,)
            ).fetchone()
            rejections.file(writer)
            self._forget_old(writer)
            after = int(writer.execute("SELECT count(*) FROM member").fetchone()[0])
            change = PoolChange(before=after - added, after=after, added=added, dropped=dropped)
            writer.execute(
                "INSERT INTO finalised VALUES (?, ?, ?, ?)",
                (job, epoch, _encode(change), self._clock.now_s()),
            )
            return change

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        """The change that was sealed; None if it was not."""
        with self._store.reading() as reader:
            return _sealed_change(reader, job_id, epoch)

    def _job_row(self, writer: sqlite3.Connection, job_id: str) -> int:
        row = writer.execute("SELECT id FROM job WHERE job_id = ?", (job_id,)).fetchone()
        if row is not None:
            return int(row[0])
        made = writer.execute(
            "INSERT INTO job (job_id, told_at) VALUES (?, ?)", (job_id, self._clock.now_s())
        )
        assert made.lastrowid is not None
        return made.lastrowid

    def _write(
        self,
        writer: sqlite3.Connection,
        news: Sequence[tuple[int | None, Candidate, Verdict]],
        origin: str,
    ) -> tuple[int, int]:
        """Write checks into members and rejections; say how many joined and how many left fresh."""
        keys = [candidate.endpoint.key for _, candidate, _ in news]
        members = _Members(writer, keys)
        failed: list[rejections.Rejection] = []
        checked: list[tuple[object, ...]] = []
        for key, (item, candidate, verdict) in zip(keys, news, strict=True):
            if key not in members and not verdict.working:
                caught = caught_at(verdict)
                failed.append((key, candidate, verdict, caught))
                if caught is not None:
                    members.caught_now.setdefault(key, caught)
                continue
            members.apply(key, candidate, verdict, self._settings)
            checked.append((*_check_row(verdict, origin, item), key))
        rejections.add(writer, failed, origin)
        members.save()
        writer.executemany(_CHECK, checked)
        return members.joined, members.left_fresh

    def _forget_old(self, writer: sqlite3.Connection) -> None:
        """Keep the file bounded: old checks, old jobs' marks, rejections over the limit."""
        before_s = self._clock.now_s() - self._settings.keep_checks_s
        writer.execute(
            "UPDATE member SET times_checked = times_checked - old.n, "
            "times_passed = times_passed - old.ok FROM (SELECT member, count(*) AS n, "
            "sum(working) AS ok FROM checked WHERE at < ? "
            "AND (working OR blame = 'proxy') GROUP BY member) AS old WHERE old.member = id",
            (before_s,),
        )
        writer.execute("DELETE FROM checked WHERE at < ?", (before_s,))
        writer.execute(
            "DELETE FROM told WHERE job IN (SELECT id FROM job WHERE told_at < ?)", (before_s,)
        )
        rejections.forget(writer, before_s=before_s, most=self._settings.rejected_max)


class _Members:
    """The members among some keys: read once, changed in memory, saved once."""

    def __init__(self, writer: sqlite3.Connection, keys: Sequence[str]) -> None:
        self._writer = writer
        self._known: dict[str, tuple[History, Verdict, list[str]]] = {}
        self._changed: set[str] = set()
        self._new: dict[str, Candidate] = {}
        self.caught_now: dict[str, str] = {}  # those that may pass later in the same telling
        self.joined = self.left_fresh = 0
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            rows = writer.execute(
                f"SELECT key, verdict, sources, {HISTORY_COLUMNS} FROM member "  # noqa: S608 - question marks and constants
                f"WHERE key IN ({marks})",
                some,
            )
            for key, verdict, sources, *history in rows:
                self._known[key] = (
                    history_of(history),
                    _decode_verdict(verdict),
                    msgspec.json.decode(sources, type=list[str]),
                )

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def apply(
        self, key: str, candidate: Candidate, verdict: Verdict, settings: PoolSettings
    ) -> None:
        """Write one verdict into a member's history; a newcomer becomes a member."""
        known = self._known.get(key)
        if known is None:
            caught = rejections.barred_why(self._writer, key) or self.caught_now.get(key)
            history, shown = History(barred_why=caught), verdict
            sources: list[str] = []
            self._new[key] = candidate
            self.joined += 1
        else:
            history, shown, sources = known
        changed = after_check(history, verdict, settings)
        at_s = verdict.checked_at.timestamp()
        if known is not None:
            was = standing_of(history, now_s=at_s, fresh_s=settings.fresh_s)
            now = standing_of(changed, now_s=at_s, fresh_s=settings.fresh_s)
            worked = was.stale or was.state is MemberState.FRESH
            self.left_fresh += worked and not (now.stale or now.state is MemberState.FRESH)
        if not verdict.inconclusive and at_s >= history.last_at_s:
            shown = verdict if verdict.working else _failed_since(shown, verdict)
        sources = list(dict.fromkeys((*sources, *candidate.sources)))[:_SOURCES_MAX]
        self._known[key] = (changed, shown, sources)
        self._changed.add(key)

    def save(self) -> None:
        rows = []
        for key in self._changed:
            history, shown, sources = self._known[key]
            values = history_values(history)
            protocols = ",".join(shown.protocols or ((shown.protocol,) if shown.protocol else ()))
            latest = (
                protocols,
                shown.anonymity.value,
                shown.exit_ip,
                msgspec.json.encode(sources).decode(),
                _encode(shown),
            )
            if key in self._new:
                endpoint = self._new[key].endpoint
                joined_s = shown.checked_at.timestamp()
                place = (key, endpoint.host, endpoint.port, joined_s)
            else:
                place = (key, shown.host, shown.port, 0.0)
            rows.append((*place, *latest, *values))
        self._writer.executemany(_MEMBER, rows)
        rejections.withdraw(self._writer, self._new)


def _failed_since(passed: Verdict, failed: Verdict) -> Verdict:
    """The verdict of a member that failed: how, and what was known when it last passed.

    A failed check learns nothing about protocol, exit or anonymity.
    """
    return msgspec.structs.replace(
        failed,
        proxy=passed.proxy,
        protocol=passed.protocol,
        protocols=passed.protocols,
        anonymity=passed.anonymity,
        exit_ip=passed.exit_ip,
        exit_ips=passed.exit_ips,
        https=passed.https,
        judge=passed.judge,
        tampering=failed.tampering or passed.tampering,
        intercepts_tls=failed.intercepts_tls or passed.intercepts_tls,
    )


def _check_row(verdict: Verdict, origin: str, item: int | None) -> tuple[object, ...]:
    return (
        verdict.checked_at.timestamp(),
        origin,
        item,
        verdict.working,
        verdict.failure,
        verdict.blame,
        verdict.latency_ms,
        verdict.protocol,
        verdict.judge,
        verdict.exit_ip,
    )


def _not_told_before(writer: sqlite3.Connection, job: int, part: Sequence[Item]) -> Iterator[Item]:
    """Let items pass that this job has not told, and mark them as told."""
    blocks: dict[int, bytearray] = {}
    for told in part:
        assert told[0] >= 0, "items of a job are numbered from 0"
        block, place = divmod(told[0], _BLOCK_ITEMS)
        marks = blocks.get(block)
        if marks is None:
            row = writer.execute(
                "SELECT items FROM told WHERE job = ? AND block = ?", (job, block)
            ).fetchone()
            marks = blocks[block] = bytearray(_BLOCK_ITEMS // 8 if row is None else row[0])
        bit = 1 << (place & 7)
        if not marks[place >> 3] & bit:
            marks[place >> 3] |= bit
            yield told
    writer.executemany(
        "INSERT INTO told VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET items = excluded.items",
        ((job, block, bytes(marks)) for block, marks in blocks.items()),
    )


def _sealed_since(connection: sqlite3.Connection, job: int, epoch: int) -> bool:
    row = connection.execute(
        "SELECT 1 FROM finalised WHERE job = ? AND epoch >= ?", (job, epoch)
    ).fetchone()
    return row is not None


def _sealed_change(connection: sqlite3.Connection, job_id: str, epoch: int) -> PoolChange | None:
    row = connection.execute(
        "SELECT change FROM finalised JOIN job ON job.id = finalised.job "
        "WHERE job_id = ? AND epoch = ?",
        (job_id, epoch),
    ).fetchone()
    return None if row is None else msgspec.msgpack.decode(row[0], type=PoolChange)


_MEMBER: Final = (
    "INSERT INTO member (key, host, port, joined_at, protocols, anonymity, exit_ip, sources, "  # noqa: S608 - constants
    f"verdict, {HISTORY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, "
    + ", ".join("?" * len(HISTORY_COLUMNS.split(",")))
    + ") ON CONFLICT (key) DO UPDATE SET protocols = excluded.protocols, "
    "anonymity = excluded.anonymity, exit_ip = excluded.exit_ip, sources = excluded.sources, "
    "verdict = excluded.verdict, "
    + ", ".join(f"{name} = excluded.{name}" for name in HISTORY_COLUMNS.split(", "))
)

_CHECK: Final = (
    "INSERT INTO checked (at, origin, item, working, failure, blame, latency_ms, protocol, "
    "judge, exit_ip, member) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
    "(SELECT id FROM member WHERE key = ?))"
)
