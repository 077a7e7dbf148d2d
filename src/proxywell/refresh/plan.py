"""From candidates to chunks: who comes first, and how many go together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.refresh.packing import pack_candidates
from proxywell.refresh.ports import Block

CHUNK_LEAST = 100
CHUNK_MOST = 2_000
CHUNKS_PER_WORKER = 8
_LEVELS = 1 << 6  # of a score or yield; finer differences are noise
_DRAW_BITS = 40
_PRIOR = {Protocol.SOCKS5: 3, Protocol.SOCKS4: 2, Protocol.SOCKS4A: 2, Protocol.CONNECT: 1}


def chunk_size(planned: int, *, workers: int) -> int:
    """Say how many candidates a chunk holds: ``clamp(planned / (8 * workers), 100, 2000)``.

    Args:
        planned: Candidates in all; at least 0.
        workers: Processes that will check; at least 1.
    """
    return max(CHUNK_LEAST, min(CHUNK_MOST, planned // (CHUNKS_PER_WORKER * workers)))


def put_likely_first(
    candidates: list[Candidate],
    *,
    worked_before: Mapping[Endpoint, float],
    yields: Mapping[str, float],
    seed: int,
) -> None:
    """Order the candidates in place, so that the first chunks make the job usable.

    First those that worked before, by score; then by the best yield of their sources; then by
    what the listed protocol says. Equals are shuffled, so that neighbours in a list, which are
    often one operator's network, are not asked in a row. The same input and seed give the same
    order.

    Args:
        candidates: Changed in place, so that a million are not held twice.
        worked_before: Scores in [0, 1] of endpoints that the pool knows as having worked.
        yields: Per source the share that worked lately, in [0, 1]; missing counts as 0.
        seed: Another one gives another shuffle.
    """
    ranks: dict[tuple[tuple[str, ...], tuple[Protocol, ...]], int] = {}
    keys = [0] * len(candidates)
    for at, candidate in enumerate(candidates):
        group = (candidate.sources, candidate.hints)
        rank = ranks.get(group)
        if rank is None:
            ranks[group] = rank = _rank(candidate, yields)
        if worked_before:
            score = worked_before.get(candidate.endpoint)
            if score is not None:
                rank += (1 + _level(score)) << 10
        keys[at] = (-rank << _DRAW_BITS) + _draw(at, seed)
    drawn = sorted(range(len(candidates)), key=keys.__getitem__)
    candidates[:] = [candidates[at] for at in drawn]


def blocks(candidates: Sequence[Candidate], size: int) -> Iterator[Block]:
    """Cut the plan, in order; each block becomes one chunk.

    Args:
        candidates: In the order in which they are to be checked.
        size: Candidates in a block; at least 1. The last one may be smaller.
    """
    for lo in range(0, len(candidates), size):
        part = candidates[lo : lo + size]
        yield Block(lo, lo + len(part), pack_candidates(part))


def _rank(candidate: Candidate, yields: Mapping[str, float]) -> int:
    best = max((yields.get(source, 0.0) for source in candidate.sources), default=0.0)
    prior = max((_PRIOR.get(hint, 0) for hint in candidate.hints), default=0)
    return (_level(best) << 3) + prior


def _level(share: float) -> int:
    return min(_LEVELS - 1, max(0, int(share * _LEVELS)))


def _draw(at: int, seed: int) -> int:
    """A number for a position that looks drawn, the same every time (splitmix64, S. Vigna)."""
    z = (at + seed * 0x632BE59BD9B4E019 + 0x9E3779B97F4A7C15 * (at + 1)) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) >> (64 - _DRAW_BITS)
