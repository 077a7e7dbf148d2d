"""Whoever waits, drives: ticks the ledger, rings, collects, finalises. By event, then by state.

Every wake, also one by the clock, reads the state anew, so a lost event costs one look. Every
wait ends on the local monotonic clock, whatever the ledger says or does not say.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from proxywell.errors import StoreBusyError
from proxywell.refresh.books import JobRow, JobState, Tick
from proxywell.refresh.closing import TICK_S
from proxywell.refresh.ports import Bell, Ledger

GRACE_S = 30.0  # behind the cap, before the wait ends on its own clock
BUSY_PAUSE_S = 0.2


class Until(StrEnum):
    """What is waited for."""

    USABLE = "usable"
    CLOSED = "closed"
    FINALISED = "finalised"


class WaitEnd(StrEnum):
    """Why a wait ended."""

    REACHED = "reached"
    STALLED = "stalled"  # chunks are ready, and nobody has been there for too long
    BOUND = "bound"  # the wait's own end


class Driver(Struct, frozen=True):
    """What a waiter does besides looking.

    Attributes:
        each: After every tick, with what it said: ring, collect, show.
        finalise: Once the job is closed, again until it is finalised.
    """

    each: Callable[[Tick], None]
    finalise: Callable[[], None]


def hard_bound_s(job: JobRow) -> float:
    """Say how long a wait without a bound of its own may take: the job's cap and ``GRACE_S``.

    Args:
        job: The line as it stands, or as it was last seen.
    """
    return max(0.0, job.cap_s - job.seen_s) + GRACE_S


def wait(
    ledger: Ledger,
    job_id: str,
    *,
    until: Until,
    bound_s: float,
    bell: Bell,
    monotonic_s: Callable[[], float],
    driver: Driver,
) -> WaitEnd:
    """Drive a job until something is reached, or the bound is met.

    Args:
        ledger: The job's books.
        job_id: The job.
        until: What to wait for; a closed job is as usable as it will ever be.
        bound_s: Longest wait, on the local clock; a call that is under way then, and cannot reach
            the ledger, ends within the ledger's own limit.
        bell: What wakes before the next tick is due.
        monotonic_s: The local clock.
        driver: See there.

    Raises:
        UnknownJobError: There is no such job.
        StateError: The ledger cannot be read or written, and it is not that it is busy.
    """
    end_s = monotonic_s() + bound_s
    while True:  # ends when reached, stalled, or at end_s
        tick = _tick(ledger, job_id)
        if tick is not None:
            driver.each(tick)
            if tick.job.state in (JobState.CLOSED, JobState.FINALISING):
                driver.finalise()
                tick = _tick(ledger, job_id) or tick
            if _reached(until, tick):
                return WaitEnd.REACHED
            if tick.stalled:
                return WaitEnd.STALLED
        left_s = end_s - monotonic_s()
        if left_s <= 0:
            return WaitEnd.BOUND
        bell.wait(min(left_s, BUSY_PAUSE_S if tick is None else TICK_S))


def _tick(ledger: Ledger, job_id: str) -> Tick | None:
    try:
        return ledger.tick(job_id)
    except StoreBusyError:
        return None


def _reached(until: Until, tick: Tick) -> bool:
    state = tick.job.state
    if until is Until.USABLE and tick.job.usable_s is not None:
        return True
    if until is Until.CLOSED:
        return state is not JobState.OPEN
    return state is JobState.DONE
