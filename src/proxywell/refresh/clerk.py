"""The thread that speaks with the ledger for one shift: it claims, beats, submits, releases.

One thread with a connection of its own, so that the loop never waits for the ledger, and a busy
loop never keeps the leases from being renewed. Steps of one shift follow each other, so a beat
and the submit of the same chunk cannot cross.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from secrets import token_hex
from typing import Protocol, TypeAlias

import msgspec

from proxywell.errors import StateError, StoreAwayError, StoreBusyError, UnknownJobError
from proxywell.refresh.books import NOTHING, Beat, BeatAnswer, Claim, NoClaim, SubmitAnswer, Worker
from proxywell.refresh.holding import Holding, candidates_of
from proxywell.refresh.outage import Outage
from proxywell.refresh.ports import Bell, Ledger
from proxywell.refresh.standstill import LoopHungError, LoopThread, Remedy, Standstill
from proxywell.telemetry.events import emit
from proxywell.telemetry.work import CheckHung

NEWS_GAP_S = 0.2  # working proxies are told at once, but not more often than this
BUSY_PAUSE_S = 0.1  # behind a ledger's own wait for a lock

_Claiming: TypeAlias = "Future[Holding | NoClaim]"


class Listener(Protocol):
    """The shift, as its clerk sees it. Called on the clerk's thread."""

    def stop(self, holding: Holding) -> None:
        """The chunk is not ours any more."""
        ...

    def drain(self) -> None:
        """Our node is leaving."""
        ...

    def broken(self, error: BaseException) -> None:
        """The clerk cannot go on, through a bug."""
        ...


class Clerk:
    """Speaks with the ledger for one shift, on a thread of its own.

    Args:
        job_id: The job.
        worker: Who holds what is claimed here.
        open_ledger: Opens the clerk's own connection, on the clerk's thread.
        beat_s: How often leases are renewed.
        bell: Rung when there is news for waiters.
        listener: Told what the ledger answers.
        loop: The thread on which checks run; None: nobody looks whether it moves.
        hang_s: For how long it may stand still.
    """

    def __init__(
        self,
        job_id: str,
        worker: Worker,
        *,
        open_ledger: Callable[[], Ledger],
        beat_s: float,
        bell: Bell,
        listener: Listener,
        loop: LoopThread | None = None,
        hang_s: float = math.inf,
    ) -> None:
        self._job_id = job_id
        self._worker = worker
        self._outage = Outage(job_id)
        self._open_ledger = open_ledger
        self._beat_s = beat_s
        self._bell = bell
        self._listener = listener
        self._orders: queue.SimpleQueue[Callable[[Ledger], None] | None] = queue.SimpleQueue()
        self._held: dict[str, Holding] = {}  # by token: a chunk that was lost may come again
        self._ended: dict[str, Holding] = {}
        self._news = threading.Event()
        self._gone_s = math.inf  # until then it may be told what is given back
        self._loop = loop
        self._standstill = Standstill(hang_s, look_max_s=2 * beat_s, now_s=time.monotonic())
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def claim(self) -> _Claiming:
        """Ask for a chunk; ``EMPTY`` also while the ledger is busy or in trouble."""
        promise: _Claiming = Future()
        self._orders.put(lambda ledger: self._claim(ledger, promise))
        return promise

    def submit(self, holding: Holding) -> None:
        """End an attempt; told again until the ledger has it."""
        self._orders.put(lambda ledger: self._end(ledger, holding))

    def poke(self) -> None:
        """There is a working proxy to tell of."""
        if not self._news.is_set():
            self._news.set()
            self._orders.put(lambda _ledger: None)

    def moved(self) -> None:
        """The loop moves."""
        self._standstill.move()

    def leave(self, timeout_s: float) -> bool:
        """Report what is ready, release the rest, and end; False if that took too long."""
        self._gone_s = time.monotonic() + timeout_s
        self._orders.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- on the clerk's thread

    def _run(self) -> None:
        try:
            ledger = self._open_ledger()
            try:
                self._serve(ledger)
                self._release(ledger)
            finally:
                ledger.close()
        except BaseException as error:  # noqa: BLE001 - the shift must hear of it and raise it
            self._listener.broken(error)

    def _serve(self, ledger: Ledger) -> None:
        told_s = time.monotonic()
        while True:  # ends by the order None
            due_s = told_s + (NEWS_GAP_S if self._news.is_set() else self._beat_s)
            try:
                order = self._orders.get(timeout=max(0.0, due_s - time.monotonic()))
                if order is None:
                    return
                order(ledger)
            except queue.Empty:
                pass
            if time.monotonic() >= due_s:
                self._news.clear()
                self._beat(ledger)
                told_s = time.monotonic()
            self._look_at_loop(ledger)

    def _look_at_loop(self, ledger: Ledger) -> None:
        if self._loop is None:
            return
        remedy = self._standstill.look(time.monotonic())
        if remedy is Remedy.INTERRUPT:
            self._hand_back(ledger)
            self._loop.interrupt()
        elif remedy is Remedy.END:
            self._loop.end()

    def _hand_back(self, ledger: Ledger) -> None:
        """One of those that are held keeps the loop: let the rules find out which."""
        held = [(holding.claim.chunk_id, token) for token, holding in self._held.items()]
        stood_s = round(self._standstill.stood_s, 1)
        emit(CheckHung(job_id=self._job_id, chunks=len(held), stood_s=stood_s))
        self._held.clear()
        self._listener.broken(LoopHungError())
        try:
            ledger.expire(self._job_id, held)
        except (StateError, UnknownJobError) as error:  # their leases run out instead
            self._outage.met(error)
        self._bell.ring()

    def _claim(self, ledger: Ledger, promise: _Claiming) -> None:
        if not promise.set_running_or_notify_cancel():
            return
        answer: Holding | NoClaim = NoClaim.EMPTY
        try:
            claim = ledger.claim(self._job_id, self._worker, token_hex(8))
            answer = self._taken(ledger, claim) if isinstance(claim, Claim) else claim
            self._outage.over()
        except UnknownJobError:
            answer = self._gone()
        except StateError as error:
            self._outage.met(error)
        promise.set_result(answer)

    def _gone(self) -> NoClaim:
        """The store has lost the job: what is held is nobody's, and there is nothing to claim.

        Whoever waits for the job gives it to the store again, and rings.
        """
        for holding in self._held.values():
            self._listener.stop(holding)
        self._held.clear()
        self._ended.clear()
        return NoClaim.CLOSED

    def _taken(self, ledger: Ledger, claim: Claim) -> Holding | NoClaim:
        try:
            blocks = ledger.blocks(self._job_id, claim.items)
            holding = Holding(claim, dict(candidates_of(claim.items, blocks)))
        except (msgspec.MsgspecError, LookupError) as error:
            ledger.submit(
                self._job_id,
                claim.chunk_id,
                claim.token,
                claim.epoch,
                NOTHING,
                error=f"its candidates cannot be read: {error}",
            )
            return NoClaim.EMPTY
        self._held[claim.token] = holding
        return holding

    def _beat(self, ledger: Ledger) -> None:
        """Renew every lease in one step; then tell again what could not be told."""
        held = list(self._held.values())
        news = [holding.news() for holding in held]
        beats = [
            Beat(holding.claim.chunk_id, holding.claim.token, said)
            for holding, said in zip(held, news, strict=True)
        ]
        try:
            answers = ledger.beat(self._job_id, self._worker, beats) if beats else []
            for holding, answer in zip(held, answers, strict=True):
                holding.arrived()
                if answer is BeatAnswer.STOP:
                    del self._held[holding.claim.token]
                    self._listener.stop(holding)
            if BeatAnswer.DRAIN in answers:
                self._listener.drain()
            for holding in list(self._ended.values()):
                self._settle(ledger, holding)
            if beats:
                self._outage.over()
        except UnknownJobError:
            self._gone()
        except StateError as error:
            self._outage.met(error)
        if any(said.items for said in news):
            self._bell.ring()

    def _end(self, ledger: Ledger, holding: Holding) -> None:
        self._held.pop(holding.claim.token, None)
        self._ended[holding.claim.token] = holding
        try:
            self._settle(ledger, holding)
        except UnknownJobError:
            self._gone()
        except StateError as error:  # told again with the next beat
            self._outage.met(error)

    def _settle(self, ledger: Ledger, holding: Holding) -> None:
        claim = holding.claim
        answer = ledger.submit(
            self._job_id,
            claim.chunk_id,
            claim.token,
            claim.epoch,
            holding.news(),
            deferred=holding.later(),
        )
        assert answer is not SubmitAnswer.INCOMPLETE, f"chunk {claim.chunk_id} left items out"
        holding.arrived()
        del self._ended[claim.token]
        self._bell.ring()

    def _release(self, ledger: Ledger) -> None:
        """Give everything back, again while the ledger is busy and there is time for it."""
        while True:  # ends when all is back, nothing can be reached, or the time to leave is over
            try:
                self._give_back(ledger)
            except (StateError, UnknownJobError) as error:
                self._outage.met(error)
                busy = isinstance(error, StoreBusyError) and not isinstance(error, StoreAwayError)
                if busy and time.monotonic() < self._gone_s:
                    time.sleep(BUSY_PAUSE_S)
                    continue
            self._held.clear()  # what is still in it has a lease that runs out
            return

    def _give_back(self, ledger: Ledger) -> None:
        for holding in list(self._ended.values()):
            self._settle(ledger, holding)
        for token, holding in list(self._held.items()):
            claim = holding.claim
            ledger.release(self._job_id, claim.chunk_id, claim.token, holding.news())
            del self._held[token]
