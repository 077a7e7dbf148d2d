from __future__ import annotations

from proxywell.refresh.standstill import GRACE_S, Remedy, Standstill

LOOK_S = 0.5


class Watched:
    """A loop that moves, or does not, and looks at it in simulated time."""

    def __init__(self, limit_s: float = 10.0) -> None:
        self.now_s = 100.0
        self.standstill = Standstill(limit_s, look_max_s=2 * LOOK_S, now_s=self.now_s)

    def spend(self, span_s: float, *, moving: bool = False, look_s: float = LOOK_S) -> list[Remedy]:
        said = list[Remedy]()
        for _ in range(round(span_s / look_s)):
            self.now_s += look_s
            if moving:
                self.standstill.move()
            remedy = self.standstill.look(self.now_s)
            if remedy is not Remedy.FINE:
                said.append(remedy)
        return said


def test_a_loop_that_moves_is_left_alone() -> None:
    assert Watched().spend(1_000.0, moving=True) == []


def test_a_loop_that_stands_still_is_interrupted_once_and_then_ended_once() -> None:
    watched = Watched(limit_s=10.0)
    assert watched.spend(10.0) == []
    assert watched.spend(1.0) == [Remedy.INTERRUPT]
    assert watched.spend(GRACE_S - 1.0) == []
    assert watched.spend(1_000.0) == [Remedy.END]


def test_a_loop_that_moves_again_is_not_ended_and_may_hang_anew() -> None:
    watched = Watched(limit_s=10.0)
    assert watched.spend(11.0) == [Remedy.INTERRUPT]
    assert watched.spend(20.0, moving=True) == []
    assert watched.spend(9.0) == []
    assert watched.spend(2.0) == [Remedy.INTERRUPT]


def test_a_process_that_was_stopped_for_an_hour_has_not_hung() -> None:
    watched = Watched(limit_s=10.0)
    watched.spend(5.0, moving=True)
    assert watched.spend(3_600.0, look_s=3_600.0) == []
    assert watched.spend(5.0, moving=True) == []


def test_a_clock_is_not_needed_to_say_how_long_it_stood() -> None:
    watched = Watched(limit_s=10.0)
    watched.spend(10.5)
    assert watched.standstill.stood_s == 10.5
