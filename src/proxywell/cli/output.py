"""Put data on stdout in the form that was asked for. Remarks never go this way.

Whatever came from outside has its control characters written out, in JSON as escapes, so that
a terminal shows them and never obeys them; a cell of a table that a spreadsheet would take for
a formula gets an apostrophe.
"""

from __future__ import annotations

import csv
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any, TextIO

import msgspec

from proxywell.cli.options import Output
from proxywell.errors import UsageError, suggestion
from proxywell.model.shown import CONTROLS, visible

NOTHING = "-"
_WORDS = {None: "", True: "true", False: "false"}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_FIELD = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_OFF_TERMINAL_WIDTH = 10_000  # no line of a file is wrapped
_HEADERS = {
    "latency_ms": "ms", "times_passed": "passed", "times_checked": "checks", "total_s": "seconds",
}  # fmt: skip
_WHOLE = frozenset({"proxy", "exit_ip", "failure", "job_id"})  # what people copy is never wrapped
_IF_KNOWN = frozenset({"country", "failure"})  # shown if any row has one
_FOLDED_MIN = 8  # characters, of a column that may be wrapped
_GAP = 3  # between two columns: a blank on either side, and the box between them


class Rows:
    """Prints rows one by one, as they come; a table waits for the last one.

    Use it as a context manager: leaving it ends the table or the JSON array, also when the
    reader of the rows was interrupted.

    Args:
        form: The form that was asked for.
        columns: Fields to show in a table or CSV, in order; JSON forms show all fields.
        line: One row as one line of ``txt``.
        spare: Columns that a table leaves out if the terminal is too narrow, the first one first.
        out: Where to; None: stdout.
    """

    def __init__(
        self,
        form: Output,
        columns: Sequence[str],
        *,
        line: Callable[[Any], str] | None = None,
        spare: Sequence[str] = (),
        out: TextIO | None = None,
    ) -> None:
        assert form is not Output.TXT or line is not None, "txt needs a rule for a line"
        self._form = form
        self._columns = columns
        self._line = line
        self._spare = spare
        self._out = out or sys.stdout
        self._table: list[list[str]] = []
        self._count = 0

    def __enter__(self) -> Rows:
        if self._form is Output.CSV:
            csv.writer(self._out, lineterminator="\n").writerow(self._columns)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, BrokenPipeError):
            return
        if self._form is Output.JSON:
            self._out.write("\n]\n" if self._count else "[]\n")
        elif self._form is Output.TABLE and self._count:
            _print_table(self._columns, self._table, self._spare, self._out)
        self._out.flush()

    def row(self, row: Any) -> None:
        """Print one row: a Struct, or a mapping by column."""
        if self._form is Output.TABLE:
            self._table.append([cell(_field(row, name)) for name in self._columns])
        elif self._form is Output.CSV:
            cells = [_csv_cell(_field(row, name)) for name in self._columns]
            csv.writer(self._out, lineterminator="\n").writerow(cells)
        elif self._form is Output.JSONL:
            self._out.write(json_text(row) + "\n")
        elif self._form is Output.JSON:
            self._out.write(("[\n" if self._count == 0 else ",\n") + json_text(row))
        elif self._line is not None:
            self._out.write(visible(self._line(row)) + "\n")
        self._count += 1
        if self._form in {Output.JSONL, Output.CSV, Output.TXT}:
            self._out.flush()


def show_rows(
    rows: Iterable[Any],
    form: Output,
    columns: Sequence[str],
    *,
    line: Callable[[Any], str] | None = None,
    spare: Sequence[str] = (),
) -> None:
    """Print all rows to stdout; the arguments are those of ``Rows``."""
    with Rows(form, columns, line=line, spare=spare) as printer:
        for row in rows:
            printer.row(row)


def show_object(thing: Any, form: Output, words: Callable[[Any], str]) -> None:
    """Print one object to stdout: as indented JSON, or in words.

    Args:
        thing: A Struct, a mapping or a list of them.
        form: ``json`` or ``table``.
        words: What ``table`` prints; its lines may be laid out, control characters in them
            are written out.
    """
    if form is Output.JSON:
        text = json_text(thing, indent=2)
    else:
        text = "\n".join(visible(line) for line in words(thing).split("\n"))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def json_text(thing: Any, *, indent: int = -1) -> str:
    """JSON of a Struct or of plain values, with control characters escaped.

    Args:
        thing: What msgspec can encode; times are RFC 3339.
        indent: Spaces per level; below zero: one line.
    """
    encoded = msgspec.json.encode(thing)
    if indent >= 0:
        encoded = msgspec.json.format(encoded, indent=indent)
    text = encoded.decode()
    return _JSON_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cell(value: object) -> str:
    """One value as a person reads it; ``-`` for what is not known."""
    if value is None or value in ("", (), []):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple):
        return ", ".join(cell(one) for one in value)  # may be wrapped between two of them
    return visible(_text(value))


def template_line(template: str, known: Iterable[str]) -> Callable[[Any], str]:
    """Turn ``'{{proxy}} {{exit_ip}}'`` into a rule for a line; nothing else is special in it.

    Args:
        template: Text with names of fields in double braces.
        known: The fields that a row has.

    Returns:
        A rule for ``Rows``; what is not known is empty.

    Raises:
        UsageError: A name in the template is no field, or it has none.
    """
    names = set(known)
    if not _FIELD.search(template):
        raise UsageError(
            f"template: no field in {template!r}, so that all lines would be the same; write one "
            f"as {{{{proxy}}}} (fields: {', '.join(sorted(names))})"
        )
    for name in _FIELD.findall(template):
        if name not in names:
            raise UsageError(
                f"template: no field {name!r}{suggestion(name, names)} "
                f"(fields: {', '.join(sorted(names))})"
            )
    return lambda row: _FIELD.sub(lambda found: _text(_field(row, found[1])), template)


# In encoded JSON a control character can only stand inside a string, so an escape is the same
# text; tabs and line ends are already escaped there, what is left of them is layout.
_JSON_CONTROLS = re.compile(CONTROLS.pattern.replace("\x00-\x1f", ""))


def _field(row: Any, name: str) -> Any:
    return row[name] if isinstance(row, dict) else getattr(row, name)


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(_text(one) for one in value)
    if isinstance(value, dict | msgspec.Struct):
        return json_text(value)
    return str(value.value if isinstance(value, Enum) else value)


def _csv_cell(value: object) -> str:
    text = visible(_text(value))
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


def _print_table(
    columns: Sequence[str], table: Sequence[Sequence[str]], spare: Sequence[str], out: TextIO
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = shutil.get_terminal_size().columns if out.isatty() else _OFF_TERMINAL_WIDTH
    kept = _fitting(columns, table, spare, terminal)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in kept:
        shown.add_column(_header(name), overflow="fold", no_wrap=name in _WHOLE)
    for cells in table:
        shown.add_row(
            *(Text(text) for name, text in zip(columns, cells, strict=True) if name in kept)
        )
    # what must stay whole is rather wrapped by the terminal, which still copies it as one
    width = max(terminal, _width(kept, folded_max=_FOLDED_MIN))
    # without a height, rich takes a dumb terminal's width for 80
    console = Console(
        file=out, width=width, height=len(table), highlight=False, emoji=False, markup=False
    )
    console.print(shown)


def _fitting(
    columns: Sequence[str], table: Sequence[Sequence[str]], spare: Sequence[str], terminal: int
) -> dict[str, int]:
    """The columns to show and how wide each wants to be, in order."""
    from rich.cells import cell_len

    kept: dict[str, int] = {}
    for place, name in enumerate(columns):
        cells = [row[place] for row in table]
        if name not in _IF_KNOWN or any(text != NOTHING for text in cells):
            kept[name] = max(cell_len(text) for text in (_header(name), *cells))
    for name in spare:
        if _width(kept) <= terminal:
            break
        kept.pop(name, None)
    return kept


def _width(kept: Mapping[str, int], *, folded_max: int | None = None) -> int:
    """How wide a table is whose wrapped columns are narrowed to ``folded_max``."""
    widths = [
        wide if folded_max is None or name in _WHOLE else min(wide, folded_max)
        for name, wide in kept.items()
    ]
    return sum(widths) + _GAP * (len(widths) - 1)


def _header(name: str) -> str:
    return _HEADERS.get(name, name.replace("_", " "))
