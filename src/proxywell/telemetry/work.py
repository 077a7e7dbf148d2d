"""The events about workers, and about the doorbells that call them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from proxywell.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(Event):
    """Worker {pid} waits for {queue} at {redis} with {workers} children; Ctrl-C ends it."""

    name = "worker.started"
    pid: int
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
    """A check of job {job_id} hung for {stood_s} s; {chunks} chunks are handed back."""

    name = "refresh.check_hung"
    level = logging.WARNING
    job_id: str
    chunks: int
    stood_s: float
