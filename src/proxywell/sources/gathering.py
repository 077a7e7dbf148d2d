"""Join the candidates of many sources into one set, in as little memory as that takes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Protocol
from proxywell.sources.tally import Identity, SourceTally, endpoint_of

_PROTOCOLS = tuple(Protocol)
_SLICE = 10_000
_COUNT_BITS = 6
_COUNT_MAX = (1 << _COUNT_BITS) - 1
_SOURCES_SHIFT = _COUNT_BITS * len(_PROTOCOLS)
_COUNTS = (1 << _SOURCES_SHIFT) - 1


class Gathering:
    """Candidates over all sources: one for each endpoint, with every source and hint.

    A million of them take a dictionary of numbers: the key is the endpoint, the value says how
    many sources hint at each protocol (up to 63) and which list of sources it is.
    """

    def __init__(self) -> None:
        self._values: dict[Identity, int] = {}
        self._sources: list[tuple[str, ...]] = [()]  # 0: accepted from no source
        self._numbers: dict[tuple[int, str], int] = {}
        self._shared: dict[int, int] = {}  # equal values are one object

    @property
    def unique(self) -> int:
        """Distinct well-formed endpoints over all sources, also those that are refused."""
        return len(self._values)

    def merge(self, source: str, tally: SourceTally) -> Iterator[None]:
        """Take in what one source gave; it comes behind the sources merged before it.

        Hints count once for each source, so that no list outvotes the others by repeating.

        Yields:
            Now and then, so that the caller can look after other things.
        """
        for done, (identity, hints, accepted) in enumerate(tally.endpoints()):
            if done % _SLICE == 0:
                yield
            value = self._values.get(identity, 0)
            if accepted:
                value = self._with_source(value, source)
                value = _with_hints(value, hints)
            self._values[identity] = self._shared.setdefault(value, value)

    def take(self, candidates: list[Candidate]) -> Iterator[None]:
        """Move the candidates that at least one source had accepted into an empty list.

        They are in the order in which they were first listed.

        Yields:
            Now and then, as ``merge``.
        """
        hints: dict[int, tuple[Protocol, ...]] = {}
        ports = list(range(65536))  # small numbers are shared, these are not by themselves
        while self._values:
            if len(self._values) % _SLICE == 0:
                yield
            identity, value = self._values.popitem()
            sources = self._sources[value >> _SOURCES_SHIFT]
            if not sources:
                continue
            counts = value & _COUNTS
            if counts not in hints:
                hints[counts] = _ordered_hints(counts)
            endpoint = endpoint_of(identity, ports)
            candidates.append(Candidate(endpoint, hints[counts], sources))
        candidates.reverse()

    def _with_source(self, value: int, source: str) -> int:
        number = value >> _SOURCES_SHIFT
        following = self._numbers.get((number, source))
        if following is None:
            self._sources.append((*self._sources[number], source))
            following = self._numbers[number, source] = len(self._sources) - 1
        return following << _SOURCES_SHIFT | value & _COUNTS


def _with_hints(value: int, hints: int) -> int:
    bit = 0
    while hints:
        if hints & 1 and value >> bit & _COUNT_MAX < _COUNT_MAX:
            value += 1 << bit
        hints >>= 1
        bit += _COUNT_BITS
    return value


def _ordered_hints(counts: int) -> tuple[Protocol, ...]:
    """The protocols that are hinted at, most frequent first, ties in the order of Protocol."""
    found = [(counts >> at * _COUNT_BITS & _COUNT_MAX, at) for at in range(len(_PROTOCOLS))]
    return tuple(_PROTOCOLS[at] for count, at in sorted(found, key=_most_first) if count)


def _most_first(found: tuple[int, int]) -> tuple[int, int]:
    return -found[0], found[1]
