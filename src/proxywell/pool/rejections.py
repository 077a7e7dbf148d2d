"""Endpoints that were checked and never worked: the last verdict of each, within a bound.

There are a hundred of them for every member, in no order. So they are appended as they come,
which costs little, and filed by key when a job is sealed, all at once and in order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec

from proxywell.model.candidate import Candidate
from proxywell.model.verdict import CheckState, Verdict

# The endpoint's key, who it is, what was found, and what it was caught at.
Rejection: TypeAlias = tuple[str, Candidate, Verdict, str | None]

_SOURCES_MAX: Final = 8

_encode = msgspec.msgpack.Encoder().encode


def add(writer: sqlite3.Connection, failed: Iterable[Rejection], origin: str) -> None:
    """Append verdicts on endpoints that are no members."""
    writer.executemany(
        "INSERT INTO rejection (key, protocol, failure, blame, at, origin, barred_why, steps, "
        "sources) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                key,
                verdict.protocol and verdict.protocol.value,  # SQLite is slow at enums
                verdict.failure and verdict.failure.value,
                verdict.blame and verdict.blame.value,
                verdict.checked_at.timestamp(),
                origin,
                caught,
                _encode([step for step in verdict.checks if step.state is not CheckState.SKIPPED]),
                " ".join(candidate.sources[:_SOURCES_MAX]),
            )
            for key, candidate, verdict, caught in failed
        ],
    )


def barred_why(connection: sqlite3.Connection, key: str) -> str | None:
    """What an endpoint was caught at before it ever passed; None if nothing."""
    row = connection.execute(
        "SELECT barred_why FROM rejected WHERE key = ? AND barred_why IS NOT NULL UNION ALL "
        "SELECT barred_why FROM rejection WHERE key = ? AND barred_why IS NOT NULL LIMIT 1",
        (key, key),
    ).fetchone()
    return None if row is None else row[0]


def file(writer: sqlite3.Connection) -> None:
    """File what was appended, by key. What says nothing of a proxy never replaces what does."""
    writer.execute(
        "INSERT INTO rejected (key, protocol, failure, blame, first_at, last_at, times, origin, "
        "barred_why, steps, sources) SELECT key, protocol, failure, blame, at, at, 1, origin, "
        "barred_why, steps, sources FROM rejection "
        "WHERE key NOT IN (SELECT key FROM member) ORDER BY key, id "
        "ON CONFLICT (key) DO UPDATE SET protocol = excluded.protocol, "
        "failure = excluded.failure, blame = excluded.blame, last_at = excluded.last_at, "
        "times = iif(excluded.blame IS blame, times, 0) + 1, "
        "first_at = iif(excluded.blame IS blame, first_at, excluded.first_at), "
        "origin = excluded.origin, steps = excluded.steps, "
        "sources = excluded.sources, barred_why = coalesce(barred_why, excluded.barred_why) "
        "WHERE excluded.blame IS 'proxy' OR blame IS NOT 'proxy'"
    )
    writer.execute("DELETE FROM rejection")


def withdraw(writer: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Forget the rejections of endpoints that have become members."""
    writer.executemany("DELETE FROM rejected WHERE key = ?", ((key,) for key in keys))


def forget(writer: sqlite3.Connection, *, before_s: float, most: int) -> None:
    """Keep filed rejections within their bounds; those who were caught go last.

    Args:
        writer: The pool's file, in a transaction.
        before_s: Forget what was last checked before this, seconds since the epoch, except
            who was caught at tampering or interception.
        most: Endpoints kept at most.
    """
    writer.execute("DELETE FROM rejected WHERE last_at < ? AND barred_why IS NULL", (before_s,))
    kept = int(writer.execute("SELECT count(*) FROM rejected").fetchone()[0])
    if kept > most:
        writer.execute(
            "DELETE FROM rejected WHERE key IN (SELECT key FROM rejected "
            "ORDER BY barred_why IS NOT NULL, last_at LIMIT ?)",
            (kept - most,),
        )


def tell(reader: sqlite3.Connection, key: str) -> tuple[Any, ...] | None:
    """Tell all that is known of one endpoint, filed or not; None if nothing is.

    Returns:
        Protocol, failure, blame, first and last check, how often, origin, what it was caught
        at, steps, sources.
    """
    rows = reader.execute(
        "SELECT protocol, failure, blame, first_at, last_at, times, origin, barred_why, steps, "
        "sources FROM rejected WHERE key = ? UNION ALL "
        "SELECT protocol, failure, blame, at, at, 1, origin, barred_why, steps, sources "
        "FROM (SELECT * FROM rejection WHERE key = ? ORDER BY id)",
        (key, key),
    ).fetchall()
    if not rows:
        return None
    telling = [row for row in rows if row[2] == "proxy"] or rows
    last = telling[-1]
    caught = next((row[7] for row in rows if row[7]), None)
    times = sum(row[5] for row in telling)
    return (*last[:3], telling[0][3], last[4], times, last[6], caught, *last[8:])
