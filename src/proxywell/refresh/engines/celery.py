"""The Celery engine: doorbells on Redis, and how a waiter is woken.

A doorbell is a message with the job's id and means "there may be work", nothing else. Lost, late,
doubled or forged: all harmless, because whoever hears it asks the ledger.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from celery import Celery
from kombu.exceptions import OperationalError

from proxywell.errors import StateError, UnknownJobError
from proxywell.refresh.books import JobRow
from proxywell.refresh.engines.broker import TRANSPORT_OPTIONS, DoorbellAMQP
from proxywell.refresh.engines.unable import Hopelessness, Unable
from proxywell.refresh.ledgers.journal import open_journal
from proxywell.refresh.ledgers.journaled import JournaledLedger
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ledgers.redis_address import TLS, UNIX, RedisAddress
from proxywell.refresh.ledgers.redis_link import Link
from proxywell.refresh.ports import Bell, Engine, Ledger
from proxywell.telemetry.events import emit
from proxywell.telemetry.work import DoorbellsLost

DOORBELL: Final = "proxywell.refresh.doorbell"
BELLS_MAX: Final = 64  # at once: each starts a shift, and a shift takes many chunks
BLOCK_S: Final = 0.25
LOOK_S: Final = 1.0  # how often to ask whether anybody can check


def queue_name(address: RedisAddress) -> str:
    """The queue on which the doorbells of one pool lie."""
    return f"{address.prefix}.refresh"


def doorbell_app(address: RedisAddress) -> Celery:
    """A Celery app that can ring, and take what was rung; nothing is connected yet.

    JSON only; no state of tasks is kept anywhere, so there is nothing to wait for but the ledger.
    ``retry_on_timeout`` stays unset: with it a worker's main can wait for ever on a fresh
    connection (docs/adr/0001-ledger-not-chord.md).
    """
    app = Celery("proxywell", set_as_current=False, amqp=DoorbellAMQP)
    app.conf.update(
        broker_url=_broker_url(address),
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=address.answer_s,
        broker_pool_limit=1,
        broker_transport_options={
            "socket_timeout": 5.0,
            "socket_connect_timeout": address.answer_s,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "global_keyprefix": f"{address.prefix}:broker:",
            "fanout_prefix": True,
            "fanout_patterns": True,
            **TRANSPORT_OPTIONS,
        },
        broker_use_ssl=_tls(address),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        task_queues={queue_name(address): {}},
        task_default_queue=queue_name(address),
        task_create_missing_queues=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,  # of late acks: none of ours
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
    )
    return app


class CeleryKind:
    """Jobs that live on a Redis server and are worked on by whoever hears doorbells there.

    Args:
        address: The server.
        state_dir: Where the waiter's journal is.
        configured: Whether its address was configured; else it is this state directory's own.
        failure: Says why nobody can go on; asked at every look. None: others look after that.
    """

    name = "celery"

    def __init__(
        self,
        address: RedisAddress,
        state_dir: Path,
        *,
        configured: bool,
        failure: Callable[[], BaseException | None] = lambda: None,
    ) -> None:
        self.server = address.shown if configured else None
        self._address = address
        self._state_dir = state_dir
        self._failure = failure

    def open_ledger(self) -> Ledger:
        """See ``EngineKind``; the server is not asked yet.

        Raises:
            StateError: The state directory or its ledger cannot be made, read or written.
        """
        return JournaledLedger(RedisLedger(self._address), open_journal(self._state_dir))

    def engine(self, job: JobRow) -> Engine | None:
        """See ``EngineKind``."""
        return CeleryEngine(job.job_id, self._address, self._failure)

    def bell(self, job_id: str) -> Bell:
        """See ``EngineKind``."""
        return RedisBell(self._address, RedisLedger(self._address).events_key(job_id))


class CeleryEngine:
    """Rings for one job; whoever hears it works. See ``refresh.ports.Engine``.

    Ringing is done on a thread of its own, so that a broker that does not answer costs the waiter
    nothing. What could not be rung is rung again by the ledger's own rule.

    Args:
        job_id: The job.
        address: Where the queue is.
        failure: Says why nobody can go on; None while somebody can, or may come. What workers say
            of themselves comes in addition.
    """

    def __init__(
        self,
        job_id: str,
        address: RedisAddress,
        failure: Callable[[], BaseException | None] = lambda: None,
    ) -> None:
        self._job_id = job_id
        self._address = address
        self._failure = failure
        self._owed = 0
        self._news = threading.Condition()
        self._over = False
        self._hopeless: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="doorbells", daemon=True)

    def start(self) -> None:
        """Begin to ring; returns at once, works twice."""
        if self._thread.ident is None and not self._over:
            self._thread.start()

    def ring(self, bells: int) -> None:
        """Send doorbells soon, at most ``BELLS_MAX`` at a time."""
        if bells <= 0:
            return
        self.start()
        with self._news:
            self._owed = min(self._owed + bells, BELLS_MAX)
            self._news.notify()

    def failure(self) -> BaseException | None:
        """Why nobody can go on; None while somebody can: workers come and go."""
        return self._failure() or self._hopeless

    def stop(self) -> None:
        """Stop ringing; workers go on by themselves. Works twice."""
        with self._news:
            self._over = True
            self._news.notify()
        if self._thread.ident is not None:
            self._thread.join(self._address.answer_s + 1.0)

    # --- on its own thread

    def _run(self) -> None:
        app = doorbell_app(self._address)
        asking = _Asking(self._job_id, self._address)
        look_s = time.monotonic() + LOOK_S
        try:
            while True:  # ends when it is over and nothing is owed
                with self._news:
                    if not self._owed and not self._over:
                        self._news.wait(max(0.0, look_s - time.monotonic()))
                    bells, self._owed = self._owed, 0
                if bells:
                    self._send(app, bells)
                elif self._over:
                    return
                if time.monotonic() >= look_s:
                    self._hopeless = asking.ask()
                    look_s = time.monotonic() + LOOK_S
        finally:
            asking.close()
            app.close()

    def _send(self, app: Celery, bells: int) -> None:
        try:
            ring(app, self._job_id, bells)
        except (OperationalError, OSError) as error:
            emit(DoorbellsLost(job_id=self._job_id, bells=bells, reason=_cause(error)))


class _Asking:
    """Asks whether anybody who is there can check for a job; for one thread."""

    def __init__(self, job_id: str, address: RedisAddress) -> None:
        self._job_id = job_id
        self._ledger = RedisLedger(address)
        self._note = Unable(address, job_id)
        self._hopelessness = Hopelessness(time.monotonic)

    def ask(self) -> BaseException | None:
        """Why nobody can; None also when that cannot be found out."""
        try:
            unable = self._note.all()
            if not unable:
                self._hopelessness.forget()
                return None
            job, there = self._ledger.status(self._job_id), self._ledger.nodes(self._job_id)
        except (StateError, UnknownJobError):
            return None
        return self._hopelessness.look(job, there, unable)

    def close(self) -> None:
        self._note.close()
        self._ledger.close()


def ring(app: Celery, job_id: str, bells: int = 1) -> None:
    """Send doorbells for a job.

    They do not expire: Celery would ask the worker's own clock, and one that is ahead would hear
    none of them. A job that nobody works on stalls before many have piled up.

    Raises:
        OperationalError: The broker does not answer.
    """
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=0, timeout=app.conf.broker_connection_timeout)
        with app.amqp.Producer(connection) as producer:
            for _ in range(bells):
                app.send_task(DOORBELL, args=(job_id,), producer=producer, retry=False)


class RedisBell:
    """Wakes a waiter when the job's books have news; for one thread.

    It listens to the stream of the job's events, so workers ring by what they write.

    Args:
        address: The server.
        key: Of the job's stream of events.
    """

    def __init__(self, address: RedisAddress, key: str) -> None:
        self._link = Link(address)
        self._key = key
        self._block_s = min(BLOCK_S, address.answer_s / 2)
        self._heard: bytes = b"0-0"
        with contextlib.suppress(StateError):
            self._listen_from_now()

    def ring(self) -> None:
        """Nothing to do: the ledger's own events wake."""

    def wait(self, timeout_s: float) -> None:
        """Return when there is an event, or after the time, or after ``BLOCK_S``."""
        block_s = min(timeout_s, self._block_s)
        began_s = time.monotonic()
        try:
            told = self._link.call(
                "XREAD", "BLOCK", max(1, int(block_s * 1000)), "STREAMS", self._key, self._heard
            )
            if told:
                self._heard = told[0][1][-1][0]
            else:
                self._listen_from_now()  # a stream that was lost begins anew
        except StateError:
            time.sleep(max(0.0, block_s - (time.monotonic() - began_s)))

    def close(self) -> None:
        """Let go of the connection; works twice."""
        self._link.close()

    def _listen_from_now(self) -> None:
        last = self._link.call("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        self._heard = last[0][0] if last else b"0-0"


class ClockBell:
    """A shift's bell where nothing can ring it: the shift looks by the clock."""

    def fileno(self) -> int | None:
        """None."""
        return None

    def hush(self) -> None:
        """Nothing was rung."""

    def ring(self) -> None:
        """Nothing to do: the ledger's own events wake the waiter."""

    def wait(self, timeout_s: float) -> None:
        """Return after the time."""
        time.sleep(timeout_s)

    def close(self) -> None:
        """Nothing to close."""


def _broker_url(address: RedisAddress) -> str:
    """The address in the form that kombu reads."""
    named = "" if address.username is None else quote(address.username, safe="")
    secret = "" if address.password is None else f":{quote(address.password.reveal(), safe='')}"
    user = f"{named}{secret}@" if named or secret else ""
    if address.scheme == UNIX:
        place = quote(address.path)
        return f"redis+socket://{user}{place}?virtual_host={address.database}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{address.scheme}://{user}{host}:{address.port}/{address.database}"


def _tls(address: RedisAddress) -> dict[str, Any] | None:
    if address.scheme != TLS:
        return None
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **dict(address.tls)}


def _cause(error: BaseException) -> str:
    """The first line of what lies under kombu's own error."""
    return (str(error) or type(error).__name__).partition("\n")[0]
