"""The settings tree as a table: one entry per field, by ``section.field``."""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from proxywell.config.secret import Secret

PREFIX = "PROXYWELL_"


class FieldSpec(msgspec.Struct, frozen=True):
    """One setting.

    Attributes:
        path: ``section.field``, or ``field`` at the top level.
        annotation: Its type with range and description, as msgspec takes it.
        description: One sentence for a person.
        default: A fresh default.
        secret: True if it must never be shown.
        many: True if it is a list; in the environment its entries are separated by commas.
        placeholder: What stands for its value in the command line's help.
    """

    path: str
    annotation: Any
    description: str
    default: Any
    secret: bool
    many: bool
    placeholder: str

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.path.replace(".", "__").upper()


def sections_of(root: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Name the sections of a settings tree, in the order in which they are declared."""
    hints = typing.get_type_hints(root, include_extras=True)
    return {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct)
    }


@functools.cache
def table_of(root: type[msgspec.Struct]) -> Mapping[str, FieldSpec]:
    """List every field of a settings tree by its path: the top level first, then by section."""
    sections = sections_of(root)
    found = [spec for spec in _fields(root, "") if spec.path not in sections]
    for name, section in sections.items():
        found += _fields(section, f"{name}.")
    return {spec.path: spec for spec in found}


def value_at(settings: msgspec.Struct, path: str) -> Any:
    """Look up the value of ``section.field``; AttributeError if there is no such setting."""
    found: Any = settings
    for name in path.split("."):
        found = getattr(found, name)
    return found


def expectation(annotation: Any) -> str:
    """Say in words what a value must be, such as ``a whole number from 1 to 10``."""
    return _in_words(msgspec.inspect.type_info(annotation))


def _fields(struct: type[msgspec.Struct], prefix: str) -> Iterator[FieldSpec]:
    hints = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        annotation = hints[field.name]
        cores = _cores(annotation)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        yield FieldSpec(
            path=prefix + field.name,
            annotation=annotation,
            description=_description(annotation),
            default=default,
            secret=Secret in cores,
            many=any(typing.get_origin(core) is tuple for core in cores),
            placeholder=_placeholder(cores),
        )


def _cores(annotation: Any) -> set[Any]:
    """The bare types behind ``Annotated`` and ``| None``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _cores(arguments[0])
    if arguments and type(None) in arguments:
        return {core for argument in arguments for core in _cores(argument)}
    return {annotation}


def _placeholder(cores: set[Any]) -> str:
    choices = [core for core in cores if typing.get_origin(core) is typing.Literal]
    if choices:
        return "|".join(typing.get_args(choices[0]))
    return "N" if cores & {int, float} else "TEXT"


def _description(annotation: Any) -> str:
    if typing.get_origin(annotation) is not typing.Annotated:
        return ""
    metas = [meta for meta in typing.get_args(annotation)[1:] if isinstance(meta, msgspec.Meta)]
    return next((meta.description for meta in metas if meta.description), "")


_PLAIN_WORDS: Mapping[type, str] = {
    msgspec.inspect.BoolType: "true or false",
    msgspec.inspect.NoneType: "nothing",
    msgspec.inspect.CustomType: "a text",
}


def _in_words(info: msgspec.inspect.Type) -> str:
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    if isinstance(info, msgspec.inspect.UnionType):
        return " or ".join(_in_words(part) for part in info.types)
    if isinstance(info, msgspec.inspect.VarTupleType):
        return f"a list, each entry {_in_words(info.item_type)}"
    if isinstance(info, msgspec.inspect.StrType):
        length = f" of at most {info.max_length} characters" if info.max_length else ""
        return f"a text{length}" + (f" that matches {info.pattern}" if info.pattern else "")
    if isinstance(info, msgspec.inspect.LiteralType):
        return "one of " + ", ".join(str(value) for value in info.values)
    if isinstance(info, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        noun = "a whole number" if isinstance(info, msgspec.inspect.IntType) else "a number"
        return noun + _range_in_words(info)
    return _PLAIN_WORDS[type(info)]


def _range_in_words(info: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    lower = {" above": info.gt, " from": info.ge}
    upper = {" and below": info.lt, " to" if info.ge is not None else " up to": info.le}
    ends = {**lower, **upper}
    return "".join(f"{word} {_number(end)}" for word, end in ends.items() if end is not None)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
