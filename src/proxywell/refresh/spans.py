"""Sets of item numbers as sorted ranges: cheap for a fresh chunk, exact for a patient one. Pure.

A ``Spans`` is flat, ``lo, hi, lo, hi, ...``: half-open, sorted, with a gap between two ranges.
A planned chunk is one range, so splitting it is arithmetic; the deferred items of a chunk are
many short ones. The form has no nesting, so a script of a store can walk it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeAlias

Spans: TypeAlias = tuple[int, ...]


def spans_of(items: Iterable[int]) -> Spans:
    """Gather item numbers, in any order and with repeats, into spans."""
    flat: list[int] = []
    for item in sorted(set(items)):
        if flat and flat[-1] == item:
            flat[-1] = item + 1
        else:
            flat += (item, item + 1)
    return tuple(flat)


def is_spans(flat: tuple[int, ...]) -> bool:
    """Say whether the numbers are well-formed spans: pairs, and strictly rising."""
    return len(flat) % 2 == 0 and all(a < b for a, b in pairwise(flat))


def count(spans: Spans) -> int:
    """How many items there are."""
    return sum(spans[1::2]) - sum(spans[::2])


def items_of(spans: Spans) -> Iterator[int]:
    """Every item number, rising."""
    for at in range(0, len(spans), 2):
        yield from range(spans[at], spans[at + 1])


def common(left: Spans, right: Spans) -> Spans:
    """Items that are in both."""
    flat: list[int] = []
    at_left = at_right = 0
    while at_left < len(left) and at_right < len(right):
        lo = max(left[at_left], right[at_right])
        hi = min(left[at_left + 1], right[at_right + 1])
        if lo < hi:
            flat += (lo, hi)
        if left[at_left + 1] <= right[at_right + 1]:
            at_left += 2
        else:
            at_right += 2
    return _joined(flat)


def minus(left: Spans, right: Spans) -> Spans:
    """Items of ``left`` that are not in ``right``."""
    if not left or not right:
        return left
    gaps = (min(left[0], right[0]) - 1, *right, max(left[-1], right[-1]) + 1)
    return common(left, gaps)


def parts(spans: Spans, fan: int) -> list[Spans]:
    """Cut into at most ``fan`` parts of nearly the same size, none empty, in order.

    Args:
        spans: What to cut; not empty.
        fan: Most parts wanted; at least 1.
    """
    total = count(spans)
    made = min(fan, total)
    wanted = [(total * (k + 1)) // made - (total * k) // made for k in range(made)]
    cut: list[Spans] = []
    rest = list(spans)
    for size in wanted:
        part: list[int] = []
        while size:
            lo, hi = rest[0], rest[1]
            taken = min(size, hi - lo)
            part += (lo, lo + taken)
            size -= taken  # noqa: PLW2901 - what is still wanted of this part
            if lo + taken == hi:
                del rest[:2]
            else:
                rest[0] = lo + taken
        cut.append(tuple(part))
    return cut


def _joined(flat: list[int]) -> Spans:
    """Join ranges that touch."""
    joined: list[int] = []
    for lo, hi in zip(flat[::2], flat[1::2], strict=True):
        if joined and joined[-1] == lo:
            joined[-1] = hi
        else:
            joined += (lo, hi)
    return tuple(joined)
