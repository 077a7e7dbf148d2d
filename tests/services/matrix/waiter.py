"""``python -m tests.services.matrix.waiter``: creates a job, waits for it, and writes the report.

It is what ``proxywell refresh --engine celery`` does once its lists are read, with the room, the
journal, the ledger and the pool of the product.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from proxywell.config.schema import PoolSettings
from proxywell.config.secret import Secret
from proxywell.errors import ProxywellError
from proxywell.model.report import PoolChange
from proxywell.pool.pool import Pool
from proxywell.refresh.engines.celery import CeleryKind
from proxywell.refresh.ledgers import redis as redis_home
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ports import VerdictSink
from proxywell.refresh.report import Dossier
from proxywell.refresh.run import RefreshRoom
from proxywell.telemetry.remarks import listen
from tests.network.refresh_fakes import candidates
from tests.services.matrix.orders import Orders, Outcome
from tests.services.matrix.scripted import Script

SEAL_S: Final = 4.0  # what a slow pool takes, as the comparison's callback does


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class OddPool:
    """The pool, of which sealing fails as told; every seal is logged outside of Redis."""

    def __init__(self, pool: VerdictSink, kind: str, script: Script) -> None:
        self._pool = pool
        self._kind = kind
        self._script = script
        self.record = pool.record
        self.sealed = pool.sealed

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        self._tell("s", job_id, epoch)
        if self._kind == "raises":
            raise RuntimeError("the pool is out of order")
        if self._kind == "slow":
            time.sleep(SEAL_S)
        if self._kind == "dies_before" and self._script.once("sealing"):
            _die()
        change = self._pool.seal(job_id, epoch)
        self._tell("e", job_id, epoch)
        if self._kind == "dies_after" and self._script.once("sealing"):
            _die()
        return change

    def _tell(self, what: str, job_id: str, epoch: int) -> None:
        line = f"{what} {job_id} {epoch} {os.getpid()} {time.monotonic():.6f}\n"
        with Path(f"{self._script.log}.seals").open("a", encoding="ascii") as log:
            log.write(line)


def _plant(orders: Orders) -> None:
    """Another rule book, and deaths inside of a step, where no signal from outside can aim."""
    if orders.defect:
        whole = redis_home.rule_book
        vars(redis_home)["rule_book"] = lambda: whole(orders.defect)
    if orders.dies == "mid_create":
        staged = redis_home.RedisLedger._stage

        def stage(*given: Any) -> None:
            staged(*given)
            _die()

        setattr(redis_home.RedisLedger, staged.__name__, stage)


def _carry(orders: Orders) -> dict[str, object]:
    state = Path(orders.state)
    address = RedisAddress.parse(Secret(orders.url), answer_s=orders.answer_s)
    with Pool.open(state, PoolSettings()) as pool:
        sink = OddPool(pool, orders.pool, orders.script)
        kind = CeleryKind(address, state, configured=True)
        with RefreshRoom(state, orders.refresh, sink=sink, kind=kind) as room:
            if orders.items:
                orders.hold()
                room.create(candidates(orders.items), Dossier(), job_id=orders.job)
            if orders.dies == "before_bells":
                _die()
            if orders.cancels:
                report = room.cancel(orders.job)
            else:
                report = room.wait_for(orders.job, bound_s=orders.bound_s)
            told: dict[str, object] = msgspec.to_builtins(report)
            return told


def main() -> int:
    orders = Orders.told()
    listen(form="text", level="debug")
    _plant(orders)
    try:
        outcome = Outcome(report=_carry(orders), at_s=time.monotonic())
    except ProxywellError as error:
        outcome = Outcome(error=str(error), at_s=time.monotonic())
    made = Path(f"{orders.outcome}.new")
    made.write_bytes(msgspec.json.encode(outcome))
    made.rename(orders.outcome)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
