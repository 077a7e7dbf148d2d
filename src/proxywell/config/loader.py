"""Gather settings from defaults, a file, the environment and flags; say where each came from.

A later source wins: default, file, environment, flag. A name that does not exist is an error
wherever it stands, and the nearest name that does exist is suggested.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from proxywell.config.places import settings_files
from proxywell.config.schema import Settings
from proxywell.config.secret import HIDDEN, Secret
from proxywell.config.tree import PREFIX, FieldSpec, expectation, sections_of, table_of
from proxywell.errors import InputMissingError, SettingsError, suggestion
from proxywell.model.shown import without_credentials

FILE_MAX_BYTES = 2**20
SECRET_MAX_BYTES = 2**16
SHOWN_MAX_CHARACTERS = 120
NOT_SETTINGS = f"{PREFIX}TEST_"  # what the test suite itself is steered by

S = TypeVar("S", bound=msgspec.Struct)


class OriginKind(StrEnum):
    """What a value was taken from; later ones win."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


class Origin(msgspec.Struct, frozen=True):
    """Where one value came from.

    Attributes:
        kind: What it was taken from.
        where: The file's path, the variable's name or the flag; empty for a default.
    """

    kind: OriginKind
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.where}".strip()


class Loaded(msgspec.Struct, frozen=True):
    """Settings and where each of them came from.

    Attributes:
        settings: Complete and checked.
        origins: By ``section.field``; every setting is in it.
        file: The settings file that was read, or None.
    """

    settings: Settings
    origins: Mapping[str, Origin]
    file: Path | None


class Given(msgspec.Struct, frozen=True):
    """A value as somebody wrote it; ``lax`` when it is a text that may stand for a number."""

    value: Any
    origin: Origin
    lax: bool = False


def load(
    config_file: Path | None,
    overrides: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    flags: Mapping[str, str] | None = None,
) -> Loaded:
    """Read, overlay and check all settings.

    Args:
        config_file: A TOML file that must be there; None: ``./proxywell.toml``, then the one
            in the user's config directory, then none.
        overrides: Values by ``section.field`` that win over everything else; a text may stand
            for a number, as it may in the environment.
        environ: The environment; of it ``PROXYWELL_SECTION__FIELD`` is used, and for secrets
            ``PROXYWELL_SECTION__FIELD_FILE``.
        flags: Under which flag an override was given, by ``section.field``, for messages.

    Returns:
        Settings with an origin for every field.

    Raises:
        InputMissingError: ``config_file`` or a secret's file is not there or not readable.
        SettingsError: A name is unknown, or a value is malformed, out of range or at odds
            with another one.
    """
    file = _find(config_file)
    given = gather(Settings, file, overrides, environ, flags or {})
    default = Origin(OriginKind.DEFAULT)
    return Loaded(
        settings=build(Settings, given),
        origins={
            path: given[path].origin if path in given else default for path in table_of(Settings)
        },
        file=file,
    )


def gather(
    root: type[msgspec.Struct],
    file: Path | None,
    overrides: Mapping[str, Any],
    environ: Mapping[str, str],
    flags: Mapping[str, str],
) -> dict[str, Given]:
    """Collect what was given for the fields of a settings tree; the winner of each path.

    Args:
        root: The tree's type.
        file: A TOML file to read, or None.
        overrides: As for ``load``.
        environ: As for ``load``.
        flags: As for ``load``.

    Returns:
        Values as they were written, by ``section.field``.

    Raises:
        InputMissingError: A file is not readable.
        SettingsError: A name is unknown, or a file is no TOML.
    """
    table = table_of(root)
    given = {} if file is None else _from_file(file, root, table)
    given |= _from_environment(environ, table)
    for path, value in overrides.items():
        origin = Origin(OriginKind.FLAG, flags.get(path, path))
        if path not in table:
            raise SettingsError(f"{origin}: no setting {path}{suggestion(path, table)}")
        given[path] = Given(value, origin, lax=isinstance(value, str))
    return given


def build(root: type[S], given: Mapping[str, Given]) -> S:
    """Convert, check and assemble a settings tree from what was given for its fields.

    Args:
        root: The tree's type.
        given: From ``gather``; a path that is missing keeps its default.

    Returns:
        The tree, frozen.

    Raises:
        InputMissingError: A secret's file is not readable.
        SettingsError: A value is malformed, out of range or at odds with another one.
    """
    table = table_of(root)
    values = {path: _converted(table[path], found) for path, found in given.items()}
    sections = {
        name: _checked(section, f"{name}.", values, given)
        for name, section in sections_of(root).items()
    }
    return _checked(root, "", values | sections, given)


def _find(config_file: Path | None) -> Path | None:
    if config_file is None:
        return next((file for file in settings_files() if file.is_file()), None)
    if not config_file.is_file():
        what = "is a directory" if config_file.is_dir() else "is not there"
        raise InputMissingError(f"settings file {config_file} {what}; give a TOML file")
    return config_file


def _read(file: Path, what: str, max_bytes: int) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise InputMissingError(f"{what} {file} cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise SettingsError(f"{what} {file} is longer than {max_bytes} bytes; is it the right one?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{what} {file} is not UTF-8 text (byte {error.start})") from error


def _from_file(
    file: Path, root: type[msgspec.Struct], table: Mapping[str, FieldSpec]
) -> dict[str, Given]:
    text = _read(file, "settings file", FILE_MAX_BYTES)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from error
    sections = sections_of(root)
    origin = Origin(OriginKind.FILE, str(file))
    given = {}
    for name, value in content.items():
        if name in table and "." not in name:
            given[name] = Given(value, origin)
            continue
        if name not in sections:
            tail = suggestion(name, [*sections, *table])
            raise SettingsError(
                f"settings file {file}: no section or setting {_cut(repr(name))}{tail}"
            )
        if not isinstance(value, dict):
            raise SettingsError(f"settings file {file}: {name} is a section; write [{name}]")
        for field, inner in value.items():
            path = f"{name}.{field}"
            if path not in table:
                tail = suggestion(path, table)
                raise SettingsError(f"settings file {file}: no setting {_cut(repr(path))}{tail}")
            given[path] = Given(inner, origin)
    return given


def _from_environment(
    environ: Mapping[str, str], table: Mapping[str, FieldSpec]
) -> dict[str, Given]:
    variables = {spec.variable: spec for spec in table.values()}
    variables |= {f"{spec.variable}_FILE": spec for spec in table.values() if spec.secret}
    given: dict[str, Given] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable.startswith(NOT_SETTINGS):
            continue
        if variable not in variables:
            raise SettingsError(
                f"environment variable {variable} names no setting{suggestion(variable, variables)}"
            )
        spec = variables[variable]
        if spec.path in given:
            raise SettingsError(f"{given[spec.path].origin} and {variable} are both set; keep one")
        value: Any = environ[variable]
        if variable != spec.variable:
            value = _read(Path(value), f"{variable}:", SECRET_MAX_BYTES).removesuffix("\n")
        given[spec.path] = Given(value, Origin(OriginKind.ENVIRONMENT, variable), lax=True)
    return given


def _converted(spec: FieldSpec, given: Given) -> Any:
    value = given.value
    if given.lax and spec.many:
        value = [entry.strip() for entry in value.split(",") if entry.strip()]
    elif given.lax and value == "" and spec.default is None:
        value = None
    try:
        return msgspec.convert(
            value, spec.annotation, strict=not given.lax, dec_hook=_secret_from_text
        )
    except msgspec.ValidationError as error:
        raise SettingsError(_refusal(spec, given)) from error


def _secret_from_text(kind: type, value: object) -> Secret:
    assert kind is Secret, f"no other type of setting needs help, but {kind} did"
    if not isinstance(value, str):
        raise msgspec.ValidationError("a secret is a text")
    return Secret(value)


def _refusal(spec: FieldSpec, given: Given) -> str:
    return (
        f"{spec.path} is {_shown(spec, given.value)} ({given.origin}); "
        f"give {expectation(spec.annotation)}"
    )


def _shown(spec: FieldSpec, value: object) -> str:
    if spec.secret:
        return HIDDEN
    try:
        text = without_credentials(repr(value))
    except ValueError:  # a whole number with more digits than Python writes
        return "a number beyond all measure"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_MAX_CHARACTERS else text[:SHOWN_MAX_CHARACTERS] + "…"


def _checked(
    struct: type[S], prefix: str, values: Mapping[str, Any], given: Mapping[str, Given]
) -> S:
    names = [field.name for field in msgspec.structs.fields(struct)]
    own = {name: values[prefix + name] for name in names if prefix + name in values}
    try:
        return struct(**own)
    except ValueError as error:
        named = [name for name in names if name in str(error).replace(",", " ").split()]
        origins = ", ".join(_assignment(struct, prefix + name, own, given) for name in named)
        raise SettingsError(f"{prefix}{error} ({origins})") from error


def _assignment(
    struct: type[msgspec.Struct],
    path: str,
    own: Mapping[str, Any],
    given: Mapping[str, Given],
) -> str:
    name = path.rpartition(".")[2]
    if path in given:
        return f"{name} = {own[name]}, {given[path].origin}"
    default = next(f.default for f in msgspec.structs.fields(struct) if f.name == name)
    return f"{name} = {default}, default"
