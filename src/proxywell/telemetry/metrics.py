"""Every figure that is kept for Prometheus: one table, fed at one place, shown in its text format.

Figures come from finished reports and from the typed events, so no other code counts anything.
A meter of one process is added to what a state directory has kept; that is how counters go on
over commands that live for seconds.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from itertools import product
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from proxywell.model.failure import FailureKind
from proxywell.model.report import GivenUpWhy, Outcome, RefreshReport, RefusalReason
from proxywell.telemetry.events import Event

Labels: TypeAlias = tuple[str, ...]
Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

_ENGINES: Final = ("local", "celery")
_SECONDS: Final = (1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 300.0, 600.0, 1_800.0, 3_600.0)
_DONE_WELL: Final = frozenset({Outcome.COMPLETE, Outcome.USABLE, Outcome.PARTIAL})


class Metric(Struct, frozen=True, kw_only=True):
    """One metric as Prometheus knows it.

    Attributes:
        name: With its unit or ``_total`` last.
        kind: What its values mean.
        help: One sentence.
        labels: Names of its labels; the values of each are few.
        known: Per label the values that are shown from the start, so that a first increase is
            seen; empty where they are not known beforehand.
        buckets: Upper ends of a histogram's buckets, rising, without the last, endless one.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, told: str, **labels: tuple[str, ...]) -> Metric:
    known = tuple(labels.values())
    return Metric(
        name=f"proxywell_{name}_total",
        kind="counter",
        help=told,
        labels=tuple(labels),
        known=known if all(known) else (),
    )


def _gauge(name: str, told: str) -> Metric:
    return Metric(name=f"proxywell_{name}", kind="gauge", help=told)


def _seconds(name: str, told: str) -> Metric:
    return Metric(name=f"proxywell_{name}_seconds", kind="histogram", help=told, buckets=_SECONDS)


JOBS = _counter(
    "refresh_jobs", "Refresh jobs that ended, by how.",
    engine=_ENGINES, outcome=tuple(one.value for one in Outcome),
)  # fmt: skip
ENTRIES = _counter("refresh_entries_read", "Entries of lists that were read.")
REFUSED = _counter(
    "refresh_candidates_refused", "Candidates that were not planned, by reason.",
    reason=tuple(one.value for one in RefusalReason),
)  # fmt: skip
CHECKED = _counter(
    "refresh_candidates_checked", "Candidates that were checked, by what was found.",
    verdict=("working", "not_working", "inconclusive"),
)  # fmt: skip
FAILED = _counter(
    "refresh_candidates_failed", "Checked candidates that do not work, by the kind of failure.",
    failure=tuple(one.value for one in FailureKind),
)  # fmt: skip
GIVEN_UP = _counter(
    "refresh_candidates_given_up", "Planned candidates that were never checked, by why.",
    why=tuple(one.value for one in GivenUpWhy),
)  # fmt: skip
CHUNKS = _counter("refresh_chunks", "Chunks by how they ended.", end=("done", "given_up"))
ATTEMPTS = _counter("refresh_chunk_attempts", "Attempts at chunks.")
RESCUED = _counter("refresh_chunks_rescued", "Attempts that were taken from silent workers.")
SPLIT = _counter("refresh_chunks_split", "Chunks cut up because they ended their workers.")
STALE = _counter("refresh_stale_reports", "Reports of attempts that were no longer current.")
DURATION = _seconds("refresh_duration", "Time from a job's being asked for to its finalisation.")
USABLE = _seconds("refresh_usable", "Time from a job's being asked for until it was usable.")
LAST_END = _gauge("refresh_last_end_timestamp_seconds", "When the last job ended.")
LAST_GOOD = _gauge(
    "refresh_last_success_timestamp_seconds",
    "When the last job ended that was complete, usable or partial.",
)
MEMBERS = _gauge("pool_members", "Members that the pool had after the last job.")
REMARKS = _counter("remarks", "Remarks of commands, by event.", event=(), level=())

METRICS: Final = (
    JOBS, ENTRIES, REFUSED, CHECKED, FAILED, GIVEN_UP, CHUNKS, ATTEMPTS, RESCUED, SPLIT, STALE,
    DURATION, USABLE, LAST_END, LAST_GOOD, MEMBERS, REMARKS,
)  # fmt: skip


class _Spread(Struct):
    """A histogram's state: observations per bucket, the endless one last, and their sum."""

    counts: list[int]
    total: float = 0.0


class _Kept(Struct):
    """A meter as it is kept."""

    values: list[tuple[str, Labels, float]] = field(default_factory=list)
    spreads: list[tuple[str, Labels, _Spread]] = field(default_factory=list)


class Meter:
    """Values of all metrics. Events may come from any thread.

    Args:
        kept: What ``kept`` gave before; empty: everything from nought. Metrics that are not in
            the table any more are dropped.
    """

    def __init__(self, kept: bytes = b"") -> None:
        self._lock = threading.Lock()
        before = msgspec.json.decode(kept, type=_Kept) if kept else _Kept()
        names = {metric.name for metric in METRICS}
        self._values = {(n, tuple(at)): value for n, at, value in before.values if n in names}
        self._spreads = {(n, tuple(at)): spread for n, at, spread in before.spreads if n in names}

    def count_event(self, event: Event) -> None:
        """Take in one remark."""
        import logging  # noqa: PLC0415 - only for the name of a level

        level = logging.getLevelName(event.level).lower()
        self._add(REMARKS, 1, event.name, level)

    def count_report(self, report: RefreshReport, *, ended_at_s: float) -> None:
        """Take in the report of a job that is finalised.

        Args:
            report: Its report; the caller sees to it that each job comes once.
            ended_at_s: When it was finalised, in seconds since the epoch.
        """
        outcome = report.outcome or Outcome.FAILED
        self._add(JOBS, 1, report.engine, outcome.value)
        self._add(ENTRIES, report.candidates.read)
        for reason, count in report.candidates.refused.items():
            self._add(REFUSED, count, reason)
        verdicts, chunks = report.verdicts, report.chunks
        self._add(CHECKED, verdicts.working, "working")
        self._add(CHECKED, verdicts.not_working, "not_working")
        self._add(CHECKED, verdicts.inconclusive, "inconclusive")
        for failure, count in verdicts.by_failure.items():
            self._add(FAILED, count, failure)
        for why, count in report.items.given_up_why.items():
            self._add(GIVEN_UP, count, why.value)
        self._add(CHUNKS, chunks.done, "done")
        self._add(CHUNKS, chunks.given_up, "given_up")
        self._add(ATTEMPTS, chunks.attempts)
        self._add(RESCUED, chunks.rescued)
        self._add(SPLIT, chunks.split)
        self._add(STALE, chunks.stale_reports)
        self._observe(DURATION, report.timing_s.finalised)
        self._observe(USABLE, report.timing_s.usable)
        if ended_at_s >= self._values.get((LAST_END.name, ()), 0.0):
            self._set(LAST_END, ended_at_s)
            if outcome is not Outcome.FAILED:  # then the pool was not written
                self._set(MEMBERS, report.pool.after)
        if outcome in _DONE_WELL and ended_at_s >= self._values.get((LAST_GOOD.name, ()), 0.0):
            self._set(LAST_GOOD, ended_at_s)

    def take(self, other: Meter) -> None:
        """Add the counters of a meter of events to this one, and set it back to nought."""
        with other._lock:
            told, other._values = other._values, {}
        with self._lock:
            for key, value in told.items():
                self._values[key] = self._values.get(key, 0.0) + value

    def kept(self) -> bytes:
        """All values, to go on from."""
        with self._lock:
            return msgspec.json.encode(
                _Kept(
                    [(name, labels, value) for (name, labels), value in self._values.items()],
                    [(name, labels, spread) for (name, labels), spread in self._spreads.items()],
                )
            )

    def exposition(self) -> str:
        """All metrics in the text format of Prometheus, version 0.0.4."""
        with self._lock:
            return "".join(f"{line}\n" for metric in METRICS for line in self._lines(metric))

    # --- inside

    def _add(self, metric: Metric, amount: float, *labels: str) -> None:
        with self._lock:
            key = (metric.name, labels)
            self._values[key] = self._values.get(key, 0.0) + amount

    def _set(self, metric: Metric, value: float) -> None:
        with self._lock:
            self._values[metric.name, ()] = value

    def _observe(self, metric: Metric, seconds: float | None) -> None:
        if seconds is None:
            return
        with self._lock:
            none = _Spread([0] * (len(metric.buckets) + 1))
            spread = self._spreads.setdefault((metric.name, ()), none)
            spread.counts[bisect_left(metric.buckets, seconds)] += 1
            spread.total += seconds

    def _lines(self, metric: Metric) -> Iterator[str]:
        yield f"# HELP {metric.name} {metric.help}"
        yield f"# TYPE {metric.name} {metric.kind}"
        if metric.kind == "histogram":
            yield from self._spread_lines(metric)
            return
        told = {labels: value for (name, labels), value in self._values.items()
                if name == metric.name}  # fmt: skip
        first = {} if metric.kind == "gauge" else dict.fromkeys(_known(metric), 0.0)
        for labels, value in sorted((first | told).items()):
            yield f"{metric.name}{_braces(metric.labels, labels)} {_number(value)}"

    def _spread_lines(self, metric: Metric) -> Iterator[str]:
        nothing = _Spread([0] * (len(metric.buckets) + 1))
        spread = self._spreads.get((metric.name, ()), nothing)
        seen = 0
        for end, count in zip([*map(_number, metric.buckets), "+Inf"], spread.counts, strict=True):
            seen += count
            yield f'{metric.name}_bucket{{le="{end}"}} {seen}'
        yield f"{metric.name}_sum {_number(spread.total)}"
        yield f"{metric.name}_count {seen}"


def _known(metric: Metric) -> Iterator[Labels]:
    """The sets of labels that are shown from the start; none where values are not known."""
    if metric.labels and not metric.known:
        return iter(())
    return product(*metric.known)


def _braces(names: tuple[str, ...], values: Labels) -> str:
    if not names:
        return ""
    told = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{','.join(told)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
