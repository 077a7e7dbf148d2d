from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from proxywell.orchestrator.tending import Act, Pace, Phase, Sight, Tended

LOOK_S = 0.1
PACE = Pace(
    pause_first_s=0.1, pause_most_s=2.0, steady_s=10.0, barren_max=4, rise_s=6.0, silent_s=5.0,
    stop_s=3.0,
)  # fmt: skip


class Habit(Struct, frozen=True):
    """How one life goes, in seconds from its start; None: never."""

    well_from_s: float | None = 0.5
    silent_from_s: float | None = None
    dies_s: float | None = None
    obeys_s: float | None = 0.2  # from being asked to stop until it ends


class World:
    """A child of simulated habits, looked after in simulated time."""

    def __init__(self, *habits: Habit, last: Habit | None = None, pace: Pace = PACE) -> None:
        self.now_s = 100.0
        self.tended = Tended(pace, self.now_s)
        self.may_start = True
        self.known = True
        self._habits = list(habits)
        self._last = last if last is not None else Habit()
        self._habit = self._last
        self.running = False
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.acts: list[tuple[float, Act]] = []
        self._asked_s: float | None = None

    @property
    def age_s(self) -> float:
        return self.now_s - self.starts[-1]

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.step()

    def step(self) -> Act:
        self.now_s += LOOK_S
        if self.running and self._is_over():
            self._end()
            return Act.NOTHING
        sight = Sight(running=self.running, well=self._is_well(), may_start=self.may_start)
        act = self.tended.look(self.now_s, sight)
        if act is not Act.NOTHING:
            self.acts.append((self.now_s, act))
        if act is Act.START:
            assert not self.running, "two at once"
            assert self.may_start, "started where it may not"
            self.running, self._asked_s = True, None
            self._habit = self._habits.pop(0) if self._habits else self._last
            self.starts.append(self.now_s)
        elif act is Act.STOP:
            assert self.running
            self._asked_s = self.now_s
        elif act is Act.KILL:
            assert self._asked_s is not None, "killed before it was asked"
            assert self.now_s >= self._asked_s + PACE.stop_s, "killed too soon"
            self._end()
        return act

    def _is_well(self) -> bool | None:
        if not self.known:
            return None
        habit = self._habit
        if not self.running or habit.well_from_s is None or self.age_s < habit.well_from_s:
            return False
        return habit.silent_from_s is None or self.age_s < habit.silent_from_s

    def _is_over(self) -> bool:
        habit = self._habit
        if habit.dies_s is not None and self.age_s >= habit.dies_s:
            return True
        return (
            self._asked_s is not None
            and habit.obeys_s is not None
            and self.now_s >= self._asked_s + habit.obeys_s
        )

    def _end(self) -> None:
        self.running = False
        self.ends.append(self.now_s)
        self.tended.ended(self.now_s, excused=not self.may_start)


def count(world: World, act: Act) -> int:
    return sum(1 for _, done in world.acts if done is act)


def test_a_child_that_is_well_is_left_in_peace() -> None:
    world = World()
    world.run(500)
    assert [act for _, act in world.acts] == [Act.START]
    assert world.tended.phase is Phase.WELL


def test_one_that_dies_is_started_again_after_the_first_rest() -> None:
    world = World(Habit(dies_s=60.0))
    world.run(70)
    assert len(world.starts) == 2
    rest_s = world.starts[1] - world.ends[0]
    assert rest_s == pytest.approx(PACE.pause_first_s, abs=2 * LOOK_S)


def test_one_that_never_comes_to_work_is_given_up_after_the_stated_count() -> None:
    world = World(last=Habit(dies_s=0.3))
    world.run(60)
    assert len(world.starts) == PACE.barren_max
    assert world.tended.given_up
    assert world.tended.phase is Phase.OVER


def test_one_that_never_gets_well_is_given_up_although_it_lives_long() -> None:
    world = World(last=Habit(well_from_s=None))
    world.run(200)
    assert len(world.starts) == PACE.barren_max
    assert world.tended.given_up


def test_rests_grow_and_have_an_end() -> None:
    pace = Pace(pause_first_s=0.5, pause_most_s=4.0, barren_max=8)
    world = World(last=Habit(dies_s=0.3), pace=pace)
    world.run(100)
    rests = [start - end for end, start in zip(world.ends, world.starts[1:], strict=False)]
    for rest, wanted in zip(rests, [0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0], strict=True):
        assert wanted <= rest <= wanted + 2 * LOOK_S


def test_one_that_dies_again_and_again_but_works_in_between_is_never_given_up() -> None:
    world = World(last=Habit(dies_s=PACE.steady_s + 1.0))
    world.run(1_000)
    assert len(world.starts) > 80
    assert not world.tended.given_up


def test_one_that_falls_silent_is_stopped_and_replaced() -> None:
    world = World(Habit(silent_from_s=50.0))
    world.run(80)
    (stopped_s,) = [at_s for at_s, act in world.acts if act is Act.STOP]
    silent_s = stopped_s - world.starts[0] - 50.0
    assert PACE.silent_s - LOOK_S <= silent_s <= PACE.silent_s + 2 * LOOK_S
    assert len(world.starts) == 2


def test_one_that_does_not_obey_is_killed_after_the_stated_time() -> None:
    world = World(Habit(silent_from_s=1.0, obeys_s=None))
    world.run(30)
    assert [act for _, act in world.acts] == [Act.START, Act.STOP, Act.KILL, Act.START]


def test_what_cannot_be_known_is_not_held_against_a_child() -> None:
    world = World(Habit(silent_from_s=1.0))
    world.known = False
    world.run(300)
    assert count(world, Act.STOP) == 0
    world.known = True
    world.run(PACE.rise_s - 1)
    assert count(world, Act.STOP) == 0  # nor at once when it can be known again
    world.run(3)
    assert count(world, Act.STOP) == 1


def test_deaths_without_the_ground_to_stand_on_do_not_count() -> None:
    world = World(last=Habit(dies_s=0.3))
    world.step()
    world.may_start = False
    for _ in range(3 * PACE.barren_max):
        world.may_start = True
        while not world.running:  # ends: it is started within the longest rest
            world.step()
        world.may_start = False
        world.run(1.0)
    assert not world.tended.given_up
    assert world.tended.barren == 0


def test_one_that_is_hopeless_is_given_up_at_its_first_end() -> None:
    tended = Tended(PACE, 0.0)
    assert tended.look(0.0, Sight(running=False)) is Act.START
    tended.ended(0.5, hopeless=True)
    assert tended.given_up
    assert tended.look(100.0, Sight(running=False)) is Act.NOTHING


def test_leaving_before_the_start_starts_nothing() -> None:
    tended = Tended(PACE, 0.0)
    tended.leave()
    tended.leave()
    assert tended.look(10.0, Sight(running=False)) is Act.NOTHING
    assert tended.phase is Phase.OVER


seconds = st.floats(0.0, 30.0)
habits = st.builds(
    Habit,
    well_from_s=st.none() | seconds,
    silent_from_s=st.none() | seconds,
    dies_s=st.none() | seconds,
    obeys_s=st.none() | seconds,
)


@given(lives=st.lists(habits, max_size=6), last=habits, left_s=st.floats(0.0, 120.0))
def test_leaving_ends_it_within_the_stated_time_whatever_it_does(
    lives: list[Habit], last: Habit, left_s: float
) -> None:
    world = World(*lives, last=last)
    world.run(left_s)
    world.tended.leave()
    starts = len(world.starts)
    world.run(PACE.stop_s + 3 * LOOK_S)
    assert not world.running
    assert len(world.starts) == starts
    assert world.tended.phase is Phase.OVER


@given(lives=st.lists(habits, max_size=6), seed=st.integers(0, 2**32))
def test_with_the_faults_over_it_gets_well_or_was_given_up(lives: list[Habit], seed: int) -> None:
    world = World(*lives)
    draw = random.Random(seed)
    while len(world.starts) < len(lives) and not world.tended.given_up:
        # ends: every life is over after it got well and fell silent, or died, or never rose
        world.may_start = draw.random() < 0.9
        world.step()
        if world.now_s > 2_000:
            break  # the last of them was well for good
    world.may_start = True
    bound_s = PACE.rise_s + PACE.silent_s + 30 + PACE.stop_s + PACE.pause_most_s + 5
    world.run(bound_s * 2)
    assert world.tended.given_up or world.tended.phase in {Phase.WELL, Phase.RISING}
    if not world.tended.given_up:
        assert world.running


@given(lives=st.lists(habits, min_size=1, max_size=8))
def test_no_life_that_is_not_well_lasts_longer_than_its_patience(lives: list[Habit]) -> None:
    world = World(*lives)
    quiet_from_s = world.now_s
    for _ in range(3_000):
        world.step()
        if not world.running or world._is_well():
            quiet_from_s = world.now_s
        longest_s = max(PACE.rise_s, PACE.silent_s) + PACE.stop_s + 3 * LOOK_S
        assert world.now_s - quiet_from_s <= longest_s


@pytest.mark.parametrize("barren_max", [1, 3])
def test_a_life_that_worked_forgives_those_before_it(barren_max: int) -> None:
    pace = Pace(barren_max=barren_max + 1, pause_first_s=0.1)
    short, long = Habit(dies_s=0.2), Habit(dies_s=20.0)
    world = World(*([short] * barren_max), long, *([short] * barren_max), pace=pace)
    world.run(120)
    assert not world.tended.given_up
    assert world.running


def test_a_moment_of_work_before_a_long_silence_proves_nothing() -> None:
    pace = Pace(steady_s=3.0, silent_s=5.0, stop_s=3.0, barren_max=4)
    world = World(last=Habit(well_from_s=0.5, silent_from_s=1.0), pace=pace)
    world.run(200)
    assert world.tended.given_up
    assert len(world.starts) == pace.barren_max


def test_each_life_may_take_its_time_to_rise() -> None:
    world = World(Habit(dies_s=20.0), Habit(well_from_s=PACE.silent_s + 0.5))
    world.run(60)
    assert [act for _, act in world.acts] == [Act.START, Act.START]


def test_why_it_was_stopped_is_known_until_the_next_life() -> None:
    world = World(Habit(silent_from_s=1.0, obeys_s=1.0))
    world.run(1.0 + PACE.silent_s + 0.5)
    assert world.tended.phase is Phase.STOPPING
    assert world.tended.silent
    assert world.tended.quiet_s(world.now_s) >= PACE.silent_s
    world.run(5)
    assert not world.tended.silent
