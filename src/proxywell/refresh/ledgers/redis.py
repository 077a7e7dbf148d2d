"""The Redis ledger: the rules as scripts in the server, for any number of machines.

The rule book is written out a second time beside this file, in Lua, function by function as in
``refresh/{bookkeeping,ledger,closing}.py``; a stateful property test compares the two step by
step. One call is one script is one atomic step, and every instant is Redis' own. Here is only how
a call is put into words and its answer read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec

from proxywell.errors import (
    ProxywellError,
    StateError,
    StoreAwayError,
    StoreDamagedError,
    UnknownJobError,
)
from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    NOTHING,
    Beat,
    BeatAnswer,
    Claim,
    FinAnswer,
    JobRow,
    Lease,
    LedgerEvent,
    NoClaim,
    Part,
    Settled,
    SubmitAnswer,
    Tick,
    Worker,
)
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link, Refusal, Script
from proxywell.refresh.ledgers.redis_rows import (
    claim_of,
    event_of,
    job_row,
    new_row,
    number_of,
    pack,
    parts_of,
)
from proxywell.refresh.ledgers.redis_troubles import damaged
from proxywell.refresh.ledgers.ruled import (
    Keep,
    Planned,
    first_chunks,
    keep,
    stages,
    unknown_job,
)
from proxywell.refresh.ports import Block, NewJob
from proxywell.refresh.spans import Spans

VERSION = 1  # of the rules and of how the books are written; machines must agree on it
CHAPTERS = ("spans", "deadline", "books", "bookkeeping", "ledger", "closing", "steps")
OF_A_JOB = ("job", "items", "cuts", "chunk", "ready", "suspects", "lease", "held", "out", "ev")
_STAGE = ("items", "cuts", "chunk", "ready")
_LINES_AT_ONCE = 100


@cache
def rule_book(defect: str = "") -> Script:
    """The script of all steps.

    Args:
        defect: Lua that takes the place of a rule; only to show that a defect is found.
    """
    here = Path(__file__).parent
    chapters = [(here / f"{name}.lua").read_text(encoding="utf-8") for name in CHAPTERS]
    return Script("\n".join([f"local VERSION = {VERSION}", *chapters[:-1], defect, chapters[-1]]))


class RedisLedger:
    """All jobs under one prefix of one Redis server.

    One object belongs to one thread and has one connection, made at the first call and again
    after it was lost. Every call ends within ``address.answer_s``, twice that if the connection
    has to be made anew.

    Args:
        address: The server, and the prefix.
        clock_key: For tests: a key that holds the time, in place of Redis' own.
        rules: The rule book; another one only to show that a defect is found.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        clock_key: str | None = None,
        rules: Script | None = None,
    ) -> None:
        self.address = address
        self._link = Link(address, _REFUSALS)
        self._clock_key = clock_key
        self._rules = rules or rule_book()
        self._home = [f"{address.prefix}:{name}" for name in ("open", "jobs", "nodes")]

    def create(self, job: NewJob, blocks: Iterable[Block]) -> bool:
        """Write the items in stages under a nonce, then make the job exist in one step.

        A stage that is never finished expires after an hour. The job's instants are Redis' own.
        """
        if self._epoch_is_there(job):
            return False
        nonce = token_hex(8)
        stage = [self.key(job.job_id, f"stage:{nonce}:{name}") for name in _STAGE]
        try:
            written = chunks = 0
            for step in stages(first_chunks(blocks, job.settled)):
                self._stage(job.job_id, step, stage)
                written += len(step)
                chunks += sum(chunk is not None for _, chunk in step)
            bodies = [*new_row(job, chunks), job.spec]
            told = [job.age_s, job.created_at_s, written]
            return bool(self._step(job.job_id, "create", told, bodies, keys=stage))
        except BaseException:
            with suppress(StateError):
                self._step(job.job_id, "drop_stage", [], keys=stage)
            raise

    def claim(self, job_id: str, worker: Worker, token: str) -> Claim | NoClaim:
        """See ``ChunkRules.claim``. Not sent again by itself: it might claim a second chunk."""
        told = [worker.node, worker.holder, token]
        answer = self._step(job_id, "claim", told, again=False)
        return claim_of(answer[0]) if isinstance(answer, list) else NoClaim(answer.decode())

    def blocks(self, job_id: str, spans: Spans) -> list[Block]:
        """The blocks that hold these items, rising."""
        told = [spans[0], spans[-1]] if spans else [0, 0]
        found = self._step(job_id, "blocks", told)
        return [Block(int(lo), int(hi), body) for lo, hi, body in found if spans]

    def beat(self, job_id: str, worker: Worker, beats: Sequence[Beat]) -> list[BeatAnswer]:
        """See ``ChunkRules.beat``."""
        told = [
            [beat.chunk_id, beat.token, beat.settled.items, beat.settled.working] for beat in beats
        ]
        bodies = [beat.settled.body for beat in beats]
        answers = self._step(job_id, "beat", [worker.node, told], bodies)
        return [BeatAnswer(answer.decode()) for answer in answers]

    def submit(
        self,
        job_id: str,
        chunk_id: int,
        token: str,
        epoch: int,
        settled: Settled,
        *,
        deferred: Spans = (),
        error: str | None = None,
    ) -> SubmitAnswer:
        """See ``ChunkRules.submit``."""
        told = [chunk_id, token, epoch, settled.items, settled.working, deferred, error]
        answer = self._step(job_id, "submit", told, [settled.body])
        return SubmitAnswer(answer.decode())

    def release(
        self, job_id: str, chunk_id: int, token: str, settled: Settled = NOTHING
    ) -> BeatAnswer:
        """See ``ChunkRules.release``."""
        told = [chunk_id, token, settled.items, settled.working]
        return BeatAnswer(self._step(job_id, "release", told, [settled.body]).decode())

    def tick(self, job_id: str) -> Tick:
        """See ``LedgerRules.tick``; also puts off the keys' expiry.

        A job of which some keys were deleted counts as one that is not there.
        """
        line, terms, ring, nodes, stalled = self._step(job_id, "tick", [])
        return Tick(job_row(line, terms), ring, nodes, bool(stalled))

    def expire(self, job_id: str, held: Sequence[tuple[int, str]]) -> int:
        """See ``LedgerRules.expire``."""
        return int(self._step(job_id, "expire", [list(held)]))

    def cancel(
        self, job_id: str, items_why: GivenUpWhy, why: str, detail: str | None = None
    ) -> bool:
        """See ``LedgerRules.cancel``."""
        return bool(self._step(job_id, "cancel", [items_why, why, detail]))

    def fin_claim(self, job_id: str, token: str) -> FinAnswer:
        """See ``LedgerRules.fin_claim``."""
        return FinAnswer(self._step(job_id, "fin_claim", [token]).decode())

    def fin_beat(self, job_id: str, token: str) -> FinAnswer:
        """See ``LedgerRules.fin_beat``."""
        return FinAnswer(self._step(job_id, "fin_beat", [token]).decode())

    def fin_fail(self, job_id: str, token: str, error: str) -> FinAnswer:
        """See ``LedgerRules.fin_fail``."""
        return FinAnswer(self._step(job_id, "fin_fail", [token, error]).decode())

    def fin_commit(self, job_id: str, token: str, summary: bytes) -> FinAnswer:
        """See ``LedgerRules.fin_commit``; the summary is kept in the same step."""
        return FinAnswer(self._step(job_id, "fin_commit", [token], [summary]).decode())

    def status(self, job_id: str) -> JobRow:
        """The line as it stands; changes nothing."""
        return job_row(*self._step(job_id, "status", []))

    def spec(self, job_id: str) -> bytes:
        """What the caller gave at creation."""
        return bytes(self._step(job_id, "spec", []))

    def summary(self, job_id: str) -> bytes | None:
        """What ``fin_commit`` kept; None before."""
        kept = self._step(job_id, "summary", [])
        return None if kept is None else bytes(kept)

    def leases(self, job_id: str) -> list[Lease]:
        """All running attempts."""
        found = [
            Lease(chunk_id, token.decode(), node.decode(), holder.decode())
            for chunk_id, token, node, holder in self._step(job_id, "leases", [])
        ]
        return sorted(found, key=lambda lease: lease.chunk_id)

    def parts(self, job_id: str, after: int, limit: int) -> list[Part]:
        """Verdicts behind sequence number ``after``, in order, at most ``limit`` of them."""
        found = self._step(job_id, "parts", [after, limit]) if limit > 0 else []
        with self._readable(job_id):
            return parts_of(found, after)

    def events(self, job_id: str, after: int, limit: int) -> list[LedgerEvent]:
        """Events behind sequence number ``after``, in order, at most ``limit`` of them.

        Only the latest ten thousand are kept.
        """
        found = self._step(job_id, "events", [after, limit]) if limit > 0 else []
        with self._readable(job_id):
            return [event_of(entry, told) for entry, told in found]

    def events_key(self, job_id: str) -> str:
        """The stream of a job's events; an entry's id is ``SEQ-0``, so XREAD goes on from it."""
        return self.key(job_id, "ev")

    def jobs(self) -> list[JobRow]:
        """All jobs that are kept, newest first; without those of another version."""
        lines = self._lines(self._names(only_open=False))[1]
        return sorted(lines, key=lambda line: (line.created_at_s, line.job_id), reverse=True)

    def open_jobs(self) -> list[str]:
        """Jobs that are not done: for whom a worker that starts should look, newest first."""
        names = self._names(only_open=True)
        kept = {line.job_id for line in self._lines(names)[1]}
        return [name for name in names if name in kept]

    def node_beat(self, node: str, job_id: str, *, term_s: float, draining: bool = False) -> None:
        """Say that a main lives, for ``term_s`` from now; ``job_id`` empty: for all jobs."""
        self._step("", "node_beat", [node, job_id, term_s, draining])

    def node_gone(self, node: str) -> None:
        """Forget a main that ended or is known to be gone."""
        self._step("", "node_gone", [node])

    def nodes(self, job_id: str) -> frozenset[str]:
        """Mains that live, for this job; ``job_id`` empty: those that work for all jobs."""
        return frozenset(name.decode() for name in self._step(job_id, "nodes", [job_id]))

    def probe(self) -> None:
        """See that the server answers, runs our script, takes writes and lets us keep a queue.

        Raises:
            StoreAwayError: It does not answer, or takes no writes now.
            StateError: It refuses us, or is no Redis.
        """
        self._step("", "probe", [])
        self._link.call("MULTI")
        try:
            for command, *more in _OF_A_QUEUE:  # refused ones are refused now; none is done
                key = f"{self.address.prefix}:broker:probe"
                self._link.call(command, key, *more, again=False)
        finally:
            self._link.call("DISCARD", again=False)

    def sweep(self, now_s: float) -> None:
        """Drop what is past keeping, in short steps; keys that nobody sweeps expire as well."""
        clock_s, lines = self._lines(self._names(only_open=False))
        for line in lines:
            still = keep(line, now_s=now_s, clock_s=clock_s)
            if still is not Keep.ALL:
                self._step(line.job_id, "drop", [still is Keep.NOTHING])

    def close(self) -> None:
        """Let go of the connection; works twice."""
        self._link.close()

    # --- one call's parts

    def key(self, job_id: str, name: str) -> str:
        """A key of a job; all of them lie in one hash slot."""
        return f"{self.address.prefix}:{{{job_id}}}:{name}"

    def _step(
        self,
        job_id: str,
        step: str,
        told: Sequence[Any],
        bodies: Sequence[bytes] = (),
        *,
        keys: Sequence[str] = (),
        again: bool = True,
    ) -> Any:
        named = [self.key(job_id, name) for name in OF_A_JOB] + self._home
        clock = [] if self._clock_key is None else [self._clock_key]
        arguments = [step, pack(told), "clock" if clock else "", *bodies]
        try:
            return self._link.run(self._rules, [*named, *keys, *clock], arguments, again=again)
        except Refusal as refusal:
            raise self._refused(refusal, job_id) from None

    def _refused(self, refusal: Refusal, job_id: str) -> ProxywellError:
        where = f"Redis at {self.address.shown}"
        if refusal.code == "OTHERVERSION":
            theirs, ours = refusal.words[:2]
            return StateError(
                f"job {job_id} in {where} was made by another proxywell (ledger version {theirs},"
                f" this one knows {ours}); run the same version on every machine"
            )
        if refusal.code == "STRANGEKEY":
            key, found, wanted = refusal.words[:3]
            return StateError(
                f"{where}: key {key} is a {found} where proxywell keeps a {wanted}; another"
                " program uses the same names: delete that key, or set another redis.prefix"
            )
        if refusal.code == "TORN":
            return UnknownJobError(
                f"{where} has only pieces of job {job_id}: some of its keys were deleted; whoever"
                " waits for it creates it again (`proxywell job wait`)"
            )
        if refusal.code == "NOJOB":
            return unknown_job(job_id, self._names(only_open=False))
        return StoreAwayError(f"{where} lost a part of job {job_id} while it was being created")

    @contextmanager
    def _readable(self, job_id: str) -> Iterator[None]:
        try:
            yield
        except (msgspec.MsgspecError, LookupError, ValueError) as error:
            raise damaged(self.address, self.key(job_id, "").rstrip(":")) from error

    def _stage(self, job_id: str, step: Sequence[Planned], keys: Sequence[str]) -> None:
        told = [
            [block.lo, block.hi] if chunk is None else [block.lo, block.hi, chunk.id, chunk.items]
            for block, chunk in step
        ]
        self._step(job_id, "stage", told, [block.body for block, _ in step], keys=keys)

    def _epoch_is_there(self, job: NewJob) -> bool:
        """A look before the items are sent; what counts is the last step."""
        return any(line.epoch >= job.epoch for line in self._lines([job.job_id])[1])

    def _names(self, *, only_open: bool) -> list[str]:
        return [name.decode() for name in self._step("", "names", [only_open])]

    def _lines(self, names: Sequence[str]) -> tuple[float, list[JobRow]]:
        """The ledger's time, and the lines of these jobs as far as they are there and ours."""
        clock_s, lines = 0.0, []
        for first in range(0, len(names), _LINES_AT_ONCE):
            some = names[first : first + _LINES_AT_ONCE]
            keys = [self.key(name, "job") for name in some]
            packed, found = self._step("", "lines", [len(some)], keys=keys)
            clock_s = number_of(packed)
            for name, line in zip(some, found, strict=True):
                if not isinstance(line, list):
                    self._step(name, "forget", [name])
                elif int(line[0]) == VERSION:
                    with suppress(StoreDamagedError), self._readable(name):
                        lines.append(job_row(line[1], line[2]))
        return clock_s, lines


def open_redis_ledger(address: RedisAddress) -> RedisLedger:
    """Connect, and see that the server is one that we can use.

    Raises:
        StoreAwayError: It does not answer, or takes no writes now.
        StateError: It refuses us, or is no Redis.
    """
    ledger = RedisLedger(address)
    try:
        ledger.probe()
    except BaseException:
        ledger.close()
        raise
    return ledger


_OF_A_QUEUE = (  # what kombu asks of a broker, beside the ledger's own scripts
    ("LPUSH", "x"), ("RPUSH", "x"), ("BRPOP", 1), ("LLEN",), ("DEL",), ("SADD", "x"),
    ("SMEMBERS",), ("SREM", "x"), ("HSET", "x", "x"), ("HGET", "x"), ("HDEL", "x"),
    ("ZADD", 1, "x"), ("ZREM", "x"), ("ZREVRANGEBYSCORE", 1, 0),
)  # fmt: skip
_REFUSALS = frozenset({"NOJOB", "TORN", "OTHERVERSION", "STRANGEKEY", "STAGELOST"})
