"""Looks at a Redis as a physician does: what it is, how it is set, who works there, what waits."""

from __future__ import annotations

import time
from typing import Any, Final

from msgspec import Struct

from proxywell.errors import StateError
from proxywell.refresh.books import JobRow, JobState
from proxywell.refresh.engines.node import is_gone, version_of
from proxywell.refresh.ledgers.redis import RedisLedger, open_redis_ledger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link

QUESTIONS: Final = 5  # the quickest answer counts: this machine may be busy
JOBS_MAX: Final = 20  # open ones whose leases are read


class ServerFacts(Struct, frozen=True, kw_only=True):
    """What a server says of itself.

    Attributes:
        name: ``Redis`` or ``Valkey``, as it calls itself.
        version: Its own, such as ``7.0.15``.
        speaks: The version of Redis that it is compatible with, as numbers.
        mode: ``standalone``, ``cluster`` or ``sentinel``.
        role: ``master`` or ``slave``.
        policy: What it does when it is full; None where it does not say.
        memory_used_bytes: Of its data and itself.
        memory_max_bytes: At which it is full; 0: no limit.
        keeps_writes: Whether it has an append-only file.
        save_trouble: Why it cannot save to its disk; None while it can.
    """

    name: str
    version: str
    speaks: tuple[int, ...]
    mode: str
    role: str
    policy: str | None
    memory_used_bytes: int
    memory_max_bytes: int
    keeps_writes: bool
    save_trouble: str | None


class OpenJob(Struct, frozen=True, kw_only=True):
    """A job that is not done.

    Attributes:
        job_id: Its id.
        age_s: Since it was created.
        unwatched_s: Since anybody who waits for it last looked.
        ready: Chunks that wait for a worker.
        running: Chunks that a worker has.
        beat_s: Since the oldest beat among them; None: none is running.
        closed: Nothing is left to check; it waits to be finalised.
    """

    job_id: str
    age_s: float
    unwatched_s: float
    ready: int
    running: int
    beat_s: float | None
    closed: bool


class Survey(Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        answer_ms: How long one question took, at best.
        server: None where the server does not let us ask.
        versions: Of the mains that live, by name; None where a main does not say.
        jobs: Those that are not done, oldest first, at most ``JOBS_MAX``.
        jobs_open: How many those are in all.
    """

    answer_ms: float
    server: ServerFacts | None
    versions: dict[str, str | None]
    jobs: tuple[OpenJob, ...]
    jobs_open: int


def survey(address: RedisAddress) -> Survey:
    """Look, and change nothing.

    Raises:
        StateError: The server cannot be used; the sentence says why.
    """
    ledger = open_redis_ledger(address)
    link = Link(address)
    try:
        answer_ms = min(_answer_ms(link) for _ in range(QUESTIONS))
        rows = sorted(
            (row for row in ledger.jobs() if row.state is not JobState.DONE),
            key=lambda row: row.created_at_s,
        )
        seconds, micros = link.call("TIME")
        now_s = int(seconds) + int(micros) / 1e6
        return Survey(
            answer_ms=answer_ms,
            server=_server(link),
            versions={
                main: version_of(main) for main in sorted(ledger.nodes("")) if not is_gone(main)
            },
            jobs=tuple(_open_job(row, ledger, link, now_s) for row in rows[:JOBS_MAX]),
            jobs_open=len(rows),
        )
    finally:
        link.close()
        ledger.close()


def _answer_ms(link: Link) -> float:
    asked_s = time.perf_counter()
    link.call("PING")
    return 1_000 * (time.perf_counter() - asked_s)


def _open_job(row: JobRow, ledger: RedisLedger, link: Link, now_s: float) -> OpenJob:
    first: list[bytes] = link.call("ZRANGE", ledger.key(row.job_id, "lease"), 0, 0, "WITHSCORES")
    beat_s = now_s - (float(first[1]) - row.terms.lease_s) if first else None
    return OpenJob(
        job_id=row.job_id,
        age_s=max(0.0, now_s - row.created_s),
        unwatched_s=max(0.0, now_s - row.seen_s),
        ready=row.ready,
        running=row.running,
        beat_s=None if beat_s is None else max(0.0, beat_s),
        closed=row.state is not JobState.OPEN,
    )


def _server(link: Link) -> ServerFacts | None:
    try:
        told = _read(link.call("INFO"))
    except StateError:
        return None
    own = told.get("valkey_version")
    sentence = told.get("redis_version", "")
    return ServerFacts(
        name="Valkey" if own else "Redis",
        version=own or sentence or "of no version",
        speaks=tuple(int(part) for part in sentence.split(".") if part.isdigit()),
        mode=told.get("redis_mode") or told.get("server_mode") or "standalone",
        role=told.get("role", "master"),
        policy=told.get("maxmemory_policy"),
        memory_used_bytes=int(told.get("used_memory", "0")),
        memory_max_bytes=int(told.get("maxmemory", "0")),
        keeps_writes=told.get("aof_enabled") == "1",
        save_trouble=_save_trouble(told),
    )


def _save_trouble(told: dict[str, str]) -> str | None:
    if told.get("aof_enabled") == "1" and told.get("aof_last_write_status", "ok") != "ok":
        return "its append-only file cannot be written"
    if told.get("rdb_last_bgsave_status", "ok") != "ok":
        return "its last snapshot failed"
    return None


def _read(info: Any) -> dict[str, str]:
    lines = bytes(info).decode("utf-8", "replace").splitlines()
    return dict(line.partition(":")[::2] for line in lines if ":" in line)
