from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.refresh.packing import unpack_candidates
from proxywell.refresh.plan import blocks, chunk_size, put_likely_first


def some(count: int, *sources: str, hints: tuple[Protocol, ...] = ()) -> list[Candidate]:
    return [
        Candidate(Endpoint(f"9.{n >> 8}.{n & 255}.1", 80), hints, sources) for n in range(count)
    ]


@pytest.mark.parametrize(
    ("planned", "workers", "expected"),
    [(0, 1, 100), (500, 1, 100), (8_000, 1, 1_000), (8_000, 4, 250), (10**6, 1, 2_000)],
)
def test_the_size_of_a_chunk_follows_the_plan(planned: int, workers: int, expected: int) -> None:
    assert chunk_size(planned, workers=workers) == expected


@given(count=st.integers(0, 300), seed=st.integers(0, 2**40))
def test_the_order_loses_nobody_and_is_the_same_for_a_seed(count: int, seed: int) -> None:
    once, again = some(count), some(count)
    put_likely_first(once, worked_before={}, yields={}, seed=seed)
    put_likely_first(again, worked_before={}, yields={}, seed=seed)
    assert once == again
    assert len(once) == count
    assert set(once) == set(some(count))


def test_who_worked_before_comes_first_by_score_then_yield_then_protocol() -> None:
    poor, rich = some(50, "poor"), some(50, "rich")
    rich = [Candidate(Endpoint(c.endpoint.host, 81), (), c.sources) for c in rich]
    socks = [
        Candidate(Endpoint(f"8.8.8.{n}", 1080), (Protocol.SOCKS5,), ("poor",)) for n in range(9)
    ]
    known = {poor[7].endpoint: 0.4, rich[9].endpoint: 0.9}
    order = [*poor, *rich, *socks]
    put_likely_first(order, worked_before=known, yields={"rich": 0.3, "poor": 0.1}, seed=1)
    assert [c.endpoint for c in order[:2]] == [rich[9].endpoint, poor[7].endpoint]
    assert {c.sources for c in order[2:51]} == {("rich",)}
    assert set(order[51:60]) == set(socks)


def test_neighbours_of_one_network_are_not_asked_in_a_row() -> None:
    lists = [Candidate(Endpoint(f"9.0.{n // 100}.{n % 100}", 80)) for n in range(2_000)]
    put_likely_first(lists, worked_before={}, yields={}, seed=5)
    networks = [c.endpoint.host.rpartition(".")[0] for c in lists]
    together = sum(a == b for a, b in pairwise(networks))
    assert together < 2_000 // 20 * 2  # by chance one in twenty; in the list it is all of them
    assert [c for c in lists if c.endpoint.host.startswith("9.0.0.")] != lists[:100]


@given(count=st.integers(0, 60), size=st.integers(1, 20))
def test_blocks_cover_the_plan_in_order_without_a_gap(count: int, size: int) -> None:
    whole = some(count, "a")
    cut = list(blocks(whole, size))
    assert [one for block in cut for one in unpack_candidates(block.body)] == whole
    assert [block.lo for block in cut] == list(range(0, count, size))
    assert all(block.hi - block.lo <= size for block in cut)
    assert (cut[-1].hi if cut else 0) == count
