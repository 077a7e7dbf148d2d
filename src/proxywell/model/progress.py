"""How far a refresh job or a check has come: figures for whoever is watching."""

from __future__ import annotations

from msgspec import Struct


class Progress(Struct, frozen=True, kw_only=True):
    """One look at running work; all counts from its start.

    Attributes:
        planned: Candidates to check; None while that is not known (a stream of input).
        checked: Candidates with a verdict.
        given_up: Candidates that will not be checked.
        working: Candidates that work, so far.
        chunks_planned, chunks_done: Leaves of the job's chunks; both 0 where there are none.
        chunks_running: Of those, how many are being checked.
        rescued: Attempts that were taken from silent workers.
        nodes: Mains of workers that are there; None where there is no such thing.
        elapsed_s: Seconds since the start.
        bound_s: Seconds from the start after which the work ends in any case; None if unbounded.
        sockets: Sockets open now; None if not known.
    """

    planned: int | None
    checked: int = 0
    given_up: int = 0
    working: int = 0
    chunks_planned: int = 0
    chunks_done: int = 0
    chunks_running: int = 0
    rescued: int = 0
    nodes: int | None = None
    elapsed_s: float = 0.0
    bound_s: float | None = None
    sockets: int | None = None
