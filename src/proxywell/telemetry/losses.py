"""The events about what a refresh job loses: chunks, and candidates that end their workers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from proxywell.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRescued(Event):
    """Chunk {chunk_id} was rescued from a silent worker (attempt {attempt}); it runs again."""

    name = "refresh.chunk_rescued"
    level = logging.WARNING
    job_id: str
    chunk_id: int
    attempt: int  # the attempt that was lost, from 1
    node: str  # host and process of the worker's main


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunksRescued(Event):
    """{chunks} chunks were rescued from silent workers; they run again."""

    name = "refresh.chunks_rescued"
    level = logging.WARNING
    job_id: str
    chunks: int  # at one look


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSplit(Event):
    """Chunk {chunk_id} ended its workers: cut into {parts} parts to find the candidate."""

    name = "refresh.chunk_split"
    level = logging.WARNING
    job_id: str
    chunk_id: int
    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkGivenUp(Event):
    """Chunk {chunk_id} was given up with {candidates} candidates unchecked: {reason}."""

    name = "refresh.chunk_given_up"
    level = logging.WARNING
    job_id: str
    chunk_id: int
    candidates: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunksGivenUp(Event):
    """{chunks} chunks were given up with {candidates} candidates unchecked."""

    name = "refresh.chunks_given_up"
    level = logging.WARNING
    job_id: str
    chunks: int  # at one look
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonFound(Event):
    """Candidate {endpoint} ends whoever checks it: given up alone, the others go on."""

    name = "refresh.poison_found"
    level = logging.WARNING
    job_id: str
    chunk_id: int
    endpoint: str  # a URL without credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonLeftOut(Event):
    """Left out {candidates} candidates that ended the workers of an earlier job.

    They are planned again when ``refresh.poison_kept_s`` is over.
    """

    name = "refresh.poison_left_out"
    candidates: int
