"""What a refresh job gets out of each source, counted as its verdicts pass by. Pure."""

from __future__ import annotations

from msgspec import Struct

from proxywell.model.candidate import Candidate
from proxywell.model.verdict import Verdict


class Harvest(Struct, frozen=True):
    """What one job got out of one source; a candidate counts for every source that lists it.

    Attributes:
        read: Entries of the list.
        new: Working candidates that the pool did not know.
        checked: Candidates with a conclusive verdict.
        working: Of those, the ones that work.
        exits: Distinct exit addresses of the working ones.
    """

    read: int = 0
    new: int = 0
    checked: int = 0
    working: int = 0
    exits: int = 0


class HarvestCounter:
    """Counts what a job gets out of each source, verdict by verdict."""

    def __init__(self) -> None:
        self._read: dict[str, int] = {}
        self._counts: dict[str, list[int]] = {}  # new, checked, working
        self._exits: dict[str, set[str]] = {}

    def saw_list(self, source: str, read: int) -> None:
        """Count a list that was read; ``read`` is its number of entries."""
        self._read[source] = read

    def saw_verdict(self, candidate: Candidate, verdict: Verdict, *, new: bool) -> None:
        """Count one verdict for all sources of its candidate.

        Args:
            candidate: With the sources that list it.
            verdict: An inconclusive one says nothing about a source.
            new: It works, and the pool did not know it.
        """
        if verdict.inconclusive:
            return
        for source in candidate.sources:
            counts = self._counts.setdefault(source, [0, 0, 0])
            counts[0] += new
            counts[1] += 1
            if verdict.working:
                counts[2] += 1
                self._exits.setdefault(source, set()).add(verdict.exit_ip or verdict.host)

    def harvests(self) -> dict[str, Harvest]:
        """Give what each source yielded so far."""
        found = {}
        for source in {**self._read, **self._counts}:
            new, checked, working = self._counts.get(source, (0, 0, 0))
            exits = len(self._exits.get(source, ()))
            found[source] = Harvest(self._read.get(source, 0), new, checked, working, exits)
        return found
