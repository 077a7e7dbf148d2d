"""All books that a job may have, and what each step makes of them.

A step is the product's own rule, run once for each book and remembered. A book is interned under
a number, so that a step of the model is mostly one look into a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec.structs import replace

from proxywell.refresh.books import Beat, ChunkState, Claim, Worker
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ledgers.ruled import first_chunks, new_line
from proxywell.refresh.ports import NewJob
from proxywell.refresh.spans import Spans
from tests.simulation.model_books import (
    BLOCKS,
    FIN_FIELDS,
    GONE,
    LONG_S,
    NOBODY,
    NODE,
    NOW_S,
    Book,
    ModelBooks,
    Token,
    copied,
    kept_chunk,
    kept_line,
    settled,
    token_of,
)
from tests.simulation.model_truths import balanced, still_final

Op: TypeAlias = tuple[Any, ...]


class Home:
    """All books that were ever met, and what each step made of them.

    Args:
        rules: The rule book; another one only to show that a defect is found.
        counted: Whether the counters agree with the chunks after every step.
    """

    def __init__(self, rules: type[LedgerRules] = LedgerRules, *, counted: bool = True) -> None:
        self.books: list[Book] = []
        self.rules = rules
        self._numbers: dict[Any, int] = {}
        self._steps: dict[tuple[int, Op], tuple[int, Any]] = {}
        self._counted = counted
        self._seen: dict[Any, int] = {}

    def step(self, number: int, op: Op) -> tuple[int, Any]:
        """Run one step on a book: the number of the book after it, and the rule's answer."""
        known = self._steps.get((number, op))
        if known is None:
            known = self._steps[(number, op)] = self._run(self.books[number], op)
        return known

    def created(self, job: NewJob) -> int:
        """The book of a new job."""
        chunks = [chunk for _, chunk in first_chunks(BLOCKS, job.settled) if chunk is not None]
        line = new_line(replace(job, age_s=0.0), len(chunks), NOW_S)
        book = Book(line, {chunk.id: chunk for chunk in chunks}, (), job.settled)
        rules = self.rules(copied(line), ModelBooks(book), NOW_S)
        rules.create()
        return self.number(rules, book)

    def number(self, rules: LedgerRules, before: Book) -> int:
        """Intern what a rule has left behind."""
        books = rules.books
        assert isinstance(books, ModelBooks)
        chunks = books.chunks
        for at in books.changed:
            chunks[at] = kept_chunk(chunks[at])
        return self._number(Book(kept_line(rules.job), chunks, books.parts, before.base), before)

    def _number(self, book: Book, before: Book) -> int:
        still_final(before, book)
        found = self._numbers.get(book.key)
        if found is None:
            found = self._numbers[book.key] = len(self.books)
            self.books.append(book)
            book.told_as = self._seen.setdefault(book.told, len(self._seen))
            balanced(book, counted=self._counted)
        return found

    def _run(self, book: Book, op: Op) -> tuple[int, Any]:
        name, *given = op
        if name in _TIME:
            changed = Book(copied(book.job), dict(book.chunks), book.parts, book.base)
            _TIME[name](changed, *given)
            now = Book(changed.job, changed.chunks, changed.parts, changed.base)
            return self._number(now, book), None
        rules = self.rules(copied(book.job), ModelBooks(book), NOW_S)
        answer = _RULES[name](rules, *given)
        return self.number(rules, book), answer


# --- steps that are rules


def _claim(rules: LedgerRules, holder: str, epoch: int, held: tuple[int, ...]) -> Any:
    answer = rules.claim(Worker(NODE, holder), "new")
    if not isinstance(answer, Claim):
        return answer
    row = rules.books.chunk(answer.chunk_id)
    assert row is not None
    token = (epoch, row.id, row.id in held)
    row.token = token_of(holder, token)
    rules.books.put(row)
    return token, answer.items


def _beat(rules: LedgerRules, holder: str, told: tuple[tuple[Token, Spans], ...]) -> Any:
    beats = [Beat(token[1], token_of(holder, token), settled(items)) for token, items in told]
    return tuple(rules.beat(beats))


def _submit(rules: LedgerRules, holder: str, token: Token, items: Spans) -> Any:
    return rules.submit(token[1], token_of(holder, token), token[0], settled(items))


def _tick(rules: LedgerRules, node_up: bool, quiet: bool) -> int:
    if quiet:
        rules.job.claimed_s = rules.job.rung_s = NOW_S - LONG_S
    return rules.tick(frozenset([NODE]) if node_up else frozenset())


def _fin_commit(rules: LedgerRules, token: str) -> Any:
    return rules.fin_commit(token)


def _counted(rules: Any) -> None:
    """The second of the chord's two steps; only a rule book that has two of them is asked."""
    rules.count_one()


_RULES: dict[str, Callable[..., Any]] = {
    "claim": _claim,
    "beat": _beat,
    "submit": _submit,
    "tick": _tick,
    "fin_commit": _fin_commit,
    "counted": _counted,
}


# --- steps of time, and of names


def _lapse(book: Book, chunk_id: int) -> None:
    book.chunks[chunk_id] = replace(book.chunks[chunk_id], until_s=NOW_S - 1)


def _fin_lapse(book: Book) -> None:
    book.job.fin_until_s = NOW_S - 1


def _finalising(book: Book, *fields: Any) -> None:
    """A step of finalisation that was made on another book that looks the same to a waiter."""
    for name, value in zip(FIN_FIELDS, fields, strict=True):
        setattr(book.job, name, value)


def _forget(book: Book, holder: str, chunk_id: int | None) -> None:
    """A holder is gone, or has let go of a chunk: nobody knows that token any more."""
    for row in list(book.chunks.values()):
        if row.holder == holder and chunk_id in (None, row.id):
            gone = replace(row, holder=NOBODY, token=NOBODY, before_loss=None)
            book.chunks[row.id] = kept_chunk(gone)


def _node_gone(book: Book) -> None:
    for row in list(book.chunks.values()):
        if row.state is ChunkState.RUNNING:
            book.chunks[row.id] = replace(row, node=GONE)


def _swap(book: Book) -> None:
    """Exchange the names of the two workers, who are alike."""
    other = {"w0": "w1", "w1": "w0"}
    for row in list(book.chunks.values()):
        if row.holder in other:
            holder = other[row.holder]
            token = f"{holder}{(row.token or '')[2:]}"
            book.chunks[row.id] = replace(row, holder=holder, token=token)


_TIME: dict[str, Callable[..., None]] = {
    "lapse": _lapse,
    "fin_lapse": _fin_lapse,
    "finalising": _finalising,
    "forget": _forget,
    "node_gone": _node_gone,
    "swap": _swap,
}
