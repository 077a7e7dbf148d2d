"""The events about workers, and about the doorbells that call them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from proxywell.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(Event):
    """Worker {pid} on {host}: {workers} children wait for {queue} at {redis}; Ctrl-C ends it."""

    name = "worker.started"
    pid: int
    host: str
    redis: str
    queue: str
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMainEnded(Event):
    """The worker's main ended unasked ({how}); another one starts in {restart_s:.1f} s."""

    name = "worker.main_ended"
    level = logging.WARNING
    how: str
    restart_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCannotCheck(Event):
    """This worker cannot check for job {job_id}: {reason}."""

    name = "worker.cannot_check"
    level = logging.WARNING
    job_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorbellIgnored(Event):
    """A doorbell was ignored: {reason}."""

    name = "worker.doorbell_ignored"
    level = logging.WARNING
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorbellsLost(Event):
    """Doorbells of job {job_id} could not be rung ({reason}); they are rung again."""

    name = "refresh.doorbells_lost"
    level = logging.WARNING
    job_id: str
    bells: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded(Event):
    """Worker {holder} ended unasked ({how}); another one starts in {restart_s:.1f} s."""

    name = "refresh.worker_ended"
    level = logging.WARNING
    job_id: str
    holder: str
    how: str
    restart_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckHung(Event):
    """A check of job {job_id} hung for {stood_s} s; handed back: {chunks} chunks."""

    name = "refresh.check_hung"
    level = logging.WARNING
    job_id: str
    chunks: int
    stood_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnded(Event):
    """Child {pid} ended at job {job_id} ({how}); taken back: {chunks} chunks."""

    name = "worker.child_ended"
    level = logging.WARNING
    job_id: str
    pid: int
    how: str
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerReached(Event):
    """The books can be reached again, after {away_s} s."""

    name = "refresh.ledger_reached"
    level = logging.INFO
    job_id: str  # empty: those of all jobs
    away_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIsDeaf(Event):
    """The worker's main does not hear doorbells any more; another one takes its place."""

    name = "worker.deaf"
    level = logging.WARNING
