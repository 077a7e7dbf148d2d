"""A refresh job's report in words: where candidates were lost, and what that says to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final

from proxywell.model.failure import Blame, FailureKind
from proxywell.model.report import Outcome, RefreshReport, RefusalReason

TOP_REASONS: Final = 4
POISON_SHOWN: Final = 5
LISTED_TWICE: Final = "listed more than once"
LEFT_OUT: Final = "left out by a limit"


class Stage(Enum):
    """The narrowings of the funnel; the text names what is left behind each."""

    UNIQUE = "unique"
    ALLOWED = "allowed"
    REACHABLE = "reachable"
    SPEAKS = "speaks a proxy protocol"
    TRUTHFUL = "answers the judge truthfully"
    USABLE = "usable"


_SPOKE_NO_PROTOCOL = (
    FailureKind.RESET, FailureKind.EOF_EARLY, FailureKind.HANDSHAKE_TIMEOUT,
    FailureKind.NOT_THIS_PROTOCOL, FailureKind.SOCKS_BAD_REPLY, FailureKind.BAD_HTTP,
    FailureKind.HEADER_TOO_LARGE,
)  # fmt: skip
_NEVER_CONNECTED = (
    FailureKind.DNS, FailureKind.CONNECT_TIMEOUT, FailureKind.CONNECT_REFUSED,
    FailureKind.UNREACHABLE,
)  # fmt: skip
_FAILED_LATER = (
    FailureKind.NOT_A_PROXY, FailureKind.FIRST_REQUEST_ONLY, FailureKind.TLS_UNTRUSTED,
    FailureKind.TLS_NAME, FailureKind.TLS_EXPIRED, FailureKind.TLS_ALERT,
)  # fmt: skip

_OF_THE_PLAN = (Stage.USABLE, Stage.TRUTHFUL, Stage.SPEAKS, Stage.REACHABLE)

# Where a candidate with this failure is lost. What the judge or we are to blame for is
# settled for nobody, so it is lost before anything was learnt; the rest failed at the judge.
LOST_AT: Final[Mapping[FailureKind, Stage]] = {
    kind: Stage.SPEAKS if kind in _SPOKE_NO_PROTOCOL
    else Stage.USABLE if kind in _FAILED_LATER
    else Stage.REACHABLE if kind in _NEVER_CONNECTED or kind.blame is not Blame.PROXY
    else Stage.TRUTHFUL
    for kind in FailureKind
}  # fmt: skip

_ADVICE: Final[Mapping[str, str]] = {
    "nothing read": "No list gave an entry: see the errors of the sources above, or name a list "
    "with --source.",
    RefusalReason.PRIVATE_ADDRESS.value: "Most entries are private, loopback or link-local "
    "addresses; --allow-private admits those of a network of your own, and never link-local ones.",
    RefusalReason.MALFORMED.value: "Most entries have no form that is known; look at some with "
    "`proxywell sources test FILE`.",
    RefusalReason.HOST_NAME.value: "Most entries are host names; allow them with "
    "sources.allow_host_names.",
    RefusalReason.SERVICE_PORT.value: "Most entries name ports of mail, databases or remote "
    "shells; allow them with network.allow_service_ports.",
    RefusalReason.CREDENTIALS.value: "Most entries carry credentials, which lists from the net "
    "may not; save the list and name the file.",
    RefusalReason.POISON.value: "Most candidates ended workers in an earlier refresh and are left "
    "out for a while; refresh.poison_kept_s says how long.",
    FailureKind.CONNECT_TIMEOUT.value: "Most candidates never answered a connection, as old "
    "lists do; if it is all of them, this machine may not be allowed out to those ports.",
    FailureKind.CONNECT_REFUSED.value: "Most candidates refused the connection: these lists are "
    "old; try others, or refresh more often.",
    FailureKind.UNREACHABLE.value: "Most candidates cannot be routed to; check this machine's "
    "own line with `proxywell doctor`.",
    FailureKind.JUDGE_UNWELL.value: "The judge did not answer us directly either, so nothing "
    "was learnt about most candidates; `proxywell doctor` asks each judge, --judge names another.",
    FailureKind.LOCAL_FAULT.value: "This machine ran short (files, ports), or has no way there "
    "(routes, checking.source_address); "
    "`proxywell doctor` says of what, or use fewer sockets with --max-sockets.",
    FailureKind.INTERNAL.value: "A bug of ours kept most candidates from being checked; please "
    "report it with the output of --debug.",
    FailureKind.AUTH_REQUIRED.value: "Most proxies that answered want a user and a password.",
    FailureKind.WRONG_ANSWER.value: "Most answers were not the judge's but pages of their own: "
    "web servers and login pages, not proxies.",
    FailureKind.JUDGE_BAD_SIGNATURE.value: "Most answers were not signed by the judge; if it is "
    "all of them, check judge.public_keys.",
    FailureKind.NOT_A_PROXY.value: "Requests arrived from our own address: these are no proxies, "
    "or judge and proxies are on this machine (see checking.source_address).",
    "given up (deadline)": "The time ran out: give more with --deadline-s, or check more at once "
    "with --max-sockets and --workers.",
    "given up without a judge": "The time ran out. If no judge answered in the end, see which one "
    "with `proxywell doctor`; else give more time with --deadline-s, or check more at once with "
    "--max-sockets and --workers.",
    "given up (poison)": "Some candidates, named under poison, end the worker that checks them: a "
    "bug of ours, please report them. Later refreshes leave them out for a while "
    "(refresh.poison_kept_s).",
    "given up (error)": "Workers failed at most chunks; their remarks above say why.",
}


def narrowings(report: RefreshReport) -> list[tuple[Stage, int, Counter[str]]]:
    """Say what is left behind each stage, and how many were lost to which reason.

    The counts are worked out from the end: usable is what works, and each stage before has
    what was lost behind it as well. So every candidate of the plan stands in exactly one place.

    Args:
        report: Of a job, open or closed.

    Returns:
        Stage, what is left, and the losses by reason, from unique to usable.
    """
    lost: dict[Stage, Counter[str]] = {stage: Counter() for stage in Stage}
    candidates, items = report.candidates, report.items
    for reason, count in candidates.refused.items():
        stage = Stage.UNIQUE if reason == RefusalReason.MALFORMED else Stage.ALLOWED
        lost[stage][reason] += count
    twice = candidates.read - candidates.unique - lost[Stage.UNIQUE].total()
    lost[Stage.UNIQUE][LISTED_TWICE] = max(0, twice)
    left_out = candidates.unique - candidates.planned - lost[Stage.ALLOWED].total()
    lost[Stage.ALLOWED][LEFT_OUT] = max(0, left_out)
    for why, count in items.given_up_why.items():
        lost[Stage.REACHABLE][f"given up ({why})"] += count
    lost[Stage.REACHABLE]["not checked yet"] += items.pending
    stages = {kind.value: stage for kind, stage in LOST_AT.items()}
    for name, count in report.verdicts.by_failure.items():
        lost[stages.get(name, Stage.TRUTHFUL)][name] += count
    placed = sum(lost[stage].total() for stage in _OF_THE_PLAN) + report.verdicts.working
    lost[Stage.REACHABLE]["for no reason told"] = max(0, items.planned - placed)
    left = report.verdicts.working
    behind: list[tuple[Stage, int, Counter[str]]] = []
    for stage in _OF_THE_PLAN:
        behind.append((stage, left, lost[stage]))
        left += lost[stage].total()
    behind.append((Stage.ALLOWED, items.planned, lost[Stage.ALLOWED]))
    behind.append((Stage.UNIQUE, candidates.unique, lost[Stage.UNIQUE]))
    return behind[::-1]


def in_words(report: RefreshReport, *, story_follows: bool = False) -> str:
    """Tell a report: outcome, funnel with the top reasons, what works, pool, what to do.

    Args:
        report: Of a job, open or closed.
        story_follows: The job's time line stands below, so nobody needs to be sent there.
    """
    parts = [_headline(report), "\n".join(_funnel(report)), "\n".join(_details(report))]
    parts.append(advice(report) or "")
    step = next_step(report) or ""
    if step and report.items.pending == 0 and not story_follows:
        step += f" `proxywell job show {report.job_id}` tells what happened when."
    return "\n\n".join(part for part in [*parts, step] if part)


def advice(report: RefreshReport) -> str | None:
    """Answer "why is my pool empty?" by the reason that cost most candidates.

    Of a job that was cut short it is the reason for which most were given up.

    Returns:
        One or two sentences; None while the job is open, or when proxies were found and what was
        lost is the way of public lists.
    """
    if report.outcome is None or report.items.pending:
        return None  # what was checked first says little about the rest
    if report.candidates.read == 0 and report.items.planned == 0:
        return _ADVICE["nothing read"]
    causes: Counter[str] = Counter()
    for _, _, lost in narrowings(report):
        causes.update({why: count for why, count in lost.items() if why in _ADVICE})
    if not causes or causes.most_common(1)[0][1] == 0:
        return None
    if causes[FailureKind.JUDGE_UNWELL.value]:  # then the time was spent on waiting for it
        causes[FailureKind.JUDGE_UNWELL.value] += causes.pop("given up (deadline)", 0)
    given_up = Counter({why: count for why, count in causes.items() if why in _GIVEN_UP and count})
    cut_short = report.outcome in {Outcome.PARTIAL, Outcome.TIMED_OUT}
    dominant = (given_up if cut_short and given_up else causes).most_common(1)[0][0]
    if dominant == "given up (deadline)" and report.verdicts.working == 0:
        return _ADVICE["given up without a judge"]
    return _ADVICE[dominant] if report.verdicts.working == 0 or dominant in _MENDABLE else None


_GIVEN_UP: Final = frozenset({"given up (deadline)", "given up (poison)", "given up (error)"})
_MENDABLE: Final = _GIVEN_UP | {
    RefusalReason.PRIVATE_ADDRESS.value, FailureKind.JUDGE_UNWELL.value,
    FailureKind.LOCAL_FAULT.value, FailureKind.INTERNAL.value,
}  # fmt: skip


def next_step(report: RefreshReport) -> str | None:
    """Say where things stand and what to do with the job, beside what ``advice`` says to mend.

    Returns:
        One or two sentences; None while it runs, and when it ended as was wished.
    """
    outcome, wait = report.outcome, f"`proxywell job wait {report.job_id}`"
    if outcome is Outcome.USABLE and report.items.pending:
        return f"The job goes on without this command; {wait} waits for its end."
    if outcome in (None, Outcome.COMPLETE, Outcome.USABLE):
        return None
    if report.items.pending:
        return (
            f"The job is still open: {wait} goes on with it, `proxywell job cancel "
            f"{report.job_id}` ends it and keeps what was checked."
        )
    if outcome is Outcome.FAILED:
        return _after_failure(report)
    kept = "What was checked is in the pool." if report.items.checked else "Nothing was checked."
    nobody = _NOBODY.get(report.engine, _NOBODY["local"])
    return f"{kept} {nobody}" if outcome is Outcome.STALLED else kept


def _after_failure(report: RefreshReport) -> str:
    if report.items.checked:
        return (
            "Mend that and run `proxywell refresh` again; the pool is as it was, and the verdicts "
            "stay in the ledger for a week."
        )
    return "Nothing was checked, and the pool is as it was; mend that and run it again."


_NOBODY: Final = {
    "local": "Its worker processes did not come to work: with --workers 1 they say why.",
    "celery": "No worker came: start some with `proxywell worker`, and see with `proxywell "
    "doctor` whether they reach the same Redis.",
}
_OUTCOME_WORDS: Final[Mapping[Outcome, tuple[str, str]]] = {
    Outcome.COMPLETE: ("complete", "every candidate was checked"),
    Outcome.USABLE: ("usable", "enough proxies work"),
    Outcome.PARTIAL: ("partly done", "some candidates were given up"),
    Outcome.STALLED: ("stalled", "nobody worked on it any more"),
    Outcome.TIMED_OUT: ("out of time", "the bound was met"),
    Outcome.CANCELLED: ("cancelled", ""),
    Outcome.FAILED: ("failed", ""),
}


def _headline(report: RefreshReport) -> str:
    word, why = ("running", "") if report.outcome is None else _OUTCOME_WORDS[report.outcome]
    why = report.reason or why
    if report.outcome is Outcome.COMPLETE and not report.items.planned:
        word, why = "nothing to check", _why_nothing(report)
    took = "" if report.timing_s.total is None else f" after {report.timing_s.total:.1f} s"
    return f"Refresh job {report.job_id}: {word}{took}" + (f": {why}" if why else "")


def _why_nothing(report: RefreshReport) -> str:
    candidates = report.candidates
    if candidates.read == 0:
        faulty = [source for source in report.sources if source.error is not None]
        if faulty and len(faulty) == len(report.sources):
            return "no list could be read"
        return "the lists are empty" if report.sources else "no list was named"
    refused = sum(candidates.refused.values())
    if candidates.unique > 0 and refused == 0:
        return "every candidate was left out by a limit"
    return "no entry may be checked"


def _funnel(report: RefreshReport) -> Iterator[str]:
    yield _row("read", report.candidates.read, "")
    for stage, left, lost in narrowings(report):
        top = [(why, count) for why, count in lost.most_common(TOP_REASONS) if count]
        rest = lost.total() - sum(count for _, count in top)
        reasons = [f"{why.replace('_', ' ')} {count:,}" for why, count in top]
        if rest > 0:
            reasons.append(f"others {rest:,}")
        yield _row(stage.value, left, ", ".join(reasons))


def _row(name: str, left: int, lost: str) -> str:
    return f"  {name:<28} {left:>9,}{'   lost: ' + lost if lost else ''}"


def _details(report: RefreshReport) -> Iterator[str]:
    verdicts, timing, pool, chunks = (
        report.verdicts, report.timing_s, report.pool, report.chunks
    )  # fmt: skip
    for name, counts in (("protocols", verdicts.by_protocol), ("anonymity", verdicts.by_anonymity)):
        shown = ", ".join(f"{word} {count:,}" for word, count in Counter(counts).most_common())
        if shown:
            yield f"  {name:<10} {shown}"
    moments = {
        "first working": timing.first_working, "usable": timing.usable, "closed": timing.closed,
        "finalised": timing.finalised,
    }  # fmt: skip
    told = [f"{name} {at_s:.1f} s" for name, at_s in moments.items() if at_s is not None]
    if told:
        yield f"  {'after':<10} {', '.join(told)}"
    bound = report.deadline
    if bound.cap_s:
        yield (
            f"  {'deadline':<10} {bound.in_force_s:,.0f} s in force, never later than "
            f"{bound.cap_s:,.0f} s"
        )
    yield (
        f"  {'chunks':<10} {chunks.done:,} of {chunks.planned:,} done, {chunks.given_up:,} given "
        f"up, {chunks.rescued:,} rescued, {chunks.split:,} split"
    )
    yield (
        f"  {'pool':<10} {pool.before:,} before, {pool.after:,} after: "
        f"+{pool.added:,} -{pool.dropped:,}"
    )
    if report.poison:
        more = len(report.poison) - POISON_SHOWN
        rest = f" and {more:,} more (--output json has all)" if more > 0 else ""
        yield f"  {'poison':<10} {', '.join(report.poison[:POISON_SHOWN])}{rest}"
    for source in report.sources:
        if source.error is not None:
            yield f"  source {source.source}: {source.error}"
