"""Write docs/reference/ from the code: settings, commands, events, errors.

``python -m tools.reference`` writes, with ``--check`` it only says what would change (status 1).
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import logging
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import click

import proxywell
from proxywell.cli.commands import COMMANDS
from proxywell.cli.main import load_command
from proxywell.config.schema import Settings
from proxywell.config.tree import FieldSpec, expectation, sections_of, table_of
from proxywell.errors import ProxywellError
from proxywell.telemetry.events import Event
from proxywell.telemetry.metrics import METRICS

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
MADE = "<!-- Made by `make docs` from the code; a change here is lost. -->"
C = TypeVar("C")


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them with what is there."""
    changed = [name for name, text in pages().items() if _read(REFERENCE / name) != text]
    if "--check" in arguments:
        for name in changed:
            print(f"docs/reference/{name} is not what the code says; run `make docs`")
        return 1 if changed else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


def pages() -> dict[str, str]:
    """Every page by its file name."""
    import_everything()
    made = {"config.md": _config, "cli.md": _cli, "events.md": _events, "errors.md": _errors}
    made["metrics.md"] = _metrics
    return {name: "\n".join([MADE, "", *page()]) + "\n" for name, page in made.items()}


def import_everything() -> None:
    """Import every module, so that each room's errors and events are known."""
    for found in pkgutil.walk_packages(proxywell.__path__, "proxywell."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def kinds_of(base: type[C]) -> list[type[C]]:
    """All subclasses within the package, in the order of their names."""
    found: list[type[C]] = []
    waiting = [base]
    while waiting:
        children = waiting.pop().__subclasses__()
        found += [kind for kind in children if _is_ours(kind)]
        waiting += children
    return sorted(set(found), key=lambda kind: (kind.__module__, kind.__name__))


def _is_ours(kind: type) -> bool:
    """In the package, and not the first draft of a dataclass that slots replaced."""
    module = sys.modules.get(kind.__module__)
    return kind.__module__.startswith("proxywell.") and getattr(module, kind.__name__, 0) is kind


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, subcommands behind their group."""
    for name in COMMANDS:
        command = load_command(name)
        yield name, command
        if isinstance(command, click.Group):
            for inner, subcommand in command.commands.items():
                yield f"{name} {inner}", subcommand


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None


def _config() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield (
        "In TOML at `--config FILE`, else `./proxywell.toml`, else in the user's configuration "
        "directory; each also as the environment variable named below. A flag wins over the "
        "environment, that over the file, that over the default. `proxywell config show --origin` "
        "tells what is in force and why."
    )
    table = table_of(Settings)
    yield from _section("", "Top level", [s for s in table.values() if "." not in s.path])
    for name, section in sections_of(Settings).items():
        own = [spec for spec in table.values() if spec.path.startswith(f"{name}.")]
        yield from _section(f"[{name}]", inspect.getdoc(section) or "", own)


def _section(heading: str, told: str, specs: list[FieldSpec]) -> Iterator[str]:
    yield ""
    yield f"## {f'`{heading}`' if heading else told}"
    yield ""
    if heading:
        yield told
        yield ""
    yield "| Setting | Default | Takes | Meaning | Variable |"
    yield "|---|---|---|---|---|"
    for spec in specs:
        cells = (
            f"`{spec.path.rpartition('.')[2]}`",
            "hidden" if spec.secret else _default(spec.default),
            expectation(spec.annotation),
            spec.description,
            f"`{spec.variable}`",
        )
        yield f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "empty" if value == () else f"{value}"


def _cli() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield (
        "Data goes to stdout, remarks to stderr. Exit status: 0 done; 1 the surroundings failed; "
        "2 wrong use, settings, or an input that is not there; 3 partly done; 4 nothing done or "
        "the bound was met; 130 interrupted. `--debug`, anywhere, shows tracebacks."
    )
    for name, command in commands():
        yield ""
        yield f"## `proxywell {name}`"
        yield ""
        yield inspect.cleandoc(command.help or "")
        yield ""
        usage = " ".join(command.collect_usage_pieces(click.Context(command)))
        yield f"    proxywell {name} {usage}"
        options = [one for one in command.params if isinstance(one, click.Option)]
        if options:
            yield ""
            yield "| Option | Meaning |"
            yield "|---|---|"
        for option in options:
            yield f"| `{_usage(option)}` | {_meaning(option)} |"


def _usage(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    context = click.Context(click.Command("x"))
    return _escaped(f"{names} {option.make_metavar(context)}")


def _meaning(option: click.Option) -> str:
    extra = " Repeatable." if option.multiple else ""
    if option.show_default and option.default is not None:
        extra += f" Default: `{option.default}`."
    return _escaped(f"{option.help or ''}{extra}")


def _events() -> Iterator[str]:
    yield "# Events"
    yield ""
    yield (
        'Every remark of the program. With `log.format = "json"` each is one line with `time`, '
        "`level`, `event`, `text` and the facts named here."
    )
    yield ""
    yield "| Event | Level | Text | Facts |"
    yield "|---|---|---|---|"
    for kind in kinds_of(Event):
        told = _escaped((inspect.getdoc(kind) or "").partition("\n")[0])
        facts = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind))
        level = logging.getLevelName(kind.level).lower()
        yield f"| `{kind.name}` | {level} | {told} | {facts} |"


def _metrics() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield (
        "Written to `metrics.textfile` when a job ends, in the text format of Prometheus; see "
        "`docs/operating/metrics.md`."
    )
    yield ""
    yield "| Metric | Kind | Labels | Meaning |"
    yield "|---|---|---|---|"
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {_escaped(metric.help)} |"
    yield ""
    yield "Values of labels that are known beforehand, shown from the start:"
    yield ""
    for metric in METRICS:
        for label, values in zip(metric.labels, metric.known, strict=False):
            yield f"* `{metric.name}`, `{label}`: {', '.join(values)}"


def _errors() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield (
        "What a caller can catch. On the command line an error is one sentence on stderr and the "
        "exit status named here; `code` never changes its meaning."
    )
    yield ""
    yield "| Error | Code | Exit status | Meaning |"
    yield "|---|---|---|---|"
    errors: list[type[ProxywellError]] = [ProxywellError, *kinds_of(ProxywellError)]
    for kind in errors:
        told = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
        where = f"{kind.__module__}.{kind.__name__}"
        yield f"| `{where}` | `{kind.code}` | {kind.exit_status} | {told} |"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
