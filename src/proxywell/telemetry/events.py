"""The event catalogue: every remark that the program makes, typed; also its documentation.

An event is a frozen dataclass with a dotted ``name``, a ``level`` and facts. The first line of
its docstring is what a person reads, with ``{field}`` filled in. Credentials never enter an
event: pass ``endpoint.netloc``, not its URL.
"""

from __future__ import annotations

import logging
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
        return first_line.format_map(self.facts())


def emit(event: Event) -> None:
    """Hand the event to logging, where text or JSON is made of it if anyone listens."""
    if _LOG.isEnabledFor(event.level):
        _LOG.log(event.level, "%s", event.name, extra={"event": event})


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


# --- refresh


# --- pool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDatabaseIgnored(Event):
    """{file} is ignored as a database of countries or networks: {reason}."""

    name = "pool.database_ignored"
    level = logging.WARNING
    file: str
    reason: str


# --- lab
