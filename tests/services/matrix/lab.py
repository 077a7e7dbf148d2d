"""One run: a private Redis, workers, a waiter, a fault at a chosen instant, and notes of it all."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.services.matrix.forwarder import Forwarder
from tests.services.matrix.processes import LOOK_S, STOP_S, Tree
from tests.services.matrix.scripted import CHUNK, END, START, Log, Script
from tests.services.matrix.system import System
from tests.services.redis_server import RedisServer

CHUNKS: Final = 40
ITEMS: Final = CHUNKS * CHUNK
CHILDREN: Final = 8
CHECK_S: Final = 0.5
READY_S: Final = 30.0  # until the first check begins; a busy machine starts processes slowly
TEND_S: Final = 0.05
RANDOM, ALIGNED = "random", "aligned"


@dataclass(frozen=True)
class Setup:
    """What a row needs to be there before its fault.

    Attributes:
        script: Fields of ``Script``.
        aof: Redis keeps every write, once a second.
        options: More of Redis' configuration.
        program: Redis' command, in the place of the usual one; called when it is needed.
        workers: How many workers, each with ``children``.
        children: Of a worker.
        items: Of the job.
        forwarded: Workers and waiter reach Redis through a forwarder each.
        waiter: Fields of ``Orders`` for the first waiter.
        refresh: Fields of ``RefreshSettings``.
        environment: More for the workers.
        chord: Celery settings of the comparison, beside those of its practice.
    """

    script: dict[str, Any] = field(default_factory=dict)
    aof: bool = False
    options: tuple[str, ...] = ()
    program: Callable[[Path], list[str]] | None = None
    workers: int = 1
    children: int = CHILDREN
    items: int = ITEMS
    forwarded: bool = False
    waiter: dict[str, Any] = field(default_factory=dict)
    refresh: dict[str, Any] = field(default_factory=dict)
    environment: Callable[[Path], dict[str, str]] | None = None
    chord: dict[str, float] = field(default_factory=dict)


class TookTooLongError(AssertionError):
    """What was waited for did not come within its time."""


class Lab:
    """Everything of one run. What it started it ends, by its number.

    Args:
        directory: For logs, state and data; short, because a socket's path lies in it.
        setup: Of the row.
        system: What is examined: ours, or the comparison.
        draw: Of all that is random.
        phase: ``random``, or ``aligned``: faults fall right behind the end of a chunk.
    """

    def __init__(
        self, directory: Path, setup: Setup, system: System, *, draw: Random, phase: str = RANDOM
    ) -> None:
        self.directory = directory
        self.setup = setup
        self.system = system
        self.draw = draw
        self.phase = phase
        self.notes: list[str] = []
        self.log = Log(directory / "checks")
        self.script = Script(log=str(self.log.path), **{"check_s": CHECK_S, **setup.script})
        self.trees: list[Tree] = []
        self.waiters: list[subprocess.Popen[bytes]] = []
        self.began_s = time.monotonic()
        self.started_s = 0.0
        self.fault_s: float | None = None
        self._tend_s = 0.0
        self._silenced: list[tuple[int, float]] = []
        self.data = directory / "redis"
        self.data.mkdir()
        options = (*setup.options, *(("--appendfsync", "everysec") if setup.aof else ()))
        program = None if setup.program is None else setup.program(directory)
        self.server = RedisServer(
            self.data, tcp=True, aof=setup.aof, options=options, program=program
        )
        self.to_workers = Forwarder(self.server.port) if setup.forwarded else None
        self.to_waiter = Forwarder(self.server.port) if setup.forwarded else None
        system.enter(self)

    # --- beginning

    def begin(self) -> None:
        """Start workers and the waiter that creates the job."""
        for _ in range(self.setup.workers):
            self.add_worker()
        self.add_waiter(first=True)

    def add_worker(self, *, kept: bool = True) -> Tree:
        """Start one more worker."""
        self.started_s = self.started_s or time.monotonic()
        tree = self.system.worker(self, kept=kept)
        self.trees.append(tree)
        self.note(f"worker {tree.process.pid} started")
        return tree

    def take_server(self, server: RedisServer) -> None:
        """Another server takes the place of the one that is gone."""
        self.server.close()
        self.system.leave()
        self.server = server
        self.system.enter(self)

    def add_waiter(self, *, first: bool = False, **orders: Any) -> subprocess.Popen[bytes]:
        """Start a waiter; the first one creates the job."""
        waiter = self.system.waiter(self, first=first, **orders)
        self.waiters.append(waiter)
        self.note(f"waiter {waiter.pid} started")
        return waiter

    def url(self, forwarder: Forwarder | None) -> str:
        """Where somebody finds Redis."""
        port = self.server.port if forwarder is None else forwarder.port
        return f"redis://127.0.0.1:{port}/0"

    # --- what happens

    def note(self, told: str) -> None:
        """Write down what was done, with its instant."""
        self.notes.append(f"{time.monotonic() - self.began_s:8.3f} s  {told}")

    def struck(self) -> None:
        """The fault begins now, if it has not."""
        if self.fault_s is None:
            self.note(f"books: {self.system.books(self)}")
            self.fault_s = time.monotonic()

    def send(self, number: signal.Signals, *pids: int, whom: str) -> None:
        """Signal processes that this run started, and note it."""
        waiters = [waiter.pid for waiter in self.waiters if waiter.poll() is None]
        self.struck()
        for pid in pids:
            if pid not in waiters and not any(tree.has(pid) for tree in self.trees):
                self.note(f"{pid} ({whom}) is not there, or none of ours")
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if number in (signal.SIGKILL, signal.SIGSTOP):
                self._silenced.append((pid, time.monotonic()))
            self.note(f"{number.name} to {pid} ({whom})")

    def tend(self) -> None:
        """Be everybody's supervisor, now and then."""
        if time.monotonic() < self._tend_s:
            return
        self._tend_s = time.monotonic() + TEND_S
        for tree in self.trees:
            before = tree.restarts
            tree.tend()
            if tree.restarts != before:
                self.note(f"worker {tree.process.pid} started again, after it had ended by itself")

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.tend()
            time.sleep(min(LOOK_S, max(0.0, end_s - time.monotonic())))

    def until(self, reached: Callable[[], bool], *, bound_s: float, what: str) -> None:
        """Let time pass until something is so."""
        end_s = time.monotonic() + bound_s
        while not reached():
            if time.monotonic() > end_s:
                raise TookTooLongError(f"{what}: not within {bound_s:g} s")
            self.tend()
            time.sleep(LOOK_S)

    # --- instants and victims

    def moment(self, *, share: float | None = None, first_s: float = READY_S) -> int:
        """Wait for the instant at which the fault is to fall; a process that checks then.

        Args:
            share: How much of the job is done by then; None: drawn from the first half.
            first_s: Longest wait for so much.
        """
        drawn = self.draw.uniform(0.1, 0.5) if share is None else share
        items = self.setup.items
        self.until(
            lambda: len(self.log.ended()) >= drawn * items,
            bound_s=first_s + drawn * items / CHUNK * CHECK_S,
            what=f"{drawn:.0%} of the job",
        )
        if self.phase == ALIGNED:
            return self._end_of_a_chunk()
        self.pause(self.draw.uniform(0.0, CHECK_S))
        return self.busy_child()

    def _end_of_a_chunk(self) -> int:
        """Return right behind a chunk's last verdict: its report is on the way."""
        seen = len(self.log.look())
        end_s = time.monotonic() + READY_S
        while time.monotonic() < end_s:  # without a pause: this is about milliseconds
            ends = [mark for mark in self.log.look()[seen:] if mark.what == END]
            last = [pid for pid in {mark.pid for mark in ends} if not self._checking(pid)]
            if last:
                return last[0]
        raise TookTooLongError("no chunk ended")

    def busy_child(self) -> int:
        """A process that is checking now, drawn; any child if none is."""
        children = [pid for tree in self.trees for pid in tree.children()]
        assert children, "no worker has a child"
        return self.draw.choice([pid for pid in children if self._checking(pid)] or children)

    def tree_of(self, pid: int) -> Tree:
        """The worker to which a process belongs."""
        return next(tree for tree in self.trees if pid in tree.all())

    def _checking(self, pid: int) -> set[int]:
        doing: set[int] = set()
        for mark in self.log.look():
            if mark.pid == pid:
                (doing.add if mark.what == START else doing.discard)(mark.item)
        return doing

    def boot_s(self) -> float:
        """What it took from the first program's start to the first check."""
        marks = self.log.look()
        return marks[0].at_s - self.started_s if marks else 0.0

    def again_after_s(self) -> float | None:
        """The longest until a check that a silenced process had begun was begun by another one.

        None if no process was silenced, or nothing was lost with one.
        """
        longest: float | None = None
        marks = self.log.look()
        for pid, at_s in self._silenced:
            lost: set[int] = set()
            for mark in marks:
                if mark.pid == pid and mark.at_s <= at_s:
                    (lost.add if mark.what == START else lost.discard)(mark.item)
            again = {
                mark.item: mark.at_s - at_s
                for mark in reversed(marks)
                if mark.what == START and mark.item in lost and mark.pid != pid
                if mark.at_s > at_s
            }
            longest = max([*again.values(), *([] if longest is None else [longest])], default=None)
        return longest

    # --- the end

    def finish(self, bound_s: float) -> float:
        """Wait for every waiter that was not killed; seconds from the fault to the last end.

        Raises:
            TookTooLongError: It was not within the bound, counted from the fault.
        """
        since_s = self.fault_s if self.fault_s is not None else time.monotonic()
        left_s = since_s + bound_s - time.monotonic()
        self.until(
            lambda: all(waiter.poll() is not None for waiter in self.waiters),
            bound_s=left_s,
            what=f"the end, {bound_s:g} s after the fault",
        )
        self.note(f"books: {self.system.books(self)}")
        return time.monotonic() - since_s

    def close(self) -> None:
        """End everything that is still there; works twice."""
        for waiter in self.waiters:
            if waiter.poll() is None:
                waiter.kill()
            waiter.wait(STOP_S)
        for tree in self.trees:
            tree.end()
        self.system.leave()
        for forwarder in (self.to_workers, self.to_waiter):
            if forwarder is not None:
                forwarder.close()
        self.server.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
