"""All that the pool knows about one endpoint, with the score step by step."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from proxywell.config.schema import PoolSettings
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.member import PoolMember
from proxywell.model.verdict import CheckStep, JudgeTrust, Verdict
from proxywell.pool import rejections
from proxywell.pool.lookup import endpoint_of
from proxywell.pool.member_state import History, how_often, standing_of
from proxywell.pool.rows import HISTORY_COLUMNS, history_of
from proxywell.pool.score import estimate, typical_latency_ms

CHECKS_SHOWN: Final = 100


class PastCheck(Struct, frozen=True, kw_only=True):
    """One check of a member, as it was recorded.

    Attributes:
        at: When the verdict was reached, UTC.
        origin: Who asked for it: ``job ID``, ``verify``, ``keeper``.
        working, failure, blame, protocol, latency_ms, exit_ip, judge: As in the verdict.
    """

    at: datetime
    origin: str
    working: bool
    failure: FailureKind | None = None
    blame: Blame | None = None
    protocol: Protocol | None = None
    latency_ms: float | None = None
    exit_ip: str | None = None
    judge: JudgeTrust = JudgeTrust.UNSIGNED


class ScoreStep(Struct, frozen=True):
    """One step of the score: its name, its value, and how it comes about in words."""

    name: str
    value: float
    words: str


class Explanation(Struct, frozen=True, kw_only=True):
    """All that is known about one endpoint.

    Attributes:
        latest: The member, or of an endpoint that never worked its last verdict.
        why: In words, why it is handed out or not.
        since: When it joined; of one that never worked, when it was first checked, UTC.
        times_rejected: Checks of an endpoint that never worked; 0 for a member.
        history: Its latest checks, newest first, at most ``CHECKS_SHOWN``; members only.
        score_steps: From the prior to the score; members only.
    """

    latest: PoolMember | Verdict
    why: str
    since: datetime
    times_rejected: int = 0
    history: tuple[PastCheck, ...] = ()
    score_steps: tuple[ScoreStep, ...] = ()


def explain_member(
    reader: sqlite3.Connection,
    member_id: int,
    member: PoolMember,
    *,
    now_s: float,
    settings: PoolSettings,
) -> Explanation:
    """Explain a member: its state, its checks, its score."""
    joined_s, *row = reader.execute(
        f"SELECT joined_at, {HISTORY_COLUMNS} FROM member WHERE id = ?",  # noqa: S608 - constants
        (member_id,),
    ).fetchone()
    history = history_of(row)
    return Explanation(
        latest=member,
        why=_why_member(history, member, now_s=now_s, settings=settings),
        since=datetime.fromtimestamp(joined_s, UTC),
        history=_past_checks(reader, member_id),
        score_steps=score_steps(history, member.protocol, now_s=now_s, settings=settings),
    )


def _why_member(
    history: History, member: PoolMember, *, now_s: float, settings: PoolSettings
) -> str:
    standing = standing_of(history, now_s=now_s, fresh_s=settings.fresh_s)
    why = f"{member.state}: {standing.cause}"
    if not history.passed_last and member.failure is not None:
        why += f"; the last time by {member.failure}"
        if history.failing_since_s is not None:
            since = datetime.fromtimestamp(history.failing_since_s, UTC)
            why += f", failing since {since:%Y-%m-%d %H:%M:%S} UTC"
    return why


def _past_checks(reader: sqlite3.Connection, member_id: int) -> tuple[PastCheck, ...]:
    rows = reader.execute(
        "SELECT at, origin, working, failure, blame, protocol, latency_ms, exit_ip, judge "
        "FROM checked WHERE member = ? ORDER BY at DESC, id DESC LIMIT ?",
        (member_id, CHECKS_SHOWN),
    )
    return tuple(
        PastCheck(
            at=datetime.fromtimestamp(at_s, UTC),
            origin=origin,
            working=bool(working),
            failure=FailureKind(failure) if failure else None,
            blame=Blame(blame) if blame else None,
            protocol=Protocol(protocol) if protocol else None,
            latency_ms=latency_ms,
            exit_ip=exit_ip,
            judge=JudgeTrust(judge),
        )
        for at_s, origin, working, failure, blame, protocol, latency_ms, exit_ip, judge in rows
    )


def score_steps(
    history: History, protocol: Protocol | None, *, now_s: float, settings: PoolSettings
) -> tuple[ScoreStep, ...]:
    """Retrace a member's score, each step with its figures in words.

    Args:
        history: The member's record.
        protocol: The one that it is used with.
        now_s: The instant of the score, seconds since the epoch.
        settings: The constants.
    """
    latency_ms = typical_latency_ms(history.latencies_ms)
    steps = estimate(
        history.tally,
        passed_last=history.passed_last,
        last_at_s=history.last_at_s,
        latency_ms=latency_ms,
        protocol=protocol,
        now_s=now_s,
        settings=settings,
    )
    age_s = max(0.0, now_s - history.last_at_s)
    last = "passed" if history.passed_last else "failed"
    relax_s = settings.relax_connect_s if protocol is Protocol.CONNECT else settings.relax_s
    speed = "no latency is known" if latency_ms is None else f"median latency {latency_ms:.0f} ms"
    return (
        ScoreStep("prior", steps.prior, f"expected of a newcomer with {protocol or 'no protocol'}"),
        ScoreStep(
            "record",
            steps.long_run,
            f"{history.times_passed} of {history.times_checked} checks passed; the record "
            f"counts as {steps.tried:.2f} checks (half after {settings.half_life_s / 3600:g} h), "
            f"the prior as {settings.prior_strength:g}",
        ),
        ScoreStep(
            "now",
            steps.likely,
            f"the last check, {age_s:.0f} s ago, {last}; looking {settings.horizon_s:g} s "
            f"ahead it fades into the record with {relax_s:g} s",
        ),
        ScoreStep("doubt", -steps.doubt, f"taken off: {settings.caution:g} standard deviations"),
        ScoreStep("lower", steps.lower, "what it can be trusted with"),
        ScoreStep("speed", steps.speed, f"factor: {speed}; half at {settings.speed_scale_ms:g} ms"),
        ScoreStep("score", steps.score, "lower times speed; selection draws in proportion to it"),
    )


def explain_rejected(reader: sqlite3.Connection, key: str) -> Explanation | None:
    """Explain an endpoint that was checked and never worked; None if it is not known."""
    row = rejections.tell(reader, key)
    if row is None:
        return None
    protocol, failure, blame, first_s, last_s, times, origin, barred_why, steps, sources = row
    endpoint = endpoint_of(key)
    tried = Protocol(protocol) if protocol else None
    verdict = Verdict(
        proxy=endpoint.url(tried or Protocol.HTTP),
        host=endpoint.host,
        port=endpoint.port,
        protocol=tried,
        working=False,
        checked_at=datetime.fromtimestamp(last_s, UTC),
        failure=FailureKind(failure) if failure else None,
        blame=Blame(blame) if blame else None,
        checks=msgspec.msgpack.decode(steps, type=tuple[CheckStep, ...]),
    )
    if verdict.blame is Blame.PROXY:
        why = f"never worked: checked {how_often(times)}, rejected for {failure}"
    else:
        why = f"not known to work: checked {how_often(times)}, the {blame or 'judge'} was at fault"
    if barred_why:
        why += f"; barred for {barred_why}"
    why += f"; last by {origin}"
    if sources:
        why += f"; listed by {sources.replace(' ', ', ')}"
    return Explanation(
        latest=verdict,
        why=why,
        since=datetime.fromtimestamp(first_s, UTC),
        times_rejected=times,
    )
