"""What a worker's main does beside hearing doorbells, on a thread of its own.

It takes back at once what a child held that died, instead of waiting for the leases. It looks now
and then whether work waits that no doorbell told of, because it was lost with its process or its
server. And it looks whether the main still hears.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple, Protocol

from proxywell.errors import StateError, UnknownJobError
from proxywell.refresh.books import JobState
from proxywell.refresh.engines.unable import Inability, Unable
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link
from proxywell.refresh.outage import Outage
from proxywell.telemetry.events import emit
from proxywell.telemetry.work import ChildEnded

GATHER_S: Final = 0.3  # who dies together is taken back together: then none is to blame alone
LOOK_S: Final = 5.0
LOOKS_MAX: Final = 20  # jobs at one look; the others have their turn at the next
BARREN_MAX: Final = 5
DEAF_LOOKS: Final = 3  # in a row with a message waiting, a child idle, and nothing heard


class Hearing(Protocol):
    """The ear of a main. Called on the caretaker's thread."""

    def is_idle(self) -> bool:
        """Whether a child waits for a doorbell."""
        ...

    def heard(self) -> int:
        """How many messages were heard so far."""
        ...

    def deaf(self) -> None:
        """Messages wait, and none is heard any more."""
        ...


class _Ended(NamedTuple):
    job_id: str
    pid: int
    how: str


class Caretaker:
    """Looks after the jobs that this main's children work on.

    Args:
        node: This main.
        address: The server.
        queue: The key of the queue of doorbells.
        hearing: See there.
        ring: Rings for a job; called on the thread; it raises nothing.
        look_s: Between two looks.
    """

    def __init__(
        self,
        node: str,
        address: RedisAddress,
        *,
        queue: str,
        hearing: Hearing,
        ring: Callable[[str], None],
        look_s: float = LOOK_S,
    ) -> None:
        self._node = node
        self._address = address
        self._queue = queue
        self._hearing = hearing
        self._link = Link(address)
        self._look_s = look_s
        self._heard, self._unheard = -1, 0
        self._ring = ring
        self._lost: SimpleQueue[_Ended | None] = SimpleQueue()
        self._barren: Counter[str] = Counter()  # deaths in a row that cost no chunk
        self._turn = 0
        self._outage = Outage("")
        self._thread = threading.Thread(target=self._run, name="caretaker", daemon=True)

    def start(self) -> None:
        """Begin; the first look is taken at once."""
        self._thread.start()

    def died(self, job_id: str, pid: int, how: str) -> None:
        """A child ended in the middle of a shift; returns at once."""
        self._lost.put(_Ended(job_id, pid, how))

    def well(self, job_id: str) -> None:
        """A child held a shift to its end."""
        self._barren.pop(job_id, None)

    def stop(self, timeout_s: float) -> None:
        """End; works twice, and before starting."""
        self._lost.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    # --- on its own thread

    def _run(self) -> None:
        ledger = RedisLedger(self._address)
        self._tell(partial(self._look, ledger))
        look_s = time.monotonic() + self._look_s
        try:
            while True:  # ends by None
                ended = self._gathered(look_s - time.monotonic())
                if ended is None:
                    return
                for job_id in sorted({child.job_id for child in ended}):
                    theirs = [child for child in ended if child.job_id == job_id]
                    self._tell(partial(self._take_back, ledger, job_id, theirs))
                if time.monotonic() >= look_s:
                    self._tell(partial(self._look, ledger))
                    look_s = time.monotonic() + self._look_s
        finally:
            ledger.close()
            self._link.close()

    def _gathered(self, timeout_s: float) -> list[_Ended] | None:
        """Children that ended, those soon after the first one too; None: end."""
        ended = list[_Ended]()
        end_s = time.monotonic() + timeout_s
        with contextlib.suppress(Empty):
            while True:  # ends by None, or at end_s
                one = self._lost.get(timeout=max(0.0, end_s - time.monotonic()))
                if one is None:
                    return None
                if not ended:
                    end_s = time.monotonic() + GATHER_S
                ended.append(one)
        return ended

    def _take_back(self, ledger: RedisLedger, job_id: str, ended: list[_Ended]) -> None:
        leases = ledger.leases(job_id)
        held = list[tuple[int, str]]()
        for child in ended:
            holder = f"{self._node}/{child.pid}."
            lost = [(one.chunk_id, one.token) for one in leases if one.holder.startswith(holder)]
            emit(ChildEnded(job_id=job_id, pid=child.pid, how=child.how, chunks=len(lost)))
            held += lost
        if held:
            self._barren.pop(job_id, None)
            ledger.expire(job_id, held)
            return
        self._barren[job_id] += len(ended)
        if self._barren[job_id] >= BARREN_MAX:
            unable = Unable(self._address, job_id)
            try:
                unable.say(
                    self._node,
                    Inability(
                        "worker processes end before they hold any work"
                        f" ({self._barren[job_id]} in a row); see the worker's log"
                    ),
                )
            finally:
                unable.close()

    def _look(self, ledger: RedisLedger) -> None:
        """Ring for jobs with chunks to claim while children of ours have nothing to do."""
        if not self._hearing.is_idle():
            self._unheard = 0
            return
        self._look_whether_deaf()
        names = ledger.open_jobs()
        for job_id in self._some_of(names):
            with contextlib.suppress(UnknownJobError):
                job = ledger.status(job_id)
                if job.state is JobState.OPEN and job.ready:
                    self._ring(job_id)

    def _look_whether_deaf(self) -> None:
        heard = self._hearing.heard()
        quiet = heard == self._heard and self._link.call("LLEN", self._queue) > 0
        self._heard, self._unheard = heard, self._unheard + 1 if quiet else 0
        if self._unheard >= DEAF_LOOKS:
            self._unheard = 0
            self._hearing.deaf()

    def _some_of(self, names: list[str]) -> Iterable[str]:
        start = self._turn if self._turn < len(names) else 0
        self._turn = start + LOOKS_MAX
        return names[start : start + LOOKS_MAX]

    def _tell(self, step: Callable[[], None]) -> None:
        try:
            step()
            self._outage.over()
        except UnknownJobError:
            pass  # it is over and forgotten
        except StateError as error:
            self._outage.met(error)
