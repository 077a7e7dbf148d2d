"""The event catalogue: every remark that the program makes, typed; also its documentation.

An event is a frozen dataclass with a dotted ``name``, a ``level`` and facts. The first line of
its docstring is what a person reads, with ``{field}`` filled in. Credentials never enter an
event: pass ``endpoint.netloc``, not its URL.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar

_LOG = logging.getLogger("proxywell")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of every event."""

    name: ClassVar[str]
    level: ClassVar[int] = logging.INFO

    def facts(self) -> dict[str, Any]:
        """The event's fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def sentence(self) -> str:
        """What a person reads: the docstring's first line, filled in."""
        first_line = (type(self).__doc__ or self.name).partition("\n")[0]
        facts = self.facts()

        def one(found: re.Match[str]) -> str:
            return f"{found[1]} {_ONE[found[3]]}" if facts[found[2]] == 1 else found[0]

        return _COUNTED.sub(one, first_line).format_map(facts)


_ONE = {
    "lists": "list",
    "candidates": "candidate",
    "chunks": "chunk",
    "entries": "entry",
    "lines": "line",
}
_COUNTED = re.compile(rf"(\{{(\w+)\}}) ({'|'.join(_ONE)})\b")


_taps: list[Callable[[Event], None]] = []


def emit(event: Event) -> None:
    """Hand the event to logging, where text or JSON is made of it if anyone listens."""
    for tap in tuple(_taps):
        tap(event)
    if _LOG.isEnabledFor(event.level):
        _LOG.log(event.level, "%s", event.name, extra={"event": event})


@contextmanager
def tapped(tap: Callable[[Event], None]) -> Iterator[None]:
    """Also hand every event of this process to ``tap``, shown or not, on any thread."""
    _taps.append(tap)
    try:
        yield
    finally:
        _taps.remove(tap)


# --- sources


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRead(Event):
    """Read {source}: {read} entries, {unique} distinct."""

    name = "sources.read"
    level = logging.DEBUG
    source: str
    read: int
    unique: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFaulty(Event):
    """Source {source}: {reason}."""

    name = "sources.faulty"
    level = logging.WARNING
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCopyRead(Event):
    """Source {source} was asked {age_s:.0f} s ago, it rests {due_s:.0f} s; its copy is read."""

    name = "sources.copy_read"
    level = logging.DEBUG
    source: str
    age_s: float
    due_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCopyNotKept(Event):
    """The copy of {source} cannot be kept ({reason}); the next read fetches all of it again."""

    name = "sources.copy_not_kept"
    level = logging.WARNING
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLongLines(Event):
    """Source {source}: {lines} lines longer than {max_bytes} bytes, each counted as malformed."""

    name = "sources.long_lines"
    level = logging.WARNING
    source: str
    lines: int
    max_bytes: int


# --- checking and judges


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeUnwell(Event):
    """Judge {judge} does not answer a direct request ({said}); nothing is held against proxies."""

    name = "checking.judge_unwell"
    level = logging.WARNING
    judge: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeWell(Event):
    """Judge {judge} answers again."""

    name = "checking.judge_well"
    judge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeKeyLearnt(Event):
    """Judge {judge} signs with {public_key}; put it into judge.public_keys to insist on it."""

    name = "checking.judge_key_learnt"
    judge: str
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckerFault(Event):
    """A bug of ours in the checker ({where}): {error}: {text}; other candidates go on.

    The candidate is inconclusive: nothing is held against it.
    """

    name = "checking.fault"
    level = logging.ERROR
    where: str  # probe, inspection, done, reactor
    error: str  # the exception's type
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksPaused(Event):
    """No judge answers directly: checks wait for one, {waiting} of them in the middle."""

    name = "checking.paused"
    level = logging.WARNING
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksResumed(Event):
    """A judge answers again: checks go on, {waiting} of them from the start."""

    name = "checking.resumed"
    waiting: int


# --- refresh


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNamed(Event):
    """Refresh job {job_id}: reading {sources} lists."""

    name = "refresh.job_named"
    job_id: str
    sources: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCreated(Event):
    """Refresh job {job_id}: {items} candidates in {chunks} chunks; over within {bound_s:.0f} s."""

    name = "refresh.job_created"
    job_id: str
    items: int
    chunks: int
    bound_s: float  # the longest that it may take


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLeftOpen(Event):
    """Job {job_id} is kept: `proxywell job wait {job_id} --state {state_dir}` goes on with it."""

    name = "refresh.job_left_open"
    level = logging.WARNING
    job_id: str
    state_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSilent(Event):
    """Job {job_id} waits for its server ({reason}); what was reported so far is kept."""

    name = "refresh.server_silent"
    level = logging.WARNING
    job_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBack(Event):
    """The server of job {job_id} answers again."""

    name = "refresh.server_back"
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGivenAgain(Event):
    """The server had lost job {job_id}; it has it again (epoch {epoch}), {missing} to check."""

    name = "refresh.job_given_again"
    level = logging.WARNING
    job_id: str
    epoch: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCameHome(Event):
    """Job {job_id} ends here, without its server: {reason}."""

    name = "refresh.job_came_home"
    level = logging.WARNING
    job_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTroubled(Event):
    """A step in the books failed and is tried again: {reason}."""

    name = "refresh.ledger_troubled"
    level = logging.WARNING
    job_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalisationFailed(Event):
    """Writing job {job_id} into the pool failed (attempt {attempt}): {reason}."""

    name = "refresh.finalisation_failed"
    level = logging.WARNING
    job_id: str
    attempt: int
    reason: str


# --- metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsNotWritten(Event):
    """The figures for Prometheus are not up to date: {reason}."""

    name = "metrics.not_written"
    level = logging.WARNING
    reason: str


# --- pool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDatabaseIgnored(Event):
    """{file} is ignored as a database of countries or networks: {reason}."""

    name = "pool.database_ignored"
    level = logging.WARNING
    file: str
    reason: str


# --- lab
