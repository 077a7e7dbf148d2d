"""One entry of a list, read against a strict grammar: text in, Entry or None out. Pure.

Text here is bytes decoded one to one (latin-1), so a pattern sees bytes, and only ASCII ever
matches. Nothing is formatted, expanded or repaired: what no form fits is malformed.

Forms, tried in this order:

* ``host:port``, ``scheme://host:port`` (a ``/`` may follow), ``user:pass@host:port``, and all of
  them together; ``[v6]:port``. Behind the port may come ``:user:pass``, or free text behind a
  space, tab, comma, semicolon, bar, ``#`` or colon.
* columns: ``1.2.3.4,8080``, ``US;1.2.3.4:8080;http``, ``1.2.3.4 8080``,
  ``socks5 1.2.3.4 1080 user pass`` (the form of proxychains).

Hosts are addresses as ``canonical_address`` takes them, or names of letters, digits and hyphens
(RFC 1123) whose last label is not a number (that would be a short or octal address). Ports are 1
to 65535 without leading zero.
"""

from __future__ import annotations

import csv
import re
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from proxywell.model.endpoint import Protocol
from proxywell.net.guard import canonical_address

# A set of hints is a sum of these bits, so that a million of them cost nothing.
HINT_BITS = {protocol: 1 << bit for bit, protocol in enumerate(Protocol)}
ALL_HINTS = (1 << len(HINT_BITS)) - 1

_WORDS = {
    "http": HINT_BITS[Protocol.HTTP],
    "https": HINT_BITS[Protocol.CONNECT],  # in lists: takes CONNECT, not: is spoken to in TLS
    "connect": HINT_BITS[Protocol.CONNECT],
    "socks4": HINT_BITS[Protocol.SOCKS4],
    "socks4a": HINT_BITS[Protocol.SOCKS4A],
    "socks5": HINT_BITS[Protocol.SOCKS5],
    "socks5h": HINT_BITS[Protocol.SOCKS5],
}

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_QUAD = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_PORT = "[1-9][0-9]{0,4}"
_SCHEME = "[A-Za-z][A-Za-z0-9]{3,6}"
_PLAIN = re.compile(rf"(?:({_SCHEME})://)?({_QUAD}):({_PORT})")
_RICH = re.compile(
    rf"(?:({_SCHEME})://)?"
    r"(?:([A-Za-z0-9._~!$&'()*+,;=%:-]{1,1600}+)@)?"  # RFC 3986, section 3.2.1
    r"(\[[0-9A-Fa-f:.]{2,45}+\]|[A-Za-z0-9.-]{1,253}+)"
    rf":({_PORT})(?![0-9])"
)
_BLANKS = re.compile(r"[ \t\v\f]+")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT_TEXT = re.compile(_PORT)
_TWO_FIELDS = re.compile(r"([!-9;-~]{1,255}):([!-9;-~]{1,255})")  # printable, no colon, no space
_SEPARATORS = (",", ";", "\t", "|")
_BEHIND_A_PORT = frozenset(" \t,;|#:")
SPACE = " \t\v\f"
CREDENTIAL_MAX_BYTES = 255  # SOCKS5 has one byte for the length (RFC 1929)


class Entry(Struct, frozen=True, gc=False):
    """One well-formed entry.

    Attributes:
        host: A canonical address, or a name in lower case.
        port: 1 to 65535.
        hints: Protocols that the entry names, as a sum of ``HINT_BITS``; 0 for none.
        user, password: Both or neither; at most 255 bytes each, no control characters.
        named: The host is a name.
    """

    host: str
    port: int
    hints: int = 0
    user: str | None = None
    password: str | None = None
    named: bool = False


class Malformed(Struct, frozen=True, gc=False):
    """An entry that no form fits; ``excerpt`` is its raw beginning, not fit to be shown yet."""

    excerpt: str


def word_hint(word: str) -> int:
    """Give the hint of one protocol word in any case; 0 if it is none."""
    return _WORDS.get(word.lower(), 0)


def hints_in(text: str) -> int:
    """Give the hints of all protocol words in the text of a column (``HTTP, HTTPS``)."""
    hints = 0
    for word in re.findall("[a-z0-9]+", text.lower()):
        hints |= _WORDS.get(word, 0)
    return hints


def parse_line(text: str) -> Entry | None:
    """Read one line (without its end, blanks around it taken off), or a text of a JSON list.

    Args:
        text: Not blank, not a comment; bytes decoded as latin-1 or plain ASCII.

    Returns:
        None if no form fits.
    """
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        scheme, host, port_text = plain.groups()
        port = int(port_text)
        hints = 0 if scheme is None else _WORDS.get(scheme.lower(), 0)
        if port > 65535 or (scheme is not None and not hints):
            return None
        return Entry(host, port, hints)
    entry = parse_endpoint(text)
    return entry if entry is not None else _parse_columns(text)


def parse_endpoint(text: str) -> Entry | None:
    """Read the forms that have ``host:port`` together, with what may follow the port."""
    rich = _RICH.match(text)
    if rich is None:
        return None
    scheme, userinfo, host_text, port_text = rich.groups()
    rest = text[rich.end() :]
    port = port_number(port_text)
    hints = 0 if scheme is None else word_hint(scheme)
    before = None if userinfo is None else _userinfo(userinfo)
    behind = _read_behind(rest)
    if port is None or behind is None or (scheme and not hints) or (userinfo and not before):
        return None
    more_hints, after = behind
    if before and after:
        return None
    user, password = before or after or (None, None)
    bare = host_text[1:-1] if host_text[0] == "[" else host_text
    address = canonical_address(bare)
    if address is not None:
        return Entry(address, port, hints | more_hints, user, password)
    name = host_name(host_text)
    # A single label with something behind it is prose, or IPv6 without brackets.
    if name is None or ("." not in name and rest not in ("", "/")):
        return None
    return Entry(name, port, hints | more_hints, user, password, named=True)


def _userinfo(text: str) -> tuple[str, str] | None:
    user_text, _, password_text = text.partition(":")
    user, password = _percent_decoded(user_text), _percent_decoded(password_text)
    return None if not user or password is None or ":" in user else (user, password)


def _read_behind(rest: str) -> tuple[int, tuple[str, str] | None] | None:
    """What follows a port: hints, and user with password; None if it may not stand there."""
    first = rest[:1]
    if rest in ("", "/"):
        return 0, None
    if first not in _BEHIND_A_PORT or rest[:2] == "::":
        return None
    credentials = _TWO_FIELDS.fullmatch(rest, 1) if first == ":" else None
    if credentials is not None:
        return 0, (credentials[1], credentials[2])
    if first == " ":
        return word_hint(_BLANKS.split(rest, 2)[1]), None
    hints = 0
    for field in rest.split(first):
        hints |= word_hint(field.strip(SPACE + '"'))
    return hints, None


def host_name(text: str) -> str | None:
    """Read a host name strictly (RFC 1123, section 2.1), in lower case; None if it is none.

    A name whose last label is a number would be taken for an address by some programs
    (``127.1``, ``017700000001``, ``0x7f.1``), so it is no name.
    """
    name = text.lower()
    labels = name.split(".")
    if not text.isascii() or len(name) > 253 or _NUMBER.fullmatch(labels[-1]):
        return None
    return name if all(map(_LABEL.fullmatch, labels)) else None


def port_number(text: str) -> int | None:
    """Read a port strictly: 1 to 65535, decimal, no leading zero, no sign; else None."""
    if not _PORT_TEXT.fullmatch(text):
        return None
    port = int(text)
    return port if port <= 65535 else None


def make_entry(
    host_text: str, port_text: str, hints: int, user: str = "", password: str = ""
) -> Entry | None:
    """Make an entry of fields that were apart: a column or a JSON member each.

    Args:
        host_text: An address (IPv6 with or without brackets) or a name.
        port_text: The port in digits.
        hints: A sum of ``HINT_BITS``.
        user: Empty for none.
        password: May be empty; one without a user is malformed.

    Returns:
        None if a field does not fit.
    """
    port = port_number(port_text)
    bare = host_text[1:-1] if host_text[:1] == "[" and host_text[-1:] == "]" else host_text
    host = canonical_address(bare)
    name = host_name(host_text) if host is None else None
    if port is None or (host is None and name is None):
        return None
    if user or password:
        if not user or ":" in user or not _is_credential(user) or not _is_credential(password):
            return None
        return Entry(host or name or "", port, hints, user, password, name is not None)
    return Entry(host or name or "", port, hints, named=name is not None)


def split_fields(text: str) -> tuple[str, list[str]]:
    """Cut a line into fields at the first separator that it has, else at blanks.

    Returns:
        The separator (`` `` for blanks) and the fields without blanks and quotes around them.
    """
    for separator in _SEPARATORS:
        if separator in text:
            return separator, fields_between(text, separator)
    return " ", [field.strip('"') for field in _BLANKS.split(text)]


def fields_between(text: str, separator: str) -> list[str]:
    """Cut a line at one separator; quotes as in CSV (RFC 4180, section 2)."""
    fields = _unquoted(text, separator) if '"' in text else text.split(separator)
    return [field.strip(SPACE) for field in fields]


def _unquoted(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return text.split(separator)


def _parse_columns(text: str) -> Entry | None:
    separator, fields = split_fields(text)
    if separator != " ":
        return parse_fields(fields)
    hints = word_hint(fields[0])
    rest = fields[1:] if hints else fields
    if hints and len(rest) == 1:
        return _with_hints(parse_endpoint(rest[0]), hints)
    if len(rest) < 2 or canonical_address(rest[0].strip("[]")) is None:
        return None
    if hints and len(rest) == 4:
        return make_entry(rest[0], rest[1], hints, rest[2], rest[3])
    return make_entry(rest[0], rest[1], hints or (word_hint(rest[2]) if rest[2:] else 0))


def parse_fields(fields: list[str]) -> Entry | None:
    """Read columns without a header: the first ``host:port``, or address with a port behind it.

    Protocol words in other columns are hints. A name is taken only in the first column, where it
    has a dot: elsewhere it may be anything.
    """
    hints = 0
    for field in fields:
        hints |= word_hint(field)
    for at, field in enumerate(fields):
        following = fields[at + 1] if at + 1 < len(fields) else ""
        if canonical_address(field.strip("[]")) is not None:
            return make_entry(field, following, hints)
        if ":" in field:
            entry = parse_endpoint(field)
            if entry is not None and (at == 0 or not entry.named):
                return _with_hints(entry, hints)
        elif at == 0 and "." in field and host_name(field) is not None:
            return make_entry(field, following, hints)
    return None


def _with_hints(entry: Entry | None, hints: int) -> Entry | None:
    if entry is None or not hints:
        return entry
    return Entry(
        entry.host, entry.port, entry.hints | hints, entry.user, entry.password, entry.named
    )


def _percent_decoded(text: str) -> str | None:
    """Undo %XX once (RFC 3986, section 2.1); None for a stray % or what is no clean text."""
    if "%" in text:
        if re.search("%(?![0-9A-Fa-f]{2})", text):
            return None
        try:
            text = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            return None
    return text if _is_credential(text) else None


def _is_credential(text: str) -> bool:
    return text.isprintable() and len(text.encode("utf-8", "replace")) <= CREDENTIAL_MAX_BYTES
