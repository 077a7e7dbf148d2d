"""The server as a waiter of the model reaches it: at any call something may happen first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import NamedTuple

from msgspec.structs import replace

from proxywell.errors import UnknownJobError
from proxywell.refresh.books import FinAnswer, JobRow, Lease, LedgerEvent, Part, Tick
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ports import Block, NewJob
from tests.simulation.model_books import (
    FIN_TOKEN,
    NODE,
    NOW_S,
    OLD_FIN_TOKEN,
    Book,
    ModelBooks,
    copied,
)
from tests.simulation.model_home import Home
from tests.simulation.model_truths import must

NO_BOOK = -1


class What(Enum):
    """What happens in the middle of a look."""

    DIES = auto()  # the waiter does
    FORGETS = auto()  # the server does, everything
    LATE_COMMIT = auto()  # of a finaliser that died, with the token that is in the books ...
    OLDER_COMMIT = auto()  # ... or with one that was replaced


class Strike(NamedTuple):
    """Something happens before the waiter's n-th call to the server."""

    call: int
    what: What


class Fate(Enum):
    """What became of the book that a look saw."""

    BEFORE = auto()
    TICKED = auto()
    FINALISING = auto()  # ticked, and taken or kept by a finaliser
    OTHER = auto()  # forgotten, made anew


class WaiterDied(BaseException):
    pass


class Server:
    """The books as a waiter reaches them: each call may be the one at which something breaks.

    Args:
        home: Where the books are.
        book: Of the job; ``NO_BOOK`` if the server has none.
        ticked: That book after a tick, and how many bells it asked for.
        node_up: Whether the workers' main is there.
        strike: What goes wrong, if anything does.
    """

    def __init__(
        self,
        home: Home,
        book: int,
        ticked: tuple[int, int],
        *,
        node_up: bool,
        strike: Strike | None,
    ) -> None:
        self._home = home
        self.book = book
        self._ticked: tuple[int, int] | None = ticked
        self._node_up = node_up
        self._strike = strike
        self.calls = 0
        self.claimed = self.committing = self.made = self._finalised = False

    def _reach(self) -> Book:
        self.calls += 1
        if self._strike is not None and self._strike.call == self.calls:
            self._struck(self._strike.what)
        if self.book == NO_BOOK:
            raise UnknownJobError("forgotten")
        return self._home.books[self.book]

    def _struck(self, what: What) -> None:
        if what is What.DIES:
            raise WaiterDied
        if what is What.FORGETS:
            self.book = NO_BOOK
        elif self.book != NO_BOOK:
            older = self.claimed or what is What.OLDER_COMMIT
            token = OLD_FIN_TOKEN if older else FIN_TOKEN
            answer = self._rule(lambda rules: rules.fin_commit(token))
            must(not (older and answer is FinAnswer.OK), "I6: committed with an older token")

    def create(self, job: NewJob, blocks: Iterable[Block]) -> bool:
        with contextlib.suppress(UnknownJobError):
            self._reach()
            return False
        self.book, self.made, self._ticked = self._home.created(job), True, None
        return True

    def tick(self, job_id: str) -> Tick:
        self._reach()
        op = ("tick", self._node_up, False)
        found = self._ticked or self._home.step(self.book, op)
        self._ticked = None
        self.book, bells = found
        return Tick(self._line(), bells, int(self._node_up), stalled=False)

    def status(self, job_id: str) -> JobRow:
        self._reach()
        return self._line()

    def parts(self, job_id: str, after: int, limit: int) -> list[Part]:
        return list(self._reach().parts[after : after + limit])

    def events(self, job_id: str, after: int, limit: int) -> list[LedgerEvent]:
        return []

    def summary(self, job_id: str) -> bytes | None:
        self._reach()
        return b"{}"

    def fin_claim(self, job_id: str, token: str) -> FinAnswer:
        answer = self._fin(lambda rules: rules.fin_claim(token))
        self.claimed = self.claimed or answer is FinAnswer.OK
        return answer

    def fin_fail(self, job_id: str, token: str, error: str) -> FinAnswer:
        must(False, f"finalising raised although the pool is well: {error}")
        return FinAnswer.WAIT

    def fin_commit(self, job_id: str, token: str, summary: bytes) -> FinAnswer:
        self.committing = True
        return self._fin(lambda rules: rules.fin_commit(FIN_TOKEN))

    def leases(self, job_id: str) -> list[Lease]:
        self._reach()
        return []  # none of this machine, whose processes could be looked for

    def nodes(self, job_id: str) -> frozenset[str]:
        return frozenset([NODE])

    def close(self) -> None:
        pass

    @property
    def fate(self) -> Fate:
        if self.made or self.book == NO_BOOK:
            return Fate.OTHER
        if self._finalised:
            return Fate.FINALISING
        return Fate.BEFORE if self._ticked is not None else Fate.TICKED

    def _fin(self, step: Callable[[LedgerRules], FinAnswer]) -> FinAnswer:
        self._reach()
        return self._rule(step)

    def _rule(self, step: Callable[[LedgerRules], FinAnswer]) -> FinAnswer:
        book = self._home.books[self.book]
        rules = self._home.rules(copied(book.job), ModelBooks(book), NOW_S)
        answer = step(rules)
        self.book = self._home.number(rules, book)
        self._finalised = True
        return answer

    def _line(self) -> JobRow:
        """The line without what only its own side needs, so that fewer journals differ."""
        line = copied(self._home.books[self.book].job)
        return replace(
            line, ready=0, running=0, chunks=0, chunks_done=0, chunks_given_up=0, next_chunk=0,
            bells=0,
        )  # fmt: skip
