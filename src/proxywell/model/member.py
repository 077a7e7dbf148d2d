"""A proxy that passed a check, while the pool keeps it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import field

from proxywell.model.verdict import Verdict


class MemberState(StrEnum):
    """Whether a member may be handed out."""

    FRESH = "fresh"
    COOLING = "cooling"  # set aside for a while after failing
    FROZEN = "frozen"  # set aside by hand
    BARRED = "barred"  # tampers or intercepts; sticky


class PoolMember(Verdict, frozen=True, kw_only=True):
    """The latest verdict of a member, with its history in figures.

    Attributes:
        score: What selection weighs, in [0, 1].
        times_checked, times_passed: Over all checks that are kept.
        last_ok_at: When it last passed, UTC.
        country, asn: Of the exit, where the user gave a database; else None.
        sources: Names of the lists that named it.
        targets: Per target of the user: the share that worked lately, in [0, 1].
    """

    score: float = 0.0
    times_checked: int = 0
    times_passed: int = 0
    last_ok_at: datetime | None = None
    country: str | None = None
    asn: int | None = None
    sources: tuple[str, ...] = ()
    state: MemberState = MemberState.FRESH
    targets: dict[str, float] = field(default_factory=dict)
