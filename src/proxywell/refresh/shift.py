"""What one doorbell starts: claim chunks while the checker has room, submit each when final."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial

from msgspec import Struct

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import CheckState, CheckStep, Verdict
from proxywell.refresh.books import NoClaim, Worker
from proxywell.refresh.clerk import Clerk
from proxywell.refresh.holding import Holding
from proxywell.refresh.ports import CandidateChecker, Ledger, LoopBell
from proxywell.refresh.standstill import LoopThread

STARTS_MAX = 256  # between two looks at the loop
LOOK_S = 0.25  # how soon to look again when nothing woke us: for room, for chunks
CLAIM_MAX_S = 15.0  # a ledger's own limits are far below
LEAVE_MAX_S = 8.0


class ShiftEnd(StrEnum):
    """Why a shift ended."""

    CLOSED = "closed"  # the job has no open chunk
    OVER = "over"  # its time was over; there may be more work
    IDLE = "idle"  # there was nothing to claim for a while
    DRAINED = "drained"  # it was told to leave


class ShiftTerms(Struct, frozen=True):
    """Lengths in seconds.

    Attributes:
        beat_s: Between two beats.
        shift_s: For how long chunks are claimed.
        idle_s: A shift that holds nothing and is given nothing for so long ends.
        hang_s: A check that keeps the loop for so long is interrupted.
    """

    beat_s: float
    shift_s: float
    idle_s: float = math.inf
    hang_s: float = math.inf


class Shift:
    """One shift of one worker. All methods on the loop's thread.

    Args:
        job_id: The job.
        worker: Who holds what is claimed.
        open_ledger: Opens a connection of its own, called on another thread.
        checker: Where candidates are checked.
        terms: See there.
        bell: Wakes the shift when there may be work; rung when there is news.
        thread: The loop's own, to interrupt a check that hangs; None: nobody does.
        begun: Called once, when the first chunk was claimed.
    """

    def __init__(
        self,
        job_id: str,
        worker: Worker,
        *,
        open_ledger: Callable[[], Ledger],
        checker: CandidateChecker,
        terms: ShiftTerms,
        bell: LoopBell,
        thread: LoopThread | None = None,
        begun: Callable[[], object] | None = None,
    ) -> None:
        self._checker = checker
        self._begun = begun
        self._terms = terms
        self._bell = bell
        self._loop = asyncio.get_running_loop()
        self._clerk = Clerk(
            job_id,
            worker,
            open_ledger=open_ledger,
            beat_s=terms.beat_s,
            bell=bell,
            listener=self,
            loop=thread,
            hang_s=terms.hang_s,
        )
        self._held: set[Holding] = set()
        self._queue: deque[Holding] = deque()  # those with candidates to start
        self._wake = asyncio.Event()
        self._ask_s = 0.0  # not before this do we ask for a chunk again
        self._idle_from_s = time.monotonic()
        self._draining = False
        self._closed = False
        self._trouble: BaseException | None = None

    async def run(self) -> ShiftEnd:
        """Work until the job is closed, the time is over, or told to leave.

        What is held at the end is reported as far as it is ready, and released.

        Raises:
            LoopHungError: A check kept the loop for ``hang_s`` and was interrupted.
            Exception: A bug in the checker or the clerk; leases then run out by themselves.
        """
        over_s = time.monotonic() + self._terms.shift_s
        self._clerk.start()
        moving = asyncio.create_task(self._move())
        fileno = self._bell.fileno()
        if fileno is not None:
            self._loop.add_reader(fileno, self._rung)
        try:
            return await self._work(over_s)
        finally:
            if fileno is not None:
                self._loop.remove_reader(fileno)
            for holding in list(self._held):
                holding.drop()
            await asyncio.to_thread(self._clerk.leave, LEAVE_MAX_S)
            moving.cancel()

    def leave(self) -> None:
        """Claim and start nothing more; ``run`` ends soon."""
        self._draining = True
        self._wake.set()

    async def _work(self, over_s: float) -> ShiftEnd:
        while True:  # ends by one of the returns: closed, drained, or over
            if self._trouble is not None:
                raise self._trouble
            if self._draining:
                return ShiftEnd.DRAINED
            room = self._start_some()
            if self._closed and not self._held:
                return ShiftEnd.CLOSED
            now_s = time.monotonic()
            if self._held:
                self._idle_from_s = now_s
            elif now_s >= over_s:
                return ShiftEnd.OVER
            elif now_s - self._idle_from_s > self._terms.idle_s:
                return ShiftEnd.IDLE
            if now_s < over_s and room and now_s >= self._ask_s and not self._closed:
                await self._claim()
                continue
            if self._queue and room:
                await asyncio.sleep(0)  # more to start than was fair in one go
            else:
                await self._sleep()

    def _start_some(self) -> int:
        """Start what waits, as far as there is room; the room that is left for more chunks."""
        room = self._checker.room()
        left = min(room, STARTS_MAX)
        while left and self._queue:
            holding = self._queue[0]
            if not holding.waiting:
                self._queue.popleft()
                continue
            self._start(holding, holding.waiting.popleft())
            left -= 1
            room -= 1
        queued = sum(len(holding.waiting) for holding in self._queue)
        return max(0, room - queued)

    def _start(self, holding: Holding, item: int) -> None:
        candidate = holding.candidates[item]
        done = partial(self._settled, holding, item)
        try:
            patient = holding.claim.patient
            holding.running[item] = self._checker.start(candidate, patient=patient, done=done)
        except Exception as error:  # noqa: BLE001 - a bug met by one candidate costs only it
            done(_bug_of_ours(candidate, error))

    def _settled(self, holding: Holding, item: int, verdict: Verdict | None) -> None:
        holding.settle(item, verdict)
        if holding.dropped:
            return
        if holding.finished:
            self._held.discard(holding)
            self._clerk.submit(holding)
            self._ask_s = 0.0
        elif verdict is not None and verdict.working:
            self._clerk.poke()
        self._wake.set()

    async def _claim(self) -> None:
        promise = asyncio.wrap_future(self._clerk.claim())
        answer = await asyncio.wait_for(promise, CLAIM_MAX_S)
        if isinstance(answer, Holding):
            self._held.add(answer)
            self._queue.append(answer)
            if self._begun is not None:
                self._begun()
                self._begun = None
            if answer.finished:  # an attempt at what was all reported before
                self._held.discard(answer)
                self._clerk.submit(answer)
        elif answer is NoClaim.CLOSED:
            self._closed = True
            for holding in list(self._held):
                self._forget(holding)
        else:
            self._ask_s = time.monotonic() + LOOK_S

    async def _sleep(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), LOOK_S)
        self._wake.clear()

    async def _move(self) -> None:
        while True:  # ends with the shift
            self._clerk.moved()
            await asyncio.sleep(LOOK_S)

    def _rung(self) -> None:
        self._bell.hush()
        self._ask_s = 0.0
        self._wake.set()

    def _forget(self, holding: Holding) -> None:
        holding.drop()
        self._held.discard(holding)

    # --- told by the clerk, on its thread

    def stop(self, holding: Holding) -> None:
        """The chunk is not ours any more."""
        self._tell(self._stopped, holding)

    def drain(self) -> None:
        """Our node is leaving."""
        self._tell(self.leave)

    def broken(self, error: BaseException) -> None:
        """The clerk cannot go on."""
        self._tell(self._broke, error)

    def _tell(self, step: Callable[..., None], *given: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop ended: nobody is left to be told
            self._loop.call_soon_threadsafe(step, *given)

    def _stopped(self, holding: Holding) -> None:
        self._forget(holding)
        self._ask_s = 0.0
        self._wake.set()

    def _broke(self, error: BaseException) -> None:
        self._trouble = error
        self._wake.set()


def _bug_of_ours(candidate: Candidate, error: Exception) -> Verdict:
    """Inconclusive: nothing was learnt about the candidate."""
    reason = f"{FailureKind.INTERNAL}: {type(error).__name__}"
    return Verdict(
        proxy=candidate.endpoint.url(candidate.hints[0] if candidate.hints else Protocol.HTTP),
        host=candidate.endpoint.host,
        port=candidate.endpoint.port,
        protocol=None,
        working=False,
        checked_at=datetime.now(UTC),
        failure=FailureKind.INTERNAL,
        blame=FailureKind.INTERNAL.blame,
        checks=(CheckStep("reach", CheckState.UNAVAILABLE, reason),),
    )
