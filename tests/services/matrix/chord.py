"""The comparison: the same chunks as the header of a plain Celery chord.

``python -m tests.services.matrix.chord worker`` and ``… waiter`` follow ``Orders``. A chunk is one
header task; the callback stands for the seal. Nothing of proxywell takes part.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from celery import Celery, chord
from celery.result import AsyncResult

from tests.services.matrix.orders import JOB, Orders, Outcome
from tests.services.matrix.scripted import CHUNK, END, START, Script, tell
from tests.services.matrix.waiter import SEAL_S

DEFAULT: Final = "default"
BEST: Final = "best practice"
CHORD_ID: Final = "the-chord"
QUEUE: Final = "celery"
DISPATCHED: Final = 20  # messages after which a dispatcher dies in the middle
_WITHOUT_END: Final = {"max_retries": None, "interval_start": 0, "interval_step": 0.2}
_SOCKETS: Final = {
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 5,
}
PRACTICES: Final[dict[str, dict[str, Any]]] = {
    DEFAULT: {"broker_connection_retry_on_startup": True},
    BEST: {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "broker_transport_options": {
            "visibility_timeout": 10,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            **_SOCKETS,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "result_backend_always_retry": True,
        "result_backend_transport_options": {"retry_policy": {"timeout": 5.0, **_WITHOUT_END}},
        "redis_socket_timeout": 5,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 5,
        "task_publish_retry_policy": _WITHOUT_END,
        "worker_soft_shutdown_timeout": 5,
        "worker_enable_soft_shutdown_on_idle": True,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
    },
}


def make_app(orders: Orders) -> Celery:
    """The app with its two tasks."""
    app = Celery("matrix", broker=orders.url, backend=orders.url)
    app.conf.update(PRACTICES[orders.chord] | orders.chord_settings)
    script, log = orders.script, os.open(orders.script.log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def check_chunk(first: int) -> int:
        items = range(first, first + CHUNK)
        for at in items:
            tell(log, START, at)
        if any(at in script.raises for at in items):
            raise RuntimeError("cannot check one")
        while any(at in script.hangs for at in items):
            time.sleep(1.0)
        time.sleep(max(script.slow.get(at, script.check_s) for at in items))
        if any(at in script.deadly for at in items):
            os._exit(9)
        if any(at in script.deadly_once for at in items) and script.once("died"):
            os._exit(9)
        for at in items:
            tell(log, END, at)
        return CHUNK

    def total(counts: list[int]) -> int:
        _seal(script, "s")
        if orders.pool == "raises":
            raise RuntimeError("the pool is out of order")
        if orders.pool == "slow":
            time.sleep(SEAL_S)
        _seal(script, "e")
        return sum(counts)

    app.task(name="chunk", time_limit=orders.refresh.attempt_hard_s)(check_chunk)
    app.task(name="total")(total)
    return app


def _seal(script: Script, what: str) -> None:
    with Path(f"{script.log}.seals").open("a", encoding="ascii") as log:
        log.write(f"{what} {JOB} 1 {os.getpid()} {time.monotonic():.6f}\n")


def work(orders: Orders) -> None:
    """Be a worker, as its documentation starts one."""
    app = make_app(orders)
    if orders.script.gap:
        counted = app.backend.on_chord_part_return

        def lost(*given: Any, **named: Any) -> None:
            if orders.script.once("gap"):
                os._exit(1)
            counted(*given, **named)

        app.backend.on_chord_part_return = lost
    app.worker_main(["worker", f"--concurrency={orders.children}", "--loglevel=WARNING"])


def wait(orders: Orders) -> Outcome:
    """Send the chord if there is none, and wait for it without a limit, as by its id alone."""
    app = make_app(orders)
    if orders.items:
        if orders.dies == "mid_create":
            _die_while_sending(app)
        orders.hold()
        header = [app.tasks["chunk"].s(first) for first in range(0, orders.items, CHUNK)]
        chord(header, app=app)(app.tasks["total"].s().set(task_id=CHORD_ID))
    try:
        told = AsyncResult(CHORD_ID, app=app).get(timeout=None)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return Outcome(error=f"{type(error).__name__}: {error}", at_s=time.monotonic())
    return Outcome(report={"items": told}, at_s=time.monotonic())


def _die_while_sending(app: Celery) -> None:
    send, sent = app.amqp.send_task_message, []

    def counted(*given: Any, **named: Any) -> Any:
        sent.append(1)
        if len(sent) > DISPATCHED:
            os.kill(os.getpid(), signal.SIGKILL)
        return send(*given, **named)

    app.amqp.__dict__["send_task_message"] = counted


def main() -> int:
    orders = Orders.told()
    if sys.argv[1] == "worker":
        work(orders)
        return 0
    outcome = wait(orders)
    made = Path(f"{orders.outcome}.new")
    made.write_bytes(msgspec.json.encode(outcome))
    made.rename(orders.outcome)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
