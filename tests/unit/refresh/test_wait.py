from __future__ import annotations

from collections.abc import Callable

import pytest

from proxywell.errors import StoreAwayError
from proxywell.refresh.books import SubmitAnswer, Tick, Worker
from proxywell.refresh.wait import GRACE_S, Driver, Until, WaitEnd, hard_bound_s, wait
from tests.contract.ledger_world import JOB, TERMS, Homes, settled


class Watch:
    """A bell that only lets time pass, and what a waiter does beside looking."""

    def __init__(self, homes: Homes) -> None:
        self.homes = homes
        self.ticks: list[Tick] = []
        self.finalised = 0
        self.monotonic_s: Callable[[], float] = homes.clock

    def wait(self, timeout_s: float) -> None:
        self.homes.clock.now_s += timeout_s

    def ring(self) -> None: ...
    def close(self) -> None: ...

    def finalise(self) -> None:
        self.finalised += 1
        ledger = self.homes.ledgers[0]
        ledger.fin_claim(JOB, "f")
        ledger.fin_commit(JOB, "f", b"{}")

    def until(self, until: Until, bound_s: float | None = None) -> WaitEnd:
        ledger = self.homes.ledgers[0]
        return wait(
            ledger,
            JOB,
            until=until,
            bound_s=hard_bound_s(ledger.status(JOB)) if bound_s is None else bound_s,
            bell=self,
            monotonic_s=self.monotonic_s,
            driver=Driver(each=self.ticks.append, finalise=self.finalise),
        )


def work(homes: Homes, chunks: int) -> None:
    for at in range(chunks):
        claim = homes.claim(Worker("n", "h"), f"t{at}")
        assert claim is not None
        told = settled(list(range(claim.items[0], claim.items[1])))
        answer = homes.ledgers[0].submit(JOB, claim.chunk_id, claim.token, 1, told)
        assert answer in (SubmitAnswer.OK, SubmitAnswer.CLOSED)


def test_a_wait_ends_at_its_own_bound() -> None:
    watch = Watch(Homes())
    assert watch.until(Until.FINALISED, bound_s=7.0) is WaitEnd.BOUND
    assert watch.homes.clock.now_s == pytest.approx(1_007)


def test_without_a_bound_it_ends_soon_after_the_jobs_cap() -> None:
    homes = Homes()
    watch = Watch(homes)
    homes.claim(Worker("n", "h"), "t")

    def keep_claimed(tick: Tick) -> None:
        homes.ledgers[0].node_beat("n", "", term_s=4)

    watch.ticks = _Calling(keep_claimed)
    assert watch.until(Until.FINALISED) is WaitEnd.REACHED  # the deadline closed it
    assert homes.clock.now_s <= 1_000 + TERMS.cap_s + GRACE_S


class _Calling(list[Tick]):
    def __init__(self, step: object) -> None:
        super().__init__()
        self._step = step

    def append(self, tick: Tick) -> None:
        assert callable(self._step)
        self._step(tick)


def test_a_closed_job_is_finalised_by_whoever_waits() -> None:
    homes = Homes()
    work(homes, 3)
    watch = Watch(homes)
    assert watch.until(Until.FINALISED) is WaitEnd.REACHED
    assert watch.finalised == 1
    assert watch.until(Until.FINALISED) is WaitEnd.REACHED
    assert watch.finalised == 1


def test_usable_is_reached_while_the_job_is_open() -> None:
    homes = Homes()
    work(homes, 2)
    watch = Watch(homes)
    assert watch.until(Until.USABLE) is WaitEnd.REACHED
    assert watch.finalised == 0


def test_nobody_there_ends_the_wait_as_stalled() -> None:
    watch = Watch(Homes())
    assert watch.until(Until.FINALISED) is WaitEnd.STALLED
    assert 1_000 + TERMS.stalled_s < watch.homes.clock.now_s < 1_000 + TERMS.stalled_s + 2


@pytest.mark.parametrize("bound_s", [None, 7.0])
def test_a_ledger_that_never_answers_ends_the_wait_at_its_bound(
    monkeypatch: pytest.MonkeyPatch, bound_s: float | None
) -> None:
    homes = Homes()
    watch = Watch(homes)
    answer_s = 2.0

    def silent(job_id: str) -> Tick:
        homes.clock.now_s += answer_s
        raise StoreAwayError("no answer")

    monkeypatch.setattr(homes.ledgers[0], "tick", silent)
    assert watch.until(Until.FINALISED, bound_s) is WaitEnd.BOUND
    longest_s = TERMS.cap_s + GRACE_S if bound_s is None else bound_s
    assert longest_s <= homes.clock.now_s - 1_000 <= longest_s + answer_s
    assert watch.ticks == []


def test_a_ledger_whose_clock_stands_still_ends_the_wait_at_its_bound() -> None:
    homes = Homes()
    watch = Watch(homes)
    local_s = [0.0]

    def pass_locally(timeout_s: float) -> None:
        local_s[0] += timeout_s

    watch.wait = pass_locally  # type: ignore[method-assign] # the ledger's own clock stands
    watch.monotonic_s = lambda: local_s[0]
    assert watch.until(Until.FINALISED) is WaitEnd.BOUND
    assert local_s[0] == pytest.approx(TERMS.cap_s + GRACE_S)


def test_what_is_left_of_the_cap_bounds_a_wait_that_begins_late() -> None:
    homes = Homes()
    homes.clock.now_s += 500
    homes.tick()
    left_s = hard_bound_s(homes.ledgers[0].status(JOB))
    assert left_s <= TERMS.cap_s + GRACE_S
    homes.clock.now_s += 10
    homes.tick()
    assert hard_bound_s(homes.ledgers[0].status(JOB)) == left_s - 10
