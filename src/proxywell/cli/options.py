"""Options that many commands share, and how a command gets its settings."""

from __future__ import annotations

import functools
import math
import os
import typing
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from click.core import ParameterSource
from click.globals import get_current_context

from proxywell.config.loader import Loaded, load
from proxywell.config.places import make_ready, state_directory
from proxywell.config.schema import Settings
from proxywell.config.tree import FieldSpec, table_of
from proxywell.telemetry.remarks import listen

F = TypeVar("F", bound=Callable[..., Any])

_GIVEN_FLAGS = f"{__name__}.given"


class Output(StrEnum):
    """Forms of output; each command names those that it has."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    TXT = "txt"


class Duration(click.FloatRange):
    """Seconds: a range of numbers without nan, which no bound holds, and without inf."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; refused like any other that is out of range."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{seconds} is no number of seconds", param, ctx)
        return seconds


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
        type=click.Path(path_type=Path, readable=False),  # whoever needs it looks, and says why
        help="State directory; default: the user's own.",
    )
    config = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="Settings in TOML; default: ./proxywell.toml, then the user's own.",
    )
    return config(state(command))


def setting_flag(flag: str, path: str, **more: Any) -> Callable[[F], F]:
    """Let a flag of this command win over a setting.

    The flag's help is the setting's description, and its value is checked with all settings
    together. A setting that is a list makes a flag that may be given several times and
    replaces the list as a whole. The command does not receive the flag: it is in ``settings``.

    Args:
        flag: Such as ``--max-sockets``.
        path: ``section.field`` of the setting.
        more: Passed on to ``click.option``, over what follows from the setting.
    """
    spec = table_of(Settings)[path]

    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        assert parameter.name is not None, "click names every option"
        if context.get_parameter_source(parameter.name) is not ParameterSource.COMMANDLINE:
            return
        given: dict[str, tuple[str, Any]] = context.meta.setdefault(_GIVEN_FLAGS, {})
        given[path] = (flag, list(value) if spec.many else value)

    return click.option(
        flag,
        _parameter_name(path),
        expose_value=False,
        callback=remember,
        **{**_option_like(spec), **more},
    )


def loaded_option(command: F) -> F:
    """``--config`` and ``--state``; hand over ``loaded: Loaded`` and ``state_dir: Path``.

    The directory is named, not touched: for commands that only look. Most commands want
    ``settings_option``. From here on remarks go to stderr as ``[log]`` says.
    """

    @functools.wraps(command)
    def with_loaded(config_file: Path | None, state_dir: Path | None, **others: Any) -> Any:
        loaded = _load(config_file)
        listen(
            form=loaded.settings.log.format,
            level=loaded.settings.log.level,
            tracebacks=bool(get_current_context().find_root().params.get("debug")),
        )
        return command(loaded=loaded, state_dir=state_directory(state_dir), **others)

    return place_options(typing.cast("F", with_loaded))


def settings_option(command: F) -> F:
    """``--config`` and ``--state``; hand over ``settings: Settings`` and ``state_dir: Path``.

    Settings are those of the file, the environment and this command's ``setting_flag`` flags.
    The state directory exists and can be written.
    """

    @functools.wraps(command)
    def with_settings(loaded: Loaded, state_dir: Path, **others: Any) -> Any:
        return command(settings=loaded.settings, state_dir=make_ready(state_dir), **others)

    return loaded_option(typing.cast("F", with_settings))


def _load(config_file: Path | None) -> Loaded:
    given: dict[str, tuple[str, Any]] = get_current_context().meta.get(_GIVEN_FLAGS, {})
    return load(
        config_file,
        {path: value for path, (_, value) in given.items()},
        os.environ,
        flags={path: flag for path, (flag, _) in given.items()},
    )


def _parameter_name(path: str) -> str:
    return "setting_" + path.replace(".", "_")


def _option_like(spec: FieldSpec) -> dict[str, Any]:
    if isinstance(spec.default, bool):
        return {"is_flag": True, "help": spec.description}
    return {"multiple": spec.many, "metavar": spec.placeholder, "help": spec.description}
