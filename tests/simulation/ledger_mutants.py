"""Rule books with one defect each; the property test must find every one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace as replaced

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import (
    Among,
    ChunkRow,
    Company,
    FinAnswer,
    JobState,
    Part,
    Settled,
    SubmitAnswer,
)
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.spans import count


class NoReaper(LedgerRules):
    def _reap(self, lost: Sequence[ChunkRow], alive: frozenset[str]) -> None:
        pass


class NoRingAgain(LedgerRules):
    def _bells(self) -> int:
        owed, self.job.bells = self.job.bells, 0
        return owed


class ErrorsAreNotFenced(LedgerRules):
    def _fail(self, chunk: ChunkRow, token: str, settled: Settled, error: str) -> SubmitAnswer:
        return super()._fail(chunk, chunk.token or token, settled, error)


class BeatsAreNotFenced(LedgerRules):
    def beat(self, beats: Sequence[Any], *, draining: bool = False) -> list[Any]:
        forged = []
        for beat in beats:
            chunk = self.books.chunk(beat.chunk_id)
            token = chunk.token if chunk is not None and chunk.token else beat.token
            forged.append(replaced(beat, token=token))
        return super().beat(forged, draining=draining)


class FinalIsNotFinal(LedgerRules):
    def _is_final(self, chunk: ChunkRow) -> bool:
        return False


class NoSplit(LedgerRules):
    def _split(self, chunk: ChunkRow) -> None:
        self._back(chunk, "rescued")


class SplitLosesAPart(LedgerRules):
    def _split(self, chunk: ChunkRow) -> None:
        super()._split(replaced(chunk, items=(*chunk.items[:-1], chunk.items[-1] - 1)))


class UsableTwice(LedgerRules):
    def _weigh(self) -> None:
        if self.job.state is JobState.OPEN:
            self.job.usable_s = None
        super()._weigh()


class PatientChildLost(LedgerRules):
    def _defer(self, chunk: ChunkRow) -> None:
        chunk.items = ()


class SuspectsTogether(LedgerRules):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.books = _BlindToSuspects(self.books)


class _BlindToSuspects:
    def __init__(self, books: Any) -> None:
        self._books = books

    def __getattr__(self, name: str) -> Any:
        return getattr(self._books, name)

    def company(self, holder: str) -> Company:
        company: Company = self._books.company(holder)
        return replaced(company, among=Among.ANY)

    def first_ready(self, among: Among) -> ChunkRow | None:
        found: ChunkRow | None = self._books.first_ready(Among.NONE)
        return found


class DeadlineForgetsReady(LedgerRules):
    def _end(self, items_why: GivenUpWhy, why: str, detail: str | None) -> None:
        self.job.why = why
        self._close()


class NeverClosesOnSubmit(LedgerRules):
    def _weigh(self) -> None:
        if self.job.open:
            super()._weigh()


class CountsTwice(LedgerRules):
    def _take(self, chunk: ChunkRow, settled: Settled) -> None:
        before = chunk.items
        super()._take(chunk, settled)
        if settled.items and before == chunk.items:
            self.job.checked += count(settled.items)
            self.job.parts += 1
            self.books.add_part(Part(self.job.parts, chunk.id, settled.items, settled.body))


class PauseIsALoss(LedgerRules):
    def _arrive(self) -> None:
        self.job.seen_s = self.now_s


class LostNodeIsBlamed(LedgerRules):
    def _reap(self, lost: Sequence[ChunkRow], alive: frozenset[str]) -> None:
        super()._reap(lost, frozenset(chunk.node for chunk in lost))


class AnyoneFinalises(LedgerRules):
    def _fin_holder(self, token: str) -> FinAnswer:
        if self.job.state is JobState.FINALISING:
            return FinAnswer.OK
        return super()._fin_holder(token)


class FinalisesAgain(LedgerRules):
    def _fin_holder(self, token: str) -> FinAnswer:
        if self.job.state is JobState.DONE:
            return FinAnswer.OK
        return super()._fin_holder(token)


class AttemptsNeverEnd(LedgerRules):
    def beat(self, beats: Sequence[Any], *, draining: bool = False) -> list[Any]:
        self.job.terms = replaced(self.job.terms, attempt_hard_s=1e9)
        return super().beat(beats, draining=draining)


class NoEpoch(LedgerRules):
    """Takes a submit of any epoch for one of this."""

    def submit(
        self, chunk_id: int, token: str, epoch: int, settled: Settled, **rest: Any
    ) -> SubmitAnswer:
        return super().submit(chunk_id, token, self.job.epoch, settled, **rest)


class ChordsTwoSteps(LedgerRules):
    """Stores what is settled in one step and counts it in the next, as a chord's backend does."""

    _stores = False

    def submit(
        self, chunk_id: int, token: str, epoch: int, settled: Settled, **rest: Any
    ) -> SubmitAnswer:
        self._stores = True
        return super().submit(chunk_id, token, epoch, settled, **rest)

    def count_one(self) -> None:
        self.job.running -= 1
        self.job.chunks_done += 1
        self._weigh()

    def _finish(self, chunk: ChunkRow) -> None:
        super()._finish(chunk)
        if self._stores:
            self.job.running += 1
            self.job.chunks_done -= 1


MUTANTS: tuple[type[LedgerRules], ...] = (
    NoReaper,
    NoRingAgain,
    ErrorsAreNotFenced,
    BeatsAreNotFenced,
    FinalIsNotFinal,
    NoSplit,
    SplitLosesAPart,
    UsableTwice,
    PatientChildLost,
    SuspectsTogether,
    DeadlineForgetsReady,
    NeverClosesOnSubmit,
    CountsTwice,
    PauseIsALoss,
    LostNodeIsBlamed,
    AnyoneFinalises,
    FinalisesAgain,
    AttemptsNeverEnd,
)
