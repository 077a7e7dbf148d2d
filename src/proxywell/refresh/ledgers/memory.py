"""The memory ledger: the rules on dictionaries. For simulations, tests, and as the yardstick."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy, deepcopy

from proxywell.refresh.books import (
    Among,
    ChunkRow,
    ChunkState,
    Company,
    JobRow,
    Lease,
    LedgerEvent,
    Part,
)
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ledgers.ruled import (
    Keep,
    RuledLedger,
    first_chunks,
    keep,
    new_line,
    unknown_job,
)
from proxywell.refresh.ports import Block, NewJob
from proxywell.refresh.spans import Spans, count


class MemoryBooks:
    """The lines of one job in dictionaries."""

    def __init__(self) -> None:
        self.chunks: dict[int, ChunkRow] = {}
        self.running: set[int] = set()
        self.parts: list[Part] = []
        self.events: list[LedgerEvent] = []
        self._ready: dict[Among, list[tuple[int, int]]] = {among: [] for among in Among}

    def chunk(self, chunk_id: int) -> ChunkRow | None:
        """One line; None if there is none."""
        return copy(self.chunks.get(chunk_id))

    def put(self, chunk: ChunkRow) -> None:
        """Write a line, new or changed."""
        self.chunks[chunk.id] = copy(chunk)
        if chunk.state is ChunkState.RUNNING:
            self.running.add(chunk.id)
        else:
            self.running.discard(chunk.id)
        if chunk.state is ChunkState.READY:
            heapq.heappush(self._ready[chunk.among], (chunk.place, chunk.id))

    def first_ready(self, among: Among) -> ChunkRow | None:
        """The ready chunk with the lowest place and id, of those that bear no fewer others."""
        heads = [head for kind in Among if kind <= among and (head := self._head(kind))]
        return copy(self.chunks[min(heads)[1]]) if heads else None

    def _head(self, among: Among) -> tuple[int, int] | None:
        heap = self._ready[among]
        while heap:
            place, chunk_id = heap[0]
            chunk = self.chunks[chunk_id]
            still = chunk.state is ChunkState.READY and chunk.place == place
            if still and chunk.among == among:
                return heap[0]
            heapq.heappop(heap)
        return None

    def company(self, holder: str) -> Company:
        """What this holder holds now."""
        held = [self.chunks[at] for at in self.running if self.chunks[at].holder == holder]
        alone = next((chunk.id for chunk in held if chunk.alone), None)
        return Company(len(held), max((chunk.among for chunk in held), default=Among.ANY), alone)

    def overdue(self, now_s: float, limit: int) -> list[ChunkRow]:
        """Running chunks whose lease is over, longest first."""
        late = [self.chunks[at] for at in self.running if self.chunks[at].until_s <= now_s]
        late.sort(key=lambda chunk: (chunk.until_s, chunk.id))
        return [copy(chunk) for chunk in late[:limit]]

    def renew_all(self, until_s: float) -> None:
        """Let every lease end at this instant."""
        for at in self.running:
            self.chunks[at].until_s = until_s

    def open_chunks(self) -> tuple[int, int]:
        """Chunks ready or running, and the items in them."""
        held = [chunk for chunk in self.chunks.values() if chunk.state <= ChunkState.RUNNING]
        return len(held), sum(count(chunk.items) for chunk in held)

    def end_all(self, why: str) -> None:
        """Make every chunk that is ready or running LOST, for this reason."""
        for chunk in self.chunks.values():
            if chunk.state <= ChunkState.RUNNING:
                chunk.state, chunk.why = ChunkState.LOST, why
        self.running.clear()

    def add_part(self, part: Part) -> None:
        """Append verdicts."""
        self.parts.append(part)

    def add_event(self, event: LedgerEvent) -> None:
        """Append an event."""
        self.events.append(event)


class _Kept:
    """One job with all that belongs to it."""

    def __init__(self, line: JobRow, spec: bytes) -> None:
        self.line = line
        self.spec = spec
        self.summary: bytes | None = None
        self.books = MemoryBooks()
        self.blocks: list[Block] = []


class MemoryLedger(RuledLedger):
    """All jobs of one process, gone with it.

    Args:
        clock: Seconds that never go back.
        rules: The rule book; another one only to show that a defect is found.
    """

    def __init__(self, clock: Callable[[], float], rules: type[LedgerRules] = LedgerRules) -> None:
        self._clock = clock
        self._rules = rules
        self._jobs: dict[str, _Kept] = {}
        self._nodes: dict[str, tuple[str, float, bool]] = {}

    @contextmanager
    def _step(self, job_id: str) -> Iterator[LedgerRules]:
        kept = self._kept(job_id)
        yield self._rules(kept.line, kept.books, self._clock())

    def create(self, job: NewJob, blocks: Iterable[Block]) -> bool:
        """Write the items, then the line; False if the job is there with this epoch or later."""
        before = self._jobs.get(job.job_id)
        if before is not None and before.line.epoch >= job.epoch:
            return False
        planned = list(first_chunks(blocks, job.settled))
        chunks = [chunk for _, chunk in planned if chunk is not None]
        kept = _Kept(new_line(job, len(chunks), self._clock()), job.spec)
        kept.blocks = [block for block, _ in planned]
        for chunk in chunks:
            kept.books.put(chunk)
        self._jobs[job.job_id] = kept
        with self._step(job.job_id) as rules:
            rules.create()
        return True

    def blocks(self, job_id: str, spans: Spans) -> list[Block]:
        """The blocks that hold these items, rising."""
        ranges = list(zip(spans[::2], spans[1::2], strict=True))
        return [
            block
            for block in self._kept(job_id).blocks
            if any(lo < block.hi and block.lo < hi for lo, hi in ranges)
        ]

    def status(self, job_id: str) -> JobRow:
        """The line as it stands; changes nothing."""
        return deepcopy(self._kept(job_id).line)

    def spec(self, job_id: str) -> bytes:
        """What the caller gave at creation."""
        return self._kept(job_id).spec

    def summary(self, job_id: str) -> bytes | None:
        """What ``fin_commit`` kept; None before."""
        return self._kept(job_id).summary

    def leases(self, job_id: str) -> list[Lease]:
        """All running attempts."""
        books = self._kept(job_id).books
        held = [books.chunks[at] for at in sorted(books.running)]
        return [Lease(chunk.id, chunk.token or "", chunk.node, chunk.holder) for chunk in held]

    def parts(self, job_id: str, after: int, limit: int) -> list[Part]:
        """Verdicts behind sequence number ``after``, in order, at most ``limit`` of them."""
        return self._kept(job_id).books.parts[after : after + limit]

    def events(self, job_id: str, after: int, limit: int) -> list[LedgerEvent]:
        """Events behind sequence number ``after``, in order, at most ``limit`` of them."""
        return self._kept(job_id).books.events[after : after + limit]

    def jobs(self) -> list[JobRow]:
        """All jobs, newest first."""
        lines = [deepcopy(kept.line) for kept in self._jobs.values()]
        return sorted(lines, key=lambda line: (line.created_at_s, line.job_id), reverse=True)

    def node_beat(self, node: str, job_id: str, *, term_s: float, draining: bool = False) -> None:
        """Say that a main lives, for ``term_s`` from now; ``job_id`` empty: for all jobs."""
        self._nodes[node] = (job_id, self._clock() + term_s, draining)

    def node_gone(self, node: str) -> None:
        """Forget a main that ended or is known to be gone."""
        self._nodes.pop(node, None)

    def nodes(self, job_id: str) -> frozenset[str]:
        """Mains that live, for this job."""
        now_s = self._clock()
        return frozenset(
            node
            for node, (job, until_s, _) in self._nodes.items()
            if until_s > now_s and job in ("", job_id)
        )

    def sweep(self, now_s: float) -> None:
        """Drop what is past keeping."""
        for job_id, kept in list(self._jobs.items()):
            still = keep(kept.line, now_s=now_s, clock_s=self._clock())
            if still is Keep.NOTHING:
                del self._jobs[job_id]
            elif still is Keep.LINE:
                kept.books.parts.clear()
                kept.blocks.clear()

    def close(self) -> None:
        """Let go of the home; works twice."""

    def _is_draining(self, node: str) -> bool:
        return self._nodes.get(node, ("", 0.0, False))[2]

    def _keep_summary(self, job_id: str, summary: bytes) -> None:
        self._kept(job_id).summary = summary

    def _kept(self, job_id: str) -> _Kept:
        kept = self._jobs.get(job_id)
        if kept is None:
            raise unknown_job(job_id, self._jobs)
        return kept
