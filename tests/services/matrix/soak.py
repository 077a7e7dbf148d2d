"""A soak: jobs follow each other while random faults overlap; then quiet, and all must end.

Each fault is a generator: it does something, yields how long that is to last, and mends it. So
several can be under way at the same time, and in the end all are mended.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

from proxywell.errors import StateError
from proxywell.refresh.closing import RING_AGAIN_MAX_S
from tests.services.matrix.lab import Lab, Setup, TookTooLongError
from tests.services.matrix.oracle import Expected, Finding, examine, verdicts_in_pool
from tests.services.matrix.row import BOOT_S, NOISE, RESCUE_S, WORK_S
from tests.services.matrix.system import Ours

JOBS_AT_ONCE: Final = 3
FAULTS_AT_ONCE: Final = 3
EVERY_S: Final = (0.2, 3.0)  # between two faults
LASTS_S: Final = (0.2, 8.0)
AGAIN_S: Final = (0.0, 3.0)  # until somebody waits again for a job whose waiter was killed
BACK_OFF_S: Final = 10.0  # of a worker whose main was killed again and again
LOST_SHARE: Final = 0.05  # an innocent chunk that was held in many deaths is suspected in the end
QUIET_S: Final = RING_AGAIN_MAX_S + NOISE * (BACK_OFF_S + BOOT_S + RESCUE_S + JOBS_AT_ONCE * WORK_S)
SETUP: Final = Setup(
    workers=2,
    children=4,
    aof=True,
    forwarded=True,
    refresh={"stalled_s": 600.0},  # nobody may be there for long, and yet all must be done
)

Fault: TypeAlias = Callable[["Soak"], Iterator[float]]


@dataclass
class Kept:
    """A job, and who waits for it."""

    job: str
    waiters: list[Popen[bytes]]
    again_s: float | None = None  # when somebody waits for it again
    ended: bool = False


@dataclass
class Soaked:
    """What came of it.

    Attributes:
        jobs: How many came to their end.
        faults: How often each was done.
        findings: Of each job, by its id.
        wrong: Sentences; empty if everything was as it must be.
        quiet_s: From the end of the last fault to the end of the last wait.
        notes: What was done, and when.
    """

    jobs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    quiet_s: float = 0.0
    notes: list[str] = field(default_factory=list)

    def told(self) -> str:
        """Everything, for people."""
        found = self.findings.values()
        figures = (
            f"{self.jobs} jobs, {self.faults.total()} faults, all over {self.quiet_s:.1f} s after"
            f" the last one; {sum(one.checked for one in found)} checked,"
            f" {sum(one.given_up for one in found)} given up, {sum(one.rescued for one in found)}"
            f" chunks rescued, at most {max((one.epochs for one in found), default=0)} epochs"
        )
        done = ", ".join(f"{name} {n}" for name, n in sorted(self.faults.items()))
        return "\n".join([figures, done, *self.wrong, *(self.notes if self.wrong else [])])


class Soak:
    """Keeps jobs coming and faults falling.

    Args:
        lab: Its server, workers and waiters.
        ours: What the lab runs.
        came: Is filled in.
    """

    def __init__(self, lab: Lab, ours: Ours, came: Soaked) -> None:
        self.lab = lab
        self.draw = lab.draw
        self._ours = ours
        self._came = came
        self._jobs: list[Kept] = []
        self._under_way: list[tuple[float, str, Iterator[float]]] = []
        self.server_up = True

    def run(self, seconds: float) -> None:
        """Do faults for so long, then let everything come to its end.

        Raises:
            TookTooLongError: It did not, within ``QUIET_S``.
        """
        for _ in range(SETUP.workers):
            self.lab.add_worker()
        end_s = time.monotonic() + seconds
        next_s = time.monotonic() + BOOT_S
        while time.monotonic() < end_s:
            self._look_after_jobs(more=True)
            self._go_on()
            if time.monotonic() >= next_s and len(self._under_way) < FAULTS_AT_ONCE:
                self._begin_one()
                next_s = time.monotonic() + self.draw.uniform(*EVERY_S)
            self.lab.pause(0.02)
        while self._under_way:  # each yields a few times, and ends
            self._go_on()
            self._look_after_jobs(more=False)
            self.lab.pause(0.02)
        self.lab.note("quiet")
        quiet_s = time.monotonic()
        self.lab.until(self._all_over, bound_s=QUIET_S, what="the end of all jobs, without faults")
        self._came.quiet_s = time.monotonic() - quiet_s

    def open_jobs(self) -> list[Kept]:
        """Jobs that somebody waits for, or will."""
        return [kept for kept in self._jobs if not kept.ended]

    def begun_jobs(self) -> list[Kept]:
        """Those of them that are in the journal: nobody can wait for one that is not."""
        kept_in = self.lab.directory / "state" / "ledger.sqlite"
        if not kept_in.exists():
            return []
        with closing(sqlite3.connect(f"file:{kept_in}?mode=ro", uri=True)) as db:
            try:
                known = {name for (name,) in db.execute("SELECT id FROM job")}
            except sqlite3.OperationalError:
                return []  # it is being made, or is locked
        return [kept for kept in self.open_jobs() if kept.job in known]

    def examine(self) -> None:
        """Look at all that is left."""
        for kept in self._jobs:
            lost = int(LOST_SHARE * self.lab.setup.items)
            finding = examine(
                self.lab,
                self._ours,
                Expected(
                    ("complete", "partial"),
                    given_up_at_most={"poison": lost, "error": lost},
                    seals=2,
                ),
                kept.job,
                alone=False,
            )
            self._came.findings[kept.job] = finding
            self._came.wrong += [f"{kept.job}: {told}" for told in finding.wrong]
        told = sum(one.checked for one in self._came.findings.values())
        pooled = verdicts_in_pool(self.lab.directory / "state")
        if pooled != told:
            self._came.wrong.append(f"the pool has {pooled} of {told} verdicts")

    # --- inside

    def _look_after_jobs(self, *, more: bool) -> None:
        now_s = time.monotonic()
        for kept in self.open_jobs():
            if kept.again_s is not None and now_s >= kept.again_s:
                kept.waiters.append(self.lab.add_waiter(job=kept.job))
                kept.again_s = None
            gone = [waiter for waiter in kept.waiters if waiter.poll() is not None]
            if any(waiter.returncode == 0 for waiter in gone):
                kept.ended = len(gone) == len(kept.waiters)
                self._came.jobs += kept.ended
            elif len(gone) == len(kept.waiters) and kept.again_s is None:
                kept.again_s = now_s + self.draw.uniform(*AGAIN_S)
        if more and len(self.open_jobs()) < JOBS_AT_ONCE:
            job = f"soak{len(self._jobs)}"
            self._jobs.append(Kept(job, [self.lab.add_waiter(first=True, job=job)]))

    def _all_over(self) -> bool:
        self._look_after_jobs(more=False)
        return not self.open_jobs()

    def _begin_one(self) -> None:
        fault = self.draw.choice(FAULTS)
        name = fault.__name__
        self._came.faults[name] += 1
        self.lab.note(name)
        self._under_way.append((time.monotonic(), name, fault(self)))

    def _go_on(self) -> None:
        for one in list(self._under_way):
            due_s, name, steps = one
            if time.monotonic() < due_s:
                continue
            self._under_way.remove(one)
            with contextlib.suppress(StopIteration):
                lasts_s = next(steps)
                self._under_way.append((time.monotonic() + lasts_s, name, steps))

    def a_while_s(self) -> float:
        """How long a fault is to last."""
        return self.draw.uniform(*LASTS_S)

    def tell(self, *command: str | float) -> None:
        """Have Redis do something, if it can now."""
        if self.server_up:
            with contextlib.suppress(StateError):
                self.lab.server.call(*command)


def child_killed(soak: Soak) -> Iterator[float]:
    soak.lab.send(soak.draw.choice([SIGKILL, SIGTERM]), _child(soak), whom="child")
    yield 0.0


def child_frozen(soak: Soak) -> Iterator[float]:
    child = _child(soak)
    soak.lab.send(SIGSTOP, child, whom="child")
    yield soak.a_while_s()
    soak.lab.send(SIGCONT, child, whom="child")


def main_killed(soak: Soak) -> Iterator[float]:
    main = soak.draw.choice(soak.lab.trees).main
    if main:
        soak.lab.send(SIGKILL, main, whom="main")
    yield 0.0


def worker_frozen(soak: Soak) -> Iterator[float]:
    all_of_it = soak.draw.choice(soak.lab.trees).all()
    soak.lab.send(SIGSTOP, *all_of_it, whom="worker")
    yield soak.a_while_s()
    soak.lab.send(SIGCONT, *all_of_it, whom="worker")


def worker_ended(soak: Soak) -> Iterator[float]:
    tree = soak.draw.choice(soak.lab.trees)
    number = soak.draw.choice([SIGKILL, SIGTERM])
    whom = tree.all() if soak.draw.random() < 0.5 else [tree.process.pid]
    soak.lab.send(number, *whom, whom="worker")  # its supervisor starts it again
    yield 0.0


def waiter_killed(soak: Soak) -> Iterator[float]:
    jobs = soak.begun_jobs()
    if jobs:
        waiters = [one for one in soak.draw.choice(jobs).waiters if one.poll() is None]
        soak.lab.send(SIGKILL, *[one.pid for one in waiters], whom="waiters")
    yield 0.0


def waiter_joined(soak: Soak) -> Iterator[float]:
    jobs = [kept for kept in soak.begun_jobs() if kept.again_s is None]
    if jobs:
        kept = soak.draw.choice(jobs)
        kept.waiters.append(soak.lab.add_waiter(job=kept.job))
    yield 0.0


def redis_restarted(soak: Soak) -> Iterator[float]:
    if soak.server_up:
        soak.server_up = False
        soak.lab.server.kill()
        yield soak.a_while_s()
        soak.lab.server.start()
        soak.server_up = True


def redis_frozen(soak: Soak) -> Iterator[float]:
    if soak.server_up:
        soak.server_up = False
        soak.lab.server.pause()
        yield soak.a_while_s()
        soak.lab.server.resume()
        soak.server_up = True


def redis_paused(soak: Soak) -> Iterator[float]:
    lasts_s = soak.a_while_s()
    soak.tell("CLIENT", "PAUSE", int(1000 * lasts_s), "ALL")
    yield lasts_s


def redis_full(soak: Soak) -> Iterator[float]:
    soak.tell("CONFIG", "SET", "maxmemory", "1")
    yield soak.a_while_s()
    while not soak.server_up:  # one that is started anew has room
        yield 0.1
    soak.tell("CONFIG", "SET", "maxmemory", "0")


def everything_flushed(soak: Soak) -> Iterator[float]:
    soak.tell("FLUSHALL")
    yield 0.0


def books_deleted(soak: Soak) -> Iterator[float]:
    jobs = soak.open_jobs()
    if jobs:
        keys = soak.lab.system.book_keys(soak.lab, soak.draw.choice(jobs).job)
        soak.tell("DEL", *soak.draw.sample(keys, soak.draw.randint(1, len(keys))), keys[0])
    yield 0.0


def clients_killed(soak: Soak) -> Iterator[float]:
    soak.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield 0.0


def connections_cut(soak: Soak) -> Iterator[float]:
    for way in (soak.lab.to_workers, soak.lab.to_waiter):
        assert way is not None
        way.cut()
    yield 0.0


def way_lost(soak: Soak) -> Iterator[float]:
    way = soak.draw.choice([soak.lab.to_workers, soak.lab.to_waiter])
    assert way is not None
    way.make_hole()
    yield soak.a_while_s()
    way.heal()


def bells_dropped(soak: Soak) -> Iterator[float]:
    for _ in range(soak.draw.randint(1, 100)):
        soak.tell("DEL", soak.lab.system.queue())
        yield 0.05


FAULTS: Final[tuple[Fault, ...]] = (
    child_killed, child_frozen, main_killed, worker_frozen, worker_ended, waiter_killed,
    waiter_joined, redis_restarted, redis_frozen, redis_paused, redis_full, everything_flushed,
    books_deleted, clients_killed, connections_cut, way_lost, bells_dropped,
)  # fmt: skip


def _child(soak: Soak) -> int:
    children = [pid for tree in soak.lab.trees for pid in tree.children()]
    return soak.draw.choice(children) if children else 0


def soaked(seconds: float, seed: int) -> Soaked:
    """Do random faults for so long, then none, and examine what is left."""
    came, ours = Soaked(), Ours()
    with (
        TemporaryDirectory(prefix="pw-s-") as place,
        Lab(Path(place), SETUP, ours, draw=Random(seed)) as lab,
    ):
        soak = Soak(lab, ours, came)
        try:
            soak.run(seconds)
            soak.examine()
        except TookTooLongError as error:
            came.wrong.append(str(error))
            came.wrong += [f"{kept.job}: {ours.books(lab, kept.job)}" for kept in soak.open_jobs()]
            log = (lab.directory / "worker.log").read_text(errors="replace")
            lab.notes += log.splitlines()[-100:]
        came.notes = lab.notes
    return came
