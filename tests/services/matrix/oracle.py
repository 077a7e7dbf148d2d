"""What must hold at the end of every run, whatever was done to it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from proxywell.errors import UnknownJobError
from proxywell.refresh.books import ChunkState, JobRow, JobState
from proxywell.refresh.ledgers.journal import Journal
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ledgers.sqlite import FILE_NAME
from proxywell.refresh.spans import count, items_of
from tests.services.matrix.lab import Lab
from tests.services.matrix.orders import JOB
from tests.services.matrix.scripted import CHUNK
from tests.services.matrix.system import Ours

_FINAL = {ChunkState.DONE, ChunkState.FAILED, ChunkState.LOST, ChunkState.SPLIT}
_PARTS_AT_ONCE = 500


@dataclass(frozen=True)
class Expected:
    """How a run must end.

    Attributes:
        outcome: Of the report; several where the instant decides.
        given_up: Items that cannot be checked, by reason; everything else must be.
        given_up_at_most: For a reason, where the instant decides how many.
        failed_finaliser: The pool never took the job: it must not be sealed.
        seals: How often sealing may begin; once, but where a finaliser is killed.
        stale: Words of holders that had lost their lease, at least so many refused.
    """

    outcome: tuple[str, ...] = ("complete",)
    given_up: Mapping[str, int] = field(default_factory=dict)
    given_up_at_most: Mapping[str, int] = field(default_factory=dict)
    failed_finaliser: bool = False
    seals: int = 1
    stale: int = 0


@dataclass
class Finding:
    """What was seen of one run.

    Attributes:
        wrong: Sentences about what should be otherwise; empty if all is well.
        outcome: Of the report.
        checked: Items.
        given_up: Items.
        checked_again: Candidates whose check was started more than once.
        most_starts: Of one candidate.
        seals: Rows in the pool that say that the job was finalised.
        epochs: In how many epochs it ran.
        rescued: Chunks taken back from silent workers.
        stale: Words of holders that had lost their lease.
    """

    wrong: list[str] = field(default_factory=list)
    outcome: str = "none"
    checked: int = 0
    given_up: int = 0
    checked_again: int = 0
    most_starts: int = 0
    seals: int = 0
    epochs: int = 1
    rescued: int = 0
    stale: int = 0

    def must(self, true: bool, told: str) -> None:
        """Note a sentence if something is not so."""
        if not true:
            self.wrong.append(told)


def examine(
    lab: Lab, ours: Ours, expected: Expected, job: str = JOB, *, alone: bool = True
) -> Finding:
    """Look at everything that a run left behind about one job.

    Args:
        lab: Of the run.
        ours: What the lab ran.
        expected: How it must have ended.
        job: The job.
        alone: It was the only one, so that all verdicts in the pool are its own.
    """
    finding = Finding()
    reports = _reports(ours, job, finding)
    if reports:
        _examine_report(reports[-1], lab.setup.items, expected, finding)
        told = [{key: report[key] for key in ("outcome", "items")} for report in reports]
        finding.must(all(one == told[-1] for one in told), f"waiters do not agree: {told}")
    _examine_log(lab, finding)
    state = lab.directory / "state"
    _examine_pool(state, job, expected, finding)
    if alone:
        kept = verdicts_in_pool(state)
        finding.must(kept == finding.checked, f"the pool has {kept} of {finding.checked} verdicts")
    _examine_seals(Path(f"{lab.script.log}.seals"), job, expected, finding)
    _examine_journal(state, job, finding)
    _examine_server(lab, job, finding)
    finding.must(finding.stale >= expected.stale, f"{finding.stale} stale words were refused")
    return finding


def _reports(ours: Ours, job: str, finding: Finding) -> list[dict[str, Any]]:
    outcomes = ours.outcomes(job)
    finding.must(bool(outcomes), "no waiter came to an end")
    for outcome in outcomes:
        finding.must(outcome.error is None, f"a waiter raised: {outcome.error}")
    return [dict(outcome.report) for outcome in outcomes if outcome.report is not None]


def _examine_report(
    report: Mapping[str, Any], items: int, expected: Expected, finding: Finding
) -> None:
    told, verdicts = report["items"], report["verdicts"]
    finding.outcome = str(report["outcome"])
    finding.checked, finding.given_up = told["checked"], told["given_up"]
    chunks = report["chunks"]
    finding.rescued, finding.stale = chunks["rescued"], chunks["stale_reports"]
    finding.must(
        chunks["planned"] == chunks["done"] + chunks["given_up"],
        f"the chunks do not balance: {chunks}",
    )
    finding.must(finding.outcome in expected.outcome, f"the outcome is {finding.outcome}")
    finding.must(told["planned"] == items, f"{told['planned']} of {items} items are planned")
    finding.must(
        told["planned"] == told["checked"] + told["given_up"], f"the items do not balance: {told}"
    )
    finding.must("pending" not in told, f"something is pending: {told}")
    counted = sum(verdicts[name] for name in ("working", "not_working", "inconclusive"))
    finding.must(counted == told["checked"], f"{counted} verdicts of {told['checked']} items")
    why = {name: n for name, n in told["given_up_why"].items() if n}
    finding.must(sum(why.values()) == told["given_up"], f"given up without a reason: {told}")
    for name in {*why, *expected.given_up}:
        n, exactly = why.get(name, 0), expected.given_up.get(name)
        most = expected.given_up_at_most.get(name, 0)
        fits = n == exactly if exactly is not None else n <= most
        finding.must(fits, f"{n} items were given up as {name}")


def _examine_log(lab: Lab, finding: Finding) -> None:
    starts, ended = lab.log.starts(), lab.log.ended()
    finding.checked_again = sum(n > 1 for n in starts.values())
    finding.most_starts = max(starts.values(), default=0)
    never = finding.checked - len(ended | set(lab.script.raises))
    finding.must(never <= 0, f"{never} verdicts are of checks that never ended")


def _examine_pool(state: Path, job: str, expected: Expected, finding: Finding) -> None:
    with closing(sqlite3.connect(state / "pool.sqlite")) as db:
        row = db.execute("SELECT id FROM job WHERE job_id = ?", (job,)).fetchone()
        number = row[0] if row else -1
        (finding.seals,) = db.execute(
            "SELECT count(*) FROM finalised WHERE job = ?", (number,)
        ).fetchone()
    wanted = 0 if expected.failed_finaliser else 1
    finding.must(finding.seals == wanted, f"the pool was sealed {finding.seals} times")


def verdicts_in_pool(state: Path) -> int:
    """How many verdicts the pool has taken in, of all jobs."""
    with closing(sqlite3.connect(state / "pool.sqlite")) as db:
        (kept,) = db.execute(
            "SELECT (SELECT count(*) FROM checked) + (SELECT count(*) FROM rejection)"
            " + (SELECT coalesce(sum(times), 0) FROM rejected)"
        ).fetchone()
    return int(kept)


def _examine_seals(log: Path, job: str, expected: Expected, finding: Finding) -> None:
    lines = log.read_text(encoding="ascii").splitlines() if log.exists() else []
    begun = sum(line.startswith(f"s {job} ") for line in lines)
    ended = sum(line.startswith(f"e {job} ") for line in lines)
    finding.must(begun <= expected.seals, f"sealing was begun {begun} times: {lines}")
    wanted = 0 if expected.failed_finaliser else 1
    finding.must(ended == wanted, f"sealing was ended {ended} times: {lines}")


def _examine_journal(state: Path, job: str, finding: Finding) -> None:
    with closing(Journal(state / FILE_NAME)) as journal:
        line = journal.status(job)
        finding.epochs = line.epoch
        finding.must(line.state is JobState.DONE, f"the journal says that the job is {line.state}")
        finding.must(
            (line.checked, line.items_given_up) == (finding.checked, finding.given_up),
            f"the journal says {line.checked} checked, {line.items_given_up} given up",
        )
        settled = count(journal.settled(job))
        finding.must(settled == line.checked, f"the journal has verdicts of {settled} items")
        _examine_parts(_all_parts(journal, job), line, "the journal", finding)


def _examine_server(lab: Lab, job: str, finding: Finding) -> None:
    """The invariants of the books on the server, where they still are."""
    with closing(RedisLedger(lab.server.address())) as ledger:
        try:
            line = ledger.status(job)
        except UnknownJobError:
            return
        finding.stale = max(finding.stale, line.stale)
        if line.epoch != finding.epochs or line.state is not JobState.DONE:
            return  # the job came home, and the server gives its own up when it is told
        _examine_parts(
            _all_parts(ledger, job), line, "the server", finding, all_of_it=line.epoch == 1
        )
        raw = lab.server.call("HVALS", ledger.key(job, "chunk"))
        chunks = [msgspec.msgpack.decode(one) for one in raw]
        left = [one["id"] for one in chunks if ChunkState(one["state"]) not in _FINAL]
        finding.must(not left or line.why is not None, f"chunks of a closed job are open: {left}")
        leaves = sum(one["state"] != ChunkState.SPLIT for one in chunks)
        finding.must(leaves == line.chunks, f"{leaves} chunks, but the line says {line.chunks}")
        finding.must(line.open == 0, f"the line says that {line.open} chunks are open")
        finding.must(
            line.chunks == line.chunks_done + line.chunks_given_up,
            f"{line.chunks} chunks, but {line.chunks_done} done, {line.chunks_given_up} given up",
        )
        held = [] if line.why else ledger.leases(job)
        finding.must(not held, f"chunks of a closed job are held: {held}")


def _all_parts(ledger: Journal | RedisLedger, job: str) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    after = 0
    while parts := ledger.parts(job, after, _PARTS_AT_ONCE):  # ends behind the last part
        found += [part.items for part in parts]
        after = parts[-1].seq
    return found


def _examine_parts(
    parts: Iterable[tuple[int, ...]],
    line: JobRow,
    where: str,
    finding: Finding,
    *,
    all_of_it: bool = True,
) -> None:
    told = Counter(item for items in parts for item in items_of(items))
    twice = [item for item, n in told.items() if n > 1]
    finding.must(not twice, f"{where} has two verdicts of items {twice[:CHUNK]}")
    if all_of_it:
        finding.must(
            len(told) == line.checked, f"{where} has verdicts of {len(told)} of {line.checked}"
        )
