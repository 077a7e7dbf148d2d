"""``refresh``: one job from reading sources to finalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from proxywell.cli import funnel
from proxywell.cli.exit_codes import NOTHING_DONE, exit_status
from proxywell.cli.options import Duration, Output, output_option, setting_flag, settings_option
from proxywell.cli.output import show_object
from proxywell.cli.progress import progress_bar
from proxywell.config.schema import Settings
from proxywell.errors import UsageError
from proxywell.model.report import Outcome, RefreshReport
from proxywell.refresh.wait import Until


@click.command()
@setting_flag("--source", "sources.lists", metavar="PATH|URL|-")
@setting_flag("--judge", "judges", metavar="KIND:URL")
@click.option(
    "--engine",
    type=click.Choice(["local", "celery"]),
    default="local",
    show_default=True,
    help="This process, or Celery on a Redis: that of redis.url, or a private one.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1, max=64),
    default=1,
    show_default=True,
    help="Processes that check; 1 checks in this one.",
)
@click.option(
    "--wait",
    "until",
    type=click.Choice(["usable", "finalised"]),
    default="finalised",
    show_default=True,
    help="Return then; usable needs something else that carries the job on.",
)
@setting_flag("--min-count", "refresh.min_count")
@click.option("--want", type=click.IntRange(min=1), help="Stop as soon as so many work.")
@click.option("--deadline-s", type=Duration(min=1), help="Stop after so many seconds.")
@setting_flag("--chunk-size", "refresh.chunk_size")
@setting_flag("--max-sockets", "checking.max_sockets")
@click.option("--limit", type=click.IntRange(min=1), help="Check at most so many candidates.")
@setting_flag("--allow-private", "network.allow_private")
@output_option(Output.TABLE, Output.JSON)
@settings_option
def refresh(
    *,
    settings: Settings,
    state_dir: Path,
    workers: int,
    until: str,
    want: int | None,
    deadline_s: float | None,
    limit: int | None,
    output: Output,
    engine: str,
    **_in_settings: Any,
) -> None:
    """Refresh the pool once, and account for every candidate.

    Exit status: 0 everything checked (or as many work as were wanted), 1 the surroundings
    failed, 2 wrong use or an input that is not there, 3 some given up, 4 nothing done,
    130 interrupted (the job is kept; `proxywell job wait ID` goes on with it).
    """
    if until == "usable" and engine == "local":
        raise UsageError(
            "--wait usable: with the local engine the job would end with this command; "
            "use --want N to stop as soon as N work"
        )
    from proxywell import app

    wish = app.RefreshWish(
        engine=engine,
        workers=workers,
        until=Until(until),
        want=want,
        limit=limit,
        deadline_s=deadline_s,
    )
    with progress_bar() as view:
        report = app.refresh(settings, state_dir, wish, show=view.update)
    show_object(report, output, funnel.in_words)
    raise SystemExit(_status(report))


def _status(report: RefreshReport) -> int:
    if report.outcome is Outcome.FAILED:
        click.echo(f"proxywell: {report.reason}", err=True)
    if report.items.planned:
        return exit_status(report)
    from proxywell.sources.reader import why_nothing

    why = why_nothing(report.sources, report.candidates)
    click.echo(f"proxywell: nothing to check: {why}", err=True)
    return NOTHING_DONE
