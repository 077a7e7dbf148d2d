"""A plain chord as the matrix sees it, and what came of a row."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from proxywell.config.schema import RefreshSettings
from proxywell.errors import StateError
from tests.services.matrix.chord import DEFAULT, QUEUE
from tests.services.matrix.lab import RANDOM, Lab, TookTooLongError
from tests.services.matrix.orders import JOB, QUICK, Orders, Outcome
from tests.services.matrix.processes import Tree, start
from tests.services.matrix.row import Row
from tests.services.matrix.scripted import CHUNK

HUNG_S: Final = 30.0  # without an answer for so long after the fault is over: it hangs
_MODULE: Final = "tests.services.matrix.chord"


class PlainChord:
    """Implements ``System``.

    Args:
        practice: Its settings: see ``chord.PRACTICES``.
    """

    def __init__(self, practice: str = DEFAULT) -> None:
        self.name = f"chord, {practice}"
        self._practice = practice
        self._outcomes: list[Path] = []

    def enter(self, lab: Lab) -> None:
        """See ``System``."""

    def leave(self) -> None:
        """See ``System``."""

    def worker(self, lab: Lab, *, kept: bool) -> Tree:
        """See ``System``."""
        orders = self._orders(lab, lab.url(lab.to_workers))
        log = lab.directory / "worker.log"

        def begin() -> subprocess.Popen[bytes]:
            return start(_MODULE, orders.environment(), log, "worker")

        return Tree(begin, watched=False, kept=kept)

    def waiter(self, lab: Lab, *, first: bool, **orders: Any) -> subprocess.Popen[bytes]:
        """See ``System``."""
        outcome = lab.directory / f"outcome{len(self._outcomes)}"
        self._outcomes.append(outcome)
        told = replace(
            self._orders(lab, lab.url(lab.to_waiter)),
            outcome=str(outcome),
            items=lab.setup.items if first else 0,
            dies=lab.setup.waiter.get("dies", "") if first else "",
            holds=orders.get("holds", ""),
        )
        return start(_MODULE, told.environment(), lab.directory / "waiter.log", "waiter")

    def books(self, lab: Lab, job: str = JOB) -> str:
        """See ``System``."""
        try:
            waiting, popped = (lab.server.call("LLEN", QUEUE), lab.server.call("HLEN", "unacked"))
        except StateError:
            return "not there"
        state = "open" if self.book_keys(lab) else "without a count"
        return f"{state}, {waiting} messages wait, {popped} are not acknowledged"

    def book_keys(self, lab: Lab, job: str = JOB) -> list[str]:
        """See ``System``."""
        with contextlib.suppress(StateError):
            return [key.decode() for key in lab.server.call("KEYS", "chord-unlock*")] + [
                key.decode() for key in lab.server.call("KEYS", "celery-taskset-meta-*")
            ]
        return []

    def queue(self) -> str:
        """See ``System``."""
        return QUEUE

    def outcomes(self) -> list[Outcome]:
        """What the waiters that came to an end said."""
        return [
            msgspec.json.decode(path.read_bytes(), type=Outcome)
            for path in self._outcomes
            if path.exists()
        ]

    def _orders(self, lab: Lab, url: str) -> Orders:
        terms = msgspec.to_builtins(QUICK) | lab.setup.refresh
        return Orders(
            url=url,
            script=lab.script,
            children=lab.setup.children,
            refresh=msgspec.convert(terms, RefreshSettings),
            pool=lab.setup.waiter.get("pool", ""),
            chord=self._practice,
            chord_settings=lab.setup.chord,
        )


@dataclass(frozen=True)
class Came:
    """What came of a row with a chord.

    Attributes:
        verdict: ``ok``, ``HUNG``, or the error that its waiter got.
        end_s: From the fault to the answer; None: there was none.
        chunks: Of which a check was ended.
        again: Chunks that were started more than once.
    """

    verdict: str
    end_s: float | None
    chunks: int
    again: int


def run_chord(row: Row, practice: str, *, phase: str = RANDOM, seed: int = 0) -> Came:
    """Do what a row says to a plain chord; without an answer ``HUNG_S`` after the fault: hung."""
    system = PlainChord(practice)
    with (
        tempfile.TemporaryDirectory(prefix="pw-m-") as place,
        Lab(Path(place), row.setup, system, draw=Random(seed), phase=phase) as lab,
    ):
        end_s: float | None = None
        try:
            row.begins(lab)
            row.strike(lab)
            end_s = lab.finish(row.lasts_s + HUNG_S)
            (said, *_) = system.outcomes()
            verdict = "ok" if said.error is None else said.error.partition(":")[0]
        except TookTooLongError:
            verdict = "HUNG"
        ended = len(lab.log.ended()) // CHUNK
        again = sum(n > 1 for n in lab.log.starts().values()) // CHUNK
        return Came(verdict, end_s, ended, again)
