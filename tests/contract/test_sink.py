"""What every verdict sink must do, run against each one that there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxywell.config.schema import PoolSettings
from proxywell.model.candidate import Candidate
from proxywell.model.failure import FailureKind
from proxywell.model.report import PoolChange
from proxywell.model.verdict import Verdict
from proxywell.pool.pool import Pool
from proxywell.refresh.ports import VerdictSink
from tests.pool_makers import NOON_S, SetClock, candidate, failed, passed

Maker = Callable[[], VerdictSink]


def pool_maker(place: Path) -> tuple[Maker, Callable[[], None]]:
    opened: list[Pool] = []

    def make() -> VerdictSink:
        opened.append(Pool.open(place, PoolSettings(), SetClock()))
        return opened[-1]

    def close() -> None:
        for pool in opened:
            pool.close()

    return make, close


@pytest.fixture(params=[pool_maker], ids=["pool"])
def make_sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """Make a sink on the same store again and again, as processes that follow each other do."""
    make, close = request.param(tmp_path)
    yield make
    close()


def item(number: int, *, works: bool, at_s: float = NOON_S) -> tuple[int, Candidate, Verdict]:
    whom = candidate(number, "list")
    verdict = passed if works else failed
    return number, whom, verdict(whom.endpoint, at_s=at_s)


def test_nothing_is_sealed_until_it_is(make_sink: Maker) -> None:
    sink = make_sink()
    assert sink.sealed("a", 1) is None
    sink.record("a", 1, [item(1, works=True)])
    assert sink.sealed("a", 1) is None


def test_a_seal_tells_what_the_job_changed(make_sink: Maker) -> None:
    sink = make_sink()
    sink.record("a", 1, [item(1, works=True), item(2, works=True), item(3, works=False)])
    assert sink.seal("a", 1) == PoolChange(before=0, after=2, added=2, dropped=0)
    sink.record(
        "b", 1, [item(1, works=False, at_s=NOON_S + 60), item(4, works=True, at_s=NOON_S + 60)]
    )
    assert sink.seal("b", 1) == PoolChange(before=2, after=3, added=1, dropped=1)


def test_a_job_that_told_nothing_seals_as_no_change(make_sink: Maker) -> None:
    assert make_sink().seal("a", 1) == PoolChange()


def test_telling_again_changes_nothing(make_sink: Maker) -> None:
    sink = make_sink()
    told = [item(1, works=True), item(2, works=False)]
    for _ in range(3):
        sink.record("a", 1, told)
    sink.record("a", 1, [item(1, works=False, at_s=NOON_S + 60)])  # the first telling stands
    assert sink.seal("a", 1) == PoolChange(before=0, after=1, added=1, dropped=0)


def test_sealing_again_gives_what_was_sealed_whatever_happened_since(make_sink: Maker) -> None:
    sink = make_sink()
    sink.record("a", 1, [item(1, works=True)])
    first = sink.seal("a", 1)
    sink.record("b", 1, [item(2, works=True)])
    sink.seal("b", 1)
    assert sink.seal("a", 1) == first
    assert sink.sealed("a", 1) == first


def test_what_is_told_after_the_seal_is_ignored(make_sink: Maker) -> None:
    sink = make_sink()
    sink.record("a", 2, [item(1, works=True)])
    sink.seal("a", 2)
    sink.record("a", 2, [item(2, works=True)])
    sink.record("a", 1, [item(3, works=True)])  # from an older epoch, even later
    assert sink.seal("b", 1) == PoolChange(before=1, after=1)


def test_a_later_epoch_completes_the_job_without_counting_items_twice(make_sink: Maker) -> None:
    sink = make_sink()
    sink.record("a", 1, [item(1, works=True)])
    sink.record("a", 2, [item(1, works=True), item(2, works=True)])
    assert sink.seal("a", 2) == PoolChange(before=0, after=2, added=2, dropped=0)
    assert sink.sealed("a", 1) is None


def test_two_jobs_side_by_side_count_each_for_itself(make_sink: Maker) -> None:
    one, other = make_sink(), make_sink()
    one.record("a", 1, [item(1, works=True)])
    other.record("b", 1, [item(1, works=True), item(2, works=True)])
    assert one.seal("a", 1) == PoolChange(before=1, after=2, added=1)
    assert other.seal("b", 1) == PoolChange(before=1, after=2, added=1)


def test_a_successor_finds_what_was_sealed_and_goes_on_with_what_was_not(
    make_sink: Maker,
) -> None:
    first = make_sink()
    first.record("a", 1, [item(1, works=True)])
    change = first.seal("a", 1)
    first.record("b", 1, [item(2, works=True)])
    second = make_sink()
    assert second.sealed("a", 1) == change
    second.record("b", 1, [item(2, works=True), item(3, works=True)])
    assert second.seal("b", 1) == PoolChange(before=1, after=3, added=2)


def test_a_judge_at_fault_drops_nobody(make_sink: Maker) -> None:
    sink = make_sink()
    sink.record("a", 1, [item(1, works=True)])
    sink.seal("a", 1)
    whom = candidate(1)
    unwell = failed(whom.endpoint, at_s=NOON_S + 60, kind=FailureKind.JUDGE_UNWELL)
    sink.record("b", 1, [(0, whom, unwell)])
    assert sink.seal("b", 1) == PoolChange(before=1, after=1)


def test_items_come_from_a_generator_of_any_length(make_sink: Maker) -> None:
    sink = make_sink()
    sink.record("a", 1, (item(number, works=number % 100 == 0) for number in range(12_000)))
    assert sink.seal("a", 1).added == 120
