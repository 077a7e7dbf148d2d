"""How long a refresh job may take: a floor, what measured speed asks for, and a cap. Pure.

All figures are seconds since the job was created unless a name says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

SAMPLES_MIN = 5  # fewer successful attempts say nothing about the next one
SAMPLES_KEPT = 64
ALLOWANCE = 1.5


class Speed(Struct, frozen=True):
    """What the ledger knows about how fast chunks get done.

    Attributes:
        open_chunks: Chunks that are ready or running; at least 0.
        at_once: Most chunks seen running at one time in the last minute; below 1 counts as 1.
        item_s: Seconds per item of the latest successful attempts.
        chunk_size: Items in a planned chunk.
    """

    open_chunks: int
    at_once: int
    item_s: Sequence[float]
    chunk_size: int


def floor_s(
    chunks: int, *, time_per_chunk_s: float, workers: int, factor: float, least_s: float
) -> float:
    """Say how long a job may take at least, from its number of chunks alone.

    ``max(least, ceil(chunks / workers) * time_per_chunk * factor)``: with 8 workers, 90 s, 1.5
    and 600 s, 29 chunks get 600 s, 50 get 945 s, 100 get 1 755 s and 200 get 3 375 s.

    Args:
        chunks: Planned chunks; at least 0.
        time_per_chunk_s: What one chunk is reckoned to take; above 0.
        workers: Of the formula, not of this job; at least 1.
        factor: Allowance; at least 1.
        least_s: Never below this; above 0.
    """
    return max(least_s, math.ceil(chunks / workers) * time_per_chunk_s * factor)


def chunk_p95_s(speed: Speed, *, prior_s: float) -> float:
    """95th percentile of a whole chunk's time; ``prior_s`` while samples are too few."""
    if len(speed.item_s) < SAMPLES_MIN:
        return prior_s
    ranked = sorted(speed.item_s)
    return ranked[math.ceil(0.95 * len(ranked)) - 1] * speed.chunk_size


def adaptive_s(elapsed_s: float, speed: Speed, *, prior_s: float, recovery_s: float) -> float:
    """Say when the job should be over, judging by the speed so far.

    ``elapsed + 1.5 * ceil(open / at once) * p95 + recovery``.

    Args:
        elapsed_s: Since creation.
        speed: As measured.
        prior_s: A chunk's time before anything was measured.
        recovery_s: Allowance for one lost lease: lease, tick and doorbell.
    """
    rounds = math.ceil(speed.open_chunks / max(1, speed.at_once))
    return elapsed_s + ALLOWANCE * rounds * chunk_p95_s(speed, prior_s=prior_s) + recovery_s


def in_force_s(before_s: float, *, floor_s: float, adaptive_s: float, cap_s: float) -> float:
    """Say which bound holds now: it only grows, and never passes the cap.

    Args:
        before_s: What was in force until now; 0 at creation.
        floor_s: What the function of this name said at creation.
        adaptive_s: What the function of this name says now.
        cap_s: The longest that the job may take, also below the floor if a caller says so.
    """
    return min(max(floor_s, adaptive_s, before_s), cap_s)
