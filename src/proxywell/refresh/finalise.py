"""Carry verdicts from the ledger to the pool: as they come, and exactly once in the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from secrets import token_hex

import msgspec
from msgspec import Struct, field

from proxywell.errors import StoreBusyError
from proxywell.model.candidate import Candidate
from proxywell.model.report import PoolChange, VerdictCounts
from proxywell.model.verdict import Verdict
from proxywell.refresh.books import FinAnswer, Part
from proxywell.refresh.holding import candidates_of
from proxywell.refresh.packing import unpack_verdicts
from proxywell.refresh.poison import candidates_at, shown
from proxywell.refresh.ports import Block, Ledger, VerdictSink
from proxywell.refresh.timeline import Chronicle, Timeline, events_of
from proxywell.telemetry.events import FinalisationFailed, emit

PARTS_AT_ONCE = 50
_BEAT_S = 1.0
_BLOCKS_KEPT = 16  # parts come from the few chunks that are being checked


class Summary(Struct):
    """What a job amounts to in verdicts and in the pool; kept by the commit itself."""

    verdicts: VerdictCounts
    pool: PoolChange
    poison: list[str] = field(default_factory=list)
    timeline: Timeline | None = None  # its events are dropped long before its line


class Tally:
    """Counts verdicts as the report shows them."""

    def __init__(self) -> None:
        self.working = self.not_working = self.inconclusive = 0
        self._failures: Counter[str] = Counter()
        self._protocols: Counter[str] = Counter()
        self._anonymity: Counter[str] = Counter()

    def add(self, verdict: Verdict) -> None:
        """Count one verdict."""
        if verdict.working:
            self.working += 1
            self._protocols.update(protocol.value for protocol in verdict.protocols)
            self._anonymity[verdict.anonymity.value] += 1
            return
        self.inconclusive += verdict.inconclusive
        self.not_working += not verdict.inconclusive
        self._failures[verdict.failure.value if verdict.failure else "unknown"] += 1

    def counts(self) -> VerdictCounts:
        """The figures so far, each table with its largest figure first."""
        return VerdictCounts(
            self.working,
            self.not_working,
            self.inconclusive,
            by_failure=dict(self._failures.most_common()),
            by_protocol=dict(self._protocols.most_common()),
            by_anonymity=dict(self._anonymity.most_common()),
        )


class Collector:
    """Reads a job's verdicts in the ledger's order, and hands them on.

    Args:
        ledger: Where they are.
        job_id: The job.
        sink: Gets them; None only counts.
    """

    def __init__(self, ledger: Ledger, job_id: str, epoch: int, sink: VerdictSink | None) -> None:
        self._ledger = ledger
        self._job_id = job_id
        self._epoch = epoch
        self._sink = sink
        self._after = 0
        self._blocks: dict[int, Block] = {}
        self.tally = Tally()

    def collect(self, upto: int | None = None) -> int:
        """Hand on the next parts; how many there were, 0 when all are handed on.

        If the sink raises, the same parts come again at the next call.

        Args:
            upto: Go no further than this sequence number; None: as far as there is.
        """
        limit = PARTS_AT_ONCE if upto is None else min(PARTS_AT_ONCE, upto - self._after)
        parts = self._ledger.parts(self._job_id, self._after, limit) if limit > 0 else []
        verdicts = [verdict for part in parts for verdict in self._verdicts(part)]
        if verdicts and self._sink is not None:
            self._sink.record(self._job_id, self._epoch, verdicts)
        for _, _, verdict in verdicts:
            self.tally.add(verdict)
        if parts:
            self._after = parts[-1].seq
        return len(parts)

    def _verdicts(self, part: Part) -> Iterator[tuple[int, Candidate, Verdict]]:
        candidates = dict(candidates_of(part.items, self._blocks_of(part)))
        return unpack_verdicts(part.body, candidates)

    def _blocks_of(self, part: Part) -> list[Block]:
        """A chunk never leaves its block, so one is mostly enough, and mostly just used."""
        first, last = part.items[0], part.items[-1] - 1
        for block in self._blocks.values():
            if block.lo <= first and last < block.hi:
                return [block]
        found = self._ledger.blocks(self._job_id, part.items)
        for block in found:
            self._blocks[block.lo] = block
        while len(self._blocks) > _BLOCKS_KEPT:
            del self._blocks[next(iter(self._blocks))]
        return found


def finalise(
    ledger: Ledger,
    sink: VerdictSink,
    collector: Collector,
    *,
    job_id: str,
    remember: Callable[[list[Candidate]], None] = lambda _: None,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> FinAnswer:
    """Complete the pool's record of a closed job, seal it, and mark the job as finalised.

    What makes it exactly once is the sink's seal for ``(job, epoch)``; the ledger's mark comes
    after it, so that whoever comes second finds either the seal or the mark. A sink that raises
    costs one of the job's tries; the last one ends the job with the error.

    Args:
        ledger: The job's books.
        sink: The pool.
        collector: Has handed on what came before; hands on the rest here.
        job_id: The job.
        remember: Gets the candidates that were given up as poison, perhaps more than once.
        monotonic_s: The local clock.

    Returns:
        OK: done here. DUP: done before. WAIT: somebody else is at it, or the job is open.
        FENCED: ours took too long, somebody else goes on.
    """
    token = token_hex(8)
    answer = ledger.fin_claim(job_id, token)
    if answer is not FinAnswer.OK:
        return answer
    try:
        epoch = ledger.status(job_id).epoch  # a job that was lost and given again has a later one
        beaten_s = monotonic_s()
        while collector.collect():
            if monotonic_s() - beaten_s > _BEAT_S:
                beaten_s = monotonic_s()
                if ledger.fin_beat(job_id, token) is FinAnswer.FENCED:
                    return FinAnswer.FENCED
        chronicle = Chronicle(events_of(ledger, job_id))
        poison = candidates_at(ledger, job_id, chronicle.poison)
        if poison:
            remember(poison)
        change = sink.sealed(job_id, epoch) or sink.seal(job_id, epoch)
        told = Summary(
            collector.tally.counts(),
            change,
            [shown(one) for one in poison],
            chronicle.timeline(ledger.status(job_id)),
        )
        summary = msgspec.json.encode(told)
    except StoreBusyError:
        raise  # the pool is as well as it was; the lease runs out and we come again
    except Exception as error:  # noqa: BLE001 - whatever the pool raises, the job must end
        attempt = ledger.status(job_id).fin_fails + 1
        emit(FinalisationFailed(job_id=job_id, attempt=attempt, reason=str(error)))
        ledger.fin_fail(job_id, token, str(error) or type(error).__name__)
        return FinAnswer.WAIT
    return ledger.fin_commit(job_id, token, summary)
