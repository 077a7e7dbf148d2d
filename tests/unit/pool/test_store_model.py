"""The pool's file against a plain dictionary, under random tellings, seals and restarts."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from proxywell.config.schema import PoolSettings
from proxywell.model.candidate import Candidate
from proxywell.model.failure import FailureKind
from proxywell.model.member import MemberState
from proxywell.model.report import PoolChange
from proxywell.model.verdict import Verdict
from proxywell.pool import recorder, rejections
from proxywell.pool.member_state import after_check
from proxywell.pool.pool import Pool
from tests.pool_makers import NOON_S, SetClock, candidate, endpoint, failed, passed


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    CAUGHT = "caught"
    UNCLEAR = "unclear"


class Told(NamedTuple):
    item: int
    whom: int
    outcome: Outcome
    after_s: int

    def as_item(self) -> tuple[int, Candidate, Verdict]:
        whom, at_s = candidate(self.whom), NOON_S + self.after_s
        verdict = {
            Outcome.PASSED: lambda: passed(whom.endpoint, at_s=at_s),
            Outcome.FAILED: lambda: failed(whom.endpoint, at_s=at_s),
            Outcome.CAUGHT: lambda: failed(whom.endpoint, at_s=at_s, tampering="script"),
            Outcome.UNCLEAR: lambda: failed(
                whom.endpoint, at_s=at_s, kind=FailureKind.JUDGE_UNWELL
            ),
        }[self.outcome]()
        return self.item, whom, verdict


class Model:
    """What the pool should be: dictionaries and no cleverness."""

    def __init__(self) -> None:
        self.told: set[tuple[str, int]] = set()
        self.sealed: dict[tuple[str, int], PoolChange] = {}
        self.checks: dict[int, list[Told]] = {}  # of members
        self.rejected: dict[int, Counter[bool]] = {}  # conclusive or not -> how often
        self.caught: set[int] = set()
        self.added: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def works(self, whom: int) -> bool:
        telling = [told for told in self.checks[whom] if told.outcome is not Outcome.UNCLEAR]
        last = max(range(len(telling)), key=lambda at: (telling[at].after_s, at))
        return whom not in self.caught and telling[last].outcome is Outcome.PASSED

    def record(self, job: str, epoch: int, items: list[Told]) -> None:
        if any(of == job and done >= epoch for of, done in self.sealed):
            return
        for told in items:
            if (job, told.item) in self.told:
                continue
            self.told.add((job, told.item))
            self._check(job, told)

    def _check(self, job: str, told: Told) -> None:
        member = told.whom in self.checks
        worked = member and self.works(told.whom)
        if told.outcome is Outcome.CAUGHT:
            self.caught.add(told.whom)
        if not member and told.outcome is not Outcome.PASSED:
            conclusive = told.outcome is not Outcome.UNCLEAR
            self.rejected.setdefault(told.whom, Counter())[conclusive] += 1
            return
        self.checks.setdefault(told.whom, []).append(told)
        if not member:
            self.rejected.pop(told.whom, None)
            self.added[job] += 1
        elif worked and not self.works(told.whom):
            self.dropped[job] += 1

    def seal(self, job: str, epoch: int) -> PoolChange:
        after = len(self.checks)
        change = PoolChange(
            before=after - self.added[job],
            after=after,
            added=self.added[job],
            dropped=self.dropped[job],
        )
        return self.sealed.setdefault((job, epoch), change)


tellings = st.lists(
    st.builds(
        Told,
        item=st.sampled_from([0, 1, 2, 3, 8_191, 8_192, 20_000]),
        whom=st.integers(0, 3),
        outcome=st.sampled_from(Outcome),
        after_s=st.integers(0, 900),
    ),
    max_size=6,
)
jobs = st.sampled_from(["a", "b"])
epochs = st.integers(1, 2)


class PoolMachine(RuleBasedStateMachine):
    """Does the same to the pool and to the model, and compares after each step."""

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="pool-model-"))
        self.clock = SetClock(NOON_S + 900)
        self.model = Model()
        self.pool = self._opened()

    def _opened(self) -> Pool:
        return Pool.open(self.place, PoolSettings(), self.clock)

    @rule(job=jobs, epoch=epochs, items=tellings, again=st.booleans())
    def record(self, job: str, epoch: int, items: list[Told], again: bool) -> None:
        for _ in range(1 + again):
            self.pool.record(job, epoch, (told.as_item() for told in items))
            self.model.record(job, epoch, items)

    @rule(job=jobs, epoch=epochs)
    def seal(self, job: str, epoch: int) -> None:
        assert self.pool.seal(job, epoch) == self.model.seal(job, epoch)

    @rule()
    def reopen(self) -> None:
        self.pool.close()
        self.pool = self._opened()

    @invariant()
    def same(self) -> None:
        model = self.model
        for job in ("a", "b"):
            for epoch in (1, 2):
                assert self.pool.sealed(job, epoch) == model.sealed.get((job, epoch))
        members = {member.proxy: member for member in self.pool.members()}
        assert len(members) == len(model.checks)
        for whom, checks in model.checks.items():
            member = members[f"socks5://{endpoint(whom).key}"]
            telling = [told for told in checks if told.outcome is not Outcome.UNCLEAR]
            passes = [told for told in telling if told.outcome is Outcome.PASSED]
            assert (member.times_checked, member.times_passed) == (len(telling), len(passes))
            assert member.last_ok_at is not None
            assert member.last_ok_at.timestamp() == NOON_S + max(told.after_s for told in passes)
            assert (member.state is MemberState.BARRED) == (whom in model.caught)
            assert (member.state is MemberState.FRESH) == model.works(whom)
            explanation = self.pool.explain(endpoint(whom).key)
            assert explanation is not None
            assert len(explanation.history) == len(checks)
        for whom in range(4):
            if whom not in model.checks:
                explanation = self.pool.explain(endpoint(whom).key)
                expected = model.rejected.get(whom)
                assert (explanation is None) == (expected is None)
                if explanation is not None and expected is not None and expected[True]:
                    assert explanation.times_rejected == expected[True]

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()
            shutil.rmtree(self.place)


def run_machine(examples: int) -> None:
    """Run without shrinking: each example makes files, and the steps tell enough."""
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_file_does_what_a_dictionary_would() -> None:
    run_machine(settings().max_examples // 2)


def tell_everything(_: object, __: int, part: list[recorder.Item]) -> Iterator[recorder.Item]:
    yield from part


PLANTED = {
    "items are counted as often as they are told": (recorder, "_not_told_before", tell_everything),
    "what comes after the seal still counts": (recorder, "_sealed_since", lambda *_: False),
    "sealing again computes anew": (recorder, "_sealed_change", lambda *_: None),
    "who was caught before it passed is welcome": (rejections, "barred_why", lambda *_: None),
    "an unclear check counts as a failure": (
        recorder,
        "after_check",
        lambda history, verdict, constants: after_check(
            history, failed(endpoint(0)) if verdict.inconclusive else verdict, constants
        ),
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PLANTED[bug])
    with pytest.raises(Exception) as caught:  # noqa: PT011 - an assertion, or SQLite's own refusal
        run_machine(200)
    assert isinstance(caught.value, AssertionError) or "UNIQUE" in str(caught.value)
