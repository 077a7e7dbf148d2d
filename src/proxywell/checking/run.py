"""One pass over a stream of candidates: keeps the sockets busy, repeats what was deferred."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Protocol

from proxywell.checking.check import Check, Done
from proxywell.model.candidate import Candidate
from proxywell.model.verdict import Verdict

UNREAD_MAX = 4096  # verdicts that nobody took yet; then no new candidates are read


class Starter(Protocol):
    """What a run needs from a checker."""

    def room(self) -> int:
        """How many more can be started before sockets run short."""
        ...

    def start(self, candidate: Candidate, *, patient: bool, done: Done) -> Check:
        """Check one candidate."""
        ...


class Run:
    """Candidates in, each with one verdict out.

    Args:
        checker: Checks them.
        runs: Whom the checker tells ``room_changed`` after every turn; joined and left by itself.
    """

    def __init__(self, checker: Starter, runs: set[Run]) -> None:
        self._checker = checker
        self._runs = runs
        self._running: dict[int, Check] = {}
        self._ready: deque[tuple[Candidate, Verdict]] = deque()
        self._deferred: deque[Candidate] = deque()
        self._serial = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def room_changed(self) -> None:
        """There may be room for more candidates."""
        if self._checker.room() > 0 and len(self._ready) < UNREAD_MAX:
            self._room.set()

    async def verdicts(
        self, candidates: Iterable[Candidate] | AsyncIterable[Candidate]
    ) -> AsyncGenerator[tuple[Candidate, Verdict], None]:
        """Yield every candidate with its verdict; raises what reading the candidates raises."""
        self._runs.add(self)
        feeding = asyncio.create_task(self._feed(candidates))
        feeding.add_done_callback(lambda _: self._news.set())
        ready = self._ready
        try:
            while True:  # ends when all is read, nothing runs and nothing is unread
                while ready:
                    yield ready.popleft()
                self.room_changed()
                if feeding.done():
                    feeding.result()
                    if not self._running:
                        return
                self._news.clear()
                await self._news.wait()
        finally:
            self._runs.discard(self)
            feeding.cancel()
            running, self._running = self._running, {}
            for check in running.values():
                check.cancel()

    async def _feed(self, candidates: Iterable[Candidate] | AsyncIterable[Candidate]) -> None:
        if isinstance(candidates, AsyncIterable):
            async for candidate in candidates:
                await self._wait_for_room()
                self._begin(candidate, patient=False)
        else:
            await self._feed_all(iter(candidates), patient=False)
        while self._running or self._deferred:
            deferred, self._deferred = self._deferred, deque()
            await self._feed_all(iter(deferred), patient=True)
            if self._running:
                self._room.clear()
                await self._room.wait()

    async def _feed_all(self, candidates: Iterator[Candidate], *, patient: bool) -> None:
        while True:  # ends with the candidates
            room = await self._wait_for_room()
            some = list(islice(candidates, room))
            for candidate in some:
                self._begin(candidate, patient=patient)
            if len(some) < room:
                return

    async def _wait_for_room(self) -> int:
        while (room := self._checker.room()) <= 0 or len(self._ready) >= UNREAD_MAX:
            self._room.clear()
            await self._room.wait()
        return room

    def _begin(self, candidate: Candidate, *, patient: bool) -> None:
        self._serial += 1
        serial = self._serial
        self._running[serial] = self._checker.start(
            candidate, patient=patient, done=partial(self._done, serial, candidate)
        )

    def _done(self, serial: int, candidate: Candidate, verdict: Verdict | None) -> None:
        del self._running[serial]
        if verdict is None:
            self._deferred.append(candidate)
        else:
            self._ready.append((candidate, verdict))
        self._news.set()
