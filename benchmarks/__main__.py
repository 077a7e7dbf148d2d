"""Run benchmarks one after the other, print their figures, keep a record of each.

A benchmark is a module ``bench_NAME.py`` with ``run() -> Figures`` and, where the design states
what must be reached, ``BUDGETS``: the most that a figure may be, by the figure's name. Its
first docstring line is its title. A figure above its budget is said, and is no failure: a
busy machine is not a regression. Exit status: 0 all ran, 1 one broke, 2 no such benchmark.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from benchmarks.record import Figure, Figures, keep


def main(arguments: list[str] | None = None) -> int:
    """Run what was named, or everything, and say how it went."""
    known = sorted(
        path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(known)}")
    parser.add_argument("--no-record", action="store_true", help="only print")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    broken = [name for name in options.names or known if not _run(name, not options.no_record)]
    return 1 if broken else 0


def _run(name: str, record: bool) -> bool:
    try:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        print(f"{name}: {(module.__doc__ or name).partition(chr(10))[0]}", flush=True)
        figures: Figures = module.run()
    except Exception:  # noqa: BLE001 - one broken bench must not hide the others
        traceback.print_exc()
        return False
    budgets: Mapping[str, float] = getattr(module, "BUDGETS", {})
    for figure, value in figures.items():
        print(f"  {figure:<44} {_text(value):>14}{_against(value, budgets.get(figure))}")
    if record:
        print(f"  kept in {keep(name, figures, budgets=budgets).name}")
    return True


def _text(value: Figure) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value}"


def _against(value: Figure, budget: float | None) -> str:
    if budget is None or not isinstance(value, int | float):
        return ""
    return f"  within {budget:g}" if value <= budget else f"  ABOVE its budget of {budget:g}"


if __name__ == "__main__":
    raise SystemExit(main())
