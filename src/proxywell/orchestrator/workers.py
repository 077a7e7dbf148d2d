"""The Celery worker that we start where nobody else works."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from proxywell.config.schema import Settings
from proxywell.config.tree import table_of
from proxywell.orchestrator.children import Order
from proxywell.orchestrator.health import Health
from proxywell.orchestrator.place import ServerPlace
from proxywell.orchestrator.supervise import Death, told
from proxywell.orchestrator.tending import Pace
from proxywell.refresh.engines.node import process_of
from proxywell.refresh.ledgers.redis_address import RedisAddress

WORKER: Final = "the Celery worker"
WRONG_USE: Final = 2
ABSENT_S: Final = 5.0
IDLE_MAX_S: Final = 20.0
_SECTIONS: Final = ("redis", "refresh", "log")
PROGRAM: Final = (sys.executable, "-P", "-m", "proxywell", "worker")


class WorkerMain:
    """One worker's main process with its children.

    Args:
        health: What is known of the Redis that it is to work at.
        workers: How many child processes.
        always: Start it also where others work.
        alone: Whether no other command of this state directory starts workers; where one may,
            nobody must have been there for ``ABSENT_S``.
        place: Its files.
        settings: Of this command.
        program: What to run; ``--workers``, ``--state`` and ``--config`` are added.
    """

    name = WORKER
    pace = Pace(rise_s=60.0, silent_s=15.0, stop_s=15.0)

    def __init__(
        self,
        health: Health,
        *,
        workers: int,
        always: bool,
        alone: Callable[[], bool],
        place: ServerPlace,
        settings: Settings,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        self._health = health
        self._wanted = always
        self._alone = alone
        self._place = place
        self._settings = settings
        self._program = (*program, "--workers", str(workers), "--state", str(place.state_dir))
        self._absent_from_s: float | None = None
        self._started_s = 0.0

    def may_start(self) -> bool:
        """Whether the server is ready, and nobody works there or ours is wanted anyway.

        Once it was wanted it stays so: it is started again when it ended, whoever else came.
        """
        if not self._health.is_ready():
            self._absent_from_s = None
            return False
        if not self._wanted:
            self._wanted = self._is_deserted()
        return self._wanted

    def _is_deserted(self) -> bool:
        if self._health.mains is None or self._health.mains:
            self._absent_from_s = None
            return False
        now_s = time.monotonic()
        if self._absent_from_s is None:
            self._absent_from_s = now_s
        return self._alone() or now_s - self._absent_from_s >= ABSENT_S

    def order(self) -> Order:
        """How it is run; the address goes by the environment, which only this user can read."""
        self._started_s = time.monotonic()
        return Order(
            command=(*self._program, "--config", str(self._place.write_worker_config())),
            log=self._place.worker_log,
            environment=_environment(self._settings, self._health.where()),
        )

    def well(self, pid: int) -> bool | None:
        """Whether one of its processes tells the ledger that it lives, and takes what waits."""
        mains = self._health.mains
        if mains is None or not self._health.is_ready():
            return None
        idle_s = min(self._health.idle_s, time.monotonic() - self._started_s)
        return idle_s < IDLE_MAX_S and any(_is_of(main, pid) for main in mains)

    def death(self, status: int, words: Sequence[str]) -> Death:
        """Why it ended; one that found its settings wrong would find them so again."""
        hopeless = status == WRONG_USE
        return Death(told(status, words), hopeless, status if hopeless else 1)


def _environment(settings: Settings, address: RedisAddress) -> dict[str, str]:
    """This process' environment, with what concerns a worker in place of any other setting.

    So a worker sees the settings of the command that starts it, wherever they came from. What it
    checks with comes with each job.
    """
    table = table_of(Settings)
    ours = {name for spec in table.values() for name in (spec.variable, f"{spec.variable}_FILE")}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    for path, spec in table.items():
        section, _, name = path.partition(".")
        value = getattr(getattr(settings, section), name) if section in _SECTIONS else None
        if value is not None:
            environment[spec.variable] = _text(value)
    here = {
        "redis.url": address.url.reveal(),
        "redis.allow_plaintext": "true",  # it was asked for, or the server is here
    }
    return environment | {table[path].variable: value for path, value in here.items()}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_of(main: str, session: int) -> bool:
    """Whether a main is a process of this session on this machine: our child, or a child of it."""
    pid = process_of(main)
    if pid is None:
        return False
    try:
        return os.getsid(pid) == session
    except OSError:
        return False
