"""What is examined: how its programs start, and what can be seen and done to its books."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from proxywell.config.schema import RefreshSettings
from proxywell.errors import StateError, UnknownJobError
from proxywell.refresh.books import JobRow
from proxywell.refresh.engines.celery import queue_name
from proxywell.refresh.ledgers.redis import OF_A_JOB, RedisLedger
from tests.services.matrix.orders import JOB, QUICK, Orders, Outcome
from tests.services.matrix.processes import Tree, start

if TYPE_CHECKING:
    from tests.services.matrix.lab import Lab

BROKER: Final = "proxywell:broker:"


class System(Protocol):
    """One way to do the same work."""

    name: str

    def enter(self, lab: Lab) -> None:
        """A run begins."""
        ...

    def leave(self) -> None:
        """Let go of what belongs to the run; works twice."""
        ...

    def worker(self, lab: Lab, *, kept: bool) -> Tree:
        """Start a worker."""
        ...

    def waiter(self, lab: Lab, *, first: bool, **orders: Any) -> subprocess.Popen[bytes]:
        """Start a waiter; the first one creates the job."""
        ...

    def books(self, lab: Lab, job: str = JOB) -> str:
        """How a job stands, in a line."""
        ...

    def book_keys(self, lab: Lab, job: str = JOB) -> list[str]:
        """The keys that hold a job's books."""
        ...

    def queue(self) -> str:
        """The key of the list on which messages lie."""
        ...


class Ours:
    """proxywell's Celery engine.

    Args:
        defect: Lua that takes the place of a rule, for workers and waiters; to show that the
            matrix sees it.
    """

    name = "proxywell"

    def __init__(self, defect: str = "") -> None:
        self._defect = defect
        self._spy: RedisLedger | None = None
        self._outcomes: list[tuple[str, Path]] = []

    def enter(self, lab: Lab) -> None:
        """See ``System``."""
        self._spy = RedisLedger(lab.server.address())

    def leave(self) -> None:
        """See ``System``."""
        if self._spy is not None:
            self._spy.close()

    def worker(self, lab: Lab, *, kept: bool) -> Tree:
        """See ``System``."""
        orders = self._orders(lab, lab.url(lab.to_workers))
        more = lab.setup.environment(lab.directory) if lab.setup.environment else {}
        log = lab.directory / "worker.log"

        def begin() -> subprocess.Popen[bytes]:
            environment = {**orders.environment(), **more}
            return start("tests.services.matrix.worker", environment, log)

        return Tree(begin, watched=True, kept=kept)

    def waiter(self, lab: Lab, *, first: bool, **orders: Any) -> subprocess.Popen[bytes]:
        """See ``System``."""
        state = lab.directory / "state"
        state.mkdir(exist_ok=True)
        outcome = lab.directory / f"outcome{len(self._outcomes)}"
        self._outcomes.append((orders.get("job", JOB), outcome))
        given: dict[str, Any] = {
            "state": str(state),
            "outcome": str(outcome),
            "items": lab.setup.items if first else 0,
            **(lab.setup.waiter if first else {}),
            **orders,
        }
        told = replace(self._orders(lab, lab.url(lab.to_waiter)), **given)
        return start(
            "tests.services.matrix.waiter", told.environment(), lab.directory / "waiter.log"
        )

    def outcomes(self, job: str = JOB) -> list[Outcome]:
        """What the waiters for a job said that came to an end."""
        return [
            msgspec.json.decode(path.read_bytes(), type=Outcome)
            for of, path in self._outcomes
            if of == job and path.exists()
        ]

    def line(self, job: str = JOB) -> JobRow | None:
        """A job's line on the server; None if it is not there, or does not answer."""
        assert self._spy is not None
        with contextlib.suppress(StateError, UnknownJobError):
            return self._spy.status(job)
        return None

    def books(self, lab: Lab, job: str = JOB) -> str:
        """See ``System``."""
        line = self.line(job)
        if line is None:
            return "not there"
        return (
            f"{line.state} epoch {line.epoch} ready {line.ready} running {line.running}"
            f" checked {line.checked} given up {line.items_given_up} of {line.items}"
            f" rescued {line.rescued} split {line.split} attempts {line.attempts}"
            f" stale {line.stale}"
        )

    def book_keys(self, lab: Lab, job: str = JOB) -> list[str]:
        """See ``System``."""
        assert self._spy is not None
        return [self._spy.key(job, name) for name in OF_A_JOB]

    def queue(self) -> str:
        """See ``System``."""
        assert self._spy is not None
        return BROKER + queue_name(self._spy.address)

    def _orders(self, lab: Lab, url: str) -> Orders:
        terms = msgspec.to_builtins(QUICK) | lab.setup.refresh
        return Orders(
            url=url,
            script=lab.script,
            children=lab.setup.children,
            refresh=msgspec.convert(terms, RefreshSettings),
            defect=self._defect,
        )
