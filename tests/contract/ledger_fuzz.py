"""Random schedules against one home, with what a waiter's journal would know, until all is done.

A state machine looks for the shortest schedule that breaks a rule; this looks for breadth: every
seed is a world of its own, with workers that die or go on after their lease, messages that come
late or twice, a server that is emptied, and waiters that create the job again from what they had
read until then. When the faults stop, the job must be done within a bound.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from proxywell.errors import UnknownJobError
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    Beat,
    BeatAnswer,
    ChunkState,
    Claim,
    JobState,
    SubmitAnswer,
    Worker,
)
from proxywell.refresh.ledgers.redis import OF_A_JOB
from proxywell.refresh.ports import Ledger
from proxywell.refresh.spans import items_of, spans_of
from tests.contract.ledger_world import JOB, TERMS, Homes, quiet_end, settled
from tests.services.redis_server import RedisServer

STEPS = 90
BOUND_S = 300.0
WORKERS = tuple(Worker(f"n{node}", f"n{node}/{child}") for node in (1, 2) for child in (1, 2))


class Attempt:
    """What a worker knows of one attempt, whatever the ledger thinks of it."""

    def __init__(self, worker: Worker, claim: Claim) -> None:
        self.worker = worker
        self.claim = claim
        self.left = list(items_of(claim.items))


class Schedule:
    """One seed's world.

    Args:
        seed: Of everything in it.
        server: Whose Lua is driven.
        defect: Lua that takes the place of a rule.
    """

    def __init__(self, seed: int, server: RedisServer, defect: str = "") -> None:
        self.draw = random.Random(seed)
        items = self.draw.randint(1, 30)
        terms = replace(
            TERMS,
            chunk_size=self.draw.randint(1, 6),
            want=self.draw.choice([None, None, None, 3]),
            fan=self.draw.randint(2, 4),
            min_count=self.draw.randint(1, 3),
        )
        self.homes = Homes(items=items, terms=terms, server=server, defect=defect, memory=False)
        self.server = server
        self.attempts: list[Attempt] = []
        self.killers = self.draw.sample(range(items), min(items, self.draw.choice([0, 1, 3])))
        self.living = {"n1", "n2"}
        self.serial = 0
        self.known: list[int] = []  # settled, as the journal has read it

    def run(self) -> None:
        """Faults, then none, then the end."""
        for _ in range(self.draw.randint(10, STEPS)):
            steps = self.steps_now()
            (step,) = self.draw.choices([*steps], weights=[*steps.values()])
            step()
            self.homes.check()
        try:
            quiet_end(self.homes, bound_s=BOUND_S)
        finally:
            self.homes.close()

    def steps_now(self) -> dict[Callable[[], None], int]:
        """What may happen, and how often; a closed job is mostly finalised."""
        is_open = self.homes.job.state is JobState.OPEN
        return {
            self.claim: 28,
            self.beat: 20,
            self.submit: 12,
            self.submit_again: 2,
            self.error: 10,
            self.release: 4,
            self.time_passes: 28,
            self.node: 6,
            self.expire: 4,
            self.finalise: 4 if is_open else 80,
            self.read: 8,
            self.emptied: 1,
            self.torn: 1,
            self.cancel: int(self.serial > 25),
        }

    # --- steps

    def claim(self) -> None:
        self.serial += 1
        worker = self.draw.choice(WORKERS)
        held = [a.claim.chunk_id for a in self.attempts if self.is_current(a)]
        claim = self.homes.claim(worker, f"t{self.serial}")
        if claim is not None:
            assert claim.chunk_id not in held, "a chunk that is held was handed out"
            self.attempts.append(Attempt(worker, claim))

    def beat(self) -> None:
        attempt = self.some_attempt()
        if attempt is None:
            return
        claim, items = attempt.claim, self.some_items(attempt)
        beats = [Beat(claim.chunk_id, claim.token, settled(items))]
        answer = self.speak(attempt, lambda home: home.beat(JOB, attempt.worker, beats))
        if answer != [BeatAnswer.STOP]:
            attempt.left = [item for item in attempt.left if item not in items]
            started_s = self.homes.chunks[claim.chunk_id].since_s
            age_s = self.homes.clock.now_s - started_s
            assert age_s <= self.homes.terms.attempt_hard_s, "an attempt was renewed past its end"

    def submit(self) -> None:
        attempt = self.some_attempt()
        if attempt is None:
            return
        claim = attempt.claim
        deferred = [] if claim.patient else self.some_items(attempt)
        told = settled([item for item in attempt.left if item not in deferred])
        before = self.homes.chunks.get(claim.chunk_id)
        answer = self.homes.all(
            lambda home: home.submit(
                JOB, claim.chunk_id, claim.token, claim.epoch, told, deferred=spans_of(deferred)
            )
        )
        if claim.epoch != self.homes.epoch:
            assert answer is SubmitAnswer.STALE, "a submit of an earlier epoch was taken"
        elif before is not None and before.state not in (ChunkState.READY, ChunkState.RUNNING):
            assert answer is SubmitAnswer.DUP
        else:
            assert answer in (SubmitAnswer.OK, SubmitAnswer.CLOSED)

    def submit_again(self) -> None:
        attempt = self.some_attempt()
        if attempt is None:
            return
        claim = attempt.claim
        whole = settled(list(items_of(claim.items)))
        said = [
            self.homes.all(
                lambda home: home.submit(JOB, claim.chunk_id, claim.token, claim.epoch, whole)
            )
            for _ in range(2)
        ]
        assert said[1] in (SubmitAnswer.DUP, SubmitAnswer.STALE), "a submit was taken twice"

    def error(self) -> None:
        attempt = self.some_attempt()
        if attempt is None:
            return
        claim, current = attempt.claim, self.is_current(attempt)
        told = settled(self.some_items(attempt))
        answer = self.speak(
            attempt,
            lambda home: home.submit(
                JOB, claim.chunk_id, claim.token, claim.epoch, told, error="raised"
            ),
            or_ready=False,
        )
        assert (answer in (SubmitAnswer.AGAIN, SubmitAnswer.CLOSED)) == current

    def release(self) -> None:
        attempt = self.some_attempt()
        if attempt is None:
            return
        claim, current = attempt.claim, self.is_current(attempt)
        told = settled(self.some_items(attempt))
        answer = self.speak(
            attempt,
            lambda home: home.release(JOB, claim.chunk_id, claim.token, told),
            or_ready=False,
        )
        assert (answer is BeatAnswer.OK) == current

    def time_passes(self) -> None:
        """With a waiter; workers beat, fall silent, or are killed by what they check."""
        silent = {worker for worker in WORKERS if self.draw.random() < 0.3}
        for _ in range(self.draw.choice([1, 2, 7, 7, 20])):
            self.homes.clock.now_s += self.draw.choice([0.25, 1.0, 1.0])
            for node in self.living:
                self.homes.all(lambda home, name=node: home.node_beat(name, "", term_s=3.75))  # type: ignore[misc] # a loop's variable, kept
            for worker in WORKERS:
                mine = [a for a in self.attempts if a.worker == worker and self.is_current(a)]
                killed = any(item in self.killers for a in mine for item in a.left)
                if mine and worker not in silent and not killed and worker.node in self.living:
                    beats = [Beat(a.claim.chunk_id, a.claim.token) for a in mine]
                    self.homes.all(lambda home: home.beat(JOB, worker, beats))  # noqa: B023 - at once
            self.homes.tick()
        if self.draw.random() < 0.15:
            self.homes.clock.now_s += self.draw.choice([5.0, 45.0, 100.0])  # nobody was there
            self.homes.tick()

    def node(self) -> None:
        node = self.draw.choice(["n1", "n2"])
        if node in self.living and self.draw.random() < 0.5:
            self.living.discard(node)
            self.homes.all(lambda home: home.node_gone(node))
        else:
            self.living.add(node)
            draining = self.draw.random() < 0.2
            self.homes.all(lambda home: home.node_beat(node, "", term_s=3.75, draining=draining))

    def expire(self) -> None:
        attempt = self.some_attempt()
        if attempt is not None:
            claim, current = attempt.claim, self.is_current(attempt)
            ended = self.homes.all(lambda home: home.expire(JOB, [(claim.chunk_id, claim.token)]))
            assert ended == current

    def finalise(self) -> None:
        kind = self.draw.choice(["claim", "claim", "claim", "beat", "fail", "fail", "commit"])
        self.homes.fin(kind, self.draw.choice(["fa", "fb"]))

    def cancel(self) -> None:
        before = self.homes.job.state
        done = self.homes.all(lambda home: home.cancel(JOB, GivenUpWhy.CANCELLED, "cancelled"))
        assert done == (before is JobState.OPEN)

    def read(self) -> None:
        parts = self.homes.all(lambda home: home.parts(JOB, 0, 1_000))
        base = [*items_of(self.homes.base)]
        self.known = base + [item for part in parts for item in items_of(part.items)]

    def emptied(self) -> None:
        """The server loses everything; zombies find nothing; a waiter creates the job again."""
        keys = self.server.call("KEYS", f"{self.homes.redis.address.prefix}:*")
        for key in keys:
            if not key.endswith(b":clock"):
                self.server.call("DEL", key)
        attempt = self.some_attempt()
        if attempt is not None:
            claim, told = attempt.claim, settled(attempt.left)
            assert self.is_gone(
                lambda home: home.submit(JOB, claim.chunk_id, claim.token, claim.epoch, told)
            )
        assert self.is_gone(lambda home: home.tick(JOB))
        self.homes.begin_epoch(spans_of(self.known))

    def torn(self) -> None:
        """Somebody deletes one key; the next look finds what is left to be no job any more."""
        if self.homes.job.state is JobState.DONE:
            return
        name = self.draw.choice(sorted(set(OF_A_JOB) - {"job", "ev"}))
        if self.server.call("DEL", self.homes.redis.key(JOB, name)):
            assert self.is_gone(lambda home: home.tick(JOB)), f"nobody missed the key {name}"
            self.homes.begin_epoch(spans_of(self.known))

    # --- parts

    def is_gone(self, step: Callable[[Ledger], object]) -> bool:
        try:
            step(self.homes.redis)
        except UnknownJobError:
            return True
        return False

    def speak(
        self, attempt: Attempt, step: Callable[[Ledger], Any], *, or_ready: bool = True
    ) -> Any:
        claim = attempt.claim
        return self.homes.speak(claim.chunk_id, claim.token, step, or_ready=or_ready)

    def some_attempt(self) -> Attempt | None:
        return self.draw.choice(self.attempts[-8:]) if self.attempts else None

    def some_items(self, attempt: Attempt) -> list[int]:
        share = self.draw.choice([0.0, 0.3, 0.7])
        return [item for item in attempt.left if self.draw.random() < share]

    def is_current(self, attempt: Attempt) -> bool:
        chunk = self.homes.chunks.get(attempt.claim.chunk_id)
        return (
            chunk is not None
            and chunk.state is ChunkState.RUNNING
            and chunk.token == attempt.claim.token
            and attempt.claim.epoch == self.homes.epoch
        )
