"""``check``: candidates in, verdicts out, nothing stored."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import rich_click as click
from click.core import ParameterSource
from click.globals import get_current_context

from proxywell.cli.exit_codes import DONE, NOTHING_DONE
from proxywell.cli.options import Output, loaded_option, output_option, setting_flag
from proxywell.cli.output import Rows, template_line
from proxywell.cli.progress import View, progress_bar
from proxywell.config.loader import Loaded
from proxywell.config.schema import Settings
from proxywell.errors import UsageError
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Protocol
from proxywell.model.progress import Progress
from proxywell.model.verdict import Verdict
from proxywell.net import loop

COLUMNS: Final = (
    "proxy",
    "working",
    "protocols",
    "anonymity",
    "exit_ip",
    "https",
    "latency_ms",
    "failure",
)
TABLE_COLUMNS: Final = tuple(name for name in COLUMNS if name != "working")  # failure tells it
SPARE: Final = ("https", "protocols", "anonymity")  # in a narrow terminal
_TOP_REASONS: Final = 5
_SHOW_EVERY_S: Final = 0.1


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE|URL|-]...")
@click.option("--want", type=click.IntRange(min=1), help="Stop as soon as so many work.")
@click.option("--all", "show_all", is_flag=True, help="Also those that do not work.")
@click.option(
    "--protocol",
    type=click.Choice(["auto", *(protocol.value for protocol in Protocol)]),
    default="auto",
    show_default=True,
    help="Try just this one.",
)
@click.option(
    "--template",
    metavar="TEXT",
    help="A line for each verdict, such as '{{proxy}} {{exit_ip}} {{latency_ms}}'.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1, max=64),
    default=1,
    show_default=True,
    help="Processes that check; 1 checks in this one.",
)
@setting_flag("--judge", "judges", metavar="KIND:URL")
@setting_flag("--allow-private", "network.allow_private")
@setting_flag("--max-sockets", "checking.max_sockets")
@output_option(Output.TABLE, Output.JSON, Output.JSONL, Output.CSV, Output.TXT)
@loaded_option
def check(
    *,
    loaded: Loaded,
    files: tuple[str, ...],
    want: int | None,
    show_all: bool,
    protocol: str,
    template: str | None,
    workers: int,
    output: Output,
    **_places: Any,
) -> None:
    """Check candidates from files, URLs or stdin and print verdicts; store nothing.

    Verdicts are printed as they come; without --all only those of proxies that work.

    Exit status: 0 done, 1 no list could be fetched or no judge answers, 2 an input is not
    there or is no list, 4 there was nothing to check.
    """
    line = _line(template)
    if template is not None:
        output = _only_txt(output)
    if not files and sys.stdin.isatty():
        raise UsageError("no candidates: name a file, a URL, or - and type them in")
    from proxywell import app
    from proxywell.sources.catalog import named_sources

    settings = loaded.settings
    only = None if protocol == "auto" else Protocol(protocol)
    specs = named_sources(files or ("-",))
    reading = loop.run(app.read_candidates(settings, specs, cache_dir=None))
    app.must_have_read(reading, specs)
    candidates = reading.candidates
    columns = TABLE_COLUMNS if output is Output.TABLE else COLUMNS
    with Rows(output, columns, line=line, spare=SPARE) as rows, progress_bar() as bar:
        summary = Summary(len(candidates), reading.why_nothing, _shower(rows, show_all), bar)
        if workers > 1 and candidates:
            app.check_in_processes(
                settings,
                candidates,
                workers=workers,
                protocol=only,
                want=want,
                tell=summary.add,
            )
        elif candidates:
            loop.run(_check(settings, candidates, protocol=only, want=want, summary=summary))
        summary.end()
    click.echo(summary.in_words(), err=True)
    raise SystemExit(DONE if summary.planned else NOTHING_DONE)


class Summary:
    """What became of the candidates of one call, shown as it comes.

    Args:
        planned: How many there are to check.
        reason: Why there are none.
        show: Prints a verdict.
        bar: Shows how far it is.
    """

    def __init__(
        self, planned: int, reason: str | None, show: Callable[[Verdict], None], bar: View
    ) -> None:
        self.planned = planned
        self.reason = reason
        self.checked = self.working = 0
        self.failures: Counter[str] = Counter()
        self._show, self._bar = show, bar
        self._started_s, self._shown_s = time.monotonic(), float("-inf")

    def add(self, verdict: Verdict) -> None:
        """Count and show one verdict."""
        self.checked += 1
        self.working += verdict.working
        if verdict.failure is not None:
            self.failures[verdict.failure.value] += 1
        self._show(verdict)
        now_s = time.monotonic()
        if now_s - self._shown_s >= _SHOW_EVERY_S:
            self._shown_s = now_s
            self._bar.update(self._progress(now_s))

    def end(self) -> None:
        """Show the last figures."""
        self._bar.update(self._progress(time.monotonic()))

    def _progress(self, now_s: float) -> Progress:
        return Progress(
            planned=self.planned,
            checked=self.checked,
            working=self.working,
            elapsed_s=now_s - self._started_s,
        )

    def in_words(self) -> str:
        """One line for stderr."""
        if not self.planned:
            return f"nothing to check: {self.reason or 'the lists are empty'}"
        line = f"{self.checked} of {self.planned} checked, {self.working} working"
        if self.failures:
            reasons = self.failures.most_common(_TOP_REASONS)
            line += "; " + ", ".join(f"{kind} {count}" for kind, count in reasons)
        return line + ("; stopped, as there were enough" if self.checked < self.planned else "")


def _line(template: str | None) -> Callable[[Any], str]:
    if template is None:
        return lambda verdict: str(verdict.proxy)
    return template_line(template, Verdict.__struct_fields__)


def _only_txt(output: Output) -> Output:
    """The form that a template makes; another one that was named is at odds with it."""
    source = get_current_context().get_parameter_source("output")
    if source is ParameterSource.COMMANDLINE and output is not Output.TXT:
        raise UsageError(
            f"--template makes lines of text, --output {output.value} asks for something else; "
            "leave one of them out"
        )
    return Output.TXT


def _shower(rows: Rows, show_all: bool) -> Callable[[Verdict], None]:
    def show(verdict: Verdict) -> None:
        if verdict.working or show_all:
            rows.row(verdict)

    return show


async def _check(
    settings: Settings,
    candidates: list[Candidate],
    *,
    protocol: Protocol | None,
    want: int | None,
    summary: Summary,
) -> None:
    from proxywell import app

    async with (
        app.open_checker(settings, protocol=protocol) as checker,
        aclosing(checker.check(candidates)) as verdicts,
    ):
        async for _, verdict in verdicts:
            summary.add(verdict)
            if want is not None and summary.working >= want:
                return
