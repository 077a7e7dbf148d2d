"""When to start a child process, to stop it, to kill it, and to start it no more.

Rules alone: they are handed the time and what is seen of the child, and say what to do. They
know nothing of processes; ``supervise.py`` does what they say.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

KILL_AGAIN_S = 1.0


class Pace(Struct, frozen=True, kw_only=True):
    """How patient we are with one kind of child; all in seconds but the count.

    Attributes:
        pause_first_s: Rest before a child that ended is started again; doubles each time.
        pause_most_s: Longest such rest; not below the first.
        steady_s: A child that lived so long and was well begins with the first rest again.
        barren_max: So many lives in a row without that, and it is given up.
        rise_s: From its start until it must be well for the first time.
        silent_s: Since it was last well until it is stopped, to be started again.
        stop_s: From being asked to stop until it is killed.
    """

    pause_first_s: float = 0.1
    pause_most_s: float = 5.0
    steady_s: float = 10.0
    barren_max: int = 5
    rise_s: float = 20.0
    silent_s: float = 15.0
    stop_s: float = 10.0


class Act(Enum):
    """What to do with the child now."""

    NOTHING = "nothing"
    START = "start"
    STOP = "stop"  # ask it to end
    KILL = "kill"  # end it and all of its group


class Sight(Struct, frozen=True, kw_only=True):
    """What is known of a child at one look.

    Attributes:
        running: Its process exists.
        well: It does what it is there for; None when that cannot be known just now.
        may_start: It is wanted, and what it stands on is there.
    """

    running: bool
    well: bool | None = None
    may_start: bool = True


class Phase(Enum):
    """Where a child is in its life."""

    RESTING = "resting"  # there is none; one is started when the rest is over
    RISING = "rising"  # started, and not yet well
    WELL = "well"
    STOPPING = "stopping"
    OVER = "over"  # there is none, and none will be started


class Tended:
    """One child's life as far as it has been seen.

    ``look`` is to be called some times a second, with times that never go back; what it answers
    must be done before the next call. ``ended`` is called once for each child that was started.

    Args:
        pace: How patient to be.
        now_s: The time of the caller's clock.
    """

    def __init__(self, pace: Pace, now_s: float) -> None:
        self._pace = pace
        self.phase = Phase.RESTING
        self.barren = 0  # lives in a row in which it was not well and steady
        self.given_up = False
        self.silent = False  # this life is ended because it was not well for too long
        self.start_s = now_s  # the earliest instant of the next start
        self._leaving = False
        self._pause_s = pace.pause_first_s
        self._born_s = self._well_s = self._kill_s = now_s
        self._was_well = False

    def leave(self) -> None:
        """End it, and start no other; works twice."""
        self._leaving = True

    def give_up(self) -> None:
        """Start no other."""
        self.given_up = True

    def quiet_s(self, now_s: float) -> float:
        """How long it has not been well, counted from its start at the earliest."""
        return now_s - self._well_s

    def look(self, now_s: float, sight: Sight) -> Act:
        """Say what to do."""
        if sight.running:
            return self._of_running(now_s, sight)
        if self._leaving or self.given_up:
            self.phase = Phase.OVER
            return Act.NOTHING
        if now_s < self.start_s or not sight.may_start:
            return Act.NOTHING
        self.phase, self.silent, self._was_well = Phase.RISING, False, False
        self._born_s = self._well_s = now_s
        return Act.START

    def ended(self, now_s: float, *, excused: bool = False, hopeless: bool = False) -> None:
        """Take in that the child is gone: rest before the next one, longer each time, or give up.

        Args:
            now_s: The time.
            excused: What it stands on was not there, so that no child could have lived.
            hopeless: Every other one would end in the same way.
        """
        proven = self._was_well and self._well_s - self._born_s >= self._pace.steady_s
        if proven:
            self.barren, self._pause_s = 0, self._pace.pause_first_s
        elif not excused:
            self.barren += 1
        self.given_up = self.given_up or hopeless or self.barren >= self._pace.barren_max
        self.phase = Phase.RESTING
        self.start_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._pace.pause_most_s)

    def _of_running(self, now_s: float, sight: Sight) -> Act:
        if self.phase is Phase.STOPPING:
            if now_s < self._kill_s:
                return Act.NOTHING
            self._kill_s = now_s + KILL_AGAIN_S
            return Act.KILL
        if self._leaving or self.given_up:
            return self._stop(now_s)
        if sight.well is True:
            self.phase, self._was_well, self._well_s = Phase.WELL, True, now_s
        elif sight.well is None:
            self._well_s = now_s  # nothing is known, so nothing is held against it
        elif now_s - self._well_s > self._patience_s():
            self.silent = True
            return self._stop(now_s)
        return Act.NOTHING

    def _patience_s(self) -> float:
        return self._pace.silent_s if self._was_well else self._pace.rise_s

    def _stop(self, now_s: float) -> Act:
        self.phase, self._kill_s = Phase.STOPPING, now_s + self._pace.stop_s
        return Act.STOP
