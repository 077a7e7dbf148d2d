"""A claimed chunk in a worker's hands: what is to start, what runs, what is not told yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from proxywell.model.candidate import Candidate
from proxywell.model.verdict import Verdict
from proxywell.refresh.books import NOTHING, Claim, Settled
from proxywell.refresh.packing import pack_verdicts, unpack_candidates
from proxywell.refresh.ports import Block, Running
from proxywell.refresh.spans import Spans, items_of, spans_of


class Holding:
    """One attempt at one chunk.

    The loop's thread starts and settles; another one tells. What both touch is a deque, whose
    ends are safe, and what has been taken to be told belongs to the teller alone.
    """

    def __init__(self, claim: Claim, candidates: dict[int, Candidate]) -> None:
        self.claim = claim
        self.candidates = candidates
        self.waiting = deque(items_of(claim.items))
        self.running: dict[int, Running] = {}
        self.deferred: list[int] = []
        self.dropped = False
        self._fresh: deque[tuple[int, Verdict]] = deque()
        self._untold: list[tuple[int, Verdict]] = []

    @property
    def finished(self) -> bool:
        """Whether every candidate is settled or deferred."""
        return not self.waiting and not self.running

    def settle(self, item: int, verdict: Verdict | None) -> None:
        """Take in what the checker said of one item; None defers it."""
        self.running.pop(item, None)
        if self.dropped:
            return
        if verdict is None:
            self.deferred.append(item)
        else:
            self._fresh.append((item, verdict))

    def drop(self) -> None:
        """Stop checking what is left of it; works twice."""
        self.dropped = True
        self.waiting.clear()
        for running in list(self.running.values()):
            running.cancel()
        self.running.clear()

    # --- for the teller

    def news(self) -> Settled:
        """All that is not known to have arrived; told again until ``arrived`` says so."""
        while self._fresh:
            self._untold.append(self._fresh.popleft())
        if not self._untold:
            return NOTHING
        return Settled(
            items=spans_of(item for item, _ in self._untold),
            working=spans_of(item for item, verdict in self._untold if verdict.working),
            body=pack_verdicts((item, self.candidates[item], said) for item, said in self._untold),
        )

    def arrived(self) -> None:
        """The ledger has what ``news`` said last."""
        self._untold.clear()

    def later(self) -> Spans:
        """What is to be checked again, patiently."""
        return spans_of(self.deferred)


def candidates_of(items: Spans, blocks: list[Block]) -> Iterator[tuple[int, Candidate]]:
    """Items and their candidates, rising.

    Raises:
        LookupError: No block holds an item.
        msgspec.MsgspecError: A block is damaged.
    """
    wanted = items_of(items)
    item = next(wanted, None)
    for block in blocks:
        if item is None:
            return
        held = unpack_candidates(block.body)
        while item is not None and block.lo <= item < block.hi:
            yield item, held[item - block.lo]
            item = next(wanted, None)
    if item is not None:
        raise LookupError(f"item {item} is in no block")
