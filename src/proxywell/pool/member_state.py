"""What a check does to a member's history, and whether the member may be handed out: pure."""

from __future__ import annotations

from msgspec import Struct

from proxywell.config.schema import PoolSettings
from proxywell.model.failure import FailureKind
from proxywell.model.member import MemberState
from proxywell.model.verdict import Verdict
from proxywell.pool.score import LATENCY_SAMPLES, Tally

FUTURE_MAX_S = 300.0  # a pass further ahead of our clock than this proves nothing


class History(Struct, frozen=True, kw_only=True):
    """A member's record in figures; instants are seconds since the epoch.

    Attributes:
        tally: Decayed counters of passes and checks.
        passed_last: How the last check that says something about the proxy ended.
        last_at_s: When that check was.
        last_ok_at_s: When it last passed; None if it never did.
        failures_in_row: Failed checks since it last passed.
        failing_since_s: When that row began; None while it passes.
        times_checked, times_passed: Checks that say something about the proxy, and passes.
        latencies_ms: Of the latest passes, oldest first, at most ``LATENCY_SAMPLES``.
        frozen_at_s: When it was set aside by hand; None if it is not.
        barred_why: What it was caught at; None if nothing. Never taken back by a check.
    """

    tally: Tally = Tally()
    passed_last: bool = False
    last_at_s: float = 0.0
    last_ok_at_s: float | None = None
    failures_in_row: int = 0
    failing_since_s: float | None = None
    times_checked: int = 0
    times_passed: int = 0
    latencies_ms: tuple[float, ...] = ()
    frozen_at_s: float | None = None
    barred_why: str | None = None


class Standing(Struct, frozen=True):
    """A member's state with the cause in words; ``stale`` if only a check is missing."""

    state: MemberState
    cause: str
    stale: bool = False


def after_check(history: History, verdict: Verdict, settings: PoolSettings) -> History:
    """Write one verdict into a member's history.

    An inconclusive verdict (the judge or we were at fault) leaves the history as it is. A
    verdict older than the last one counts in the tally but does not change what was last.
    """
    if verdict.inconclusive:
        return history
    at_s = verdict.checked_at.timestamp()
    passed = verdict.working
    latencies = history.latencies_ms
    if passed and verdict.latency_ms is not None:
        latencies = (*latencies, verdict.latency_ms)[-LATENCY_SAMPLES:]
    newest = at_s >= history.last_at_s
    last_ok_at_s = history.last_ok_at_s
    if passed:
        last_ok_at_s = max(at_s, last_ok_at_s or 0.0)
    failures, since_s = history.failures_in_row, history.failing_since_s
    if newest:
        failures = 0 if passed else failures + 1
        since_s = None if passed else (since_s if since_s is not None else at_s)
    return History(
        tally=history.tally.with_check(passed=passed, at_s=at_s, half_life_s=settings.half_life_s),
        passed_last=passed if newest else history.passed_last,
        last_at_s=max(at_s, history.last_at_s),
        last_ok_at_s=last_ok_at_s,
        failures_in_row=failures,
        failing_since_s=since_s,
        times_checked=history.times_checked + 1,
        times_passed=history.times_passed + passed,
        latencies_ms=latencies,
        frozen_at_s=history.frozen_at_s,
        barred_why=history.barred_why or caught_at(verdict),
    )


def caught_at(verdict: Verdict) -> str | None:
    """What bars a proxy for good: it changed an answer, or showed its own certificate."""
    if verdict.tampering is not None:
        return f"tampering: {verdict.tampering}"
    if verdict.failure is FailureKind.TAMPERED:
        return "tampering"
    return "intercepts TLS" if verdict.intercepts_tls else None


def standing_of(history: History, *, now_s: float, fresh_s: float) -> Standing:
    """Say whether a member may be handed out at an instant, and why not.

    Gates come before time: what was caught stays barred, what was frozen stays frozen. A
    member whose last pass is older than ``fresh_s`` counts as cooling, and as stale.

    Args:
        history: Its record.
        now_s: Seconds since the epoch.
        fresh_s: How long a pass is good for, in seconds; above zero.
    """
    if history.barred_why is not None:
        return Standing(MemberState.BARRED, f"barred for {history.barred_why}")
    if history.frozen_at_s is not None:
        return Standing(MemberState.FROZEN, "frozen by hand")
    if not history.passed_last:
        failures = how_often(history.failures_in_row)
        return Standing(MemberState.COOLING, f"failed {failures} since it last passed")
    age_s = now_s - (history.last_ok_at_s or 0.0)
    if age_s < -FUTURE_MAX_S:
        return Standing(MemberState.COOLING, "its last pass lies ahead of our clock", stale=True)
    if age_s > fresh_s:
        return Standing(
            MemberState.COOLING, f"passed last, but more than {fresh_s:g} s ago", stale=True
        )
    return Standing(MemberState.FRESH, f"passed within {fresh_s:g} s")


def how_often(times: int) -> str:
    """``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(times, f"{times} times")
