from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxywell.refresh.spans import common, count, is_spans, items_of, minus, parts, spans_of

numbers = st.frozensets(st.integers(0, 60), max_size=40)


@given(items=numbers)
def test_spans_hold_exactly_the_items_that_were_gathered(items: frozenset[int]) -> None:
    spans = spans_of(items)
    assert is_spans(spans)
    assert list(items_of(spans)) == sorted(items)
    assert count(spans) == len(items)


@given(left=numbers, right=numbers)
def test_common_and_minus_agree_with_sets(left: frozenset[int], right: frozenset[int]) -> None:
    assert common(spans_of(left), spans_of(right)) == spans_of(left & right)
    assert minus(spans_of(left), spans_of(right)) == spans_of(left - right)


@given(items=numbers.filter(bool), fan=st.integers(1, 9))
def test_parts_are_even_in_order_and_lose_nothing(items: frozenset[int], fan: int) -> None:
    cut = parts(spans_of(items), fan)
    sizes = [count(part) for part in cut]
    assert [item for part in cut for item in items_of(part)] == sorted(items)
    assert all(is_spans(part) for part in cut)
    assert len(cut) == min(fan, len(items))
    assert max(sizes) - min(sizes) <= 1


def test_malformed_spans_are_told_apart() -> None:
    assert not is_spans((1,))
    assert not is_spans((3, 3))
    assert not is_spans((0, 2, 2, 4))
    assert is_spans(())
