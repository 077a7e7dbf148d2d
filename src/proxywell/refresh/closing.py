"""The rest of the rules: rescue, deadline, cancel, and finalisation exactly once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from proxywell.model.report import GivenUpWhy
from proxywell.refresh import deadline
from proxywell.refresh.books import ChunkRow, FinAnswer, JobState
from proxywell.refresh.ledger import ChunkRules

REAPED_MAX = 250  # leases that one step takes back, so that no step is long
TICK_S = 0.5  # how often a waiter ticks, at the latest; part of the recovery allowance
FIN_LEASE_S = 5.0
FIN_ATTEMPTS = 3
RING_AGAIN_MAX_S = 30.0


class LedgerRules(ChunkRules):
    """All rules of one job's books."""

    def tick(self, alive: frozenset[str]) -> int:
        """Do what time demands: rescue, deadline, closing. Anybody may call it, at any time.

        Args:
            alive: Nodes whose main was heard of within its term.

        Returns:
            How many doorbells to ring.
        """
        self._arrive()
        if self.job.state is not JobState.OPEN:
            return 0
        if alive:
            self.job.alive_s = self.now_s
        self._reap(self.books.overdue(self.now_s, REAPED_MAX), alive)
        self._bound()
        self._weigh()
        return self._bells()

    def expire(self, held: Sequence[tuple[int, str]], alive: frozenset[str]) -> int:
        """Take leases back at once, because someone saw that their holder is gone.

        Args:
            held: Chunks and tokens; those that are not current any more are left alone.
            alive: As for ``tick``; without the node that is gone.

        Returns:
            How many leases were ended.
        """
        self._arrive()
        if self.job.state is not JobState.OPEN:
            return 0
        lines = [(self.books.chunk(chunk_id), token) for chunk_id, token in dict.fromkeys(held)]
        lost = [line for line, token in lines if line is not None and self._holds(line, token)]
        self._reap(lost, alive)
        self._weigh()
        return len(lost)

    def cancel(self, items_why: GivenUpWhy, why: str, detail: str | None = None) -> bool:
        """Give up what is open and close the job; False if it is closed already.

        Args:
            items_why: What is written against the items.
            why: What is written against the job: cancelled, stalled, timed_out, ...
            detail: A sentence for people, or None.
        """
        self._arrive()
        if self.job.state is not JobState.OPEN:
            return False
        self._end(items_why, why, detail)
        return True

    def stalled(self) -> bool:
        """Say whether chunks are ready, none is running, and nobody was there for too long."""
        job = self.job
        silent_s = self.now_s - job.alive_s
        return job.ready > 0 and job.running == 0 and silent_s > job.terms.stalled_s

    def fin_claim(self, token: str) -> FinAnswer:
        """Take the right to finalise, for a lease; asked again with the same token, keep it.

        A lease that ran out counts as a failed try.
        """
        self._arrive()
        job = self.job
        if job.state is JobState.DONE:
            return FinAnswer.DUP
        if job.state is JobState.OPEN:
            return FinAnswer.WAIT
        if job.state is JobState.FINALISING and job.fin_token != token:
            if self.now_s < job.fin_until_s:
                return FinAnswer.WAIT
            if self._fin_failed("the process that wrote the pool died"):
                return FinAnswer.DUP
        job.state, job.fin_token = JobState.FINALISING, token
        job.fin_until_s = self.now_s + FIN_LEASE_S
        return FinAnswer.OK

    def fin_beat(self, token: str) -> FinAnswer:
        """Keep the right for another lease."""
        answer = self._fin_holder(token)
        if answer is FinAnswer.OK:
            self.job.fin_until_s = self.now_s + FIN_LEASE_S
        return answer

    def fin_fail(self, token: str, error: str) -> FinAnswer:
        """Say that finalising raised; after the third time the job is done, with the error."""
        answer = self._fin_holder(token)
        if answer is FinAnswer.OK:
            self._fin_failed(error)
        return answer

    def fin_commit(self, token: str) -> FinAnswer:
        """Mark the job as finalised; only with the current token, once."""
        answer = self._fin_holder(token)
        if answer is FinAnswer.OK:
            self._fin_done()
        return answer

    # --- one step's parts

    def _fin_holder(self, token: str) -> FinAnswer:
        self._arrive()
        if self.job.state is JobState.DONE:
            return FinAnswer.DUP
        current = self.job.state is JobState.FINALISING and self.job.fin_token == token
        return FinAnswer.OK if current else FinAnswer.FENCED

    def _fin_failed(self, error: str) -> bool:
        self.job.fin_fails += 1
        if self.job.fin_fails < FIN_ATTEMPTS:
            self.job.state, self.job.fin_token = JobState.CLOSED, None
            return False
        self.job.fin_error = error
        self._fin_done()
        return True

    def _fin_done(self) -> None:
        self.job.state, self.job.fin_token = JobState.DONE, None
        self.job.finalised_s = self.now_s
        self._event("final", error=self.job.fin_error or "")

    def _reap(self, lost: Sequence[ChunkRow], alive: frozenset[str]) -> None:
        """Take chunks back. Blame needs a node that lives and a chunk that was held alone.

        A dead node is no chunk's fault. A dead holder of several chunks may have died of any of
        them, or of none: those that die again and again become suspects, and whichever dies alone
        is to blame. An attempt that has settled something does not count among a chunk's
        attempts, whatever ended it.
        """
        lost_on = Counter(chunk.node for chunk in lost)
        for chunk in lost:
            if chunk.node not in alive:
                self._lose(chunk, blame=False, excuse=True)
            elif chunk.alone and lost_on[chunk.node] == 1:
                self._lose(chunk, blame=True, excuse=chunk.progressed)
            else:
                self._lose(chunk, blame=False, shared=True, excuse=chunk.progressed)

    def _bound(self) -> None:
        """Let the deadline follow measured speed, and end the job when it is met."""
        job = self.job
        elapsed_s = self.now_s - job.created_s
        speed = deadline.Speed(
            open_chunks=job.open,
            at_once=max(job.peak, job.peak_before),
            item_s=job.item_s,
            chunk_size=job.terms.chunk_size,
        )
        asked_s = deadline.adaptive_s(
            elapsed_s,
            speed,
            prior_s=job.terms.time_per_chunk_s,
            recovery_s=job.terms.lease_s + 2 * TICK_S,
        )
        in_force_s = deadline.in_force_s(
            job.deadline_s - job.created_s,
            floor_s=job.terms.floor_s,
            adaptive_s=asked_s,
            cap_s=job.cap_s - job.created_s,
        )
        job.deadline_s = job.created_s + in_force_s
        if self.now_s >= job.deadline_s:
            self._end(GivenUpWhy.DEADLINE, "timed_out", None)

    def _bells(self) -> int:
        """Bells owed for what became ready, or one more if nobody came for too long."""
        job = self.job
        owed, job.bells = job.bells if job.ready else 0, 0
        quiet_s = self.now_s - max(job.claimed_s, job.rung_s)
        if not owed and job.ready and quiet_s > job.ring_wait_s:
            owed = 1
            job.ring_wait_s = min(2 * job.ring_wait_s, RING_AGAIN_MAX_S)
        if owed:
            job.rung_s = self.now_s
            self._event("rung", bells=owed)
        return owed
