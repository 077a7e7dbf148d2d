"""Rows in which checks go wrong, and processes that check die or stand still."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

from tests.services.matrix.lab import CHUNKS, READY_S, Lab, Setup
from tests.services.matrix.oracle import Expected
from tests.services.matrix.row import LEASE_S, RESCUE_S, Row

FROZEN_S = 15.0
DOWN_S = 3.0
FIELD_STOP_S = 5.0
ATTEMPT_S = 3.0


def nothing(lab: Lab) -> None:
    lab.moment()
    lab.struck()


def child(number: signal.Signals) -> Row:
    def strike(lab: Lab) -> None:
        lab.send(number, lab.moment(), whom="child")

    return Row(
        f"child-{number.name.lower()}",
        f"pool child {number.name}",
        strike,
        again_s=RESCUE_S if number is SIGKILL else None,
        quick=number is SIGKILL,
        chord=True,
    )


def stop_worker(lab: Lab) -> None:
    tree = lab.tree_of(lab.moment())
    lab.send(SIGTERM, tree.process.pid, whom="worker")


def stop_group(lab: Lab) -> None:
    tree = lab.tree_of(lab.moment())
    lab.send(SIGTERM, *tree.all(), whom="worker, main, children")


def field_stop(lab: Lab) -> None:
    """One after the other, in the order of their numbers, as a clean-up by name does."""
    tree = lab.tree_of(lab.moment())
    tree.kept = False
    end = sorted(tree.all())
    lab.send(SIGTERM, *end[:2], whom="worker, main")
    lab.pause(FIELD_STOP_S)
    lab.send(SIGKILL, *end[:2], whom="worker, main")
    lab.send(SIGTERM, *end[2:], whom="children")
    tree.again()
    tree.kept = True
    lab.note(f"worker {tree.process.pid} started")


def child_then_worker(lab: Lab) -> None:
    victim = lab.moment()
    tree = lab.tree_of(victim)
    lab.send(SIGTERM, victim, whom="child")
    lab.pause(2.0)
    lab.send(SIGTERM, tree.process.pid, whom="worker")


def kill_worker(lab: Lab) -> None:
    tree = lab.tree_of(lab.moment())
    tree.kept = False
    lab.send(SIGKILL, *tree.all(), whom="worker, main, children")
    lab.pause(DOWN_S)
    tree.again()
    tree.kept = True
    lab.note(f"worker {tree.process.pid} started")


def kill_main(lab: Lab) -> None:
    tree = lab.tree_of(lab.moment())
    lab.send(SIGKILL, tree.main, whom="main")


def freeze_worker(lab: Lab) -> None:
    tree = lab.tree_of(lab.moment())
    frozen = tree.all()
    lab.send(SIGSTOP, *frozen, whom="worker, main, children")
    lab.pause(FROZEN_S)
    lab.send(SIGCONT, *frozen, whom="worker, main, children")
    lab.pause(1.0)  # what it has to say, it says now


def freeze_child(lab: Lab) -> None:
    victim = lab.moment()
    lab.send(SIGSTOP, victim, whom="child")
    lab.pause(2 * RESCUE_S)
    lab.send(SIGCONT, victim, whom="child")
    lab.pause(1.0)


def frozen_with_a_bell(lab: Lab) -> None:
    """The server hands a message to a main that stands still, and then the main is gone."""
    tree, go = lab.trees[0], lab.directory / "go"
    lab.add_waiter(first=True, holds=str(go))
    lab.until(Path(f"{go}.ready").exists, bound_s=READY_S, what="a waiter")
    lab.until(lambda: _asked(lab) > 0, bound_s=READY_S, what="a main that asks for messages")
    before = _asked(lab)
    lab.until(lambda: _asked(lab) > before, bound_s=READY_S, what="the next question")
    lab.send(SIGSTOP, *tree.all(), whom="worker, main, children")
    go.touch()
    queue = lab.system.queue()
    lab.until(lambda: bool(lab.server.call("LLEN", queue)), bound_s=READY_S, what="messages")
    lab.pause(0.5)
    lab.note(f"{lab.server.call('LLEN', queue)} messages wait, of {CHUNKS} that were sent")
    tree.kept = False
    lab.send(SIGKILL, *tree.all(), whom="worker, main, children")
    tree.again()
    tree.kept = True


def _asked(lab: Lab) -> int:
    """How often a worker has asked for a message, and been answered."""
    told = lab.server.call("INFO", "commandstats")
    found = re.search(rb"cmdstat_brpop:calls=(\d+)", told)
    return int(found[1]) if found else 0


def marked(name: str) -> Callable[[Lab], None]:
    """The script itself does it, and leaves a mark."""

    def strike(lab: Lab) -> None:
        mark = Path(f"{lab.script.log}.{name}")
        lab.until(mark.exists, bound_s=READY_S, what=f"the mark of {name}")
        lab.struck()

    return strike


ROWS = [
    Row("none", "no fault", nothing, recover_s=0.0, chord=True),
    Row(
        "raises",
        "one candidate's check raises",
        nothing,
        Setup(script={"raises": (100,)}),
        recover_s=0.0,
        chord=True,
    ),
    child(SIGTERM),
    child(SIGKILL),
    Row(
        "worker-sigterm",
        "worker SIGTERM (it drains), started again",
        stop_worker,
        recover_s=1.0 + RESCUE_S,
        boots=1,
        chord=True,
    ),
    Row(
        "group-sigterm",
        "SIGTERM to main and children (systemd, docker), started again",
        stop_group,
        recover_s=1.0 + RESCUE_S,
        boots=1,
        quick=True,
        chord=True,
    ),
    Row(
        "field-stop",
        "field stop: main SIGTERM, 5 s, SIGKILL, children SIGTERM, restart (one 12 s chunk)",
        field_stop,
        Setup(script={"slow": {161: 12.0}}),
        lasts_s=FIELD_STOP_S + 12.0,
        recover_s=RESCUE_S,
        boots=1,
        chord=True,
    ),
    Row(
        "child-then-worker",
        "child SIGTERM, 2 s later the worker is stopped, started again",
        child_then_worker,
        lasts_s=2.0,
        recover_s=1.0 + RESCUE_S,
        boots=1,
    ),
    Row(
        "worker-sigkill",
        "whole worker SIGKILL, restarted after 3 s",
        kill_worker,
        lasts_s=DOWN_S,
        recover_s=RESCUE_S,
        boots=1,
        quick=True,
        chord=True,
    ),
    Row(
        "main-sigkill",
        "only the main process SIGKILL, restarted",
        kill_main,
        recover_s=1.0 + RESCUE_S,
        boots=1,
        quick=True,
        chord=True,
    ),
    Row(
        "worker-frozen",
        "whole worker SIGSTOP 15 s, SIGCONT",
        freeze_worker,
        lasts_s=FROZEN_S,
    ),
    Row(
        "one-of-two-frozen",
        "one of two workers SIGSTOP 15 s, SIGCONT",
        freeze_worker,
        Setup(workers=2, children=4),
        expected=Expected(stale=1),
        lasts_s=FROZEN_S + 1.0,
        again_s=RESCUE_S,
    ),
    Row(
        "child-frozen",
        "one child SIGSTOP 7 s, SIGCONT",
        freeze_child,
        expected=Expected(stale=1),
        lasts_s=2 * RESCUE_S + 1.0,
        again_s=RESCUE_S,
    ),
    Row(
        "hangs",
        "one candidate never ends, attempts are limited to 3 s",
        nothing,
        Setup(script={"hangs": (33,)}, refresh={"attempt_hard_s": ATTEMPT_S}),
        Expected(("partial",), {"poison": 1}),
        recover_s=3 * (ATTEMPT_S + RESCUE_S - LEASE_S),
        chord=True,
    ),
    Row(
        "exits-once",
        "os._exit in a child, once",
        marked("died"),
        Setup(script={"deadly_once": (50,)}),
        chord=True,
    ),
    Row(
        "gap",
        "child dies between its chunk's last check and the report",
        marked("gap"),
        Setup(script={"gap": True}),
        quick=True,
        chord=True,
    ),
    Row(
        "poison",
        "a candidate that kills its child every time",
        nothing,
        Setup(script={"deadly": (77,)}),
        Expected(("partial",), {"poison": 1}),
        recover_s=3 * (RESCUE_S + 1.0),
        chord=True,
    ),
    Row(
        "popped",
        "worker frozen with a popped message, SIGKILL, restart",
        frozen_with_a_bell,
        lasts_s=1.0,
        recover_s=RESCUE_S,
        boots=2,
        chord=True,
        begins=Lab.add_worker,
    ),
]
