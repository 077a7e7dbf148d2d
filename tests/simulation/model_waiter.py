"""The waiter of the model: the product's own wait, journal and finalisation, one look at a time.

A look is remembered by what the waiter can see: its journal, the pool, and the line and parts of
the job's books. The journal is a real SQLite file, of which every state is kept as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from proxywell.errors import ProxywellError
from proxywell.model.candidate import Candidate
from proxywell.model.report import GivenUpWhy, PoolChange
from proxywell.model.verdict import Verdict
from proxywell.refresh.books import JobState
from proxywell.refresh.carry import Carrier
from proxywell.refresh.ledgers.journal import Journal
from proxywell.refresh.ledgers.journaled import JournaledLedger
from proxywell.refresh.ports import Ledger
from proxywell.refresh.spans import Spans, items_of
from proxywell.refresh.wait import Until, WaitEnd
from tests.simulation.model_books import BLOCKS, FIN_FIELDS, JOB, NEW_JOB, NOW_S
from tests.simulation.model_home import Home
from tests.simulation.model_server import NO_BOOK, Fate, Server, Strike, WaiterDied
from tests.simulation.model_truths import Violation, must


class Looked(NamedTuple):
    """What one look of the waiter has come to."""

    book: int
    fate: Fate
    journal: int
    sealed: tuple[int, ...]
    bells: int
    end: WaitEnd | None  # None: it died
    claimed: bool  # took the right to finalise
    unsent: bool  # died before it could send its commit
    calls: int


class Pool:
    """What was sealed; the verdicts are the journal's."""

    def __init__(self, sealed: tuple[int, ...]) -> None:
        self.seals = sealed

    def record(
        self, job_id: str, epoch: int, verdicts: Iterable[tuple[int, Candidate, Verdict]]
    ) -> None:
        for _ in verdicts:
            pass

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        must(not self.seals, "I6: the pool was sealed twice")
        self.seals = (*self.seals, epoch)
        return PoolChange()

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        return PoolChange() if epoch in self.seals else None


class Told(NamedTuple):
    """A journal's content, as far as any step looks at it."""

    line: Any
    given_up: tuple[tuple[GivenUpWhy, int], ...]
    parts: tuple[Spans, ...]
    cursor: Any
    finalises: bool  # here, and its lease is not over

    @property
    def settled(self) -> list[int]:
        return sorted(item for items in self.parts for item in items_of(items))


class Waiter:
    """Looks, as a process with a journal does, and remembers what came of it.

    Args:
        home: The server's side.
        path: Where the journal's file may be.
        view: The product's ledger of a waiter; another one only to show that a defect is found.
    """

    def __init__(
        self, home: Home, path: Path, view: Callable[[Any, Journal], Any] = JournaledLedger
    ) -> None:
        self._home = home
        self._view = view
        self._journal = Journal(path, clock=lambda: NOW_S, boot="")
        self._images: list[bytes] = []
        self.told: list[Told] = []
        self._numbers: dict[Told, int] = {}
        self._looks: dict[Any, Looked] = {}
        self._lapsed: dict[int, int] = {}
        server = Server(home, NO_BOOK, (NO_BOOK, 0), node_up=True, strike=None)
        self._open(server).create(NEW_JOB, BLOCKS)
        self._journal._db.execute("PRAGMA journal_mode = DELETE")  # an image must not need a log
        self.first = (server.book, self._kept())

    def close(self) -> None:
        self._journal.close()

    def look(
        self,
        book: int,
        journal: int,
        sealed: tuple[int, ...],
        *,
        node_up: bool,
        quiet: bool,
        strike: Strike | None,
    ) -> Looked:
        """One turn of the product's loop: tick, ring, collect, finalise; has it ended?"""
        books = self._home.books
        ticked, seen = (book, 0), (NO_BOOK, NO_BOOK)
        if book != NO_BOOK:
            ticked = self._home.step(book, ("tick", node_up, quiet))
            seen = (books[book].told_as, books[ticked[0]].told_as)
        key = (seen, ticked[1], journal, sealed, node_up, strike)
        found = self._looks.get(key)
        if found is None:
            server = Server(self._home, book, ticked, node_up=node_up, strike=strike)
            found = self._looks[key] = self._look(server, journal, sealed)
        after = self._after(found, book, ticked[0])
        return found._replace(book=after) if after != found.book else found

    def _after(self, looked: Looked, book: int, ticked: int) -> int:
        """The book that a look leaves, if what it saw was this one."""
        if looked.fate is Fate.OTHER:
            return looked.book
        if looked.fate is Fate.BEFORE:
            return book
        if looked.fate is Fate.TICKED:
            return ticked
        job = self._home.books[looked.book].job
        fields = tuple(getattr(job, name) for name in FIN_FIELDS)
        return self._home.step(ticked, ("finalising", *fields))[0]

    def fin_lapse(self, journal: int) -> int:
        """The lease of a finaliser that died is over, for a job that came home."""
        if journal not in self._lapsed:
            self._restore(journal)
            line = self._journal.status(JOB)
            with self._journal._transaction():
                self._journal._put_line(replace(line, fin_until_s=NOW_S - 1))
            self._lapsed[journal] = self._kept()
        return self._lapsed[journal]

    def _look(self, server: Server, journal: int, sealed: tuple[int, ...]) -> Looked:
        self._restore(journal)
        pool = Pool(sealed)
        view = self._open(server)
        engine = _Doorbells()
        carrier = Carrier(
            self._journal.status(JOB), view, sink=pool, bell=_NoBell(), engine=engine, lead_s=0.0,
            show=None, remember=lambda _: None, monotonic_s=lambda: NOW_S,
        )  # fmt: skip
        try:
            ended: WaitEnd | None = carrier.wait(Until.FINALISED, bound_s=0.0)
        except WaiterDied:
            ended = None
        except ProxywellError as error:
            raise Violation(f"the wait raised {error!r}") from error
        return Looked(
            server.book, server.fate, self._kept(), pool.seals, engine.rung, ended, server.claimed,
            pool.seals != sealed and not server.committing, server.calls,
        )  # fmt: skip

    def _open(self, server: Server) -> Ledger:
        ledger: Ledger = self._view(server, self._journal)
        return ledger

    # --- states of the journal

    def _restore(self, number: int) -> None:
        self._journal._db.deserialize(self._images[number])

    def _kept(self) -> int:
        told = self._content()
        found = self._numbers.get(told)
        if found is None:
            found = self._numbers[told] = len(self._images)
            self._images.append(self._journal._db.serialize())
            self.told.append(told)
        return found

    def _content(self) -> Told:
        line = self._journal.status(JOB)
        parts = tuple(part.items for part in self._journal.parts(JOB, 0, 100))
        told = (
            line.epoch, line.state, line.why, line.checked, line.working,
            line.fin_token is None, line.fin_until_s,
            line.fin_fails, line.fin_error, line.ready,
        )  # fmt: skip
        cursor = self._journal.cursor(JOB)
        mine = cursor is not None and cursor.is_home and line.state is JobState.FINALISING
        return Told(
            told,
            tuple(sorted(line.given_up.items())),
            parts,
            cursor,
            mine and line.fin_until_s > NOW_S,
        )


class _Doorbells:
    """An engine whose workers are somebody else's."""

    def __init__(self) -> None:
        self.rung = 0

    def start(self) -> None:
        pass

    def ring(self, bells: int) -> None:
        self.rung += bells

    def failure(self) -> BaseException | None:
        return None

    def stop(self) -> None:
        pass


class _NoBell:
    def ring(self) -> None:
        pass

    def wait(self, timeout_s: float) -> None:
        raise AssertionError("a look does not wait")

    def close(self) -> None:
        pass
