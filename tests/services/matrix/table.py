"""The matrix as a page: what was done, what came of it, and what a plain chord made of it."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from benchmarks.record import commit, machine
from tests.services.matrix.chord import PRACTICES
from tests.services.matrix.chord_system import HUNG_S, Came
from tests.services.matrix.lab import CHECK_S, CHILDREN, CHUNKS
from tests.services.matrix.orders import QUICK
from tests.services.matrix.row import NOISE, Row
from tests.services.matrix.runner import Run
from tests.services.matrix.scripted import CHUNK
from tests.services.redis_server import needed_binary

COMMAND: Final = "python -m tests.services.matrix --runs 3 --with-chord --output"
PLACE: Final = "docs/fault-matrix.md"


@dataclass
class Cells:
    """One row of the table, as it fills."""

    row: Row
    missing: str | None = None
    runs: list[Run] = field(default_factory=list)
    chords: dict[str, list[Came]] = field(default_factory=dict)


def written(cells: Sequence[Cells], *, with_chord: bool) -> str:
    """The page."""
    head = ["fault", "outcome", "end (bound)", "began again", "checked twice", "epochs", "seals"]
    practices = list(PRACTICES) if with_chord else []
    head += [f"chord, {practice}" for practice in practices]
    lines = [*_preface(cells, with_chord=with_chord), _line(head), _line(["---"] * len(head))]
    lines += [_line([*_ours(cell), *[_theirs(cell, name) for name in practices]]) for cell in cells]
    wrong = [
        f"* {came.row} ({came.phase}, seed {came.seed}): {'; '.join(came.wrong)}"
        for cell in cells
        for came in cell.runs
        if came.wrong
    ]
    if wrong:
        lines += ["", "## Not as it must be", "", *wrong]
    return "\n".join([*lines, ""])


_PREFACE: Final = """\
# The fault matrix

Made by `{command} {place}` on {date}, commit {commit}, with {libraries}, {server}, {python}, on
{cores} cores ({cpu}, {system}).

Every run: a private Redis on loopback, a worker with {children} children, {chunks} chunks of
{chunk} candidates that take {check_s:g} s, a lease of {lease_s:g} s, a beat of {beat_s:g} s; a
waiter in a process of its own; a supervisor that starts a worker again a second after it has ended
by itself; and a log of all checks outside of Redis. The fault falls at a random instant, in every
other run right behind the end of a chunk. At the end: every wait is over within its bound, every
candidate is checked or given up with a reason, the pool was sealed once and has each verdict once,
and the books on the server and in the journal keep their invariants.

{right} of {runs} runs were as they must be. *End* is counted from the fault; bounds are the sum of
what must happen, with a factor of {noise:g} for a busy machine. *Began again*: the longest until a
check that was lost with its process was started by another one. *Checked twice*: candidates of
which a check was started more than once.
"""
_BESIDE: Final = """
Beside it the same faults on a plain Celery chord of the same chunks, waited for by its id.
**HUNG**: no answer {hung_s:g} s after the fault was over. The settings of *best practice* are in
`tests/services/matrix/chord.py`.
"""


def _preface(cells: Sequence[Cells], *, with_chord: bool) -> list[str]:
    of = machine()
    runs = [came for cell in cells for came in cell.runs]
    text = _PREFACE.format(
        command=COMMAND,
        place=PLACE,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        commit=commit(),
        libraries=", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis")),
        server=_server(),
        python=of.python,
        cores=of.cores,
        cpu=of.cpu,
        system=of.system,
        children=CHILDREN,
        chunks=CHUNKS,
        chunk=CHUNK,
        check_s=CHECK_S,
        lease_s=QUICK.lease_s,
        beat_s=QUICK.beat_s,
        right=sum(not came.wrong for came in runs),
        runs=len(runs),
        noise=NOISE,
    )
    return [*text.splitlines(), *(_BESIDE.format(hung_s=HUNG_S).splitlines() * with_chord), ""]


def _ours(cell: Cells) -> list[str]:
    if cell.missing is not None:
        return [cell.row.title, f"not run: {cell.missing}", "", "", "", "", ""]
    found = [came.finding for came in cell.runs if came.finding is not None]
    outcomes = Counter(
        "red" if came.wrong else came.finding.outcome if came.finding else "red"
        for came in cell.runs
    )
    told = ", ".join(f"{n} {name}" if len(outcomes) > 1 else name for name, n in outcomes.items())
    gone = sorted({one.given_up for one in found})
    if gone and gone[-1]:
        told += f" ({_span(gone, '{}')} given up)"
    ends = _span([came.end_s for came in cell.runs], "{:.1f}")
    bounds = _span([came.bound_s for came in cell.runs], "{:.0f}")
    return [
        cell.row.title,
        told,
        f"{ends} s ({bounds} s)",
        _span([came.again_s for came in cell.runs], "{:.1f} s"),
        _span([one.checked_again for one in found], "{}"),
        _span([one.epochs for one in found], "{}"),
        _span([one.seals for one in found], "{}"),
    ]


def _theirs(cell: Cells, practice: str) -> str:
    came = cell.chords.get(practice, [])
    told = []
    for verdict, n in Counter(one.verdict for one in came).items():
        of = [one for one in came if one.verdict == verdict]
        text = f"**{verdict}**" if verdict == "HUNG" else verdict
        if verdict != "HUNG":
            text += f" {_span([one.end_s for one in of], '{:.1f}')} s"
        text += f", {_span([one.chunks for one in of], '{}')} done"
        again = _span([one.again for one in of], "{}")
        text += f", {again} again" if again not in ("", "0") else ""
        told.append(f"{n} of {len(came)}: {text}" if n < len(came) else text)
    return "; ".join(told) or "-"


def _span(figures: Sequence[float | None], form: str) -> str:
    known = sorted(figure for figure in figures if figure is not None)
    if not known:
        return ""
    ends = list(dict.fromkeys(form.format(end) for end in (known[0], known[-1])))
    return "-".join([*[end.removesuffix(" s") for end in ends[:-1]], ends[-1]])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _server(ask: Callable[..., str] = subprocess.check_output) -> str:
    words = ask([needed_binary(), "--version"], text=True, timeout=10).split()
    name = words[0].lower().removesuffix("-server")
    found = next(word for word in words if word.startswith("v="))
    return f"{name} {found.removeprefix('v=')}"
