"""Commands about the members of the pool: list, random, export, explain, freeze, thaw, backup."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click

from proxywell.cli.exit_codes import DONE, NOTHING_DONE, PARTLY_DONE
from proxywell.cli.options import Output, loaded_option, output_option
from proxywell.cli.output import cell, show_object, show_rows
from proxywell.config.loader import Loaded
from proxywell.config.places import make_ready, readable
from proxywell.config.schema import Settings
from proxywell.errors import UsageError, suggestion
from proxywell.model.endpoint import Protocol
from proxywell.model.member import MemberState, PoolMember
from proxywell.model.shown import without_credentials
from proxywell.model.verdict import Anonymity
from proxywell.pool.explanation import Explanation
from proxywell.pool.lookup import UnknownProxyError, endpoint_of
from proxywell.pool.pool import Pool
from proxywell.pool.selection import MemberFilter, NothingFits

F = TypeVar("F", bound=Callable[..., Any])

COLUMNS: Final = (
    "proxy",
    "state",
    "score",
    "anonymity",
    "exit_ip",
    "country",
    "https",
    "latency_ms",
    "times_passed",
    "times_checked",
)
SPARE: Final = ("https", "times_checked", "times_passed", "score")  # in a narrow terminal
VERIFY_ROUNDS_MAX: Final = 5


def filter_options(command: F) -> F:
    """What members must be; hands over ``wanted: MemberFilter``."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


_FILTERS: Final = (
    click.option("--protocol", metavar="P,…", help="Works through one of these protocols."),
    click.option(
        "--anonymity", metavar="A,…", help="Exactly one of: elite, anonymous, transparent, unknown."
    ),
    click.option(
        "--country", metavar="CC,…", help="Exits in one of these countries (needs pool.geo_file)."
    ),
    click.option(
        "--max-latency-ms",
        type=click.FloatRange(min=0),
        help="Median latency not above this, milliseconds.",
    ),
    click.option("--target", help="Not known to fail for this target."),
)


def wish(
    protocol: str | None,
    anonymity: str | None,
    country: str | None,
    max_latency_ms: float | None,
    target: str | None,
) -> MemberFilter:
    """Read the filter options; each of the first three is a list with commas.

    Args:
        protocol: Words of ``Protocol``, in any case.
        anonymity: Words of ``Anonymity``, in any case.
        country: Codes of two letters, in any case.
        max_latency_ms: Milliseconds, not below 0.
        target: The user's name for a target.

    Raises:
        UsageError: A word that does not exist; the nearest one is suggested.
    """
    countries = _words(country)
    for code in countries:
        if len(code) != 2 or not code.isascii() or not code.isalpha():
            raise UsageError(f"--country: {code!r} is no country code of two letters, such as DE")
    return MemberFilter(
        protocols=frozenset(Protocol(word) for word in _known("--protocol", protocol, Protocol)),
        anonymities=frozenset(
            Anonymity(word) for word in _known("--anonymity", anonymity, Anonymity)
        ),
        countries=frozenset(code.upper() for code in countries),
        max_latency_ms=max_latency_ms,
        target=target,
    )


def _words(text: str | None) -> list[str]:
    return [word for part in (text or "").split(",") if (word := part.strip())]


def _known(option: str, text: str | None, words: type[Protocol | Anonymity]) -> list[str]:
    known = [word.value for word in words]
    given = [word.lower() for word in _words(text)]
    for word in given:
        if word not in known:
            raise UsageError(
                f"{option}: no {word!r}{suggestion(word, known)} (there are {', '.join(known)})"
            )
    return given


@contextmanager
def looking(loaded: Loaded, state_dir: Path) -> Iterator[Pool]:
    """The pool of a state directory, to be read; one that is not there is empty."""
    with Pool.open(readable(state_dir), loaded.settings.pool, read_only=True) as pool:
        yield pool


def verified(settings: Settings, state_dir: Path, members: list[PoolMember]) -> list[PoolMember]:
    """Check members anew, now, and keep those that passed, in their order."""
    from proxywell import app

    return app.verify_members(settings, state_dir, members)


@click.command()
@filter_options
@click.option("--count", type=click.IntRange(min=1), help="At most so many, the best first.")
@click.option("--fresh", is_flag=True, help="Only members that may be handed out now.")
@output_option(Output.TABLE, Output.JSON, Output.JSONL, Output.CSV, Output.TXT)
@loaded_option
def list_members(
    loaded: Loaded,
    state_dir: Path,
    count: int | None,
    fresh: bool,
    output: Output,
    **filters: Any,
) -> None:
    """Show the members of the pool, fresh ones first and the best first.

    Every form but txt tells a member's state; txt is for programs that use what they read, so
    it holds only members that may be handed out. Credentials are shown.

    Exit status: 0, also when there are none; 1 the pool cannot be read; 2 wrong use.
    """
    wanted = wish(**filters)
    with looking(loaded, state_dir) as pool:
        members = pool.members(wanted)
        nothing = pool.choose(wanted, 1, lambda: 0.0)
    if fresh or output is Output.TXT:
        members = [member for member in members if member.state is MemberState.FRESH]
    _show(members[:count], output)
    if not members and isinstance(nothing, NothingFits):
        _remark(nothing.reason)


@click.command()
@filter_options
@click.option("--count", type=click.IntRange(min=1), default=1, help="So many different ones.")
@click.option("--verify", is_flag=True, help="Check again, now, what is about to be printed.")
@output_option(Output.TXT, Output.TABLE, Output.JSON, Output.JSONL, Output.CSV)
@loaded_option
def random_member(
    loaded: Loaded, state_dir: Path, count: int, verify: bool, output: Output, **filters: Any
) -> int:
    """Print a member that works now, by chance in proportion to its score.

    Never the same one twice in a call. With --verify also members that were not checked lately
    have a chance, since they are checked before they are printed.

    Exit status: 0; 3 fewer than --count; 4 nothing fits, and stderr says what removed how many.
    """
    wanted = wish(**filters)
    if verify:
        chosen = _choose_verified(loaded.settings, make_ready(state_dir), wanted, count)
    else:
        with looking(loaded, state_dir) as pool:
            chosen = pool.choose_once(wanted, count, _draw())
    if isinstance(chosen, NothingFits):
        _remark(chosen.reason)
        return NOTHING_DONE
    _show(chosen, output)
    if len(chosen) < count:
        _remark(f"{len(chosen)} of {count}: no more fit")
        return PARTLY_DONE
    return DONE


def _choose_verified(
    settings: Settings, state_dir: Path, wanted: MemberFilter, count: int
) -> list[PoolMember] | NothingFits:
    """Choose and check, until enough have passed or nobody is left; a few rounds at most."""
    draw = _draw()
    tried: set[str] = set()
    passed: list[PoolMember] = []
    nothing = NothingFits("")
    for _ in range(VERIFY_ROUNDS_MAX):
        with Pool.open(state_dir, settings.pool, read_only=True) as pool:
            some = pool.choose_once(
                wanted, count - len(passed), draw, stale_too=True, but_not=tried
            )
        if isinstance(some, NothingFits):
            nothing = some
            break
        tried.update(_key(member) for member in some)
        passed += verified(settings, state_dir, some)
        if len(passed) >= count:
            break
    if passed:
        return passed
    if not tried:
        return nothing
    return NothingFits(f"{len(tried)} chosen and checked anew, none of them works now")


def _key(member: PoolMember) -> str:
    return endpoint_of(member.proxy).key


def _draw() -> Callable[[], float]:
    from random import SystemRandom

    return SystemRandom().random


@click.command()
@filter_options
@click.option(
    "--out",
    "directory",
    type=click.Path(path_type=Path),
    default=Path("proxies"),
    show_default=True,
    help="Directory to write to; made if it is not there.",
)
@click.option("--format", "formats", multiple=True, help="Also proxychains, squid or clash.")
@output_option(Output.TABLE, Output.JSON)
@loaded_option
def export(
    loaded: Loaded,
    state_dir: Path,
    directory: Path,
    formats: tuple[str, ...],
    output: Output,
    **filters: Any,
) -> None:
    """Write the members that may be handed out as files, each one atomically.

    all.txt holds URLs; http.txt, connect.txt, socks4.txt and socks5.txt hold host:port;
    proxies.json and proxies.csv hold everything. Files with credentials are private.

    Exit status: 0; 1 a file cannot be written, the old ones stand; 2 wrong use.
    """
    from proxywell.pool.export import ExportReport
    from proxywell.pool.export import export as write

    wanted = wish(**filters)
    with looking(loaded, state_dir) as pool:
        report = write(pool.members(wanted), directory, formats)

    def words(done: ExportReport) -> str:
        lines = [f"{file.path}  {file.size_bytes} bytes" for file in done.files]
        count = "1 member" if done.members == 1 else f"{done.members} members"
        return "\n".join([count, *lines])

    show_object(report, output, words)


@click.command()
@click.argument("proxy")
@click.option("--with-credentials", is_flag=True, help="Show user and password.")
@output_option(Output.TABLE, Output.JSON)
@loaded_option
def explain(
    loaded: Loaded, state_dir: Path, proxy: str, with_credentials: bool, output: Output
) -> None:
    """Tell all that is known about PROXY (host:port or URL), member or not.

    Its checks, the judge, the score step by step, and why it is handed out or not; of a
    candidate that never worked, why it was rejected.

    Exit status: 0; 2 it is not known, and the nearest one is named.
    """
    from proxywell.refresh.poison import why_no_verdict

    with looking(loaded, state_dir) as pool:
        try:
            key = pool.find(proxy)
        except UnknownProxyError:
            kept_s = loaded.settings.refresh.poison_kept_s
            why = why_no_verdict(state_dir, endpoint_of(proxy).netloc, kept_s=kept_s)
            if why is None:
                raise
            raise UnknownProxyError(why) from None
        explanation = pool.explain(key)
    if explanation is None:
        raise UnknownProxyError(f"{endpoint_of(key).netloc} is not known any more")
    if not with_credentials:
        shown = msgspec.structs.replace(
            explanation.latest, proxy=without_credentials(explanation.latest.proxy)
        )
        explanation = msgspec.structs.replace(explanation, latest=shown)
    show_object(
        _flat(explanation) if output is Output.JSON else explanation, output, explained_in_words
    )


def _flat(explanation: Explanation) -> dict[str, Any]:
    """The verdict's own fields first, as everywhere; what explains them behind."""
    whole: dict[str, Any] = msgspec.to_builtins(explanation)
    latest: dict[str, Any] = whole.pop("latest")
    return latest | {"kind": _kind(explanation)} | whole


def _kind(explanation: Explanation) -> str:
    return "member" if isinstance(explanation.latest, PoolMember) else "rejected"


def explained_in_words(explanation: Explanation) -> str:
    """All that is known about one endpoint, laid out for a person."""
    latest = explanation.latest
    lines = [latest.proxy, explanation.why, ""]
    names = ["protocols", "anonymity", "exit_ip", "https", "latency_ms", "judge", "checked_at"]
    if isinstance(latest, PoolMember):
        names += ["country", "asn", "sources", "targets"]
    lines += [f"  {name.replace('_', ' '):11} {cell(getattr(latest, name))}" for name in names]
    lines.append(f"  {'since':11} {cell(explanation.since)}")
    if latest.checks:
        lines += ["", "steps of the last check"]
        for step in latest.checks:
            took = "" if step.took_ms is None else f" in {step.took_ms:.0f} ms"
            told = "".join(f"  {text}" for text in (step.reason, step.target) if text)
            lines.append(f"  {step.name:11} {step.state}{took}{told}")
    if explanation.score_steps:
        lines += ["", "score, step by step"]
        lines += [
            f"  {part.name:11} {part.value:7.3f}  {part.words}" for part in explanation.score_steps
        ]
    if explanation.history:
        lines += ["", "checks, newest first"]
        for past in explanation.history:
            outcome = "passed" if past.working else f"{past.failure} (blame: {past.blame})"
            latency = "" if past.latency_ms is None else f"  {past.latency_ms:.0f} ms"
            lines.append(
                f"  {cell(past.at)}  {outcome}  {cell(past.protocol)}{latency}"
                f"  exit {cell(past.exit_ip)}  {past.judge} judge  by {past.origin}"
            )
    return "\n".join(lines)


@click.command()
@click.argument("proxy")
@loaded_option
def freeze(loaded: Loaded, state_dir: Path, proxy: str) -> None:
    """Set PROXY aside by hand: it is not handed out until it is thawed.

    Exit status: 0, also if it was frozen already; 2 it is no member.
    """
    with Pool.open(make_ready(state_dir), loaded.settings.pool) as pool:
        key = pool.find(proxy)
        pool.freeze(key)
    _remark(f"{endpoint_of(key).netloc} is frozen; `proxywell thaw` takes it back")


@click.command()
@click.argument("proxy")
@loaded_option
def thaw(loaded: Loaded, state_dir: Path, proxy: str) -> None:
    """Take back a freeze: PROXY is handed out again when its checks say so.

    Exit status: 0, also if it was not frozen; 2 it is no member.
    """
    with Pool.open(make_ready(state_dir), loaded.settings.pool) as pool:
        key = pool.find(proxy)
        pool.thaw(key)
    _remark(f"{endpoint_of(key).netloc} is not frozen")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@loaded_option
def backup(loaded: Loaded, state_dir: Path, file: Path) -> None:
    """Copy the pool into FILE, as it is at one instant, while others go on using it.

    Named pool.sqlite in another state directory, the copy opens there.

    Exit status: 0; 1 it cannot be read or written; 2 FILE exists.
    """
    with looking(loaded, state_dir) as pool:
        size_bytes = pool.back_up(file)
    _remark(f"{file}: {size_bytes} bytes")


def _show(members: list[PoolMember], output: Output) -> None:
    columns: Sequence[str] = COLUMNS
    if output is Output.CSV:
        from proxywell.pool.formats import CSV_COLUMNS

        columns = CSV_COLUMNS
    show_rows(members, output, columns, line=lambda member: str(member.proxy), spare=SPARE)


def _remark(text: str) -> None:
    print(f"proxywell: {text}", file=sys.stderr)  # noqa: T201 - remarks go to stderr
