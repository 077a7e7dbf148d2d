"""The events about processes that a command starts: a private Redis, workers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from proxywell.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStarted(Event):
    """Started {service} (process {pid})."""

    name = "services.started"
    level = logging.DEBUG
    service: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceNotStarted(Event):
    """Cannot start {service} just now ({reason}); it is tried again."""

    name = "services.not_started"
    level = logging.WARNING
    service: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnded(Event):
    """{service} ended unasked ({how}); another one starts in {restart_s:.1f} s."""

    name = "services.ended"
    level = logging.WARNING
    service: str
    how: str
    restart_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSilent(Event):
    """{service} has not answered for {silent_s:.0f} s; it is stopped and started again."""

    name = "services.silent"
    level = logging.WARNING
    service: str
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceKilled(Event):
    """{service} did not end within {stop_s:.0f} s of being asked and was killed."""

    name = "services.killed"
    level = logging.WARNING
    service: str
    stop_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesShared(Event):
    """Another command looks after the services of {state_dir}; this one uses them."""

    name = "services.shared"
    state_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesTakenOver(Event):
    """The command that looked after the services of {state_dir} is gone; this one does it now."""

    name = "services.taken_over"
    state_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerDataSetAside(Event):
    """The private server's data is damaged and was moved to {where}; jobs are entered anew."""

    name = "services.data_set_aside"
    level = logging.WARNING
    where: str
