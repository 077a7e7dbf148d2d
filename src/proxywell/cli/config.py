"""Settings as they are in force: show, check, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from click.core import ParameterSource
from click.globals import get_current_context

from proxywell.cli.options import Output, loaded_option, output_option, place_options
from proxywell.cli.output import Rows, json_text, show_object
from proxywell.config.loader import Loaded, OriginKind
from proxywell.config.schema import Settings
from proxywell.config.secret import HIDDEN, Secret
from proxywell.config.tree import FieldSpec, table_of, value_at
from proxywell.model.shown import without_credentials


class _Shown(msgspec.Struct):
    """One setting as it is shown: never a secret, never the credentials of a URL."""

    setting: str
    value: Any
    origin: str


@click.group()
def config() -> None:
    """Settings: show, check, schema."""


@config.command()
@click.option("--origin", is_flag=True, help="Also say where each value came from.")
@output_option(Output.TABLE, Output.JSON)
@loaded_option
def show(loaded: Loaded, state_dir: Path, origin: bool, output: Output) -> None:
    """Show all settings as they are in force; secrets stay hidden."""
    shown = [_shown(loaded, spec) for spec in table_of(Settings).values()]
    if output is Output.TABLE:
        columns = ("setting", "value", "origin") if origin else ("setting", "value")
        with Rows(output, columns) as rows:
            for one in shown:
                rows.row(one)
            rows.row(_Shown("(state directory)", str(state_dir), _origin_of_state()))
    elif origin:
        table = {one.setting: {"value": one.value, "origin": one.origin} for one in shown}
        show_object(table, output, str)
    else:
        show_object(_nested(shown), output, str)


@config.command()
@loaded_option
def check(loaded: Loaded, state_dir: Path) -> None:
    """Check all settings; say what is wrong, or where they came from.

    Exit status: 0 all right, 2 something is wrong, in one sentence.
    """
    from proxywell import app

    app.must_be_sound(loaded.settings)
    given = [origin for origin in loaded.origins.values() if origin.kind is not OriginKind.DEFAULT]
    file = f"settings file {loaded.file}" if loaded.file else "no settings file"
    click.echo(f"settings are right: {file}, {len(given)} given, the rest by default")


@config.command()
@place_options
def schema(config_file: Path | None, state_dir: Path | None) -> None:
    """Print the JSON Schema of the settings file, whatever the settings in force are."""
    found = msgspec.json.schema(Settings, schema_hook=_secret_schema)
    click.echo(json_text(found, indent=2))


def _shown(loaded: Loaded, spec: FieldSpec) -> _Shown:
    return _Shown(
        spec.path, _showable(value_at(loaded.settings, spec.path)), str(loaded.origins[spec.path])
    )


def _origin_of_state() -> str:
    source = get_current_context().get_parameter_source("state_dir")
    return "flag --state" if source is ParameterSource.COMMANDLINE else OriginKind.DEFAULT.value


def _showable(value: Any) -> Any:
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, tuple):
        return [_showable(one) for one in value]
    return value


def _nested(shown: list[_Shown]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for one in shown:
        section, _, field = one.setting.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[field] = one.value
    return tree


def _secret_schema(kind: type) -> dict[str, Any]:
    assert kind is Secret, f"no other type of setting needs help, but {kind} did"
    return {"type": "string", "writeOnly": True}
