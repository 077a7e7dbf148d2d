"""A job's time line in words: what happened when, the latest losses, who did how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxywell.cli.progress import clock
from proxywell.refresh.timeline import Moment, Timeline

SILENT_LEAST_S: Final = 2.0  # a job that somebody works on is reached more often


def timeline_in_words(timeline: Timeline, *, engine: str = "local") -> str:
    """Lay out a time line; empty if nothing is known.

    Args:
        timeline: A job's.
        engine: The job's; what is known here of one on Celery is a copy.
    """
    moments = [*_moments(timeline), *_silence(timeline, engine)]
    parts = [moments, list(_losses(timeline)), list(_nodes(timeline))]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _moments(timeline: Timeline) -> Iterator[str]:
    if timeline.moments:
        yield "  seconds  what happened"
    for moment in timeline.moments:
        yield f"{moment.at_s:9,.1f}  {moment.what.replace('_', ' '):<13}  {_told(moment)}"


def _silence(timeline: Timeline, engine: str) -> Iterator[str]:
    silent_s = timeline.silent_s
    if silent_s is None or silent_s < SILENT_LEAST_S:
        return
    said = f"nobody has reached its books for {clock(silent_s)}"
    if engine != "local":
        said = f"this is what was known here {clock(silent_s)} ago; `job wait` asks Redis"
    yield f"           {'since then':<13}  {said}"


def _told(moment: Moment) -> str:
    if moment.count == 1 or moment.what == "claimed":
        return moment.says
    return f"{moment.count:,} times until {moment.last_s:,.1f} s: {moment.says}"


def _losses(timeline: Timeline) -> Iterator[str]:
    if timeline.losses:
        yield "  seconds  the latest attempts that were lost"
    for loss in timeline.losses:
        attempt = f", attempt {loss.attempt}" if loss.attempt else ""
        yield f"{loss.at_s:9,.1f}  chunk {loss.chunk}{attempt} of {loss.node}: {loss.says}"


def _nodes(timeline: Timeline) -> Iterator[str]:
    shares = timeline.nodes
    if not shares:
        return
    width = max(4, *(len(share.node) for share in shares))
    yield f"  {'node':<{width}}  attempts  chunks  candidates    lost  last heard of"
    for share in shares:
        there = "" if share.there is None else ", is there" if share.there else ", is gone"
        yield (
            f"  {share.node:<{width}}  {share.attempts:>8,}  {share.chunks:>6,}  "
            f"{share.items:>10,}  {share.lost:>6,}  after {share.last_s:,.1f} s{there}"
        )
