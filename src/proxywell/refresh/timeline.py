"""What happened to a job and when: its events, folded into a few lines. Pure.

Thousands of chunks are claimed, settled and lost; a reader wants the first and the last of each
kind, the latest losses by name, and who did how much. Events go in one by one, in order, and
nothing is kept of those that only count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import Facts, JobRow, LedgerEvent
from proxywell.refresh.ports import Ledger

EVENTS_AT_ONCE: Final = 1_000
LOSSES_SHOWN: Final = 5
AWAY_LEAST_S: Final = 1.0  # less than this between two clocks is no absence


class Moment(Struct):
    """One kind of thing that happened, once or often.

    Attributes:
        what: The kind: created, dispatched, claimed, rescued, closed, ...
        at_s: The first time, in seconds since the job was asked for.
        last_s: The last time; the same if it happened once.
        count: How often.
        says: What that means, for a person.
    """

    what: str
    at_s: float
    last_s: float
    count: int
    says: str


class Loss(Struct):
    """One attempt that was taken from its holder.

    Attributes:
        at_s: When, in seconds since the job was asked for.
        chunk: The chunk.
        attempt: Which attempt was lost, from 1; 0 if that is not known.
        node: Whose it was, as ``NodeShare.node``.
        says: What became of the chunk.
    """

    at_s: float
    chunk: int
    attempt: int
    node: str
    says: str


class NodeShare(Struct):
    """What one main's workers did.

    Attributes:
        node: Host and process of the main.
        attempts: Chunks that they claimed.
        chunks: Chunks that they finished.
        items: Candidates that they settled.
        lost: Attempts that were taken from them.
        last_s: When they were last heard of, in seconds since the job was asked for.
        there: Whether the main lives; None if nobody looked.
    """

    node: str
    attempts: int = 0
    chunks: int = 0
    items: int = 0
    lost: int = 0
    last_s: float = 0.0
    there: bool | None = None


class Timeline(Struct):
    """A job's story so far.

    Attributes:
        moments: By the first time that they happened.
        losses: The latest ones, in order.
        nodes: Who took part, in the order in which they came.
        silent_s: Of a job that is not finalised: seconds since anybody reached its books.
    """

    moments: list[Moment] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    nodes: list[NodeShare] = field(default_factory=list)
    silent_s: float | None = None


_SAYS: Final = {
    "created": "{items:,} candidates in {chunks:,} chunks",
    "dispatched": "bells for workers: {bells:,}",
    "claimed": "the first chunk was taken; attempts so far: {count:,}",
    "works": "the first candidate that works",
    "usable": "as many work as make the job usable: {working:,}",
    "rescued": "taken from silent workers",
    "taken_back": "the worker was only late, and has it back",
    "released": "given back by workers that left",
    "failed": "ended in an error, to be tried again",
    "split": "ended its workers: cut into parts",
    "given_up": "given up: {detail}",
    "poison": "ends whoever checks it: given up",
    "closed": "{why}",
    "created_again": "the store had lost the job: created again without what was settled",
    "finalised": "the verdicts are in the pool",
    "left_alone": "nobody was there for {away_s:,.0f} s; that does not count against the deadline",
    "restarted": "the machine was started anew; the time between does not count",
    "asked_for": "lists are read",
}
_CLOSED: Final = {
    "": "every chunk is settled",
    "enough": "as many work as were wanted",
    "cancelled": "somebody cancelled it",
    "stalled": "nobody worked on it any more",
    "timed_out": "the time was over",
    "failed": "no worker could go on",
}
_KINDS: Final = {"rung": "dispatched", "final": "finalised"}
_UNTOLD: Final = frozenset({"settled", "done"})  # they are what a job is made of
_LOST: Final = {
    "rescued": "runs again",
    "split": "cut into parts",
    "given_up": "given up",
}


def events_of(ledger: Ledger, job_id: str, after: int = 0) -> Iterator[LedgerEvent]:
    """All events of a job behind a sequence number, in order.

    Raises:
        StateError: The ledger cannot be read.
    """
    while True:  # ends when there are no more
        page = ledger.events(job_id, after, EVENTS_AT_ONCE)
        yield from page
        if not page:
            return
        after = page[-1].seq


class Chronicle:
    """Folds a job's events, in their order; seconds count from the first one.

    Args:
        events: The first of them; ``add`` takes more.

    Attributes:
        poison: Numbers of the candidates that were given up as poison.
    """

    def __init__(self, events: Iterable[LedgerEvent] = ()) -> None:
        self.poison: set[int] = set()
        self._moments: dict[str, Moment] = {}
        self._facts: dict[str, Facts] = {}
        self._losses: deque[Loss] = deque(maxlen=LOSSES_SHOWN)
        self._nodes: dict[str, NodeShare] = {}
        self._holders: dict[int, tuple[str, int]] = {}  # chunk -> holder, attempt
        self._begun_s: float | None = None
        self._event_s = 0.0  # of the last event, on the ledger's clock
        self._now_s = 0.0  # of the last event, since the first
        self._created_s = 0.0
        self._gap = (0.0, 0.0)  # the longest time without an event: how long, since when
        self._restarted_s: float | None = None
        for event in events:
            self.add(event)

    def add(self, event: LedgerEvent) -> None:
        """Take in the next event; kinds and facts that are not known do no harm."""
        self._pass_time(event.at_s)
        kind = _KINDS.get(event.kind, event.kind)
        if kind == "given_up" and event.facts.get("why") == GivenUpWhy.POISON:
            kind = "poison"
            self.poison.add(_whole(event.facts, "item"))
        if kind == "created":
            self._created_s = event.at_s
            kind = "created_again" if "created" in self._moments else kind
        if kind not in _UNTOLD:
            self._tell(kind, event.facts)
        if kind == "settled" and event.facts.get("working") and "works" not in self._moments:
            self._tell("works", {})
        if event.chunk_id is not None:
            self._share(event, event.chunk_id)

    def timeline(self, job: JobRow, *, there: frozenset[str] | None = None) -> Timeline:
        """The story so far.

        Args:
            job: The line in the books.
            there: Nodes whose main lives; None if nobody looked.
        """
        moments = [
            replace(moment, says=_says(kind, self._facts[kind], moment.count))
            for kind, moment in self._moments.items()
        ]
        moments += self._absence(job)
        moments.sort(key=lambda moment: moment.at_s)
        nodes = [
            replace(share, node=shown_node(node), there=None if there is None else node in there)
            for node, share in self._nodes.items()
        ]
        return Timeline(moments, list(self._losses), nodes)

    # --- inside

    def _absence(self, job: JobRow) -> Iterator[Moment]:
        """What moved the line's instants: a new start of the machine, or nobody being there."""
        away_s = job.created_s - self._created_s
        if self._restarted_s is not None:
            at_s = round(self._restarted_s, 3)
            yield Moment("restarted", at_s, at_s, 1, _SAYS["restarted"])
        elif self._moments and away_s > AWAY_LEAST_S:
            at_s = round(self._gap[1], 3)
            yield Moment("left_alone", at_s, at_s, 1, _says("left_alone", {"away_s": away_s}, 1))

    def _pass_time(self, event_s: float) -> None:
        """Follow the ledger's clock; one that begins anew (the machine did) goes on from there."""
        if self._begun_s is None:
            self._begun_s = self._event_s = event_s
        step_s = event_s - self._event_s
        self._event_s = event_s
        if step_s < 0:
            if step_s < -AWAY_LEAST_S:
                self._restarted_s = self._now_s
            return
        self._gap = max(self._gap, (step_s, self._now_s), key=lambda gap: gap[0])
        self._now_s += step_s

    def _tell(self, kind: str, facts: Facts) -> None:
        now_s = round(self._now_s, 3)
        known = self._moments.get(kind)
        if known is None:
            self._moments[kind] = Moment(kind, now_s, now_s, 1, "")
            self._facts[kind] = dict(facts)
            return
        known.last_s = now_s
        known.count += 1
        if kind == "dispatched":
            self._facts[kind]["bells"] = _whole(self._facts[kind], "bells") + _whole(facts, "bells")

    def _share(self, event: LedgerEvent, chunk_id: int) -> None:
        """Note whose chunk it was."""
        if event.kind == "claimed":
            holder = str(event.facts.get("holder", ""))
            self._holders[chunk_id] = (holder, _whole(event.facts, "attempt"))
        holder, attempt = self._holders.get(chunk_id, ("", 0))
        if not holder:
            return
        node = holder.rpartition("/")[0] or holder
        share = self._nodes.setdefault(node, NodeShare(node))
        if event.kind in _LOST and (event.kind != "given_up" or self._by_death(event)):
            share.lost += 1
            says, now_s = _LOST[event.kind], round(self._now_s, 3)
            self._losses.append(Loss(now_s, chunk_id, attempt, shown_node(node), says))
            return
        share.attempts += event.kind == "claimed"
        share.chunks += event.kind == "done"
        share.items += _whole(event.facts, "items") if event.kind == "settled" else 0
        share.last_s = round(self._now_s, 3)

    def _by_death(self, event: LedgerEvent) -> bool:
        return event.facts.get("why") == GivenUpWhy.POISON


def with_the_end(timeline: Timeline, job: JobRow) -> Timeline:
    """Add the finalisation of a job whose story was written down just before it."""
    closed = [moment.at_s for moment in timeline.moments if moment.what == "closed"]
    if job.finalised_s is None or not closed:
        return timeline
    at_s = round(closed[-1] + job.finalised_s - (job.closed_s or job.finalised_s), 3)
    facts: Facts = {"error": job.fin_error or ""}
    end = Moment("finalised", at_s, at_s, 1, _says("finalised", facts, 1))
    return replace(timeline, moments=[*timeline.moments, end])


def since_asked(timeline: Timeline, lead_s: float) -> Timeline:
    """Count from when the job was asked for, as the report does, not from its creation.

    Args:
        timeline: As it was folded.
        lead_s: From when the job was asked for until it was created, in seconds.
    """
    moments = [
        replace(one, at_s=round(one.at_s + lead_s, 3), last_s=round(one.last_s + lead_s, 3))
        for one in timeline.moments
    ]
    if lead_s:
        moments.insert(0, Moment("asked_for", 0.0, 0.0, 1, _SAYS["asked_for"]))
    return Timeline(
        moments,
        [replace(one, at_s=round(one.at_s + lead_s, 3)) for one in timeline.losses],
        [replace(one, last_s=round(one.last_s + lead_s, 3)) for one in timeline.nodes],
        timeline.silent_s,
    )


def shown_node(node: str) -> str:
    """Host and process of a main, of the name that ``node_name`` gave it; else the name."""
    place, process, *rest = (*node.rsplit(":", 3), "")
    return f"{place.partition('/')[0]}:{process}" if len(rest) == 3 else node


def _says(kind: str, facts: Facts, count: int) -> str:
    if kind == "closed":
        why = str(facts.get("why", ""))
        return _CLOSED.get(why, why)
    if kind == "finalised" and facts.get("error"):
        return f"the pool could not be written: {facts['error']}"
    try:
        return _SAYS.get(kind, "").format_map({**facts, "count": count})
    except (KeyError, ValueError):  # an event of another version
        return ""


def _whole(facts: Facts, name: str) -> int:
    value = facts.get(name, 0)
    return int(value) if isinstance(value, int | float) else 0
