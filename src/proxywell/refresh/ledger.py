r"""The rules of the books: who may do what to a chunk, and what follows. Pure.

One object is one atomic step at one instant: a home opens the books of a job, lets one rule
run, and writes back what it changed, all or nothing. The same rules keep the memory ledger and
the SQLite ledger; another home repeats them in its own scripts and is compared step by step.

    READY --claim--> RUNNING --submit--> DONE (its deferred items: a patient chunk, READY)
      ^                 |  \--error, n-th--> FAILED
      |<--error, < n----|
      |<--lost----------|---- lost, blamed = k, more than one item --> SPLIT (parts READY)
      |<--lost, blamed = k, a single item, not yet the last one left--|
                         \--- the same, LAST_TRIES more --> LOST(poison)
    READY | RUNNING --deadline, cancel, enough--> LOST
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.bookkeeping import Bookkeeping
from proxywell.refresh.books import (
    NOTHING,
    Among,
    Beat,
    BeatAnswer,
    ChunkRow,
    ChunkState,
    Claim,
    Company,
    JobState,
    NoClaim,
    Part,
    Settled,
    SubmitAnswer,
    Worker,
)
from proxywell.refresh.deadline import SAMPLES_KEPT
from proxywell.refresh.spans import Spans, common, count, minus, parts

PATIENT_PLACE = 1 << 40  # patient chunks come last ...
RETRY_PLACE = -(1 << 41)  # ... and those that were lost come first
LAST_PLACE = 1 << 41  # behind all: an accused item that is tried again
LAST_TRIES = 3  # after which it is poison; docs/adr/0008-accused-items-come-last.md
SHARED_ALONE = 3  # losses with others that make a suspect; see docs/adr/0011
MOST_HELD = {Among.ANY: sys.maxsize, Among.FEW: 4, Among.NONE: 1}  # of one holder
FIRST_BELLS_MAX = 64  # owed to a new job: more than any fleet has children, and soon sent


class ChunkRules(Bookkeeping):
    """What holders do: claim, beat, submit, release. One object is one step at one instant."""

    def create(self) -> None:
        """Make a new line: all its chunks are in the books, ready; a job of none is closed."""
        self.job.seen_s = self.job.alive_s = self.job.claimed_s = self.now_s
        self.job.boot = self.boot
        self.job.bells = min(self.job.ready, FIRST_BELLS_MAX)
        self._event("created", items=self.job.items, chunks=self.job.chunks)
        self._weigh()

    def claim(self, worker: Worker, token: str) -> Claim | NoClaim:
        """Hand the next ready chunk to a worker.

        A suspect goes only to a holder that holds nothing, and whoever holds one gets nothing
        else: if it dies again, it was this chunk. What died twice with others is held among few.

        Args:
            worker: Who will hold it.
            token: A nonce made by the caller; what it says later must carry it.
        """
        if self.job.state is not JobState.OPEN:
            return NoClaim.CLOSED
        self._arrive()
        company = self.books.company(worker.holder)
        if company.held >= MOST_HELD[company.among]:
            return NoClaim.ALONE
        may_be = (among for among in Among if company.held < MOST_HELD[among])
        chunk = self.books.first_ready(max(may_be))
        if chunk is None:
            return NoClaim.ALONE if self.job.ready else NoClaim.EMPTY
        self._join(company)
        chunk.alone = company.held == 0
        chunk.token, chunk.node, chunk.holder = token, worker.node, worker.holder
        chunk.attempt += 1
        chunk.progressed, chunk.before_loss = False, None
        chunk.claimed_items = count(chunk.items)
        chunk.since_s, chunk.until_s = self.now_s, self.now_s + self.job.terms.lease_s
        self._move(chunk, ChunkState.RUNNING)
        self.job.attempts += 1
        self.job.claimed_s, self.job.ring_wait_s = self.now_s, 1.0
        self._event("claimed", chunk, attempt=chunk.attempt, holder=worker.holder)
        return Claim(
            chunk_id=chunk.id,
            epoch=self.job.epoch,
            items=chunk.items,
            patient=chunk.patient,
            token=token,
            attempt=chunk.attempt,
            lease_s=self.job.terms.lease_s,
        )

    def beat(self, beats: Sequence[Beat], *, draining: bool = False) -> list[BeatAnswer]:
        """Renew leases and take what is settled; one answer for each beat, in order.

        Args:
            beats: All chunks of one holder.
            draining: The holder's node is leaving.
        """
        self._arrive()
        answers = [self._beat(beat, draining=draining) for beat in beats]
        self._weigh()
        if self.job.state is not JobState.OPEN:
            return [BeatAnswer.STOP] * len(answers)
        return answers

    def submit(
        self,
        chunk_id: int,
        token: str,
        epoch: int,
        settled: Settled,
        *,
        deferred: Spans = (),
        error: str | None = None,
    ) -> SubmitAnswer:
        """End an attempt: everything settled or deferred, or an error.

        A verdict is a measurement, so one that settles everything is taken from any holder of
        this epoch; an error only from the current one. What is deferred becomes a patient
        chunk in the same step.

        Args:
            chunk_id: As claimed.
            token: As claimed.
            epoch: As claimed.
            settled: What no beat has told yet.
            deferred: Items to be checked again, patiently; never from a patient chunk.
            error: Why the attempt failed; then ``deferred`` is not looked at.
        """
        self._arrive()
        chunk = self.books.chunk(chunk_id)
        if epoch != self.job.epoch or chunk is None or self._is_final(chunk):
            self.job.stale += 1
            return SubmitAnswer.STALE if epoch != self.job.epoch else SubmitAnswer.DUP
        if error is not None:
            return self._fail(chunk, token, settled, error)
        if minus(minus(chunk.items, settled.items), deferred) or (chunk.patient and deferred):
            self.job.stale += 1
            return SubmitAnswer.INCOMPLETE
        self._take(chunk, settled)
        if self._holds(chunk, token) and chunk.claimed_items:
            spent = (self.now_s - chunk.since_s) / chunk.claimed_items
            self.job.item_s = [*self.job.item_s, spent][-SAMPLES_KEPT:]
        self._defer(chunk)
        self._finish(chunk)
        self._weigh()
        return SubmitAnswer.OK if self.job.state is JobState.OPEN else SubmitAnswer.CLOSED

    def release(self, chunk_id: int, token: str, settled: Settled = NOTHING) -> BeatAnswer:
        """Give a chunk back; it is ready again at once, and nothing is held against it."""
        self._arrive()
        chunk = self.books.chunk(chunk_id)
        if chunk is None or not self._holds(chunk, token):
            self.job.stale += 1
            return BeatAnswer.STOP
        self._take(chunk, settled)
        chunk.excused += 1
        self._back(chunk, "released")
        self._weigh()
        return BeatAnswer.OK

    # --- one step's parts

    def _beat(self, beat: Beat, *, draining: bool) -> BeatAnswer:
        chunk = self.books.chunk(beat.chunk_id)
        if chunk is None or chunk.token != beat.token or self._is_final(chunk):
            self.job.stale += 1
            return BeatAnswer.STOP
        if chunk.state is ChunkState.READY and not self._take_back(chunk):
            self.job.stale += 1
            return BeatAnswer.STOP
        self._take(chunk, beat.settled)
        if self.now_s - chunk.since_s > self.job.terms.attempt_hard_s:
            chunk.token = None  # over, so that no later beat takes it back
            self._lose(chunk, blame=not chunk.progressed, excuse=chunk.progressed)
            return BeatAnswer.STOP
        chunk.until_s = self.now_s + self.job.terms.lease_s
        self.books.put(chunk)
        return BeatAnswer.DRAIN if draining else BeatAnswer.OK

    def _join(self, company: Company) -> None:
        """What was held alone gets company."""
        if company.alone_id is not None:
            other = self._line(company.alone_id)
            other.alone = False
            self.books.put(other)

    def _take_back(self, chunk: ChunkRow) -> bool:
        """A late beat of the last holder: it lives, so the loss was none."""
        if chunk.before_loss is None or self.job.state is not JobState.OPEN:
            return False
        chunk.blamed, chunk.suspect, chunk.excused = chunk.before_loss
        company = self.books.company(chunk.holder)
        if company.held >= MOST_HELD[max(company.among, chunk.among)]:
            return False  # what is held with a suspect would be blamed for it, or it for that
        self._join(company)
        chunk.before_loss = None
        chunk.alone = False
        chunk.until_s = self.now_s + self.job.terms.lease_s
        self._move(chunk, ChunkState.RUNNING)
        self._event("taken_back", chunk)
        return True

    def _take(self, chunk: ChunkRow, settled: Settled) -> None:
        """Count what is new of it, once; the first verdict of an item is the one that counts."""
        fresh = common(settled.items, chunk.items)
        if not fresh:
            return
        chunk.items = minus(chunk.items, fresh)
        chunk.progressed = True
        self.job.checked += count(fresh)
        working = count(common(settled.working, fresh))
        self.job.working += working
        if working and self.job.first_working_s is None:
            self.job.first_working_s = self.now_s
        self.job.parts += 1
        self.books.add_part(Part(self.job.parts, chunk.id, fresh, settled.body))
        self._event("settled", chunk, items=count(fresh), working=working)

    def _defer(self, chunk: ChunkRow) -> None:
        if not chunk.items:
            return
        place = chunk.items[0] + PATIENT_PLACE
        self._add(chunk.items, place, patient=True, parent=chunk.id)
        chunk.items = ()

    def _fail(self, chunk: ChunkRow, token: str, settled: Settled, error: str) -> SubmitAnswer:
        if not self._holds(chunk, token):
            self.job.stale += 1
            return SubmitAnswer.LATE
        self._take(chunk, settled)
        chunk.errors += 1
        if chunk.items and chunk.errors >= self.job.terms.errors_max:
            self._give_up(chunk, ChunkState.FAILED, GivenUpWhy.ERROR, error)
        else:
            self._back(chunk, "failed")
        self._weigh()
        return SubmitAnswer.AGAIN if self.job.state is JobState.OPEN else SubmitAnswer.CLOSED

    def _lose(
        self, chunk: ChunkRow, *, blame: bool, excuse: bool = False, shared: bool = False
    ) -> None:
        """Take a chunk from a holder that is silent or over time, and say what follows.

        What is lost with others is done again as if nothing had happened, for mostly somebody
        has killed a process. If it dies so twice, it is held among few, and then alone.
        """
        terms = self.job.terms
        chunk.before_loss = (chunk.blamed, chunk.suspect, chunk.excused)
        chunk.blamed += blame
        chunk.excused += excuse
        chunk.shared += shared
        chunk.suspect = chunk.suspect or blame or (shared and chunk.shared >= SHARED_ALONE)
        self.job.rescued += 1
        if not chunk.items:
            self._finish(chunk)  # only the submit was lost
        elif chunk.blamed >= terms.blames_max and count(chunk.items) == 1:
            self._accuse(chunk)
        elif chunk.blamed >= terms.blames_max:
            self._split(chunk)
        elif chunk.attempt - chunk.excused >= terms.attempts_max:
            self._give_up(chunk, ChunkState.FAILED, GivenUpWhy.ERROR, "too many attempts")
        else:
            self._back(chunk, "rescued")

    def _accuse(self, chunk: ChunkRow) -> None:
        """Try it again when everything else is done; poison if its workers die then too.

        Whoever kills workers for a while kills those that hold slow items most, so an item that
        was only there looks like one that kills until the killing is over.
        """
        terms = self.job.terms
        if chunk.blamed >= terms.blames_max + LAST_TRIES:
            self._give_up(chunk, ChunkState.LOST, GivenUpWhy.POISON, "killed its worker")
        elif chunk.attempt - chunk.excused >= terms.attempts_max + LAST_TRIES:
            self._give_up(chunk, ChunkState.FAILED, GivenUpWhy.ERROR, "too many attempts")
        else:
            chunk.place = chunk.items[0] + LAST_PLACE
            self._back(chunk, "rescued")

    def _split(self, chunk: ChunkRow) -> None:
        cut = parts(chunk.items, self.job.terms.fan)
        for part in cut:
            self._add(
                part,
                part[0] + RETRY_PLACE,
                patient=chunk.patient,
                parent=chunk.id,
                blamed=self.job.terms.blames_max - 1,
                suspect=True,
            )
        self.job.split += 1
        self.job.bells += len(cut)
        chunk.items = ()
        self.job.chunks -= 1
        self._move(chunk, ChunkState.SPLIT)
        self._event("split", chunk, parts=len(cut))

    def _back(self, chunk: ChunkRow, kind: str) -> None:
        """READY again, before the others; done instead if nothing is left of it."""
        if not chunk.items:
            self._finish(chunk)
            return
        if chunk.place < LAST_PLACE:
            chunk.place = chunk.items[0] + RETRY_PLACE
        if kind != "rescued":
            chunk.before_loss = None
        self.job.bells += 1
        self._move(chunk, ChunkState.READY)
        self._event(kind, chunk, attempt=chunk.attempt, holder=chunk.holder)
