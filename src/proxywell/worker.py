"""What a Celery worker process runs: a main that hears doorbells, children that hold shifts.

``run_worker`` keeps a main going. The main (Celery, prefork) tells the ledger that this node is
there; each child answers a doorbell with one shift. Loop, reactor and connections are made in the
child. Workers close jobs and never finalise them: that needs the state directory.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import re
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing, suppress
from functools import partial
from importlib.metadata import version
from typing import Any, Final, TypeAlias

from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError
from celery import Celery, Task, signals
from celery.apps.worker import Worker as CeleryMain
from celery.platforms import SecurityWarning
from celery.worker import state as celery_state
from celery.worker.request import Request
from kombu.exceptions import OperationalError
from msgspec import Struct

from proxywell import app as joined
from proxywell.config.schema import Settings
from proxywell.errors import ProxywellError, StateError, UnknownJobError
from proxywell.net.loop import run
from proxywell.refresh.books import JobState, Worker
from proxywell.refresh.engines.caretaker import Caretaker
from proxywell.refresh.engines.celery import DOORBELL, ClockBell, doorbell_app, queue_name, ring
from proxywell.refresh.engines.keeping import Keeper
from proxywell.refresh.engines.loop_thread import interruptible
from proxywell.refresh.engines.node import Pulse, node_name
from proxywell.refresh.engines.tie import tie_to_parent
from proxywell.refresh.engines.unable import Inability, Unable
from proxywell.refresh.ledgers.redis import RedisLedger, open_redis_ledger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ports import CandidateChecker
from proxywell.refresh.shift import Shift, ShiftEnd, ShiftTerms
from proxywell.refresh.standstill import LoopHungError
from proxywell.telemetry.events import LedgerTroubled, emit
from proxywell.telemetry.work import (
    DoorbellIgnored,
    DoorbellsLost,
    WorkerCannotCheck,
    WorkerIsDeaf,
    WorkerStarted,
)

CheckerOf: TypeAlias = Callable[[Settings], AbstractAsyncContextManager[CandidateChecker]]

_LOG: Final = logging.getLogger("proxywell")

IDLE_S: Final = 2.0  # a shift that is given nothing for so long makes room for other jobs
LAST_RESORT_S: Final = 30.0  # behind shift and attempt, before Celery ends a shift
CHILD_START_S: Final = 30.0  # on a busy machine; then Celery takes a child for one that hangs
BUG_PAUSE_S: Final = 1.0
_LOOK_S: Final = 0.05
_JOB_ID: Final = re.compile(r"[0-9A-Za-z_.-]{1,64}")
_CELERY_LOGGERS: Final = (
    "celery.app.trace",
    "celery.concurrency.asynpool",
    "celery.pool",
    "celery.worker",
    "celery.worker.autoscale",
    "celery.worker.consumer.consumer",
    "celery.worker.request",
    "celery.worker.strategy",
    "kombu.transport.redis",
    "multiprocessing",
)


def run_worker(
    settings: Settings, *, workers: int, checker_of: CheckerOf = joined.open_checker
) -> int:
    """Work on refresh jobs until SIGTERM or SIGINT, then give back what is not finished.

    The main is started again, with a back-off, when it ends by itself: Celery's does when Redis
    refuses a connection while it restarts. A second SIGINT ends everything at once; what was
    being checked is then rescued by whoever waits.

    Args:
        settings: All settings; ``redis.url`` names the server.
        workers: Children, each with a reactor of its own; 1 to 64.
        checker_of: Makes a job's checker, inside a child's loop.

    Returns:
        The exit status.

    Raises:
        SettingsError: No Redis is named, or its URL is wrong.
        StateError: It does not answer, or refuses us.
    """
    address = RedisAddress.of(settings.redis)
    open_redis_ledger(address).close()
    emit(
        WorkerStarted(
            pid=os.getpid(),
            host=socket.gethostname(),
            redis=address.shown,
            queue=queue_name(address),
            workers=workers,
        )
    )
    return Keeper(lambda: _Main(settings, address, workers, checker_of).run()).keep()


class _Main:
    """Celery's main: hears doorbells, hands them to children, tells that this node is there."""

    def __init__(
        self, settings: Settings, address: RedisAddress, workers: int, checker_of: CheckerOf
    ) -> None:
        refresh = settings.refresh
        self._address = address
        self._workers = workers
        self._leaving = mmap.mmap(-1, 1)  # shared with the children; not zero: begin nothing
        self._app = doorbell_app(address)
        self._app.conf.update({"worker_proc_alive_timeout": CHILD_START_S})
        node = node_name(version("proxywell"))
        self._pulse = Pulse(
            node,
            "",
            open_ledger=partial(RedisLedger, address),
            lease_s=refresh.lease_s,
            beat_s=refresh.beat_s,
        )
        self._caretaker = Caretaker(
            node,
            address,
            queue=f"{address.prefix}:broker:{queue_name(address)}",
            hearing=_Hearing(workers),
            ring=partial(_ring, self._app),
        )
        last_s = refresh.shift_s + refresh.attempt_hard_s + LAST_RESORT_S
        self._app.task(
            name=DOORBELL,
            base=_doorbell_kind(self._caretaker),
            soft_time_limit=last_s,
            time_limit=last_s + 15.0,
            typing=False,
        )(_Shifts(settings, address, node, checker_of, self._app, self._leaving).hear)

    def run(self) -> int:
        """Be the main until it is asked to end; its exit status."""
        parent = os.getpid()

        def ready(**_: Any) -> None:
            self._pulse.start()
            self._caretaker.start()

        def leaving(**_: Any) -> None:
            self._leaving[0] = 1
            self._pulse.drain()
            if sys.platform == "linux":  # whose kernel ends the idle children with us
                threading.Thread(target=self._leave, name="leaving", daemon=True).start()

        def in_child(**_: Any) -> None:
            tie_to_parent(parent)

        def as_we_log(**_: Any) -> None:
            """Keep our handlers: Celery would set up its own."""

        signals.setup_logging.connect(as_we_log)
        signals.worker_ready.connect(ready)
        signals.worker_shutting_down.connect(leaving)
        signals.worker_process_init.connect(in_child)
        for name in _CELERY_LOGGERS:
            logging.getLogger(name).addFilter(_in_our_tone)
        warnings.filterwarnings("ignore", category=SecurityWarning)  # about pickle, refused anyway
        sys.__stdout__ = None  # type: ignore[misc] # Celery says there that it is going to end
        main = CeleryMain(
            app=self._app,
            hostname=f"proxywell-{parent}@{socket.gethostname()}",
            concurrency=self._workers,
            pool="prefork",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        try:
            main.start()
        finally:
            self._caretaker.stop(self._address.answer_s)
            self._pulse.stop(self._address.answer_s)
        return int(main.exitcode or 0)

    def _leave(self) -> None:
        """End as soon as no child holds a shift; Celery's own way there takes two seconds more."""
        while celery_state.active_requests:  # ends with the drained shifts, or with Celery's main
            time.sleep(_LOOK_S)
        self._caretaker.stop(self._address.answer_s)
        self._pulse.stop(self._address.answer_s)
        os._exit(0)


class _Hearing(Struct, frozen=True):
    """What a main's Celery has in hand; see ``caretaker.Hearing``."""

    workers: int

    def is_idle(self) -> bool:
        return len(celery_state.reserved_requests) < self.workers

    def heard(self) -> int:
        return int(celery_state.all_total_count[0])

    def deaf(self) -> None:
        emit(WorkerIsDeaf())
        os._exit(1)  # the children end with us, and another main is started


def _doorbell_kind(caretaker: Caretaker) -> type[Task]:
    """The task of a doorbell, which tells the caretaker what became of its child."""

    class Heard(Request):  # type: ignore[misc] # Celery has no types
        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
            error = getattr(exc_info.exception, "exc", exc_info.exception)
            if isinstance(error, WorkerLostError) and self.worker_pid:
                caretaker.died(_named(self.args) or "", self.worker_pid, _how(error))
            return super().on_failure(exc_info, *args, **kwargs)

        def on_success(self, *args: Any, **kwargs: Any) -> Any:
            caretaker.well(_named(self.args) or "")
            return super().on_success(*args, **kwargs)

    class Doorbell(Task):  # type: ignore[misc] # Celery has no types
        Request = Heard

    return Doorbell


class _Shifts(Struct):
    """What a child does with doorbells: one shift for each."""

    settings: Settings
    address: RedisAddress
    node: str
    checker_of: CheckerOf
    app: Celery
    main_leaves: mmap.mmap
    serial: int = 0
    leaving: bool = False

    def hear(self, *given: object, **_more: object) -> None:
        """Hold a shift for the job that a doorbell names; whatever else came is ignored."""
        job_id = _named(given)
        if job_id is None:
            emit(DoorbellIgnored(reason="it names no job"))
            return
        if self.main_leaves[0]:
            return
        kept = signal.getsignal(signal.SIGTERM)
        try:
            end = self._held(job_id)
        finally:
            signal.signal(signal.SIGTERM, kept)
        if self.leaving:
            raise SystemExit(0)
        if end is ShiftEnd.OVER:
            _ring(self.app, job_id)

    def _held(self, job_id: str) -> ShiftEnd | None:
        """Why the shift ended; None if it could not be held."""
        try:
            return run(self._shift(job_id))
        except UnknownJobError:
            emit(DoorbellIgnored(reason=f"there is no job {job_id}"))
        except StateError as error:
            emit(LedgerTroubled(job_id=job_id, reason=str(error)))
        except ProxywellError as error:
            emit(WorkerCannotCheck(job_id=job_id, reason=str(error)))
        except (LoopHungError, SoftTimeLimitExceeded):
            return ShiftEnd.OVER
        except Exception as error:  # noqa: BLE001 - a bug of ours ends this shift, not the worker
            _LOG.exception("a shift of job %s ended by a bug of ours", job_id)
            self._tell_unable(job_id, error)
            time.sleep(BUG_PAUSE_S)  # it may meet the next shift too
        return None

    def _tell_unable(self, job_id: str, error: Exception) -> None:
        with suppress(StateError), closing(Unable(self.address, job_id)) as note:
            note.say(self.node, Inability.of(error))

    async def _shift(self, job_id: str) -> ShiftEnd:
        ledger = RedisLedger(self.address)
        try:
            job = ledger.status(job_id)
            if job.state is not JobState.OPEN:
                return ShiftEnd.CLOSED
            if not job.ready:
                return ShiftEnd.IDLE
            spec = ledger.spec(job_id)
        finally:
            ledger.close()
        self.serial += 1
        refresh = self.settings.refresh
        terms = ShiftTerms(
            beat_s=min(refresh.beat_s, job.terms.lease_s / 4),
            shift_s=refresh.shift_s,
            idle_s=IDLE_S,
            hang_s=refresh.hang_s,
        )
        with interruptible() as thread:
            async with AsyncExitStack() as stack:
                checker = await self._checker(stack, job_id, spec)
                loop = asyncio.get_running_loop()
                pass_on = partial(loop.run_in_executor, None, _ring, self.app, job_id)
                shift = Shift(
                    job_id,
                    Worker(node=self.node, holder=f"{self.node}/{os.getpid()}.{self.serial}"),
                    open_ledger=partial(RedisLedger, self.address),
                    checker=checker,
                    terms=terms,
                    bell=ClockBell(),
                    thread=thread,
                    begun=pass_on if job.ready > 1 else None,  # one bell wakes all children
                )
                loop.add_signal_handler(signal.SIGTERM, self._leave, shift)
                end = await shift.run()
                with suppress(StateError), closing(Unable(self.address, job_id)) as note:
                    note.withdraw(self.node)
                return end

    async def _checker(self, stack: AsyncExitStack, job_id: str, spec: bytes) -> CandidateChecker:
        """The job's checker; whether it could be made is told to whoever waits."""
        try:
            settings = joined.as_job_was_started(self.settings, spec)
            checker = await stack.enter_async_context(self.checker_of(settings))
        except Exception as error:
            self._tell_unable(job_id, error)
            raise _CannotCheckError(Inability.of(error).sentence) from error
        return checker

    def _leave(self, shift: Shift) -> None:
        self.leaving = True
        shift.leave()


class _CannotCheckError(ProxywellError):
    """This worker cannot make the job's checker."""

    code = "cannot_check"


def _named(given: object) -> str | None:
    """The job that a doorbell's arguments name; None if it is no doorbell of ours."""
    job_id = given[0] if isinstance(given, tuple | list) and len(given) == 1 else None
    return job_id if isinstance(job_id, str) and _JOB_ID.fullmatch(job_id) else None


def _how(error: WorkerLostError) -> str:
    """What ended a child, out of billiard's sentence about it."""
    found = re.search(r"prematurely: (.*?)(?: Job:|$)", str(error))
    return found[1].rstrip(".") if found else "without a word"


def _ring(app: Celery, job_id: str) -> None:
    try:
        ring(app, job_id)
    except (OperationalError, OSError) as error:
        emit(DoorbellsLost(job_id=job_id, bells=1, reason=str(error)))


def _in_our_tone(record: logging.LogRecord) -> bool:
    """A worker repairs what Celery calls an error; nobody needs its traceback to know that.

    Nothing is told twice: a child that died is the caretaker's to tell, a server that stays away
    the pulse's.
    """
    text = record.getMessage()
    if (
        record.name == "multiprocessing"
        or "WorkerLostError" in text
        or text.startswith("consumer: Cannot connect")
    ):
        return False
    if record.levelno >= logging.WARNING:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = None
        record.msg, record.args = text.partition("\n")[0], ()
    return True
