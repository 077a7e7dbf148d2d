"""Brings up what a distributed refresh needs and is not there: a Redis, and workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from proxywell.config.schema import Settings
from proxywell.errors import ProxywellError, StateError, UsageError
from proxywell.orchestrator.health import Health
from proxywell.orchestrator.place import ServerPlace
from proxywell.orchestrator.server import PrivateServer, installed_server
from proxywell.orchestrator.supervise import ServiceFailedError, Supervisor
from proxywell.orchestrator.workers import PROGRAM, WorkerMain
from proxywell.refresh.ledgers.redis import open_redis_ledger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.telemetry.events import emit
from proxywell.telemetry.services import ServicesShared

READY_S: Final = 75.0  # a large log is read first, and a first server may have to be replaced
_LOOK_S: Final = 0.02
_NEEDED: Final = ("celery", "redis")


@contextmanager
def running(
    settings: Settings,
    state_dir: Path,
    *,
    workers: int,
    always: bool = False,
    worker_program: tuple[str, ...] = PROGRAM,
) -> Iterator[Services]:
    """Bring up what is missing, keep it running, and stop what was started at the end.

    A configured ``redis.url`` is used as it is. Without one, a private server runs in
    ``services/`` of the state directory; if another command looks after it already, that one's
    is used, and looked after from the moment at which the other command is gone. A worker with
    ``workers`` children is started when no worker's main lives there. What was started ends with
    this process, whatever ends it.

    Args:
        settings: Where Redis is, and how to log.
        state_dir: The state directory; it exists and can be written.
        workers: How many processes check.
        always: Start them also where others work.
        worker_program: The worker's command.

    Yields:
        Services whose Redis answers; workers may still be starting.

    Raises:
        UsageError: Celery or redis-py is not installed, or the URL has an error.
        StateError: The configured Redis refuses us, or the directory cannot be written.
        NoServerError: None is configured, and there is no program to start.
        ServiceFailedError: The private server cannot be kept running.
    """
    must_be_installed()
    place = ServerPlace(state_dir)
    place.make()
    services = Services(settings, place)
    services.add_worker(settings, workers=workers, always=always, program=worker_program)
    try:
        services.start()
        yield services
    finally:
        services.stop()


def must_be_installed() -> None:
    """See that the libraries of the Celery engine are there, without importing them.

    Raises:
        UsageError: One is not.
    """
    for name in _NEEDED:
        if find_spec(name) is None:
            raise UsageError(
                f"the Celery engine needs {name}, which is not installed: `pip install"
                " 'proxywell[distributed]'`, or use --engine local, which needs nothing"
            )


class Services:
    """A Redis, found or brought up, and workers at it.

    Args:
        settings: Where Redis is.
        place: Where a private one lives.

    Raises:
        StateError: The configured Redis refuses us, or a directory cannot be made.
        SettingsError: Its URL has an error.
        NoServerError: None is configured, and there is no program to start.
    """

    def __init__(self, settings: Settings, place: ServerPlace) -> None:
        redis = settings.redis
        self._place = place
        self._server: PrivateServer | None = None
        self._worker: WorkerMain | None = None
        if redis.url is None:
            place.make_for_server()
            self._server = PrivateServer(
                place, installed_server(), prefix=redis.prefix, answer_s=redis.answer_s
            )
            self.health = self._server.health
        else:
            address = RedisAddress.of(redis)
            open_redis_ledger(address).close()
            self.health = Health(lambda: address, private=False)
        self._supervisor = Supervisor([])

    @property
    def address(self) -> RedisAddress:
        """The Redis in use; stays the same once it has answered."""
        return self.health.where()

    def add_worker(
        self, settings: Settings, *, workers: int, always: bool, program: tuple[str, ...]
    ) -> None:
        """Want a worker; before ``start``.

        Args:
            settings: Of this command; those that concern a worker are handed to it.
            workers: How many children it has.
            always: Start it also where others work.
            program: Its command.
        """
        self._worker = WorkerMain(
            self.health,
            workers=workers,
            always=always,
            alone=lambda: self._server is None or self._server.owned,
            place=self._place,
            settings=settings,
            program=program,
        )

    def start(self) -> None:
        """Bring up what is missing; returns when the Redis answers.

        Raises:
            ServiceFailedError: It cannot be kept running.
            StateError: It does not get ready within ``READY_S``.
        """
        charges = [charge for charge in (self._server, self._worker) if charge is not None]
        self._supervisor = Supervisor(charges)
        self.health.start()
        self._supervisor.start()
        if self._server is not None:
            self._until_ready(self._server)

    def _until_ready(self, server: PrivateServer) -> None:
        end_s = time.monotonic() + READY_S
        while not self.health.is_ready():
            failure = self.failure()
            if failure is not None:
                raise failure
            if time.monotonic() >= end_s:
                raise StateError(self._not_ready(server))
            time.sleep(_LOOK_S)
        server.relied_on = True
        if not server.owned:
            emit(ServicesShared(state_dir=str(self._place.state_dir)))

    def _not_ready(self, server: PrivateServer) -> str:
        whose = "" if server.owned else ", which another command looks after,"
        said = f" ({self.health.trouble})" if self.health.trouble is not None else ""
        return (
            f"{server.name} in {self._place.server_home}{whose} is not ready within"
            f" {READY_S:.0f} s{said}; see {self._place.log}"
        )

    def failure(self) -> ProxywellError | None:
        """Why no job can go on with these services; None while one can.

        A worker of ours that cannot be kept running is no failure while others work there.
        """
        if self.health.bug is not None:
            return ServiceFailedError.of_a_bug(self.health.bug, "asking Redis how it is")
        if self._server is not None and (error := self._supervisor.failure(self._server.name)):
            return error
        if self._worker is not None and not self.health.mains:
            return self._supervisor.failure(self._worker.name)
        return None

    def stop(self) -> None:
        """Stop what was started, within the stated times; an interrupt kills it at once."""
        try:
            self._supervisor.stop()
        except BaseException:
            self._supervisor.hurry()
            raise
        finally:
            self.health.stop()
            if self._server is not None:
                self._server.let_go()
