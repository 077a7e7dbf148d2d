"""The local engine: a worker on a thread of this process, or several in processes of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from proxywell.config.schema import RefreshSettings
from proxywell.errors import ProxywellError
from proxywell.refresh.bell import DatagramBell, Role
from proxywell.refresh.books import JobRow, Worker
from proxywell.refresh.engines.loop_thread import HUNG_STATUS, run_again_when_hung
from proxywell.refresh.engines.node import Pulse, node_name
from proxywell.refresh.engines.worker import CheckerFactory, Post, child_main, work
from proxywell.refresh.ledgers.sqlite import open_ledger
from proxywell.refresh.ports import Bell, Engine, Ledger
from proxywell.refresh.shift import ShiftTerms
from proxywell.telemetry.events import emit
from proxywell.telemetry.work import WorkerEnded

STOP_S = 10.0  # from TERM to KILL; a drain takes well under a second
_BACK_OFF_FIRST_S = 0.1
_BACK_OFF_MOST_S = 5.0
BARREN_MAX = 5
_STEADY_S = 10.0  # a child that lived so long starts with a short back-off again
_LOOK_S = 0.25


class WorkerFailedError(ProxywellError):
    """No worker can start; the sentence and the exit status are the worker's own."""

    code = "worker_failed"

    def __init__(self, sentence: str, exit_status: int = 1) -> None:
        super().__init__(sentence)
        self.exit_status = exit_status  # type: ignore[misc] # as the child's error had it


class LocalKind:
    """Jobs that live in a state directory and are worked on by this process.

    Args:
        state_dir: Where ``ledger.sqlite`` is; made if it is missing.
        settings: Beats and shifts.
        make_checker: Makes the checker of one worker, inside its loop; picklable for more than
            one worker. None: this process only looks, it never works.
        workers: Processes that check; 1 checks in this process, on a thread.
        prepare_child: What a child process does first (where its remarks go, ...); picklable.
    """

    name = "local"
    server: str | None = None

    def __init__(
        self,
        state_dir: Path,
        settings: RefreshSettings,
        *,
        make_checker: CheckerFactory | None = None,
        workers: int = 1,
        prepare_child: Callable[[], None] | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._terms = ShiftTerms(settings.beat_s, settings.shift_s, hang_s=settings.hang_s)
        self._make_checker = make_checker
        self._workers = workers
        self._prepare_child = prepare_child

    def open_ledger(self) -> Ledger:
        """See ``EngineKind``.

        Raises:
            StateError: The directory or its ledger cannot be made, read or written.
        """
        return open_ledger(self._state_dir)

    def engine(self, job: JobRow) -> Engine | None:
        """See ``EngineKind``."""
        if self._make_checker is None:
            return None
        return LocalEngine(
            job.job_id,
            self._state_dir,
            make_checker=self._make_checker,
            workers=self._workers,
            terms=self._terms,
            lease_s=job.terms.lease_s,
            prepare_child=self._prepare_child,
        )

    def bell(self, job_id: str) -> Bell:
        """See ``EngineKind``."""
        return DatagramBell(self._state_dir, Role.WAITER)


class LocalEngine:
    """Works on one job with the ledger of a state directory.

    One worker is a thread of this process with a loop of its own; more are child processes,
    made by a thread that lives as long as they do (the kernel ties a child to the thread that
    made it), restarted when they die, ended by process id only.

    Args:
        job_id: The job.
        state_dir: Where its ledger is.
        make_checker: Makes the checker of one worker, inside its loop; for more than one
            worker it must be picklable.
        workers: How many; at least 1.
        terms: Of their shifts.
        lease_s: Of the job's chunks.
        prepare_child: What a child process does first (where its remarks go, ...); picklable.
    """

    def __init__(
        self,
        job_id: str,
        state_dir: Path,
        *,
        make_checker: CheckerFactory,
        workers: int,
        terms: ShiftTerms,
        lease_s: float,
        prepare_child: Callable[[], None] | None = None,
    ) -> None:
        self._job_id = job_id
        self._prepare_child = prepare_child
        self._state_dir = state_dir
        self._make_checker = make_checker
        self._workers = workers
        self._terms = terms
        self._node = node_name()
        self._open_ledger: Callable[[], Ledger] = partial(open_ledger, state_dir)
        self._pulse = Pulse(
            self._node,
            job_id,
            open_ledger=self._open_ledger,
            lease_s=lease_s,
            beat_s=terms.beat_s,
        )
        self._bell = DatagramBell(state_dir, Role.WAITER)
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Event | None = None
        target = self._be_worker if workers == 1 else self._supervise
        self._thread = threading.Thread(target=target, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work on the job; returns at once, works twice."""
        if self._thread.ident is None and not self._stopping.is_set():
            self._pulse.start()
            self._thread.start()

    def ring(self, bells: int) -> None:
        """Wake the workers."""
        if bells:
            self._bell.ring()

    def failure(self) -> BaseException | None:
        """Why no worker can go on; None while they can."""
        return self._failure

    def stop(self) -> None:
        """Drain within ``STOP_S`` and a little; works before starting, and twice."""
        self._stopping.set()
        loop, leaving = self._loop, self._leaving
        if loop is not None and leaving is not None and not loop.is_closed():
            loop.call_soon_threadsafe(leaving.set)
        if self._thread.ident is not None:
            self._thread.join(STOP_S + 2.0)
        self._pulse.stop(2.0)
        self._bell.close()

    # --- one worker, on the engine's thread

    def _be_worker(self) -> None:
        try:
            run_again_when_hung(self._worker)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._failure = error

    async def _worker(self) -> None:
        self._leaving, self._loop = asyncio.Event(), asyncio.get_running_loop()
        if self._stopping.is_set():
            return
        await work(self._post("1"), self._make_checker, self._leaving, self._give_up)

    def _give_up(self) -> None:
        """This thread cannot be ended as a process can."""
        self._failure = WorkerFailedError(
            "a check hangs and cannot be interrupted; go on with `proxywell job wait "
            f"{self._job_id}`, and start the next job with --workers 2"
        )

    def _post(self, name: str) -> Post:
        worker = Worker(self._node, f"{self._node}/{name}")
        return Post(self._job_id, worker, self._state_dir, self._terms)

    # --- several, each in a process

    def _supervise(self) -> None:
        # Children inherit the mask; the tracker first, since its start lets SIGINT through again.
        multiprocessing.resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        children = [_Child(number) for number in range(self._workers)]
        try:
            ledger = self._open_ledger()
        except ProxywellError as error:
            self._failure = error
            return
        try:
            while not self._stopping.is_set() and self._failure is None:
                for child in children:
                    self._look_after(child, ledger)
                if all(child.finished for child in children):
                    return
                sentinels = [child.process.sentinel for child in children if child.process]
                multiprocessing.connection.wait(sentinels, timeout=_LOOK_S)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._failure = error
        finally:
            _end(children)
            ledger.close()

    def _look_after(self, child: _Child, ledger: Ledger) -> None:
        if child.finished:
            return
        if child.process is None:
            if time.monotonic() >= child.start_s:
                post = self._post(f"{child.number}.{child.serial}")
                child.spawn(post, self._make_checker, self._prepare_child)
            return
        code = child.process.exitcode
        if code is None:
            return
        told = child.last_words()
        child.process.join()
        child.process.close()
        child.process = None
        if code == 0:
            child.finished = True
            return
        if told is not None:
            self._failure = told
            return
        child.back_off()
        how = f"signal {-code}" if code < 0 else f"status {code}"
        came_to_work = self._take_back(child, how, ledger) or code == HUNG_STATUS
        child.barren = 0 if came_to_work else child.barren + 1
        if child.barren >= BARREN_MAX:
            self._failure = WorkerFailedError(
                f"worker processes end before they hold any work ({how}, {BARREN_MAX} in a row);"
                " run with --workers 1 to see why"
            )

    def _take_back(self, child: _Child, how: str, ledger: Ledger) -> int:
        """Take its leases back at once: we saw it die. How many chunks it held."""
        restart_s = max(0.0, child.start_s - time.monotonic())
        emit(WorkerEnded(job_id=self._job_id, holder=child.holder, how=how, restart_s=restart_s))
        leases = ledger.leases(self._job_id)
        held = [(lease.chunk_id, lease.token) for lease in leases if lease.holder == child.holder]
        if held:
            ledger.expire(self._job_id, held)
        self._bell.ring()
        return len(held)


class _Child:
    """One place for a child process, whoever fills it just now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.serial = 1
        self.holder = ""
        self.process: SpawnProcess | None = None
        self.finished = False
        self.barren = 0  # deaths in a row that cost no chunk: it never came to work
        self.start_s = 0.0
        self._born_s = 0.0
        self._pause_s = _BACK_OFF_FIRST_S
        self._words: Connection | None = None

    def spawn(
        self, post: Post, make_checker: CheckerFactory, prepare: Callable[[], None] | None
    ) -> None:
        """Start a process here."""
        context = multiprocessing.get_context("spawn")
        self._words, told = context.Pipe(duplex=False)
        self.holder = post.worker.holder
        self.process = context.Process(
            target=child_main,
            args=(post, make_checker, prepare, os.getpid(), told),
            name=f"proxywell worker {self.number}",
            daemon=True,
        )
        self.process.start()
        told.close()
        self.serial += 1
        self._born_s = time.monotonic()

    def last_words(self) -> WorkerFailedError | None:
        """What the child said of an error that would meet every other child too."""
        words, self._words = self._words, None
        assert words is not None, "a child that was not spawned has ended"
        try:
            text = words.recv_bytes().decode() if words.poll() else ""
        except (EOFError, OSError):
            text = ""
        finally:
            words.close()
        return WorkerFailedError(text[1:], int(text[0])) if text else None

    def back_off(self) -> None:
        """Let some time pass before the next one, longer each time they die young."""
        now_s = time.monotonic()
        if now_s - self._born_s > _STEADY_S:
            self._pause_s = _BACK_OFF_FIRST_S
        self.start_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _BACK_OFF_MOST_S)


def _end(children: list[_Child]) -> None:
    """TERM, a stated time to drain, then KILL; by process, never by name."""
    made = [child.process for child in children if child.process is not None]
    running = [process for process in made if process.pid is not None]  # one may not have started
    for process in running:
        process.terminate()
    end_s = time.monotonic() + STOP_S
    for process in running:
        process.join(max(0.0, end_s - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join(2.0)
    for child in children:
        if child.process is not None:
            child.last_words()
