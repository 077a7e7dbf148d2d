from __future__ import annotations

import fcntl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.errors import StateError
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint
from proxywell.model.failure import Blame, FailureKind
from proxywell.model.report import PoolChange, SourceReport
from proxywell.model.verdict import Verdict
from proxywell.sources.harvest import Harvest, HarvestCounter
from proxywell.sources.harvesting import HarvestingSink
from proxywell.sources.yields import (
    HALF_LIFE_S,
    PRIOR_SHARE,
    SourceYield,
    YieldBook,
    after,
    interval_s,
)

GOOD = Harvest(read=120, new=20, checked=100, working=10, exits=10)
BAD = Harvest(read=120, new=20, checked=100)


def test_a_source_whose_candidates_work_outranks_one_whose_do_not() -> None:
    good, bad = after(None, GOOD, now_s=0), after(None, BAD, now_s=0)
    assert good.share > PRIOR_SHARE > bad.share > 0


def test_a_thousand_ports_of_one_exit_count_as_one() -> None:
    flood = after(None, Harvest(1_000, 1_000, 1_000, 1_000, exits=1), now_s=0)
    assert flood.share < after(None, GOOD, now_s=0).share / 10


def test_what_was_learnt_fades_by_half_in_a_week() -> None:
    known = after(after(None, GOOD, now_s=0), Harvest(), now_s=HALF_LIFE_S)
    assert (known.checked, known.working, known.exits) == (50, 5, 5)
    assert known.rounds == 2


def test_a_source_rests_longer_the_longer_nothing_of_it_works() -> None:
    known: SourceYield | None = None
    rests = []
    for day in range(6):
        known = after(known, BAD, now_s=day)
        rests.append(interval_s(3_600, known) / 3_600)
    assert rests == [2, 4, 8, 16, 24, 24]
    assert interval_s(3_600, after(known, GOOD, now_s=9)) == 3_600


def test_a_handful_of_checks_says_nothing_about_a_source() -> None:
    known = after(None, Harvest(read=9, new=9, checked=9), now_s=0)
    assert interval_s(3_600, known) == 3_600


def test_a_list_that_shows_nothing_new_is_read_half_as_often() -> None:
    known = after(None, Harvest(read=100, new=0, checked=100, working=9, exits=9), now_s=0)
    assert interval_s(3_600, known) == 7_200


@given(
    usual_s=st.floats(1, 1e7),
    harvests=st.lists(
        st.builds(Harvest, *[st.integers(0, 10**6)] * 5), max_size=8
    ),
    step_s=st.floats(-1e6, 1e7),
)  # fmt: skip
def test_no_history_makes_a_source_hammered_or_forgotten(
    usual_s: float, harvests: list[Harvest], step_s: float
) -> None:
    known = None
    for round_, harvest in enumerate(harvests):
        known = after(known, harvest, now_s=1e9 + round_ * step_s)
        assert known.share >= 0
    assert 900 <= interval_s(usual_s, known) <= max(86_400, usual_s)


def verdict(
    host: str, *, working: bool, exit_ip: str | None = None, judge: bool = False
) -> Verdict:
    failure = None if working else FailureKind.JUDGE_UNWELL if judge else FailureKind.RESET
    return Verdict(
        proxy=f"http://{host}:80",
        host=host,
        port=80,
        protocol=None,
        working=working,
        failure=failure,
        blame=None if failure is None else Blame.JUDGE if judge else Blame.PROXY,
        exit_ip=exit_ip,
        checked_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def test_a_candidate_counts_for_every_source_that_lists_it() -> None:
    counter = HarvestCounter()
    counter.saw_list("a", 10)
    counter.saw_list("b", 5)

    def saw(host: str, sources: tuple[str, ...], found: Verdict, *, new: bool) -> None:
        counter.saw_verdict(Candidate(Endpoint(host, 80), (), sources), found, new=new)

    saw("1.1.1.1", ("a", "b"), verdict("1.1.1.1", working=True, exit_ip="9.9.9.9"), new=True)
    saw("1.1.1.2", ("a",), verdict("1.1.1.2", working=True, exit_ip="9.9.9.9"), new=False)
    saw("1.1.1.3", ("a",), verdict("1.1.1.3", working=False), new=True)
    saw("1.1.1.4", ("a",), verdict("1.1.1.4", working=False, judge=True), new=True)
    assert counter.harvests() == {"a": Harvest(10, 2, 3, 2, 1), "b": Harvest(5, 1, 1, 1, 1)}


class Keeper:
    """Keeps what it is told; sealed once."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Candidate, Verdict]] = []
        self.change: PoolChange | None = None

    def record(
        self, job_id: str, epoch: int, verdicts: Iterable[tuple[int, Candidate, Verdict]]
    ) -> None:
        self.told += verdicts

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        self.change = self.change or PoolChange(0, 1, 1, 0)
        return self.change

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        return self.change


def test_a_sealed_job_leaves_what_it_read_and_found_of_each_list_once(tmp_path: Path) -> None:
    keeper, book = Keeper(), YieldBook(tmp_path)
    sink = HarvestingSink(keeper, book, known={"1.1.1.2:80"}, clock=SystemClock())
    reports = [SourceReport("a", 10, 2), SourceReport("b", 4, 0), SourceReport("c", error="gone")]
    sink.saw_lists(reports)
    for at, host in enumerate(["1.1.1.1", "1.1.1.2"]):
        found = (at, Candidate(Endpoint(host, 80), (), ("a",)), verdict(host, working=True))
        sink.record("j", 1, iter([found]))
    assert len(keeper.told) == 2
    assert sink.seal("j", 1) == sink.seal("j", 1) == PoolChange(0, 1, 1, 0)
    known = book.known()
    assert set(known) == {"a", "b"}  # of a list that could not be read nothing was learnt
    assert (known["a"].read, known["a"].new, known["a"].working, known["a"].rounds) == (10, 1, 2, 1)
    assert (known["b"].read, known["b"].checked) == (4, 0)


def test_the_book_remembers_between_processes_and_survives_damage(tmp_path: Path) -> None:
    directory = tmp_path / "sources"
    assert YieldBook(directory).known() == {}
    YieldBook(directory).record({"a": GOOD}, now_s=5)
    YieldBook(directory).record({"a": GOOD, "b": BAD}, now_s=5)
    known = YieldBook(directory).known()
    assert (known["a"].rounds, known["a"].working, known["b"].barren) == (2, 20, 1)
    shares = YieldBook(directory).shares()
    assert shares["a"] > shares["b"]
    (directory / "yields.json").write_bytes(b"[")
    assert YieldBook(directory).known() == {}
    YieldBook(directory).record({"b": BAD}, now_s=6)
    assert set(YieldBook(directory).known()) == {"b"}


def test_a_book_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match=r"cannot be kept in .*; mend that"):
        YieldBook(tmp_path / "file").record({"a": GOOD}, now_s=5)


def test_a_book_that_another_process_never_lets_go_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxywell.sources.yields.LOCK_WAIT_S", 0.0)
    with (tmp_path / "yields.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StateError, match=r"another process has held yields.lock for 0 s"):
            YieldBook(tmp_path).record({"a": GOOD}, now_s=5)
    YieldBook(tmp_path).record({"a": GOOD}, now_s=5)
