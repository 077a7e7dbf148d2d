"""Refresh jobs, past and present: list, show, wait, cancel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import rich_click as click
from msgspec import structs

from proxywell.cli import funnel
from proxywell.cli.exit_codes import exit_status
from proxywell.cli.options import Duration, Output, loaded_option, output_option, settings_option
from proxywell.cli.output import show_object, show_rows
from proxywell.cli.progress import progress_bar
from proxywell.cli.timeline import timeline_in_words
from proxywell.config.loader import Loaded
from proxywell.config.places import readable
from proxywell.config.schema import RefreshSettings, Settings
from proxywell.model.report import RefreshReport
from proxywell.refresh.ledgers.ruled import unknown_job
from proxywell.refresh.ledgers.sqlite import FILE_NAME
from proxywell.refresh.run import RefreshRoom

COLUMNS = ("job_id", "outcome", "planned", "checked", "given_up", "pending", "working", "total_s")
SPARE = ("pending", "given_up", "planned")  # in a narrow terminal


class _Line(msgspec.Struct):
    """One job in a table."""

    job_id: str
    outcome: str
    planned: int
    checked: int
    given_up: int
    pending: int
    working: int
    total_s: float | None


@click.group()
def job() -> None:
    """Refresh jobs, past and present: list, show, wait, cancel."""


@job.command("list")
@output_option(Output.TABLE, Output.JSON)
@loaded_option
def list_jobs(loaded: Loaded, state_dir: Path, output: Output) -> None:
    """List all jobs that are kept, newest first."""
    with _looking(loaded.settings.refresh, state_dir) as room:
        reports = [] if room is None else room.reports()
    if output is Output.JSON:
        show_object(reports, output, str)
    else:
        show_rows([_line(report) for report in reports], output, COLUMNS, spare=SPARE)
    if not reports:
        click.echo("proxywell: there is no refresh job yet; run: proxywell refresh", err=True)


@job.command()
@click.argument("job_id", metavar="ID")
@output_option(Output.TABLE, Output.JSON)
@loaded_option
def show(loaded: Loaded, state_dir: Path, job_id: str, output: Output) -> None:
    """Show one job: the figures so far or its final report, and its time line.

    JSON has the report's fields, and beside them `timeline`, `losses`, `nodes` and `silent_s`.
    """
    with _looking(loaded.settings.refresh, state_dir) as room:
        if room is None:
            raise unknown_job(job_id, ())
        report, timeline = room.report(job_id), room.timeline(job_id)
    if output is Output.JSON:
        told = {"timeline": timeline.moments} | structs.asdict(timeline)
        del told["moments"]
        show_object(structs.asdict(report) | told, output, str)
        return
    words = (
        funnel.in_words(report, story_follows=True),
        timeline_in_words(timeline, engine=report.engine),
    )
    show_object(report, output, lambda _: "\n\n".join(part for part in words if part))


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("--deadline-s", type=Duration(min=1), help="Wait no longer than this.")
@output_option(Output.TABLE, Output.JSON)
@settings_option
def wait(
    settings: Settings, state_dir: Path, job_id: str, deadline_s: float | None, output: Output
) -> None:
    """Wait until a job is finalised; work on it here if nobody else does.

    A wait that meets its own bound leaves the job open.

    Exit status: that of `refresh` for the same outcome; 130 interrupted, the job stays open.
    """
    with _working(settings, state_dir, job_id) as room, progress_bar() as view:
        report = room.wait_for(job_id, bound_s=deadline_s, close_at_bound=False, show=view.update)
    show_object(report, output, funnel.in_words)
    raise SystemExit(exit_status(report))


@job.command()
@click.argument("job_id", metavar="ID")
@output_option(Output.TABLE, Output.JSON)
@settings_option
def cancel(settings: Settings, state_dir: Path, job_id: str, output: Output) -> None:
    """Give up what is still open, keep what was checked, and report.

    A job that is over already is only reported. Exit status: 0 cancelled, or over already.
    """
    with _working(settings, state_dir, job_id, work=False) as room:
        report = room.cancel(job_id)
    show_object(report, output, funnel.in_words)


@contextmanager
def _looking(settings: RefreshSettings, state_dir: Path) -> Iterator[RefreshRoom | None]:
    """A room that only looks; None where there never was a job, so that nothing is made."""
    if not (readable(state_dir) / FILE_NAME).exists():
        yield None
        return
    with RefreshRoom(state_dir, settings, sink=None) as room:
        yield room


def _working(
    settings: Settings, state_dir: Path, job_id: str, *, work: bool = True
) -> AbstractContextManager[RefreshRoom]:
    """A room with pool and checker, as the job that it is for was started."""
    if not (state_dir / FILE_NAME).exists():
        raise unknown_job(job_id, ())
    from proxywell import app

    return app.job_room(settings, state_dir, job_id, work=work)


def _line(report: RefreshReport) -> _Line:
    return _Line(
        job_id=report.job_id,
        outcome="running" if report.outcome is None else report.outcome.value,
        planned=report.items.planned,
        checked=report.items.checked,
        given_up=report.items.given_up,
        pending=report.items.pending,
        working=report.verdicts.working,
        total_s=report.timing_s.total,
    )
