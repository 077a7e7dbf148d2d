"""What a waiter remarks of a job's events: losses, by name while they are few. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import LedgerEvent
from proxywell.refresh.timeline import shown_node
from proxywell.telemetry.events import Event
from proxywell.telemetry.losses import (
    ChunkGivenUp,
    ChunkRescued,
    ChunksGivenUp,
    ChunkSplit,
    ChunksRescued,
    PoisonFound,
)

NAMED_MAX: Final = 3  # of one kind at one look; more are only counted


def tidings(
    job_id: str, events: Iterable[LedgerEvent], *, whose: Callable[[int], str]
) -> Iterator[Event]:
    """What a person is told of these events, in the order in which they first happened.

    Args:
        job_id: The job.
        events: Of one look.
        whose: Says which candidate has a number, without credentials.
    """
    kinds: dict[str, list[LedgerEvent]] = {}
    for event in events:
        if event.chunk_id is not None:
            kinds.setdefault(_kind(event), []).append(event)
    for kind, told in kinds.items():
        if kind == "rescued" and len(told) > NAMED_MAX:
            yield ChunksRescued(job_id=job_id, chunks=len(told))
        elif kind == "given_up" and len(told) > NAMED_MAX:
            candidates = sum(_whole(event, "items") for event in told)
            yield ChunksGivenUp(job_id=job_id, chunks=len(told), candidates=candidates)
        else:
            yield from _each(job_id, kind, told, whose)


def _kind(event: LedgerEvent) -> str:
    poison = event.kind == "given_up" and event.facts.get("why") == GivenUpWhy.POISON
    return "poison" if poison else event.kind


def _each(
    job_id: str, kind: str, told: list[LedgerEvent], whose: Callable[[int], str]
) -> Iterator[Event]:
    for event in told:
        chunk_id = event.chunk_id or 0
        if kind == "rescued":
            node = shown_node(str(event.facts.get("holder", "")).rpartition("/")[0])
            attempt = _whole(event, "attempt")
            yield ChunkRescued(job_id=job_id, chunk_id=chunk_id, attempt=attempt, node=node)
        elif kind == "split":
            yield ChunkSplit(job_id=job_id, chunk_id=chunk_id, parts=_whole(event, "parts"))
        elif kind == "poison":
            endpoint = whose(_whole(event, "item"))
            yield PoisonFound(job_id=job_id, chunk_id=chunk_id, endpoint=endpoint)
        elif kind == "given_up":
            yield ChunkGivenUp(
                job_id=job_id,
                chunk_id=chunk_id,
                candidates=_whole(event, "items"),
                reason=str(event.facts.get("detail", "")),
            )


def _whole(event: LedgerEvent, name: str) -> int:
    value = event.facts.get(name, 0)
    return int(value) if isinstance(value, int | float) else 0
