"""What a Celery worker process runs: a main that hears doorbells, children that hold shifts.

``run_worker`` keeps a main going. The main (Celery, prefork) tells the ledger that this node is
there; each child answers a doorbell with one shift. Loop, reactor and connections are made in the
child. Workers close jobs and never finalise them: that needs the state directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib.metadata import version
from types import FrameType
from typing import Any, Final, TypeAlias

from celery import Celery, signals
from celery.apps.worker import Worker as CeleryMain
from celery.platforms import SecurityWarning
from celery.worker import state
from kombu.exceptions import OperationalError
from msgspec import Struct

from proxywell import app as joined
from proxywell.config.schema import Settings
from proxywell.errors import ProxywellError, StateError, UnknownJobError
from proxywell.net.loop import run
from proxywell.refresh.books import JobState, Worker
from proxywell.refresh.engines.celery import DOORBELL, ClockBell, doorbell_app, queue_name, ring
from proxywell.refresh.engines.node import Pulse, node_name
from proxywell.refresh.ledgers.redis import RedisLedger, open_redis_ledger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ports import CandidateChecker
from proxywell.refresh.shift import Shift, ShiftEnd, ShiftTerms
from proxywell.telemetry.events import emit
from proxywell.telemetry.work import (
    DoorbellIgnored,
    DoorbellsLost,
    WorkerCannotCheck,
    WorkerMainEnded,
    WorkerStarted,
)

CheckerOf: TypeAlias = Callable[[Settings], AbstractAsyncContextManager[CandidateChecker]]

IDLE_S: Final = 2.0  # a shift that is given nothing for so long makes room for other jobs
LAST_RESORT_S: Final = 30.0  # behind shift and attempt, before Celery ends a shift
_BACK_OFF_FIRST_S: Final = 0.5
_BACK_OFF_MOST_S: Final = 10.0
_STEADY_S: Final = 30.0  # a main that lived so long is started again at once
_LOOK_S: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1
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
            redis=address.shown, queue=queue_name(address), workers=workers, pid=os.getpid()
        )
    )
    return _Watch(lambda: _be_main(settings, address, workers, checker_of)).keep()


class _Watch:
    """Keeps one main process going. It is forked, so nothing secret is handed over in words."""

    def __init__(self, be_main: Callable[[], int]) -> None:
        self._be_main = be_main
        self._main = 0
        self._asked = 0  # how often we were asked to end

    def keep(self) -> int:
        """Run mains one after the other until asked to end; the last one's exit status."""
        kept = {number: signal.signal(number, self._end) for number in _ENDING}
        try:
            return self._keep()
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _keep(self) -> int:
        pause_s = _BACK_OFF_FIRST_S
        while True:  # ends when a main ends that was asked to
            born_s = time.monotonic()
            status = self._one_main()
            if self._asked:
                return 0 if status in (0, -signal.SIGTERM) else 1
            if time.monotonic() - born_s > _STEADY_S:
                pause_s = _BACK_OFF_FIRST_S
            emit(WorkerMainEnded(how=_in_words(status), restart_s=pause_s))
            if not self._pause(pause_s):
                return 0
            pause_s = min(2 * pause_s, _BACK_OFF_MOST_S)

    def _pause(self, pause_s: float) -> bool:
        """Let time pass; False if we were asked to end meanwhile."""
        due_s = time.monotonic() + pause_s
        while time.monotonic() < due_s and not self._asked:
            time.sleep(_LOOK_S)
        return not self._asked

    def _one_main(self) -> int:
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        self._main = os.fork()
        if self._main == 0:
            os._exit(self._as_main(parent))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        _, status = os.waitpid(self._main, 0)
        self._main = 0
        return os.waitstatus_to_exitcode(status)

    def _as_main(self, parent: int) -> int:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        os.setpgid(0, 0)  # Ctrl-C is for the process above; it tells us
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return 1
        try:
            return self._be_main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        except BaseException:
            logging.getLogger("proxywell").exception("the worker's main ended")
            return 1

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self._asked += 1
        if self._main:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._main, signal.SIGTERM if self._asked == 1 else signal.SIGKILL)


_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


def _be_main(settings: Settings, address: RedisAddress, workers: int, checker_of: CheckerOf) -> int:
    """Be Celery's main: hear doorbells, hand them to children, tell that this node is there."""
    node = node_name(version("proxywell"))
    app = doorbell_app(address)
    shifts = _Shifts(settings, address, node, checker_of, app)
    last_s = settings.refresh.shift_s + settings.refresh.attempt_hard_s + LAST_RESORT_S

    def doorbell(*args: object, **_more: object) -> None:
        shifts.answer(args)

    app.task(name=DOORBELL, soft_time_limit=last_s, time_limit=last_s + 15.0, typing=False)(
        doorbell
    )

    pulse = Pulse(
        node,
        "",
        open_ledger=partial(RedisLedger, address),
        lease_s=settings.refresh.lease_s,
        beat_s=settings.refresh.beat_s,
    )

    def ready(**_: Any) -> None:
        pulse.start()
        _ring_for_open_jobs(app, address)

    def leaving(**_: Any) -> None:
        pulse.drain()
        if sys.platform == "linux":  # whose kernel ends the idle children with us
            threading.Thread(target=_leave, args=(pulse, address), daemon=True).start()

    def as_we_log(**_: Any) -> None:
        """Keep our handlers: Celery would set up its own."""

    signals.setup_logging.connect(as_we_log)
    signals.worker_ready.connect(ready)
    signals.worker_shutting_down.connect(leaving)
    for name in _CELERY_LOGGERS:
        logging.getLogger(name).addFilter(_in_our_tone)
    warnings.filterwarnings("ignore", category=SecurityWarning)  # about pickle, which is refused
    sys.__stdout__ = None  # type: ignore[misc] # Celery says there that it is going to end
    main = CeleryMain(
        app=app,
        hostname=f"proxywell-{os.getpid()}@{socket.gethostname()}",
        concurrency=workers,
        pool="prefork",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    try:
        main.start()
    finally:
        pulse.stop(address.answer_s)
    return int(main.exitcode or 0)


def _leave(pulse: Pulse, address: RedisAddress) -> None:
    """End as soon as no child holds a shift; Celery's own way there takes two seconds more."""
    while state.active_requests:  # ends with the drained shifts, or with Celery's main
        time.sleep(_LOOK_S)
    pulse.stop(address.answer_s)
    os._exit(0)


def _ring_for_open_jobs(app: Celery, address: RedisAddress) -> None:
    """What was rung while no worker was here may be gone."""
    try:
        ledger = RedisLedger(address)
        try:
            waiting = ledger.open_jobs()
        finally:
            ledger.close()
        for job_id in waiting:
            ring(app, job_id)
    except (StateError, OperationalError, OSError) as error:
        emit(DoorbellsLost(job_id="every open one", bells=1, reason=str(error)))


class _Shifts(Struct):
    """What a child does with doorbells: one shift for each."""

    settings: Settings
    address: RedisAddress
    node: str
    checker_of: CheckerOf
    app: Celery
    serial: int = 0
    leaving: bool = False

    def answer(self, given: tuple[object, ...]) -> None:
        """Hold a shift for the job that a doorbell names; whatever else came is ignored."""
        job_id = given[0] if len(given) == 1 else None
        if not isinstance(job_id, str) or _JOB_ID.fullmatch(job_id) is None:
            emit(DoorbellIgnored(reason="it names no job"))
            return
        kept = signal.getsignal(signal.SIGTERM)
        try:
            end = run(self._shift(job_id))
        except UnknownJobError:
            emit(DoorbellIgnored(reason=f"there is no job {job_id}"))
            return
        except ProxywellError as error:
            emit(WorkerCannotCheck(job_id=job_id, reason=str(error)))
            return
        finally:
            signal.signal(signal.SIGTERM, kept)
        if self.leaving:
            raise SystemExit(0)
        if end is ShiftEnd.OVER:
            self._ring(job_id)

    def _ring(self, job_id: str) -> None:
        try:
            ring(self.app, job_id)
        except (OperationalError, OSError) as error:
            emit(DoorbellsLost(job_id=job_id, bells=1, reason=str(error)))

    async def _shift(self, job_id: str) -> ShiftEnd:
        ledger = RedisLedger(self.address)
        try:
            job = ledger.status(job_id)
            if job.state is not JobState.OPEN:
                return ShiftEnd.CLOSED
            if not job.ready:
                return ShiftEnd.IDLE
            settings = joined.as_job_was_started(self.settings, ledger.spec(job_id))
        finally:
            ledger.close()
        self.serial += 1
        terms = ShiftTerms(
            beat_s=min(self.settings.refresh.beat_s, job.terms.lease_s / 4),
            shift_s=self.settings.refresh.shift_s,
            idle_s=IDLE_S,
        )
        async with self.checker_of(settings) as checker:
            if job.ready > 1:  # so that one bell wakes all children, however many were lost
                await asyncio.to_thread(self._ring, job_id)
            shift = Shift(
                job_id,
                Worker(node=self.node, holder=f"{self.node}/{os.getpid()}.{self.serial}"),
                open_ledger=partial(RedisLedger, self.address),
                checker=checker,
                terms=terms,
                bell=ClockBell(),
            )
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._leave, shift)
            return await shift.run()

    def _leave(self, shift: Shift) -> None:
        self.leaving = True
        shift.leave()


def _in_our_tone(record: logging.LogRecord) -> bool:
    """A worker repairs what Celery calls an error; nobody needs its traceback to know that."""
    if record.levelno >= logging.WARNING:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = None
    return True


def _in_words(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
