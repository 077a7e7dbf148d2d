"""What must hold in every state of the model: I1 to I6 and I8 of the specification."""

from __future__ import annotations

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.bookkeeping import FINAL
from proxywell.refresh.books import ChunkRow, ChunkState, JobState
from proxywell.refresh.spans import Spans, common, count, items_of, minus, spans_of
from tests.simulation.model_books import ITEMS, POISON, TERMS, Book


class Violation(AssertionError):  # noqa: N818 - what a run of the model found
    """An invariant does not hold."""


def must(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


def balanced(book: Book, *, counted: bool) -> None:
    """I1, I3, I4, I5 and I8 of a book by itself."""
    job = book.job
    leaves = [row for row in book.chunks.values() if row.state is not ChunkState.SPLIT]
    seen: Spans = book.base
    for items in (*(part.items for part in book.parts), *(row.items for row in leaves)):
        must(not common(seen, items), f"I1: {items} is in two places")
        seen = spans_of((*items_of(seen), *items_of(items)))
    must(seen == (0, ITEMS), f"I1: {minus((0, ITEMS), seen)} is nowhere")
    _poisoned(leaves)
    if not counted:
        return
    held = {state: [row for row in leaves if row.state is state] for state in ChunkState}
    must(job.ready == len(held[ChunkState.READY]), "I3: ready")
    must(job.running == len(held[ChunkState.RUNNING]), "I3: running")
    must(job.chunks_done == len(held[ChunkState.DONE]), "I3: chunks done")
    parts = sum(count(part.items) for part in book.parts)
    must(job.checked == count(book.base) + parts, "I3: checked")
    lost = held[ChunkState.LOST] + held[ChunkState.FAILED]
    must(job.items_given_up == sum(count(row.items) for row in lost), "I3: given up")
    must((job.state is JobState.OPEN) == (job.open > 0), "I4: open iff a chunk is")
    must(job.pending == 0 or job.state is JobState.OPEN, "I3: closed with items open")
    for row in held[ChunkState.RUNNING]:
        must(bool(row.token) and bool(row.holder), "I5: runs without a holder")


def _poisoned(leaves: list[ChunkRow]) -> None:
    for row in leaves:
        if row.why == GivenUpWhy.POISON:
            must(count(row.items) == 1, "I8: more than one item is poison")
            must(row.blamed >= TERMS.blames_max, "I8: not blamed enough")
            must(row.items == (POISON, POISON + 1), "I8: a healthy item was given up as poison")


def still_final(before: Book, after: Book) -> None:
    """I2: what is final stays as it is."""
    if before.job.epoch != after.job.epoch:
        return
    for row in before.chunks.values():
        if row.state in FINAL:
            now = after.chunks[row.id]
            must((now.state, now.items) == (row.state, row.items), "I2: a final chunk changed")
    if before.job.state is JobState.DONE:
        must(before.told == after.told, "I2: a finalised job changed")
    if before.job.state is not JobState.OPEN:
        must(after.job.state is not JobState.OPEN, "I2: a closed job was opened")
