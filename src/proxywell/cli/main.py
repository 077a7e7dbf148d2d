"""The root command: lazy subcommands, and one place where errors become a sentence and a status."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import rich_click as click
from rich_click import RichGroup

from proxywell.cli.commands import COMMANDS
from proxywell.cli.exit_codes import DONE, INTERRUPTED, SURROUNDINGS_FAILED, WRONG_USE
from proxywell.errors import ProxywellError, suggestion

NAME = "proxywell"
DEBUG = "--debug"
_WRITERS = ("click.", "rich.", "rich_click.", "proxywell.cli.output", "proxywell.cli.main")


class _ReaderLeft(Exception):  # noqa: N818 - it is no error
    """Whoever read our stdout has seen enough."""


class LazyGroup(RichGroup):
    """Commands by table; a command's module is imported when it is called, not for --help."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click would end with status 1 when stdout's reader has left."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeft from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Only its name and first line, which is all that the root's --help shows of it."""
        if cmd_name not in COMMANDS:
            return None
        short_help = COMMANDS[cmd_name][2]
        return click.RichCommand(name=cmd_name, short_help=short_help, help=short_help)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that was named; a wrong name is answered with the nearest one.

        Args:
            ctx: The root command's.
            args: The command's name and what stands behind it.

        Raises:
            UsageError: There is no such command.
        """
        name = args[0]
        if name in COMMANDS:
            return name, load_command(name), args[1:]
        if name.startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"no command {name!r}{suggestion(name, COMMANDS)}", ctx)


def load_command(name: str) -> click.Command:
    """Import a command of the table by its name; KeyError if there is none."""
    module, attribute, _ = COMMANDS[name]
    command = getattr(importlib.import_module(f"proxywell.cli.{module}"), attribute)
    assert isinstance(command, click.Command), f"{module}.{attribute} is no command"
    return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name=NAME)
@click.option(DEBUG, is_flag=True, help="Show tracebacks; may also stand behind the command.")
def root(debug: bool) -> None:
    """A self-refilling well of working proxies."""


def program(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the documented status.

    Exit status: 0 done; 1 the surroundings failed; 2 wrong use or input; 3 partly done;
    4 nothing done or the bound was met; 130 interrupted. A reader of stdout that leaves early
    (``| head``) has had enough: 0, and nothing is said.
    """
    _fill_closed_streams()
    signal.signal(signal.SIGTERM, _interrupt)
    arguments, debug = _debug_first(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except (BrokenPipeError, _ReaderLeft):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = DONE
    except BaseException as error:  # noqa: BLE001 - the one place where all of them end
        status = _explain(error, debug)
    raise SystemExit(status)


def _interrupt(_number: int, _frame: object) -> None:
    """Take SIGTERM for Ctrl-C: state is kept, and how to go on is said.

    Commands that serve put a handler of their own in its place.
    """
    raise KeyboardInterrupt


def _fill_closed_streams() -> None:
    """Give a stream that the caller closed (``>&-``) an end that swallows.

    Otherwise the next file opened, a database perhaps, would take its number and be written to
    by whoever still thinks that it is a standard stream.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # ends: each round takes a number
        os.set_inheritable(number, True)
    os.close(number)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _run(arguments: list[str]) -> int:
    """The status that the command asks for; every error passes through."""
    try:
        outcome: Any = root.main(arguments, prog_name=NAME, standalone_mode=False)
    except SystemExit as ended:
        outcome = ended.code
    return outcome if isinstance(outcome, int) else DONE


def _explain(error: BaseException, debug: bool) -> int:
    """Say on stderr what is wrong, in one sentence; choose the status."""
    if debug and not isinstance(error, click.ClickException):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, BaseExceptionGroup):
        return _explain(_weightiest(error), debug=False)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return _say(*_wrong_use(error))
    if isinstance(error, ProxywellError):
        return _say(f"{NAME}: {error}", error.exit_status)
    if isinstance(error, OSError):
        where = error.filename or ("standard output" if _from_stdout(error) else "")
        why = f"{NAME}: {error.strerror or error}"
        return _say(f"{why}: {where}" if where else why, SURROUNDINGS_FAILED)
    return _say(
        f"{NAME}: a bug of ours, {type(error).__name__}: {error}; {DEBUG} shows where, please "
        "report it",
        SURROUNDINGS_FAILED,
    )


def _from_stdout(error: OSError) -> bool:
    """Whether it was raised by those who write to stdout; such an error names no file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:  # ends at the innermost frame
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith(_WRITERS)


def _wrong_use(error: click.ClickException) -> tuple[str, int]:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else NAME
    message = error.format_message().rstrip(".")
    return f"{command}: {message[:1].lower()}{message[1:]} ({command} --help)", WRONG_USE


def _weightiest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of errors that came together: an interruption, else one that has a sentence, else any."""
    leaves: list[BaseException] = []
    groups = [group]
    for found in groups:
        for one in found.exceptions:
            if isinstance(one, BaseExceptionGroup):
                groups.append(one)
            else:
                leaves.append(one)
    ranks = (KeyboardInterrupt, ProxywellError, OSError)
    return next((leaf for rank in ranks for leaf in leaves if isinstance(leaf, rank)), leaves[0])


def _say(sentence: str, status: int) -> int:
    from proxywell.model.shown import visible, without_credentials

    print(visible(without_credentials(sentence)), file=sys.stderr)  # noqa: T201 - the place for it
    return status


def _debug_first(arguments: list[str]) -> tuple[list[str], bool]:
    """Move ``--debug`` to the root command, wherever before ``--`` it stands."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [one for one in arguments[:end] if one != DEBUG]
    if len(options) == end:
        return arguments, False
    return [DEBUG, *options, *arguments[end:]], True
