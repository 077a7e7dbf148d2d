"""What a person sees of running work: a bar on a terminal, plain lines off it; all on stderr.

Time is read from the figures that come in, never from a clock, and whatever goes wrong with
showing never reaches the work that is shown.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from proxywell.model.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

FIRST_INTERVAL_S: Final = 2.0
LONGEST_INTERVAL_S: Final = 60.0
RATE_WINDOW_S: Final = 5.0
WIDE: Final = 110  # columns; fewer are better spent on the figures than on the bar
STALLED_SHARE: Final = 0.25  # of the mean rate so far; below it the rate foretells nothing


class View(Protocol):
    """Shows progress between entering and leaving it as a context manager."""

    def __enter__(self) -> View:
        """Start to show."""
        ...

    def __exit__(self, *_: object) -> None:
        """Show the last figures once more and stop; works twice."""
        ...

    def update(self, progress: Progress) -> None:
        """Show newer figures; never raises."""
        ...


def progress_bar(out: TextIO | None = None) -> View:
    """Choose how to show progress: a live bar on a terminal, else lines at growing intervals.

    Args:
        out: Where to; None: stderr.
    """
    out = out or sys.stderr
    return _Bar(out) if out.isatty() else _Lines(out)


class _Guarded:
    """Shows until something goes wrong with showing, then holds its peace."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._broken = False
        self._latest: Progress | None = None
        self._rate = Rate()

    def __enter__(self) -> _Guarded:
        return self

    def __exit__(self, *_: object) -> None:
        self._attempt(last=True)

    def update(self, progress: Progress) -> None:
        """Show newer figures; never raises."""
        self._latest = progress
        self._rate.add(progress)
        self._attempt(last=False)

    def _attempt(self, *, last: bool) -> None:
        if self._broken:
            return
        try:
            self._show(self._latest, last=last)
        except Exception:  # noqa: BLE001 - a terminal's trouble must not stop a refresh
            self._broken = True

    def _show(self, progress: Progress | None, *, last: bool) -> None:
        raise NotImplementedError


class _Lines(_Guarded):
    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._interval_s = FIRST_INTERVAL_S
        self._next_s = 0.0
        self._shown: Progress | None = None

    def _show(self, progress: Progress | None, *, last: bool) -> None:
        if progress is None or progress == self._shown:
            return
        if not last and progress.elapsed_s < self._next_s:
            return
        self._out.write(f"[{clock(progress.elapsed_s)}] {figures(progress, self._rate.per_s)}\n")
        self._out.flush()
        if self._shown is not None:
            self._interval_s = min(self._interval_s * 2, LONGEST_INTERVAL_S)
        self._next_s = progress.elapsed_s + self._interval_s
        self._shown = progress


class _Bar(_Guarded):
    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._bar: RichBar | None = None
        self._line: TaskID | None = None

    def _show(self, progress: Progress | None, *, last: bool) -> None:
        if progress is not None:
            if self._bar is None or self._line is None:
                self._bar, self._line = _rich_bar(self._out)
            self._bar.update(
                self._line,
                total=progress.planned,
                completed=progress.checked + progress.given_up,
                figures=figures(progress, self._rate.per_s),
            )
        if last and self._bar is not None:
            self._bar.stop()
            self._broken = True


def _rich_bar(out: TextIO) -> tuple[RichBar, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichBar
    from rich.table import Column

    console = Console(file=out, highlight=False, emoji=False, markup=False)
    bar = RichBar(
        BarColumn(bar_width=24 if console.width >= WIDE else 10),
        TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=False)),
        console=console,
        redirect_stdout=False,
        refresh_per_second=8,
    )
    line = bar.add_task("", total=None, figures="")
    bar.start()
    return bar, line


class Rate:
    """Candidates settled per second over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, progress: Progress) -> None:
        """Take one look's figures into account; looks come in the order of time."""
        samples = self._samples
        samples.append((progress.elapsed_s, progress.checked))
        start_s = progress.elapsed_s - RATE_WINDOW_S
        while len(samples) > 1 and samples[1][0] < start_s:
            samples.popleft()

    @property
    def per_s(self) -> float | None:
        """Candidates a second; None before there are two looks at different times."""
        if not self._samples:
            return None
        (start_s, before), (end_s, now) = self._samples[0], self._samples[-1]
        return (now - before) / (end_s - start_s) if end_s > start_s else None


def figures(progress: Progress, per_s: float | None) -> str:
    """Say how far the work is, how fast it goes and when it ends, on one line.

    Args:
        progress: The figures.
        per_s: Candidates a second; None if not known.
    """
    planned = "" if progress.planned is None else f"/{progress.planned:,}"
    parts = [f"{progress.checked:,}{planned} checked", f"{progress.working:,} working"]
    if progress.given_up:
        parts.append(f"{progress.given_up:,} given up")
    if progress.chunks_planned:
        parts.append(_chunks(progress))
    if per_s is not None:
        parts.append(f"{per_s:,.0f}/s")
    open_chunks = progress.chunks_planned - progress.chunks_done
    if progress.nodes is not None and progress.nodes != 1 and open_chunks:
        parts.append(f"{progress.nodes:,} nodes" if progress.nodes else "no worker there")
    if progress.sockets is not None:
        parts.append(f"{progress.sockets:,} sockets")
    return ", ".join(parts) + _ending(progress, per_s)


def _chunks(progress: Progress) -> str:
    """``chunks 30/100 (8 running, 1 rescued)``."""
    told = [
        f"{count:,} {word}"
        for count, word in ((progress.chunks_running, "running"), (progress.rescued, "rescued"))
        if count
    ]
    more = f" ({', '.join(told)})" if told else ""
    return f"chunks {progress.chunks_done:,}/{progress.chunks_planned:,}{more}"


def _ending(progress: Progress, per_s: float | None) -> str:
    bound_left_s = None
    if progress.bound_s is not None:
        bound_left_s = max(0.0, progress.bound_s - progress.elapsed_s)
    at_most = "" if bound_left_s is None else f", at most {clock(bound_left_s)} left"
    if progress.planned is None:
        return at_most
    open_items = progress.planned - progress.checked - progress.given_up
    if open_items <= 0 or not per_s:
        return at_most if open_items > 0 else ""
    left_s = open_items / per_s
    if per_s * progress.elapsed_s < progress.checked * STALLED_SHARE:
        return at_most  # the last ones wait for time-outs side by side: no rate tells the end
    if bound_left_s is not None and left_s >= bound_left_s:
        return at_most
    bound = "" if bound_left_s is None else f" (at most {clock(bound_left_s)})"
    return f", about {clock(left_s)} left{bound}"


def clock(seconds: float) -> str:
    """``0:14``, ``12:03`` or ``1:02:03``; rounded down to whole seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
