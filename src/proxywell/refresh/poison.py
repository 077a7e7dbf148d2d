"""Candidates that end whoever checks them: found in a job, remembered, left out of later plans.

A candidate is known by its host and port: whatever there ended our workers does so with any
credentials, and a memory without credentials can be shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Protocol
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.holding import candidates_of
from proxywell.refresh.ledgers.sqlite import FILE_NAME, open_ledger
from proxywell.refresh.ports import Ledger
from proxywell.refresh.spans import spans_of
from proxywell.refresh.timeline import Chronicle, events_of


def given_up_as_poison(ledger: Ledger, job_id: str) -> list[Candidate]:
    """The candidates that a job gave up as poison so far, in the order of the plan.

    Raises:
        UnknownJobError: There is no such job.
        StateError: The ledger cannot be read.
    """
    if not ledger.status(job_id).given_up.get(GivenUpWhy.POISON):
        return []
    chronicle = Chronicle(events_of(ledger, job_id))
    return candidates_at(ledger, job_id, chronicle.poison)


def candidates_at(ledger: Ledger, job_id: str, items: Iterable[int]) -> list[Candidate]:
    """The candidates with these numbers, rising; those that are not kept any more are left out.

    Raises:
        StateError: The ledger cannot be read.
    """
    found: list[Candidate] = []
    for item in sorted(items):
        span = spans_of([item])
        kept = ledger.blocks(job_id, span)
        if any(block.lo <= item < block.hi for block in kept):
            found += [candidate for _, candidate in candidates_of(span, kept)]
    return found


def shown(candidate: Candidate) -> str:
    """Its URL without credentials, with the protocol that lists name first."""
    protocol = candidate.hints[0] if candidate.hints else Protocol.HTTP
    return f"{protocol.scheme}://{candidate.endpoint.netloc}"


def leave_out(candidates: list[Candidate], poison: Collection[str]) -> int:
    """Take remembered candidates out of a plan, in place.

    Args:
        candidates: To be planned.
        poison: Places as ``PoisonMemory.places`` has them.

    Returns:
        How many were taken out.
    """
    before = len(candidates)
    if poison:
        candidates[:] = [one for one in candidates if one.endpoint.netloc not in poison]
    return before - len(candidates)


def why_no_verdict(state_dir: Path, place: str, *, kept_s: float) -> str | None:
    """Say that a place has no verdict because it ended its workers; None if that is not so.

    Args:
        state_dir: A state directory; one without a ledger is left without one.
        place: ``host:port``.
        kept_s: As for ``PoisonMemory``.

    Raises:
        StateError: The ledger cannot be read.
    """
    if not (state_dir / FILE_NAME).exists():
        return None
    with closing(PoisonMemory(state_dir, kept_s)) as memory:
        found = memory.found_in_job(place, SystemClock().now_s())
    if found is None:
        return None
    job_id, until_s = found
    return (
        f"{place} has no verdict: it ended the workers that checked it in job {job_id}, and is "
        f"left out of refreshes until {datetime.fromtimestamp(until_s, UTC):%Y-%m-%dT%H:%M:%SZ} "
        "(refresh.poison_kept_s); please report it"
    )


class PoisonMemory:
    """What a state directory remembers of poison, in the file of its ledger.

    One object belongs to one thread.

    Args:
        state_dir: Where ``ledger.sqlite`` lives; made if it is missing.
        kept_s: Seconds for which a candidate is remembered; 0 remembers nothing.

    Raises:
        StateError: The file cannot be made, read or written.
    """

    def __init__(self, state_dir: Path, kept_s: float) -> None:
        self._home = open_ledger(state_dir)
        self._kept_s = kept_s

    def remember(self, candidates: Iterable[Candidate], *, job_id: str, now_s: float) -> None:
        """Keep candidates that a job gave up as poison; saying it again changes nothing.

        Args:
            candidates: As ``poison_of`` found them.
            job_id: The job that found them.
            now_s: Seconds since the epoch.

        Raises:
            StateError: The file cannot be written.
        """
        rows = [(candidate.endpoint.netloc, job_id, now_s) for candidate in candidates]
        with self._home.transaction() as db:
            db.executemany(
                "INSERT INTO poison VALUES (?, ?, ?) ON CONFLICT (place) DO UPDATE"
                " SET job = excluded.job, at = excluded.at WHERE job != excluded.job",
                rows,
            )

    def places(self, now_s: float) -> frozenset[str]:
        """``host:port`` of all that are remembered; what is past its time is forgotten.

        Args:
            now_s: Seconds since the epoch.

        Raises:
            StateError: The file cannot be read or written.
        """
        with self._home.transaction() as db:
            ends = (now_s - self._kept_s, now_s + self._kept_s)  # the clock may have been wrong
            db.execute("DELETE FROM poison WHERE at <= ? OR at > ?", ends)
            return frozenset(place for (place,) in db.execute("SELECT place FROM poison"))

    def found_in_job(self, place: str, now_s: float) -> tuple[str, float] | None:
        """Which job found that a place is poison, and until when it is left out.

        Args:
            place: ``host:port``.
            now_s: Seconds since the epoch.

        Returns:
            The job's id and an instant in seconds since the epoch; None if it is not remembered.

        Raises:
            StateError: The file cannot be read.
        """
        with self._home.transaction() as db:
            row = db.execute("SELECT job, at FROM poison WHERE place = ?", (place,)).fetchone()
        if row is None or row[1] + self._kept_s <= now_s:
            return None
        return row[0], row[1] + self._kept_s

    def close(self) -> None:
        """Let go of the file; works twice."""
        self._home.close()
