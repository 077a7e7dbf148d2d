"""Rows in which whoever creates, waits or finalises dies, doubles, comes late or gives up."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGKILL

from tests.services.matrix.lab import READY_S, Lab, Setup
from tests.services.matrix.oracle import Expected
from tests.services.matrix.row import LEASE_S, RESCUE_S, WORK_S, Row
from tests.services.matrix.waiter import SEAL_S

LATE_S = 6.0
FIN_LEASE_S = 5.0


def nothing(lab: Lab) -> None:
    lab.moment()
    lab.struck()


def next_waiter(after_s: float) -> Callable[[Lab], None]:
    """The first waiter ends itself somewhere; another one comes."""

    def strike(lab: Lab) -> None:
        first = lab.waiters[0]
        lab.until(
            lambda: first.poll() is not None,
            bound_s=READY_S + 2 * WORK_S,
            what="the first waiter's death",
        )
        lab.struck()
        lab.note(f"SIGKILL to {first.pid} (waiter, by itself)")
        lab.pause(after_s)
        lab.add_waiter()

    return strike


def kill_waiter(after_s: float) -> Callable[[Lab], None]:
    def strike(lab: Lab) -> None:
        lab.moment()
        lab.send(SIGKILL, lab.waiters[0].pid, whom="waiter")
        lab.pause(after_s)
        lab.add_waiter()

    return strike


def kill_finaliser(lab: Lab) -> None:
    """From outside, while it writes the pool: a waiter of ours, a child that has the callback."""
    begun = lab.directory / "checks.seals"
    lab.until(begun.exists, bound_s=READY_S + 2 * WORK_S, what="a seal")
    lab.pause(lab.draw.uniform(0.1, SEAL_S - 1.0))
    finaliser = int(begun.read_text(encoding="ascii").split()[3])
    lab.send(SIGKILL, finaliser, whom="whoever finalises")
    lab.pause(0.1)
    if lab.waiters[0].poll() is not None:
        lab.add_waiter()


def two_waiters(lab: Lab) -> None:
    lab.moment(share=0.1)
    lab.add_waiter()
    lab.struck()


def cancel(lab: Lab) -> None:
    lab.moment()
    lab.struck()
    lab.add_waiter(cancels=True)


ROWS = [
    Row(
        "pool-raises",
        "finaliser raises, every time",
        nothing,
        Setup(waiter={"pool": "raises"}),
        Expected(("failed",), failed_finaliser=True, seals=3),
        recover_s=3.0,
        chord=True,
    ),
    Row(
        "finaliser-killed",
        "finaliser SIGKILL while it writes, another one comes",
        kill_finaliser,
        Setup(waiter={"pool": "slow"}),
        Expected(seals=2),
        recover_s=FIN_LEASE_S,
        boots=1,
        chord=True,
    ),
    Row(
        "finaliser-sealed",
        "finaliser dies between seal and mark, another one comes after 3 s",
        next_waiter(3.0),
        Setup(waiter={"pool": "dies_after"}),
        lasts_s=3.0,
        recover_s=FIN_LEASE_S,
        boots=1,
    ),
    Row(
        "dispatcher-mid",
        "dispatcher dies in the middle of the creation, a new process waits",
        next_waiter(0.0),
        Setup(waiter={"dies": "mid_create"}),
        recover_s=RESCUE_S,
        boots=1,
        quick=True,
        chord=True,
    ),
    Row(
        "dispatcher-bells",
        "dispatcher dies before it rings, a new process waits",
        next_waiter(0.0),
        Setup(waiter={"dies": "before_bells"}),
        recover_s=RESCUE_S,
        boots=1,
    ),
    Row(
        "waiter-killed",
        "waiter killed, a new one waits by id",
        kill_waiter(0.0),
        recover_s=0.0,
        boots=1,
        quick=True,
        chord=True,
    ),
    Row(
        "waiter-late",
        "waiter killed, a new one comes 6 s later (chord: result_expires=2)",
        kill_waiter(LATE_S),
        Setup(chord={"result_expires": 2}),
        lasts_s=LATE_S,
        recover_s=LEASE_S,
        boots=1,
        chord=True,
    ),
    Row("two-waiters", "two waiters", two_waiters, recover_s=0.0, boots=1),
    Row(
        "cancel",
        "cancelled by another process",
        cancel,
        expected=Expected(("cancelled", "complete"), given_up_at_most={"cancelled": 320}),
        recover_s=0.0,
        boots=2,
    ),
]
