from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.cli.funnel import LOST_AT, Stage, advice, in_words, narrowings, next_step
from proxywell.model.failure import FailureKind
from proxywell.model.report import (
    CandidateCounts,
    ChunkCounts,
    DeadlineFigures,
    GivenUpWhy,
    ItemCounts,
    OpenItemCounts,
    Outcome,
    PoolChange,
    RefreshReport,
    RefusalReason,
    SourceReport,
    Timing,
    VerdictCounts,
)


def partly_done() -> RefreshReport:
    return RefreshReport(
        job_id="7f3a",
        outcome=Outcome.PARTIAL,
        sources=[
            SourceReport("lists/a", 20_000, 19_000),
            SourceReport("lists/b", error="answered 404"),
        ],
        candidates=CandidateCounts(
            read=20_000,
            unique=19_000,
            refused={"malformed": 200, "private_address": 300, "service_port": 100},
            planned=18_600,
        ),
        items=ItemCounts(
            planned=18_600,
            checked=18_000,
            given_up=600,
            given_up_why={GivenUpWhy.DEADLINE: 580, GivenUpWhy.POISON: 20},
        ),
        chunks=ChunkCounts(planned=40, done=38, given_up=2, rescued=1, split=3, attempts=44),
        verdicts=VerdictCounts(
            working=900,
            not_working=17_080,
            inconclusive=20,
            by_failure={
                "connect_timeout": 12_000,
                "connect_refused": 3_000,
                "unreachable": 100,
                "dns": 5,
                "local_fault": 20,
                "not_this_protocol": 700,
                "reset": 300,
                "auth_required": 400,
                "wrong_answer": 500,
                "tampered": 5,
                "first_request_only": 70,
            },
            by_protocol={"socks5": 600, "http": 300},
            by_anonymity={"elite": 700, "transparent": 200},
        ),
        timing_s=Timing(read=1.0, first_working=1.9, usable=3.2, closed=40.0, total=41.26),
        deadline=DeadlineFigures(600, 600, 2_400),
        pool=PoolChange(10, 905, 900, 5),
    )


GOLDEN = """\
Refresh job 7f3a: partly done after 41.3 s: some candidates were given up

  read                            20,000
  unique                          19,000   lost: listed more than once 800, malformed 200
  allowed                         18,600   lost: private address 300, service port 100
  reachable                        2,875   lost: connect timeout 12,000, connect refused 3,000, \
given up (deadline) 580, unreachable 100, others 45
  speaks a proxy protocol          1,875   lost: not this protocol 700, reset 300
  answers the judge truthfully       970   lost: wrong answer 500, auth required 400, tampered 5
  usable                             900   lost: first request only 70

  protocols  socks5 600, http 300
  anonymity  elite 700, transparent 200
  after      first working 1.9 s, usable 3.2 s, closed 40.0 s
  deadline   600 s in force, never later than 2,400 s
  chunks     38 of 40 done, 2 given up, 1 rescued, 3 split
  pool       10 before, 905 after: +900 -5
  source lists/b: answered 404

The time ran out: give more with --deadline-s, or check more at once with --max-sockets and \
--workers.

What was checked is in the pool. `proxywell job show 7f3a` tells what happened when."""


def test_a_report_reads_as_a_funnel_with_the_top_reasons() -> None:
    assert in_words(partly_done()) == GOLDEN


def of(
    *, read: int = 100, outcome: Outcome | None = Outcome.COMPLETE, working: int = 0,
    refused: dict[str, int] | None = None, failed: dict[str, int] | None = None,
    given_up: dict[GivenUpWhy, int] | None = None,
) -> RefreshReport:  # fmt: skip
    planned = read - sum((refused or {}).values())
    return RefreshReport(
        job_id="j",
        outcome=outcome,
        candidates=CandidateCounts(read, read, refused or {}, planned),
        items=ItemCounts(planned=planned, given_up_why=given_up or {}),
        verdicts=VerdictCounts(working=working, by_failure=failed or {}),
    )


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (of(read=0), "name a list with --source"),
        (of(refused={"private_address": 100}), "--allow-private"),
        (of(refused={"poison": 100}), "refresh.poison_kept_s"),
        (of(refused={"malformed": 90, "private_address": 10}), "proxywell sources test FILE"),
        (of(failed={"connect_timeout": 90, "connect_refused": 10}), "never answered a connection"),
        (of(failed={"judge_unwell": 100}), "--judge names another"),
        (
            of(failed={"judge_unwell": 1}, given_up={GivenUpWhy.DEADLINE: 99}),
            "The judge did not answer us directly either",
        ),
        (of(given_up={GivenUpWhy.DEADLINE: 100}), "which one with `proxywell doctor`"),
        (of(refused={"private_address": 100}), "never link-local"),
        (of(failed={"local_fault": 60, "connect_timeout": 40}), "--max-sockets"),
        (of(failed={"not_a_proxy": 100}), "from our own address"),
        (of(given_up={GivenUpWhy.DEADLINE: 100}), "--deadline-s"),
        (of(working=10, given_up={GivenUpWhy.DEADLINE: 90}), "--deadline-s"),
    ],
)
def test_an_empty_pool_is_answered_by_the_dominant_reason(report: RefreshReport, said: str) -> None:
    answer = advice(report)
    assert answer is not None
    assert said in answer
    assert f"\n\n{answer}" in in_words(report)


@pytest.mark.parametrize(
    "report",
    [
        of(working=5, failed={"connect_timeout": 95}),
        of(outcome=None, failed={"connect_timeout": 95}),
        of(working=100),
    ],
)
def test_no_advice_is_given_where_nothing_is_amiss(report: RefreshReport) -> None:
    assert advice(report) is None


def test_an_open_job_gets_no_advice_though_the_wait_for_it_has_an_outcome() -> None:
    report = of(outcome=Outcome.TIMED_OUT, failed={"connect_refused": 40})
    assert advice(report) is not None
    report.items = OpenItemCounts(planned=100, checked=40, pending=60)
    assert advice(report) is None


@pytest.mark.parametrize(
    ("outcome", "reason", "checked", "headline", "last"),
    [
        (Outcome.COMPLETE, None, 90, "complete: every candidate was checked", None),
        (Outcome.USABLE, "5 work", 90, "usable: 5 work", None),
        (Outcome.PARTIAL, "9 by error", 90, "partly done: 9 by error",
         "What was checked is in the pool."),
        (Outcome.TIMED_OUT, None, 0, "out of time: the bound was met", "Nothing was checked."),
        (Outcome.STALLED, "nobody", 90, "stalled: nobody",
         ("What was checked is in the pool. Its worker processes did not come to work: with "
          "--workers 1 they say why.")),
        (Outcome.CANCELLED, "9 unchecked", 90, "cancelled: 9 unchecked",
         "What was checked is in the pool."),
        (Outcome.FAILED, "the disk is full", 90, "failed: the disk is full",
         ("Mend that and run `proxywell refresh` again; the pool is as it was, and the verdicts "
          "stay in the ledger for a week.")),
        (Outcome.FAILED, "no judge answers", 0, "failed: no judge answers",
         "Nothing was checked, and the pool is as it was; mend that and run it again."),
    ],
)  # fmt: skip
def test_every_outcome_says_why_and_what_is_next(
    outcome: Outcome, reason: str | None, checked: int, headline: str, last: str | None
) -> None:
    report = of(outcome=outcome, working=checked)
    report.reason, report.items.checked = reason, checked
    said = in_words(report)
    assert said.startswith(f"Refresh job j: {headline}\n")
    assert next_step(report) == last
    sent_on = " `proxywell job show j` tells what happened when."
    assert said.endswith(sent_on) == (last is not None)
    assert last is None or said.endswith(last + sent_on)
    assert last is None or in_words(report, story_follows=True).endswith(last)


def test_a_stalled_job_on_celery_says_that_workers_are_missing() -> None:
    report = of(outcome=Outcome.STALLED)
    report.engine = "celery"
    assert "start some with `proxywell worker`" in (next_step(report) or "")


@pytest.mark.parametrize("outcome", [Outcome.TIMED_OUT, Outcome.STALLED])
def test_a_wait_that_ends_before_its_job_says_how_to_go_on(outcome: Outcome) -> None:
    report = of(outcome=outcome)
    report.items = OpenItemCounts(planned=100, checked=40, pending=60)
    said = next_step(report) or ""
    assert "`proxywell job wait j` goes on with it" in said
    assert "`proxywell job cancel j` ends it" in said
    assert in_words(report).endswith(said)


def test_a_job_that_goes_on_after_it_is_usable_says_how_to_wait_for_its_end() -> None:
    report = of(outcome=Outcome.USABLE, working=40)
    report.items = OpenItemCounts(planned=100, checked=40, pending=60)
    assert in_words(report).endswith("`proxywell job wait j` waits for its end.")


@pytest.mark.parametrize(
    ("candidates", "sources", "why"),
    [
        (CandidateCounts(), [], "no list was named"),
        (CandidateCounts(), [SourceReport("a")], "the lists are empty"),
        (CandidateCounts(), [SourceReport("a", error="answered 404")], "no list could be read"),
        (CandidateCounts(1, 1, {"private_address": 1}), [], "no entry may be checked"),
        (CandidateCounts(9, 9), [], "every candidate was left out by a limit"),
    ],
)
def test_a_job_with_nothing_to_check_does_not_boast_of_it(
    candidates: CandidateCounts, sources: list[SourceReport], why: str
) -> None:
    report = of(read=0)
    report.candidates, report.sources = candidates, sources
    assert in_words(report).startswith(f"Refresh job j: nothing to check: {why}\n")


def test_of_a_job_cut_short_the_advice_is_about_what_was_given_up() -> None:
    lost = {GivenUpWhy.POISON: 1}
    report = of(working=5, failed={"connect_timeout": 94}, given_up=lost)
    assert advice(report) is None
    report.outcome = Outcome.PARTIAL
    assert "please report them" in (advice(report) or "")
    report.verdicts = VerdictCounts(working=0, by_failure={"connect_timeout": 99})
    assert "please report them" in (advice(report) or "")


def test_poison_is_named_with_what_to_do_and_a_long_list_is_cut() -> None:
    report = of(working=10, given_up={GivenUpWhy.POISON: 7})
    report.poison = [f"socks5://9.9.9.{n}:1080" for n in range(7)]
    said = in_words(report)
    assert "  poison     socks5://9.9.9.0:1080, " in said
    assert "socks5://9.9.9.4:1080 and 2 more (--output json has all)" in said
    assert "please report them" in said
    report.poison = report.poison[:1]
    assert "\n  poison     socks5://9.9.9.0:1080\n" in in_words(report)


def test_a_running_job_says_what_is_still_open() -> None:
    report = of(outcome=None, working=5, failed={"connect_timeout": 35})
    report.items = OpenItemCounts(pending=60)
    assert "Refresh job j: running" in in_words(report)
    assert "not checked yet 60, connect timeout 35" in in_words(report)


counts = st.integers(0, 10**6)


@st.composite
def balanced(draw: st.DrawFn) -> RefreshReport:
    """Any report that keeps the contract's equations."""
    failed = draw(st.dictionaries(st.sampled_from([kind.value for kind in FailureKind]), counts))
    given_up = draw(st.dictionaries(st.sampled_from(list(GivenUpWhy)), counts))
    refused = draw(
        st.dictionaries(st.sampled_from([reason.value for reason in RefusalReason]), counts)
    )
    working, pending, twice = draw(counts), draw(counts), draw(counts)
    planned = sum(failed.values()) + sum(given_up.values()) + working + pending
    later = sum(count for why, count in refused.items() if why != RefusalReason.MALFORMED)
    unique = planned + later
    read = unique + refused.get("malformed", 0) + twice
    return RefreshReport(
        job_id="j",
        candidates=CandidateCounts(read, unique, refused, planned),
        items=OpenItemCounts(planned=planned, given_up_why=given_up, pending=pending),
        verdicts=VerdictCounts(working=working, by_failure=failed),
    )


@given(balanced())
def test_every_entry_is_left_or_lost_exactly_once(report: RefreshReport) -> None:
    before = report.candidates.read
    for _, left, lost in narrowings(report):
        assert before == left + lost.total()
        before = left
    assert before == report.verdicts.working


def test_every_failure_has_its_stage() -> None:
    assert set(LOST_AT) == set(FailureKind)
    assert LOST_AT[FailureKind.JUDGE_UNWELL] is Stage.REACHABLE
    assert LOST_AT[FailureKind.JUDGE_BAD_SIGNATURE] is Stage.TRUTHFUL
    assert LOST_AT[FailureKind.FIRST_REQUEST_ONLY] is Stage.USABLE


def test_a_failure_that_this_version_does_not_know_is_still_counted() -> None:
    report = of(failed={"from_the_future": 100})
    assert narrowings(report)[-2][2] == {"from_the_future": 100}


def test_candidates_whose_failure_nobody_told_are_lost_before_anything_was_learnt() -> None:
    report = of(working=40, failed={"reset": 10})
    (reachable,) = [lost for stage, _, lost in narrowings(report) if stage is Stage.REACHABLE]
    assert reachable["for no reason told"] == 50
