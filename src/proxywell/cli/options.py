"""Options that many commands share."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

F = TypeVar("F", bound=Callable[..., Any])


class Output(StrEnum):
    """Forms of output; each command names those that it has."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    TXT = "txt"


def output_option(*forms: Output) -> Callable[[F], F]:
    """``--output``; the first form is the default."""
    return click.option(
        "--output",
        type=click.Choice([form.value for form in forms]),
        default=forms[0].value,
        show_default=True,
        callback=lambda _ctx, _param, value: Output(value),
        help="Form of what goes to stdout.",
    )


def place_options(command: F) -> F:
    """``--config FILE`` and ``--state DIR``, which every command takes."""
    state = click.option(
        "--state",
        "state_dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="State directory; default: the user's own.",
    )
    config = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings in TOML; default: ./proxywell.toml, then the user's own.",
    )
    return config(state(command))
