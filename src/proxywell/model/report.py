"""What a refresh job amounts to; the JSON form of these types is the public contract."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field


class Outcome(StrEnum):
    """How a refresh job, or a wait for one, ended."""

    COMPLETE = "complete"
    USABLE = "usable"
    PARTIAL = "partial"
    STALLED = "stalled"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    FAILED = "failed"


class RefusalReason(StrEnum):
    """Why an entry of a list is not planned."""

    MALFORMED = "malformed"
    PRIVATE_ADDRESS = "private_address"
    SERVICE_PORT = "service_port"
    HOST_NAME = "host_name"
    CREDENTIALS = "credentials"
    TOO_MANY_PER_ADDRESS = "too_many_per_address"
    TOO_MANY_PER_NETWORK = "too_many_per_network"
    TOO_MANY = "too_many"
    POISON = "poison"


class GivenUpWhy(StrEnum):
    """Why an item was never checked."""

    DEADLINE = "deadline"
    POISON = "poison"
    ERROR = "error"
    CANCELLED = "cancelled"
    ENOUGH = "enough"


class SourceReport(Struct):
    """One source in one refresh: entries read, distinct well-formed candidates, what failed."""

    source: str
    read: int = 0
    unique: int = 0
    error: str | None = None


class CandidateCounts(Struct):
    """From entries to what is planned; ``unique`` counts distinct well-formed candidates."""

    read: int = 0
    unique: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    planned: int = 0


class ItemCounts(Struct):
    """Candidates of a closed job: ``planned == checked + given_up``."""

    planned: int = 0
    checked: int = 0
    given_up: int = 0
    given_up_why: dict[GivenUpWhy, int] = field(
        default_factory=lambda: dict.fromkeys(GivenUpWhy, 0)
    )

    @property
    def pending(self) -> int:
        """Candidates that wait or are being checked; none when the job is closed."""
        return 0


class OpenItemCounts(ItemCounts):
    """Candidates of an open job: ``planned == checked + given_up + pending``."""

    pending: int = 0


class ChunkCounts(Struct):
    """Leaves of the job's chunks; a split chunk counts as its parts."""

    planned: int = 0
    done: int = 0
    given_up: int = 0
    rescued: int = 0
    split: int = 0
    attempts: int = 0
    stale_reports: int = 0


class VerdictCounts(Struct):
    """``checked == working + not_working + inconclusive``."""

    working: int = 0
    not_working: int = 0
    inconclusive: int = 0
    by_failure: dict[str, int] = field(default_factory=dict)
    by_protocol: dict[str, int] = field(default_factory=dict)
    by_anonymity: dict[str, int] = field(default_factory=dict)


class Timing(Struct):
    """Seconds since the job was asked for; None for what did not happen."""

    read: float | None = None
    first_working: float | None = None
    usable: float | None = None
    closed: float | None = None
    finalised: float | None = None
    total: float | None = None


class DeadlineFigures(Struct):
    """Seconds: the floor of the formula, what is in force, and the cap it never passes."""

    floor_s: float = 0.0
    in_force_s: float = 0.0
    cap_s: float = 0.0


class PoolChange(Struct):
    """Members before and after; ``dropped`` counts those that left the fresh state."""

    before: int = 0
    after: int = 0
    added: int = 0
    dropped: int = 0


class RefreshReport(Struct, kw_only=True):
    """One refresh job from plan to finalisation; ``outcome`` is None while it runs.

    ``poison`` has the candidates that were given up because they ended whoever checked them,
    as URLs without credentials, in the order of the plan.
    """

    job_id: str
    outcome: Outcome | None = None
    reason: str | None = None
    engine: str = "local"
    sources: list[SourceReport] = field(default_factory=list)
    candidates: CandidateCounts = field(default_factory=CandidateCounts)
    items: ItemCounts = field(default_factory=ItemCounts)
    chunks: ChunkCounts = field(default_factory=ChunkCounts)
    verdicts: VerdictCounts = field(default_factory=VerdictCounts)
    timing_s: Timing = field(default_factory=Timing)
    deadline: DeadlineFigures = field(default_factory=DeadlineFigures)
    pool: PoolChange = field(default_factory=PoolChange)
    poison: list[str] = field(default_factory=list)
