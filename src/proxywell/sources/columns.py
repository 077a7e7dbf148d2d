"""Entries whose fields have names: a CSV or HTML table with a header, an object of JSON. Pure."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from proxywell.model.endpoint import Protocol
from proxywell.sources.grammar import (
    HINT_BITS,
    Entry,
    hints_in,
    make_entry,
    parse_endpoint,
    parse_line,
    split_fields,
)

_HOST = ("host", "ip", "address", "addr", "ipaddress", "ipaddr", "proxyip", "hostname", "server")
_PORT = ("port", "proxyport", "portnumber")
_WHOLE = ("proxy", "proxies", "ipport", "hostport", "ipaddressport", "proxyaddress", "url")
_PROTOCOL = ("protocol", "protocols", "type", "scheme", "proxytype", "version", "protocolo")
_HTTPS = ("https", "ssl")
_USER = ("user", "username", "login")
_PASSWORD = ("password", "pass", "passwd")
_YES = frozenset(("yes", "true", "1", "+"))


class Columns(Struct, frozen=True):
    """Where in a row the fields are; None for a field that the header does not name.

    Either ``host`` and ``port`` are there, or ``whole`` (host and port in one field).
    """

    host: int | None
    port: int | None
    whole: int | None
    protocol: int | None
    https: int | None
    user: int | None
    password: int | None

    def read(self, fields: list[str]) -> Entry | None:
        """Read one row; None if a field is missing or does not fit."""
        hints = hints_in(_at(fields, self.protocol))
        if _at(fields, self.https).lower() in _YES:
            hints |= HINT_BITS[Protocol.CONNECT]
        host = _at(fields, self.host)
        port = _at(fields, self.port)
        user, password = _at(fields, self.user), _at(fields, self.password)
        whole = _at(fields, self.whole)
        return _read_named(host, port, whole, hints=hints, user=user, password=password)


def columns_of(header: list[str]) -> Columns | None:
    """Recognise a header by the names in it; None if they do not say where an entry's host is."""
    names = [_bare(name) for name in header]
    columns = Columns(
        *(
            next((names.index(word) for word in words if word in names), None)
            for words in (_HOST, _PORT, _WHOLE, _PROTOCOL, _HTTPS, _USER, _PASSWORD)
        )
    )
    if columns.whole is None and (columns.host is None or columns.port is None):
        return None
    return columns


def columns_of_line(line: str) -> tuple[str, Columns] | None:
    """Recognise the header line of a CSV: its separator and where the fields are.

    A header has at least two columns between commas, semicolons, tabs or bars; a line of prose
    with blanks is never one.
    """
    separator, fields = split_fields(line)
    if separator == " " or len(fields) < 2:
        return None
    columns = columns_of(fields)
    return None if columns is None else (separator, columns)


def parse_object(members: dict[str, Any], hints: int = 0) -> Entry | None:
    """Read one object of a JSON list.

    Names are compared without case and punctuation (``ip_address`` is ``ipAddress``). The host
    is ``host``, ``ip``, ``address`` or the like, else the whole is in ``proxy`` or ``url``; the
    port is a whole number or digits; the protocol a text, or a list of texts.

    Args:
        members: The object as decoded; its values may be anything.
        hints: What is said outside, used if the object names no protocol itself.

    Returns:
        None if no host and port can be read.
    """
    fields: dict[str, Any] = {}
    for name, value in members.items():
        fields.setdefault(_bare(name), value)
    own_hints = 0
    for word in _PROTOCOL:
        own_hints |= _hints_of(fields.get(word))
    if any(_text(fields, (word,)).lower() in _YES for word in _HTTPS):
        own_hints |= HINT_BITS[Protocol.CONNECT]
    return _read_named(
        _text(fields, _HOST),
        _text(fields, _PORT),
        _text(fields, _WHOLE),
        hints=own_hints or hints,
        user=as_utf8(_text(fields, _USER)),
        password=as_utf8(_text(fields, _PASSWORD)),
    )


def names_an_entry(members: dict[str, Any]) -> bool:
    """True if a JSON object has the host and the port of an entry, be they well-formed or not."""
    names = {_bare(name) for name, value in members.items() if not isinstance(value, list | dict)}
    return not names.isdisjoint(_HOST) and not names.isdisjoint(_PORT)


def as_utf8(text: str) -> str:
    """Undo a decoding as latin-1 of what was UTF-8; text that was not stays as it is."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _read_named(
    host: str, port: str, whole: str, *, hints: int, user: str, password: str
) -> Entry | None:
    if host and port:
        return make_entry(host, port, hints, user, password)
    entry = parse_line(whole) if whole else parse_endpoint(host)
    if entry is None or (user and entry.user is not None):
        return None
    return make_entry(
        entry.host,
        str(entry.port),
        entry.hints | hints,
        entry.user or user,
        entry.password or password,
    )


def _bare(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _at(fields: list[str], index: int | None) -> str:
    return fields[index] if index is not None and index < len(fields) else ""


def _text(fields: dict[str, Any], words: tuple[str, ...]) -> str:
    """The first member that is there as text; whole numbers (not booleans) in digits."""
    for word in words:
        value = fields.get(word)
        if isinstance(value, bool):
            value = str(value)
        if isinstance(value, str | int) and value != "":
            return value if isinstance(value, str) else _digits(value)
    return ""


def _digits(number: int) -> str:
    return str(number) if 0 <= number <= 10**12 else "-"


def _hints_of(value: object) -> int:
    if isinstance(value, str):
        return hints_in(value)
    if isinstance(value, list):
        hints = 0
        for each in value[:16]:
            hints |= _hints_of(each) if isinstance(each, str) else 0
        return hints
    return 0
