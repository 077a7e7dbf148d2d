"""Every known source, and sources that the user names."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from proxywell.errors import UsageError
from proxywell.model.endpoint import Protocol
from proxywell.sources.parse import Form

STDIN = "-"
_SECRET_WORDS = ("key", "token", "secret", "pass", "auth", "sig")
_HOUR_S = 3600.0


class SourceSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One place that publishes a list.

    Attributes:
        name: Unique; stands in reports and with each candidate.
        place: An https URL, a path, or ``-`` for standard input.
        form: What is expected there; ``auto`` takes what comes.
        hint: What the list is said to hold; for entries that name no protocol themselves.
        licence: As the publisher states it, ``unknown`` if nothing was found.
        interval_s: Seconds between two reads, before yields change it.
        named: The user named it, so its credentials are kept if it is a file.
    """

    name: str
    place: str
    form: Form = Form.AUTO
    hint: Protocol | None = None
    licence: str = "unknown"
    interval_s: float = _HOUR_S
    named: bool = False

    @property
    def is_url(self) -> bool:
        """True if it is fetched, false if it is a file or standard input."""
        return self.place.startswith(("https://", "http://"))


class _Catalogue(Struct, frozen=True, forbid_unknown_fields=True):
    source: tuple[SourceSpec, ...]


def catalogue() -> tuple[SourceSpec, ...]:
    """Give every source that is shipped, in the order in which they are read."""
    data = resources.files("proxywell.sources").joinpath("catalog.toml").read_bytes()
    return load_catalogue(data.decode())


def load_catalogue(text: str) -> tuple[SourceSpec, ...]:
    """Read a catalogue in TOML: ``[[source]]`` tables with the fields of ``SourceSpec``.

    Raises:
        ValueError: A field is wrong, a name or place comes twice, a place is no https URL, an
            interval is shorter than 15 minutes, or a form or licence is missing.
    """
    specs = msgspec.convert(tomllib.loads(text), _Catalogue).source
    for what, values in (("name", [s.name for s in specs]), ("place", [s.place for s in specs])):
        for value in {value for value in values if values.count(value) > 1}:
            raise ValueError(f"catalogue: the {what} {value!r} comes twice")
    for spec in specs:
        if not spec.place.startswith("https://") or urlsplit(spec.place).username is not None:
            raise ValueError(f"catalogue: {spec.name}: {spec.place!r} is no https URL")
        if spec.form is Form.AUTO or not spec.licence or not spec.name or spec.named:
            raise ValueError(f"catalogue: {spec.name}: form and licence must be stated")
        if spec.interval_s < _HOUR_S / 4:
            raise ValueError(f"catalogue: {spec.name}: asked more often than every 15 minutes")
    return specs


def chosen_sources(lists: Iterable[str]) -> tuple[SourceSpec, ...]:
    """Give the sources that a refresh reads: those that were named, else the catalogue.

    Args:
        lists: ``sources.lists`` of the settings, or the ``--source`` flags.

    Raises:
        UsageError: As in ``named_sources``.
    """
    return named_sources(lists) or catalogue()


def named_sources(places: Iterable[str]) -> tuple[SourceSpec, ...]:
    """Make sources of paths, URLs and ``-`` as the user wrote them; the same twice is one.

    Raises:
        UsageError: A URL has another scheme than http or https.
    """
    specs: dict[str, SourceSpec] = {}
    for place in places:
        if place not in specs:
            specs[place] = _named(place)
    return tuple(specs.values())


def _named(place: str) -> SourceSpec:
    scheme, separator, _ = place.partition("://")
    if not separator:
        return SourceSpec(place, place, named=True)
    if scheme.lower() not in ("http", "https"):
        raise UsageError(
            f"a source with {scheme.lower()!r} in front of :// is not read; give an https URL, "
            "or the path of a file"
        )
    parts = urlsplit(place)
    url = urlunsplit(parts._replace(scheme=scheme.lower(), fragment=""))
    return SourceSpec(_name_of(parts), url, named=True)


def _name_of(parts: SplitResult) -> str:
    """The URL without what may be secret in it: user, password, and keys in the query."""
    netloc = parts.netloc.rpartition("@")[2]
    fields = parse_qsl(parts.query, keep_blank_values=True)
    if any(_is_secret(name) for name, _ in fields):
        fields = [(name, "***" if _is_secret(name) else value) for name, value in fields]
        query = urlencode(fields, safe="*")
    else:
        query = parts.query
    return urlunsplit(parts._replace(netloc=netloc, query=query, fragment=""))


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)
