"""Lists in JSON: bytes in, entries out, in memory that does not depend on what is nested. Pure.

The document is walked, not decoded as a whole: 32 MB of ``[[],[],`` would become a gigabyte of
objects. Only one element of the list at a time is decoded, and none above a stated size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, TypeAlias

from proxywell.sources.columns import names_an_entry, parse_object
from proxywell.sources.errors import BrokenListError
from proxywell.sources.grammar import Entry, Malformed, hints_in, parse_fields, parse_line

ELEMENT_MAX_CHARS = 64 * 1024
_WINDOW_CHARS = 4 * 1024  # most elements fit; a larger one is cut out a second time
_DEPTH_MAX = 4  # of lists inside objects inside objects
_LIST_NAMES = frozenset(("data", "proxies", "proxy", "proxylist", "list", "items", "results"))
_MEMBERS_MAX = 10_000  # so that no hostile document keeps the event loop for seconds
_MARKS_MAX = 1_000_000
_EXCERPT_CHARS = 200

_BLANK = re.compile(r"[ \t\r\n]*+")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}\[{\" \t\r\n]++")
_MARK = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_DECODER = json.JSONDecoder()

Item: TypeAlias = Entry | Malformed
_Walk: TypeAlias = Generator[Item, None, int]  # gives entries, returns where it stopped


def parse_json_line(text: str) -> Entry | None:
    """Read one line of JSON lines: an object with the members of an entry."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parse_object(value) if isinstance(value, dict) else None


def is_whole_object(text: str) -> bool:
    """True if a line is one JSON object by itself, and not one with a list inside."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and (names_an_entry(value) or parse_object(value) is not None)


def parse_json(text: str) -> Iterator[Item]:
    """Read a document: a list, or an object with lists inside.

    A list counts if it is the document itself, if its name says so (``data``, ``proxies``, a
    protocol), or if its first element is a well-formed entry; other lists in an object
    (countries, say) are skipped. An element is an object, a text with a line's form, or a list
    of fields.

    Args:
        text: Bytes decoded as latin-1; begins with ``[`` or ``{`` after blanks.

    Yields:
        One item for each element, in order.

    Raises:
        BrokenListError: It breaks off in the middle, or holds no list, or is nested beyond what
            any list needs. What was read before has been given by then.
    """
    at = _skip_blank(text, 0)
    if text[at : at + 1] == "[":
        at = yield from _walk_list(text, at + 1, hints=0, trusted=True)
    else:
        value = _decode(text, at)
        if isinstance(value, dict) and (names_an_entry(value) or parse_object(value)):
            yield _item(value, 0, text, at)
            at = _skip_value(text, at)
        else:
            found = False
            walk = _walk_object(text, at + 1, 0)
            while True:  # ends with the walk
                try:
                    item = next(walk)
                except StopIteration as stop:
                    at = stop.value
                    break
                found = True
                yield item
            if not found:
                raise BrokenListError("the JSON holds no list of proxies")
    if _skip_blank(text, at) != len(text):
        raise _broken(at)


def _walk_object(text: str, at: int, depth: int, hints: int = 0) -> _Walk:
    """Look for lists in the members of an object; ``at`` is behind its brace."""
    at = _skip_blank(text, at)
    if text[at : at + 1] == "}":
        return at + 1
    for _ in range(_MEMBERS_MAX):
        name_match = _STRING.match(text, _skip_blank(text, at))
        if name_match is None or not name_match[1]:
            raise _broken(at)
        name = re.sub("[^a-z0-9]", "", name_match[0].lower())
        at = _skip_blank(text, name_match.end())
        if text[at : at + 1] != ":":
            raise _broken(at)
        at = _skip_blank(text, at + 1)
        inner_hints = hints_in(name) or hints
        if text[at : at + 1] == "[":
            trusted = name in _LIST_NAMES or inner_hints != 0
            at = yield from _walk_list(text, at + 1, hints=inner_hints, trusted=trusted)
        elif text[at : at + 1] == "{" and depth < _DEPTH_MAX:
            at = yield from _walk_object(text, at + 1, depth + 1, inner_hints)
        else:
            at = _skip_value(text, at)
        at, closed = _behind(text, at, "}")
        if closed:
            return at
    raise BrokenListError(f"the JSON has an object of more than {_MEMBERS_MAX} members")


def _walk_list(text: str, at: int, *, hints: int, trusted: bool) -> _Walk:
    """Give the elements of a list; ``at`` is behind its bracket."""
    closed = False
    start = _skip_blank(text, at)
    if text[start : start + 1] == "]":
        return start + 1
    while not closed:
        item, at = _element(text, _skip_blank(text, at), hints)
        if not trusted and isinstance(item, Malformed):
            return _skip_containers(text, at, depth=1)
        trusted = True
        yield item
        at, closed = _behind(text, at, "]")
    return at


def _behind(text: str, at: int, closing: str) -> tuple[int, bool]:
    """Step over what stands behind an element: a comma, or the end of its container."""
    at = _skip_blank(text, at)
    mark = text[at : at + 1]
    if mark not in (",", closing):
        raise _broken(at)
    return at + 1, mark == closing


def _element(text: str, at: int, hints: int) -> tuple[Item, int]:
    for size in (_WINDOW_CHARS, ELEMENT_MAX_CHARS):
        try:
            value, length = _DECODER.raw_decode(text[at : at + size])
        except (ValueError, RecursionError):
            continue
        return _item(value, hints, text, at), at + length
    return Malformed(text[at : at + _EXCERPT_CHARS]), _skip_value(text, at)


def _item(value: Any, hints: int, text: str, at: int) -> Item:
    entry: Entry | None = None
    if isinstance(value, dict):
        entry = parse_object(value, hints)
    elif isinstance(value, str):
        entry = parse_line(value.strip())
        if entry is not None and not entry.hints and hints:
            entry = Entry(entry.host, entry.port, hints, entry.user, entry.password, entry.named)
    elif isinstance(value, list):
        entry = parse_fields([str(field) for field in value[:16] if isinstance(field, str | int)])
    return Malformed(text[at : at + _EXCERPT_CHARS]) if entry is None else entry


def _decode(text: str, at: int) -> Any:
    try:
        return _DECODER.raw_decode(text[at : at + ELEMENT_MAX_CHARS])[0]
    except (ValueError, RecursionError):
        return None


def _skip_value(text: str, at: int) -> int:
    """Find the end of the value at ``at`` without decoding it."""
    mark = text[at : at + 1]
    if mark in ("[", "{"):
        return _skip_containers(text, at + 1, depth=1)
    if mark == '"':
        string = _STRING.match(text, at)
        if string is None or not string[1]:
            raise _broken(at)
        return string.end()
    scalar = _SCALAR.match(text, at)
    if scalar is None:
        raise _broken(at)
    return scalar.end()


def _skip_containers(text: str, at: int, *, depth: int) -> int:
    for mark in islice(_MARK.finditer(text, at), _MARKS_MAX):
        first = mark[0][0]
        if first in "[{":
            depth += 1
        elif first in "]}":
            depth -= 1
            if depth == 0:
                return mark.end()
    raise _broken(len(text))


def _skip_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return at if blank is None else blank.end()


def _broken(at: int) -> BrokenListError:
    return BrokenListError(f"the JSON breaks off or is damaged at character {at}")
