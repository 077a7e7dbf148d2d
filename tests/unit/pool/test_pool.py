"""The pool's front on a real file: who is listed, who is chosen, what is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxywell.config.schema import PoolSettings
from proxywell.errors import UsageError
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.member import MemberState, PoolMember
from proxywell.model.verdict import Anonymity
from proxywell.pool.lookup import UnknownProxyError
from proxywell.pool.pool import Pool
from proxywell.pool.selection import MemberFilter, NothingFits
from tests.pool_makers import NOON_S, SetClock, candidate, endpoint, failed, passed

SETTINGS = PoolSettings()
KEY = endpoint(1).key


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def pool(tmp_path: Path, clock: SetClock) -> Iterator[Pool]:
    with Pool.open(tmp_path, SETTINGS, clock) as opened:
        yield opened


def draw() -> float:
    return random.Random(1).random()


def states(pool: Pool) -> dict[str, MemberState]:
    return {f"{member.host}:{member.port}": member.state for member in pool.members()}


def choose(
    pool: Pool, wanted: MemberFilter | None = None, count: int = 1, *, stale_too: bool = False
) -> list[PoolMember]:
    got = pool.choose(wanted or MemberFilter(), count, random.Random(1).random, stale_too=stale_too)
    assert not isinstance(got, NothingFits), got.reason
    return got


def test_a_member_that_fails_stays_and_keeps_what_was_known_of_it(
    pool: Pool, clock: SetClock
) -> None:
    pool.record("a", 1, [(0, candidate(1, "list"), passed(endpoint(1)))])
    clock.at_s += 60
    pool.record("b", 1, [(0, candidate(1, "other"), failed(endpoint(1), at_s=clock.at_s))])
    (member,) = pool.members()
    assert (member.state, member.working) == (MemberState.COOLING, False)
    assert member.failure is FailureKind.CONNECT_TIMEOUT
    assert member.proxy == "socks5://1.0.0.1:8080"  # not the protocol that was tried last
    assert member.anonymity is Anonymity.ELITE
    assert (member.times_checked, member.times_passed) == (2, 1)
    assert member.sources == ("list", "other")
    assert isinstance(pool.choose(MemberFilter(), 1, draw), NothingFits)


def test_a_judge_at_fault_is_written_down_and_changes_nothing_else(
    pool: Pool, clock: SetClock
) -> None:
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    before = pool.members()
    pool.record("b", 1, [(0, candidate(1), failed(endpoint(1), kind=FailureKind.JUDGE_UNWELL))])
    assert pool.members() == before
    explanation = pool.explain(KEY)
    assert explanation is not None
    assert [check.failure for check in explanation.history] == [FailureKind.JUDGE_UNWELL, None]


def test_what_was_caught_before_it_ever_passed_is_a_barred_member_when_it_does(
    pool: Pool,
) -> None:
    caught = failed(endpoint(1), kind=FailureKind.TAMPERED, tampering="script")
    pool.record("a", 1, [(0, candidate(1), caught)])
    pool.record("b", 1, [(0, candidate(1), passed(endpoint(1)))])
    assert states(pool) == {KEY: MemberState.BARRED}
    caught_and_filed = failed(endpoint(2), kind=FailureKind.TLS_UNTRUSTED, intercepts_tls=True)
    pool.record("c", 1, [(0, candidate(2), caught_and_filed)])
    pool.seal("c", 1)
    pool.record("d", 1, [(0, candidate(2), passed(endpoint(2)))])
    assert states(pool)[endpoint(2).key] is MemberState.BARRED
    assert KEY not in pool.standing()


def test_credentials_make_another_endpoint(pool: Pool) -> None:
    with_user = endpoint(1, user="u", password="p@ss:word")
    pool.record(
        "a",
        1,
        [
            (0, Candidate(endpoint(1)), passed(endpoint(1))),
            (1, Candidate(with_user), passed(with_user)),
        ],
    )
    assert {member.proxy for member in pool.members()} == {
        "socks5://1.0.0.1:8080",
        "socks5://u:p%40ss%3Aword@1.0.0.1:8080",
    }
    assert pool.find("u:p%40ss%3Aword@1.0.0.1:8080") == with_user.key
    assert pool.find("1.0.0.1:8080") == KEY


def test_frozen_members_are_not_chosen_until_thawed(pool: Pool) -> None:
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    pool.freeze(KEY)
    pool.freeze(KEY)
    assert states(pool) == {KEY: MemberState.FROZEN}
    assert isinstance(pool.choose(MemberFilter(), 1, draw), NothingFits)
    pool.thaw(KEY)
    assert choose(pool)[0].state is MemberState.FRESH
    with pytest.raises(UnknownProxyError, match=r"1\.0\.0\.2:8080 is no member"):
        pool.freeze(endpoint(2).key)


def test_a_stale_member_is_chosen_only_by_who_checks_it_first(pool: Pool, clock: SetClock) -> None:
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    clock.at_s += SETTINGS.fresh_s + 1
    nothing = pool.choose(MemberFilter(), 1, draw)
    assert isinstance(nothing, NothingFits)
    assert "1 not checked lately" in nothing.reason
    assert choose(pool, stale_too=True)[0].host == "1.0.0.1"


def test_several_are_never_the_same_and_never_one_that_was_excluded(pool: Pool) -> None:
    pool.record("a", 1, [(n, candidate(n), passed(endpoint(n))) for n in range(10)])
    assert len({member.proxy for member in choose(pool, count=7)}) == 7
    but_not = frozenset(endpoint(n).key for n in range(9))
    left = pool.choose(MemberFilter(), 5, draw, but_not=but_not)
    assert not isinstance(left, NothingFits)
    assert [member.host for member in left] == [endpoint(9).host]


def test_the_protocol_that_was_asked_for_is_the_one_in_the_url(pool: Pool) -> None:
    both = (Protocol.CONNECT, Protocol.SOCKS5)
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1), protocols=both))])
    wanted = MemberFilter(protocols=frozenset({Protocol.SOCKS5}))
    assert choose(pool)[0].proxy == "http://1.0.0.1:8080"
    assert choose(pool, wanted)[0].proxy == "socks5://1.0.0.1:8080"
    assert pool.members(wanted)[0].protocol is Protocol.SOCKS5


def test_members_come_fresh_ones_first_and_best_first(pool: Pool, clock: SetClock) -> None:
    pool.record(
        "a",
        1,
        [
            (0, candidate(1), passed(endpoint(1), latency_ms=4_000.0)),
            (1, candidate(2), passed(endpoint(2), latency_ms=100.0)),
            (2, candidate(3), passed(endpoint(3), latency_ms=10.0)),
        ],
    )
    clock.at_s += 1
    pool.record("b", 1, [(0, candidate(3), failed(endpoint(3), at_s=clock.at_s))])
    assert [member.host for member in pool.members()] == ["1.0.0.2", "1.0.0.1", "1.0.0.3"]
    standing = pool.standing()
    assert standing[endpoint(2).key] > standing[KEY] > standing[endpoint(3).key]


def test_a_target_that_fails_leaves_the_score_and_only_its_own_wish_alone(
    pool: Pool, clock: SetClock
) -> None:
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    score = pool.members()[0].score
    pool.report(KEY, "shop", passed=False, at_s=clock.at_s)
    assert pool.members()[0].targets == {"shop": 0.0}
    assert pool.members()[0].score == score
    assert isinstance(pool.choose(MemberFilter(target="shop"), 1, draw), NothingFits)
    assert choose(pool, MemberFilter(target="news"))
    for _ in range(2):
        pool.report(KEY, "shop", passed=True, at_s=clock.at_s)
    assert pool.members()[0].targets == {"shop": 0.6667}
    assert choose(pool, MemberFilter(target="shop"))
    with pytest.raises(UnknownProxyError):
        pool.report(endpoint(5).key, "shop", passed=True, at_s=clock.at_s)


def test_a_check_on_the_side_counts_each_time(pool: Pool, clock: SetClock) -> None:
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    for _ in range(2):
        pool.observe([(candidate(1), passed(endpoint(1)))], origin="verify")
    assert pool.members()[0].times_checked == 3
    explanation = pool.explain(KEY)
    assert explanation is not None
    assert [check.origin for check in explanation.history] == ["verify", "verify", "job a"]


def test_another_process_is_seen_within_a_second_or_so(
    pool: Pool, clock: SetClock, tmp_path: Path
) -> None:
    assert pool.members() == []
    with Pool.open(tmp_path, SETTINGS, clock) as other:
        other.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    clock.at_s += 1.5
    assert len(pool.members()) == 1


def test_a_pool_that_is_not_there_reads_as_empty_and_is_not_made(tmp_path: Path) -> None:
    with Pool.open(tmp_path / "none", SETTINGS, SetClock(), read_only=True) as pool:
        assert pool.members() == []
        assert pool.explain(KEY) is None
        assert isinstance(pool.choose(MemberFilter(), 1, draw), NothingFits)
    assert not (tmp_path / "none").exists()


def test_an_explanation_retraces_the_score_and_the_timeline(pool: Pool, clock: SetClock) -> None:
    for number in range(3):
        verdict = passed(endpoint(1), at_s=clock.at_s, latency_ms=1_000.0)
        pool.record(f"job{number}", 1, [(0, candidate(1), verdict)])
        clock.at_s += 600
    pool.record("last", 1, [(0, candidate(1), failed(endpoint(1), at_s=clock.at_s))])
    explanation = pool.explain(KEY)
    assert explanation is not None
    assert explanation.why.startswith(
        "cooling: failed once since it last passed; the last time by connect_timeout, failing since"
    )
    assert [check.working for check in explanation.history] == [False, True, True, True]
    steps = {step.name: step for step in explanation.score_steps}
    assert "3 of 4 checks passed" in steps["record"].words
    assert isinstance(explanation.latest, PoolMember)
    assert steps["score"].value == pytest.approx(explanation.latest.score, abs=1e-4)
    assert steps["score"].value == pytest.approx(
        (steps["now"].value + steps["doubt"].value) * steps["speed"].value
    )


@pytest.mark.parametrize("sealed", [False, True])
def test_a_candidate_that_never_worked_is_explained_too(pool: Pool, sealed: bool) -> None:
    whom = candidate(1, "list-a", "list-b")
    pool.record("a", 1, [(0, whom, failed(endpoint(1)))])
    later = failed(endpoint(1), at_s=NOON_S + 60, kind=FailureKind.WRONG_ANSWER)
    pool.record("b", 1, [(0, whom, later)])
    unwell = failed(endpoint(1), at_s=NOON_S + 90, kind=FailureKind.JUDGE_UNWELL)
    pool.record("c", 1, [(0, whom, unwell)])
    if sealed:
        pool.seal("c", 1)
    explanation = pool.explain(KEY)
    assert explanation is not None
    assert explanation.why == (
        "never worked: checked twice, rejected for wrong_answer; last by job b; "
        "listed by list-a, list-b"
    )
    assert explanation.times_rejected == 2
    assert explanation.since.timestamp() == NOON_S
    assert explanation.latest.failure is FailureKind.WRONG_ANSWER
    assert explanation.latest.checks[0].name == "reach"
    assert len(explanation.latest.checks) == 1  # what did not run is not shown as run
    assert pool.members() == []


def test_rejections_stay_within_their_bound_and_the_caught_go_last(
    tmp_path: Path, clock: SetClock
) -> None:
    settings = PoolSettings(rejected_max=3)
    with Pool.open(tmp_path, settings, clock) as pool:
        caught = failed(endpoint(0), at_s=NOON_S - 100, kind=FailureKind.TAMPERED)
        pool.record("a", 1, [(0, candidate(0), caught)])
        pool.record(
            "a", 1, [(n, candidate(n), failed(endpoint(n), at_s=NOON_S + n)) for n in range(1, 9)]
        )
        pool.seal("a", 1)
        kept = [n for n in range(9) if pool.explain(endpoint(n).key) is not None]
        assert kept == [0, 7, 8]


def test_old_checks_are_forgotten_and_no_longer_counted(pool: Pool, clock: SetClock) -> None:
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    pool.record("b", 1, [(0, candidate(1), failed(endpoint(1), at_s=NOON_S + 10))])
    clock.at_s += SETTINGS.keep_checks_s + 5
    pool.record("c", 1, [(0, candidate(1), passed(endpoint(1), at_s=clock.at_s))])
    pool.seal("c", 1)
    (member,) = pool.members()
    assert (member.times_checked, member.times_passed) == (2, 1)
    explanation = pool.explain(KEY)
    assert explanation is not None
    assert len(explanation.history) == 2


@pytest.mark.parametrize(
    "text",
    ["1.0.0.1:8080", "socks5://1.0.0.1:8080", "http://1.0.0.1:8080/", " 1.0.0.1:8080 "],
)
def test_a_proxy_may_be_written_in_many_ways(pool: Pool, text: str) -> None:
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    assert pool.find(text) == KEY


def test_credentials_may_be_left_out_while_it_is_clear_who_is_meant(pool: Pool) -> None:
    one, other = (endpoint(1, user=user, password="x") for user in ("ann", "bob"))
    pool.record("a", 1, [(0, Candidate(one), passed(one))])
    assert pool.find("1.0.0.1:8080") == one.key
    pool.record("a", 1, [(1, Candidate(other), passed(other))])
    with pytest.raises(UsageError, match=r"different credentials \(ann, bob\)"):
        pool.find("1.0.0.1:8080")
    rejected = endpoint(2, user="eve", password="x")
    pool.record("a", 1, [(2, Candidate(rejected), failed(rejected))])
    assert pool.find("1.0.0.2:8080") == rejected.key


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("1.0.0.1:8081", "1.0.0.1:8080"), ("1.0.0.77:80", "1.0.0.2:80"), ("9.9.9.9:1", None)],
)
def test_an_unknown_proxy_is_answered_with_the_nearest_one(
    pool: Pool, text: str, nearest: str | None
) -> None:
    pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
    two = Endpoint("1.0.0.2", 80)
    pool.record("a", 1, [(1, Candidate(two), failed(two))])
    pool.seal("a", 1)
    with pytest.raises(UnknownProxyError) as caught:
        pool.find(text)
    assert str(caught.value).endswith(
        f"the nearest that is known is {nearest}" if nearest else "nothing near it is either"
    )


@pytest.mark.parametrize("text", ["", "1.0.0.1", "ftp://1.0.0.1:1", "1.0.0.1:99999", "a b:1:2"])
def test_what_is_no_proxy_is_said_to_be_none(pool: Pool, text: str) -> None:
    with pytest.raises(UsageError, match="is no proxy; write host:port"):
        pool.find(text)


def test_a_password_is_not_repeated_in_an_error(pool: Pool) -> None:
    with pytest.raises(UsageError) as caught:
        pool.find("socks5://me:hunter2@1.0.0.1")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UnknownProxyError) as unknown:
        pool.find("socks5://me:hunter2@1.0.0.1:80")
    assert "hunter2" not in str(unknown.value)


@pytest.fixture
def crowd(pool: Pool) -> Pool:
    """A thousand members: of each four, one is quick, two are slow, and one has failed."""
    pool.record(
        "a",
        1,
        [
            (n, candidate(n), passed(endpoint(n), latency_ms=0.0 if n % 4 == 0 else 15_000.0))
            for n in range(1_000)
        ],
    )
    pool.record(
        "b",
        1,
        [
            (n, candidate(n), failed(endpoint(n), at_s=NOON_S + 1))
            for n in range(1_000)
            if n % 4 == 3
        ],
    )
    return pool


def quick_share(choose_one: Callable[[], list[PoolMember] | NothingFits]) -> float:
    quick = 0
    for _ in range(1_500):
        chosen = choose_one()
        assert not isinstance(chosen, NothingFits)
        (member,) = chosen
        assert member.state is MemberState.FRESH
        quick += member.latency_ms == 0.0
    return quick / 1_500


@pytest.mark.parametrize("way", ["choose", "choose_once"])
def test_both_ways_to_choose_draw_in_proportion_to_score(crowd: Pool, way: str) -> None:
    draw = random.Random(3).random
    got = quick_share(lambda: getattr(crowd, way)(MemberFilter(), 1, draw))
    assert got == pytest.approx(
        4 / (4 + 1 + 1), abs=0.04
    )  # a quick one scores four times a slow one


def test_choosing_blindly_without_weighing_is_caught(
    crowd: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxywell.pool.pool.accepted", lambda entry, draw: True)
    draw = random.Random(3).random
    got = quick_share(lambda: crowd.choose_once(MemberFilter(), 1, draw))
    assert got == pytest.approx(1 / 3, abs=0.04)


def test_who_asks_once_gets_different_ones_and_the_rare_one_too(crowd: Pool) -> None:
    draw = random.Random(3).random
    many = crowd.choose_once(MemberFilter(), 200, draw)
    assert not isinstance(many, NothingFits)
    assert len({member.proxy for member in many}) == 200
    everybody = crowd.choose_once(MemberFilter(), 5_000, draw)
    assert not isinstance(everybody, NothingFits)
    assert len({member.proxy for member in everybody}) == 750
    rare = frozenset(member.host for member in everybody[:749])
    keys = frozenset(f"{host}:8080" for host in rare)
    last = crowd.choose_once(MemberFilter(), 9, draw, but_not=keys)
    assert not isinstance(last, NothingFits)
    assert len(last) == 1
    assert last[0].host not in rare
    nobody = MemberFilter(protocols=frozenset({Protocol.HTTP}))
    assert isinstance(crowd.choose_once(nobody, 1, draw), NothingFits)
