"""Run rows of the matrix and write the table: ``python -m tests.services.matrix --help``.

Exit status: 0 every run was as it must be, 1 some were not, 2 wrong use.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random, SystemRandom

import click

from tests.services.matrix.chord import PRACTICES
from tests.services.matrix.chord_system import Came, run_chord
from tests.services.matrix.lab import ALIGNED, RANDOM
from tests.services.matrix.row import Row
from tests.services.matrix.runner import ROWS, Run, row_of, run
from tests.services.matrix.table import Cells, written

NAMES = [row.name for row in ROWS]


def phases(runs: int) -> list[str]:
    """Every other one falls right behind the end of a chunk."""
    return [ALIGNED if at % 2 else RANDOM for at in range(runs)]


@click.command()
@click.argument("rows", nargs=-1, type=click.Choice(NAMES))
@click.option("--runs", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--at-once", type=click.IntRange(1, 8), default=1, show_default=True)
@click.option("--with-chord", is_flag=True, help="The same faults on a plain Celery chord.")
@click.option("--seed", type=int, help="Of instants and victims; none: drawn.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The table.")
def main(
    *,
    rows: tuple[str, ...],
    runs: int,
    at_once: int,
    with_chord: bool,
    seed: int | None,
    output: Path | None,
) -> None:
    """Do faults to real workers on a private Redis, and see that every job ends and balances.

    ROWS: which ones; none: all of them.
    """
    draw = Random(SystemRandom().randrange(1 << 32) if seed is None else seed)
    chosen = [row_of(name) for name in rows or NAMES]
    cells = {row.name: Cells(row, missing=row.missing()) for row in chosen}
    steps = [
        step
        for row in chosen
        if cells[row.name].missing is None
        for step in _steps(row, cells[row.name], runs, draw, with_chord=with_chord)
    ]
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda step: step(), steps))
    if output is not None:
        output.write_text(written(list(cells.values()), with_chord=with_chord), encoding="utf-8")
    raise SystemExit(any(came.wrong for cell in cells.values() for came in cell.runs))


def _steps(
    row: Row, cells: Cells, runs: int, draw: Random, *, with_chord: bool
) -> list[Callable[[], None]]:
    def ours(phase: str, seed: int) -> None:
        began_s = time.monotonic()
        came = _sheltered(row, phase, seed)
        cells.runs.append(came)
        _say(f"{came.told()}\n{time.monotonic() - began_s:8.3f} s  in all\n")

    def theirs(practice: str, phase: str, seed: int) -> None:
        came = run_chord(row, practice, phase=phase, seed=seed)
        cells.chords.setdefault(practice, []).append(came)
        _say(f"{row.name} ({phase}), chord, {practice}: {_in_words(came)}\n")

    told: list[Callable[[], None]] = [
        partial(ours, phase, draw.randrange(1 << 32)) for phase in phases(runs)
    ]
    if with_chord and row.chord:
        told += [
            partial(theirs, practice, phase, draw.randrange(1 << 32))
            for practice in PRACTICES
            for phase in phases(min(runs, 2))
        ]
    return told


def _sheltered(row: Row, phase: str, seed: int) -> Run:
    """A run that breaks down says so, and the others go on."""
    try:
        return run(row, phase=phase, seed=seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, it stands in the table
        return Run(row.name, phase, seed, wrong=[f"{type(error).__name__}: {error}"])


def _in_words(came: Came) -> str:
    end = "no answer" if came.end_s is None else f"{came.end_s:.1f} s"
    return f"{came.verdict}, {end}, {came.chunks} chunks done, {came.again} started again"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
