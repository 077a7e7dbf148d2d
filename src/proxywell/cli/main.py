"""The root command: lazy subcommands, and one place where errors become a sentence and a status."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

import rich_click as click
from rich_click import RichGroup

from proxywell.cli.commands import COMMANDS
from proxywell.errors import ProxywellError

INTERRUPTED = 130


class LazyGroup(RichGroup):
    """Commands by table; a command's module is imported when it is called, not for --help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself; inside the root's --help only its name and first line."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, short_help = COMMANDS[cmd_name]
        if ctx.command is self and not ctx.args and not getattr(ctx, "_protected_args", ()):
            return click.RichCommand(name=cmd_name, short_help=short_help, help=short_help)
        command = getattr(importlib.import_module(f"proxywell.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="proxywell")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def root(debug: bool) -> None:
    """A self-refilling well of working proxies."""


def program(args: list[str] | None = None) -> None:
    """Run the command line and exit with the documented status.

    Exit status: 0 done; 1 the surroundings failed; 2 wrong use or input; 3 partly done;
    4 nothing done or the bound was met; 130 interrupted.
    """
    arguments = sys.argv[1:] if args is None else args
    debug = "--debug" in arguments
    try:
        outcome: Any = root.main(arguments, prog_name="proxywell", standalone_mode=False)
        status = outcome if isinstance(outcome, int) else 0
    except click.ClickException as error:
        error.show()
        status = 2
    except (click.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except ProxywellError as error:
        if debug:
            traceback.print_exc()
        print(f"proxywell: {error}", file=sys.stderr)  # noqa: T201 - the one place for it
        status = error.exit_status
    raise SystemExit(status)
