"""What the books of a refresh job hold, and what the ledger answers. Data only, no rules.

Instants (``_s`` without a word of length) are seconds on the ledger's own clock, never a
worker's or a waiter's. Every item of a job is at any moment in exactly one place: settled in a
part, or in the ``items`` of exactly one chunk that was not split.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Protocol, TypeAlias

from msgspec import Struct, field

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.spans import Spans


class ChunkState(IntEnum):
    """Where a chunk stands; the last four are final."""

    READY = 0
    RUNNING = 1
    DONE = 2
    FAILED = 3  # given up: errors, or too many attempts
    LOST = 4  # given up: deadline, poison, cancelled, enough
    SPLIT = 5  # counts through its parts


class JobState(StrEnum):
    """Where a job stands."""

    OPEN = "open"
    CLOSED = "closed"
    FINALISING = "finalising"
    DONE = "done"


SHARED_FEW = 2  # losses with others, after which a chunk is held among few


class Among(IntEnum):
    """Among how many other chunks a holder may have one; the higher, the fewer."""

    ANY = 0
    FEW = 1
    NONE = 2


class Terms(Struct, frozen=True, array_like=True):
    """What was agreed when the job was created. Lengths in seconds.

    Attributes:
        lease_s: A silent worker keeps its chunk so long.
        attempt_hard_s: Longest attempt at a chunk.
        attempts_max: Attempts at a chunk that count (not those lost with their node).
        errors_max: Errors that a chunk may raise before it is given up.
        blames_max: Blamed losses before a chunk is split, or a single item given up as poison.
        fan: Most parts of a split.
        stalled_s: Ready chunks, none running and nobody there for so long: stalled.
        chunk_size: Items in a planned chunk.
        min_count: Working items that make the job usable.
        want: Working items at which the rest is given up as ``enough``; None: check all.
        floor_s, cap_s: See ``deadline``; from creation.
        time_per_chunk_s: A chunk's time before anything was measured.
    """

    lease_s: float
    attempt_hard_s: float
    attempts_max: int
    errors_max: int
    blames_max: int
    fan: int
    stalled_s: float
    chunk_size: int
    min_count: int
    want: int | None
    floor_s: float
    cap_s: float
    time_per_chunk_s: float


class JobRow(Struct, array_like=True):
    """One job's line: counters, instants and what finalisation needs.

    ``open`` chunks are those ready or running. ``given_up`` and ``checked`` count items.
    ``peak`` and ``peak_before`` are the most chunks running at one time in this minute and the
    last one. ``bells`` are doorbells owed since the last tick.
    """

    job_id: str
    terms: Terms
    items: int
    created_s: float
    created_at_s: float  # of the wall clock, for people
    deadline_s: float
    cap_s: float
    boot: str = ""
    epoch: int = 1
    state: JobState = JobState.OPEN
    why: str | None = None  # set when it was closed by the deadline or by a cancel
    detail: str | None = None
    checked: int = 0
    working: int = 0
    given_up: dict[GivenUpWhy, int] = field(default_factory=dict)
    ready: int = 0
    running: int = 0
    chunks: int = 0
    chunks_done: int = 0
    chunks_given_up: int = 0
    rescued: int = 0
    split: int = 0
    attempts: int = 0
    stale: int = 0
    next_chunk: int = 0
    parts: int = 0
    events: int = 0
    seen_s: float = 0.0
    alive_s: float = 0.0
    claimed_s: float = 0.0
    rung_s: float = 0.0
    ring_wait_s: float = 1.0
    bells: int = 0
    peak: int = 0
    peak_before: int = 0
    peak_since_s: float = 0.0
    item_s: list[float] = field(default_factory=list)
    first_working_s: float | None = None
    usable_s: float | None = None
    closed_s: float | None = None
    finalised_s: float | None = None
    fin_token: str | None = None
    fin_until_s: float = 0.0
    fin_fails: int = 0
    fin_error: str | None = None

    @property
    def open(self) -> int:
        """Chunks that are ready or running."""
        return self.ready + self.running

    @property
    def items_given_up(self) -> int:
        """Items that will not be checked."""
        return sum(self.given_up.values())

    @property
    def pending(self) -> int:
        """Items that are neither checked nor given up."""
        return self.items - self.checked - self.items_given_up


class ChunkRow(Struct, array_like=True):
    """One chunk's line.

    Attributes:
        items: Not settled yet; a beat takes settled ones out.
        place: The order in which ready chunks are claimed, lowest first.
        token: Of the current attempt while running, of the last one otherwise.
        excused: Attempts that do not count: lost with their node, released, or ended when they
            had settled something.
        blamed: Losses held against the chunk.
        suspect: Died alone, or with others again and again; claimed alone until done.
        alone: The current attempt's holder has held no other chunk meanwhile.
        progressed: The current attempt has settled an item.
        before_loss: ``blamed, suspect, excused`` before the last loss, for taking it back.
        shared: Losses in the company of others, of which one may be to blame; also those that
            were taken back, for a holder that falls silent again and again is a sign too.
    """

    id: int
    state: ChunkState
    items: Spans
    place: int
    patient: bool = False
    parent: int | None = None
    attempt: int = 0
    excused: int = 0
    blamed: int = 0
    errors: int = 0
    suspect: bool = False
    alone: bool = False
    progressed: bool = False
    token: str | None = None
    node: str = ""
    holder: str = ""
    claimed_items: int = 0
    since_s: float = 0.0
    until_s: float = 0.0
    before_loss: tuple[int, bool, int] | None = None
    why: str | None = None
    shared: int = 0

    @property
    def among(self) -> Among:
        """Among how many others it may be held, as it stands."""
        if self.suspect:
            return Among.NONE
        return Among.FEW if self.shared >= SHARED_FEW else Among.ANY


class Worker(Struct, frozen=True):
    """Who holds leases: ``holder`` is what dies as one, ``node`` the main that outlives it."""

    node: str
    holder: str


class Settled(Struct, frozen=True):
    """Items that got a verdict since the last word about the chunk.

    Attributes:
        items: Whose verdicts are in ``body``.
        working: Those of them that work.
        body: Verdicts, opaque to the ledger.
    """

    items: Spans = ()
    working: Spans = ()
    body: bytes = b""


NOTHING = Settled()


class Beat(Struct, frozen=True):
    """A holder says that it lives and still works on this chunk, and what is settled."""

    chunk_id: int
    token: str
    settled: Settled = NOTHING


class BeatAnswer(StrEnum):
    """What a holder is told about one chunk."""

    OK = "ok"
    STOP = "stop"  # it is not yours any more, or this attempt is over: drop it
    DRAIN = "drain"  # your node is leaving: report what is ready, release the rest


class Claim(Struct, frozen=True):
    """A chunk to check. ``lease_s`` is a length; ``attempt`` counts from 1."""

    chunk_id: int
    epoch: int
    items: Spans
    patient: bool
    token: str
    attempt: int
    lease_s: float


class NoClaim(StrEnum):
    """Why there is no chunk for this holder now."""

    EMPTY = "empty"
    ALONE = "alone"  # a suspect is held, or waits for a holder that holds nothing else
    CLOSED = "closed"


class SubmitAnswer(StrEnum):
    """What became of a submit."""

    OK = "ok"
    AGAIN = "again"  # an error was noted; the chunk will be tried again
    CLOSED = "closed"  # settled, and it was the last one
    DUP = "dup"  # the chunk was settled before
    LATE = "late"  # an error from a holder whose lease is over
    STALE = "stale"  # of another epoch
    INCOMPLETE = "incomplete"  # leaves items out, or defers from a patient chunk: not taken


class FinAnswer(StrEnum):
    """What became of a finalisation's step."""

    OK = "ok"
    WAIT = "wait"  # someone else is at it, or the job is still open
    DUP = "dup"  # already finalised
    FENCED = "fenced"  # your lease is over and the token another one's


class Lease(Struct, frozen=True):
    """One running attempt."""

    chunk_id: int
    token: str
    node: str
    holder: str


class Tick(Struct, frozen=True):
    """The job after a tick, and what the caller should do.

    Attributes:
        job: A copy of the line.
        ring: How many doorbells to ring.
        nodes: Nodes that are there for this job.
        stalled: Chunks are ready, none is running, and nobody was there for too long.
    """

    job: JobRow
    ring: int
    nodes: int
    stalled: bool


class Part(Struct, frozen=True):
    """Verdicts in the order in which they were taken; only those of ``items`` count."""

    seq: int
    chunk_id: int
    items: Spans
    body: bytes


class LedgerEvent(Struct, frozen=True):
    """What happened to the job; for waking up and for people, never for accounting."""

    seq: int
    at_s: float
    kind: str
    chunk_id: int | None = None
    facts: dict[str, int | float | str] = field(default_factory=dict)


class Company(Struct, frozen=True):
    """What one holder holds: how many chunks, what they bear at the least, the one held alone."""

    held: int
    among: Among
    alone_id: int | None


Facts: TypeAlias = dict[str, int | float | str]


class Books(Protocol):
    """The lines of one job, as a home hands them to the rules inside one atomic step.

    Every row that is handed out is the rule's own copy; only ``put`` changes the books.
    """

    def chunk(self, chunk_id: int) -> ChunkRow | None:
        """One line; None if there is none."""
        ...

    def put(self, chunk: ChunkRow) -> None:
        """Write a line, new or changed."""
        ...

    def first_ready(self, among: Among) -> ChunkRow | None:
        """The ready chunk with the lowest place and id, of those that bear no fewer others."""
        ...

    def company(self, holder: str) -> Company:
        """What this holder holds now."""
        ...

    def overdue(self, now_s: float, limit: int) -> list[ChunkRow]:
        """Running chunks whose lease is over, longest first."""
        ...

    def renew_all(self, until_s: float) -> None:
        """Let every lease end at this instant."""
        ...

    def open_chunks(self) -> tuple[int, int]:
        """Chunks ready or running, and the items in them."""
        ...

    def end_all(self, why: str) -> None:
        """Make every chunk that is ready or running LOST, for this reason."""
        ...

    def add_part(self, part: Part) -> None:
        """Append verdicts."""
        ...

    def add_event(self, event: LedgerEvent) -> None:
        """Append an event."""
        ...
