"""``proxywell sources``: the catalogue, what a list holds, and which lists lead anywhere."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import rich_click as click
from msgspec import Struct

from proxywell.cli.options import Duration, Output, loaded_option, output_option, setting_flag
from proxywell.cli.output import show_object, show_rows
from proxywell.config.loader import Loaded
from proxywell.config.places import readable
from proxywell.errors import InputMissingError
from proxywell.model.clock import SystemClock
from proxywell.model.shown import visible
from proxywell.net.guard import Guard
from proxywell.sources.catalog import SourceSpec, chosen_sources, named_sources
from proxywell.sources.errors import SourceError
from proxywell.sources.reader import SourceReader, why_refused
from proxywell.sources.visit import Visit
from proxywell.sources.yields import YieldBook, interval_s

COPIES = "sources"  # in the state directory
_LIST_COLUMNS = ("name", "form", "hint", "licence", "interval_s", "place")
_YIELD_COLUMNS = (
    "source", "rounds", "read", "new", "checked", "working", "exits", "share", "barren", "rests_s",
)  # fmt: skip


class ListTest(Struct, kw_only=True):
    """What one list holds.

    Attributes:
        read: Entries.
        unique: Distinct candidates among the well-formed.
        refused: Entries by reason.
        by_protocol: Distinct candidates per hint; ``unknown`` for those without.
        malformed_examples: The first few, fit to be shown.
    """

    read: int
    unique: int
    refused: dict[str, int]
    by_protocol: dict[str, int]
    malformed_examples: list[str]


class YieldRow(Struct, kw_only=True):
    """One source and what it led to; counts of the past fade with a half-life of a week."""

    source: str
    rounds: int
    read: float
    new: float
    checked: float
    working: float
    exits: float
    share: float
    barren: int
    rests_s: float | None


@click.group()
def sources() -> None:
    """Show the catalogue, try a list, or see which sources lead to working proxies."""


@sources.command("list")
@output_option(Output.TABLE, Output.JSON, Output.JSONL, Output.CSV)
@loaded_option
def list_sources(loaded: Loaded, state_dir: Path, output: Output) -> None:
    """Show every source that a refresh reads: the catalogue, or the lists of the settings."""
    show_rows(chosen_sources(loaded.settings.sources.lists), output, _LIST_COLUMNS)


@sources.command()
@click.argument("place", metavar="FILE|URL|-")
@click.option(
    "--deadline-s",
    type=Duration(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Stop reading after so many seconds; a URL also ends by the limits of [sources].",
)
@output_option(Output.TABLE, Output.JSON)
@setting_flag("--allow-private", "network.allow_private")
@loaded_option
def test(
    loaded: Loaded,
    state_dir: Path,
    place: str,
    deadline_s: float,
    output: Output,
) -> None:
    """Read one list and say what it holds; nothing is kept and no proxy is contacted.

    Exit status: 0 read, also if everything in it is refused; 1 the URL gives no list; 2 the
    file is not there, or is no list.
    """
    (spec,) = named_sources([place])
    visit = asyncio.run(_examine(loaded, spec, deadline_s))
    tally, error = visit.tally, visit.report.error
    if error is not None and not visit.is_list:
        failure = SourceError if spec.is_url else InputMissingError
        raise failure(f"source {visible(spec.name)}: {error}")
    refused = {reason.value: count for reason, count in tally.refused.items()}
    if error is not None:
        _remark(f"source {spec.name}: {error}")
    elif not tally.accepted:
        _remark(f"source {spec.name}: {why_refused(tally.read, refused)}")
    show_object(
        ListTest(
            read=tally.read,
            unique=tally.unique,
            refused=refused,
            by_protocol=tally.by_protocol(),
            malformed_examples=tally.examples,
        ),
        output,
        _in_words,
    )


@sources.command()
@output_option(Output.TABLE, Output.JSON, Output.JSONL, Output.CSV)
@loaded_option
def yields(loaded: Loaded, state_dir: Path, output: Output) -> None:
    """Show what each source led to so far, the best first, and how long it rests."""
    specs = {spec.name: spec for spec in chosen_sources(loaded.settings.sources.lists)}
    rows = [
        YieldRow(
            source=source,
            rounds=known.rounds,
            read=round(known.read, 1),
            new=round(known.new, 1),
            checked=round(known.checked, 1),
            working=round(known.working, 1),
            exits=round(known.exits, 1),
            share=round(known.share, 4),
            barren=known.barren,
            rests_s=interval_s(specs[source].interval_s, known) if source in specs else None,
        )
        for source, known in YieldBook(readable(state_dir) / COPIES).known().items()
    ]
    if not rows:
        _remark("no source has been through a refresh yet; run: proxywell refresh")
    show_rows(sorted(rows, key=lambda row: -row.share), output, _YIELD_COLUMNS)


async def _examine(loaded: Loaded, spec: SourceSpec, deadline_s: float) -> Visit:
    clock = SystemClock()
    network = loaded.settings.network
    guard = Guard(network.allow_private, network.allow_service_ports)
    reader = SourceReader(loaded.settings.sources, network, guard, None, clock)
    return await reader.examine(spec, deadline_s=clock.monotonic_s() + deadline_s)


def _in_words(found: Any) -> str:
    assert isinstance(found, ListTest)
    lines = [f"{'read':24}{found.read:>10}", f"{'unique':24}{found.unique:>10}"]
    lines += [f"{'refused: ' + why:24}{count:>10}" for why, count in sorted(found.refused.items())]
    lines += [f"{'hint: ' + word:24}{count:>10}" for word, count in found.by_protocol.items()]
    lines += [f"malformed: {example}" for example in found.malformed_examples]
    return "\n".join(lines)


def _remark(text: str) -> None:
    print(f"proxywell: {visible(text)}", file=sys.stderr)  # noqa: T201 - remarks go to stderr
