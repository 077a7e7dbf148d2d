from __future__ import annotations

import pytest
from msgspec.structs import replace

from proxywell.errors import NoJudgeError
from proxywell.refresh.books import JobRow, JobState, Terms
from proxywell.refresh.engines.unable import PATIENCE_S, Hopelessness, Inability

TERMS = Terms(5.0, 300.0, 8, 2, 2, 8, 30.0, 100, 10, None, 600.0, 2_400.0, 90.0)
JOB = JobRow("j", TERMS, 500, 0.0, 0.0, 600.0, 2_400.0, ready=5, chunks=5)
NONE = Inability("no judge answers", 4)
A, B = frozenset({"a"}), frozenset({"a", "b"})


class Waiter:
    def __init__(self) -> None:
        self.now_s = 50.0
        self.hopelessness = Hopelessness(lambda: self.now_s)

    def told_after_s(
        self, job: JobRow, there: frozenset[str], unable: dict[str, Inability]
    ) -> float | None:
        for waited_s in range(100):
            if self.hopelessness.look(job, there, unable) is not None:
                return float(waited_s)
            self.now_s += 1.0
        return None


def test_a_job_of_which_nothing_was_checked_fails_soon() -> None:
    assert Waiter().told_after_s(JOB, A, {"a": NONE}) == PATIENCE_S


def test_a_job_that_has_come_far_is_given_as_long_as_for_want_of_workers() -> None:
    assert Waiter().told_after_s(replace(JOB, checked=1), A, {"a": NONE}) == TERMS.stalled_s


@pytest.mark.parametrize(
    ("job", "there", "unable"),
    [
        (JOB, B, {"a": NONE}),
        (JOB, frozenset[str](), {"a": NONE}),
        (JOB, A, {}),
        (replace(JOB, running=1), A, {"a": NONE}),
        (replace(JOB, ready=0), A, {"a": NONE}),
        (replace(JOB, state=JobState.CLOSED), A, {"a": NONE}),
    ],
    ids=["another-can", "nobody-there", "nobody-said", "one-works", "nothing-waits", "closed"],
)
def test_a_job_that_somebody_may_go_on_with_does_not_fail(
    job: JobRow, there: frozenset[str], unable: dict[str, Inability]
) -> None:
    assert Waiter().told_after_s(job, there, unable) is None


def test_time_in_which_somebody_could_does_not_count() -> None:
    waiter = Waiter()
    for _ in range(20):
        assert waiter.hopelessness.look(JOB, A, {"a": NONE}) is None
        waiter.now_s += PATIENCE_S - 1.0
        waiter.hopelessness.forget()


def test_the_error_says_what_the_worker_said() -> None:
    waiter = Waiter()
    waiter.hopelessness.look(JOB, B, {"a": NONE, "b": Inability("other")})
    waiter.now_s += PATIENCE_S
    error = waiter.hopelessness.look(JOB, B, {"a": NONE, "b": Inability("other")})
    assert error is not None
    assert (str(error), error.exit_status) == ("no judge answers", 4)


def test_an_error_of_ours_is_told_by_its_sentence_and_any_other_with_its_name() -> None:
    ours = NoJudgeError("no judge answers")
    assert Inability.of(ours) == Inability("no judge answers", ours.exit_status)
    assert "OSError: no such device" in Inability.of(OSError("no such device")).sentence
