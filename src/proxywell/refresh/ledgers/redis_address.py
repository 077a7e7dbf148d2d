"""Where a Redis is, and how we speak to it: read from its URL, and shown without its password."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import ParseResult, parse_qsl, quote, unquote, urlparse

from msgspec import Struct

from proxywell.config.schema import RedisSettings
from proxywell.config.secret import Secret
from proxywell.errors import SettingsError, suggestion

PORT = 6379
PLAIN, TLS, UNIX = "redis", "rediss", "unix"
_SCHEMES = (PLAIN, TLS, UNIX)
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_ENDS_EARLY = re.compile(r"[^:]+://[^/?#@]+[/?#].*@|.*#")  # what is behind is no path
_FORM = (
    "redis://HOST[:PORT][/DATABASE], rediss://… for TLS, or unix:///PATH; user and password go"
    " before HOST and end in @"
)


class RedisAddress(Struct, frozen=True, kw_only=True):
    """One Redis server and what of it is ours.

    Attributes:
        scheme: ``redis``, ``rediss`` (TLS) or ``unix``.
        host: Name or address; empty for a socket.
        port: 1 to 65535; 0 for a socket.
        path: Of the socket; empty otherwise.
        database: 0 or more.
        username: None: the server's default user.
        password: None: none is sent.
        tls: Files for TLS by redis-py's names: ``ssl_ca_certs``, ``ssl_certfile``,
            ``ssl_keyfile``.
        prefix: What every key and queue of ours begins with.
        answer_s: Seconds after which a server that is silent is given up.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    database: int = 0
    username: str | None = None
    password: Secret | None = None
    tls: tuple[tuple[str, str], ...] = ()
    prefix: str = "proxywell"
    answer_s: float = 2.0

    @classmethod
    def of(cls, settings: RedisSettings) -> RedisAddress:
        """The server that the settings name.

        Raises:
            SettingsError: None is named, the URL has an error, or it is a plaintext one to
                another machine that was not allowed.
        """
        if settings.url is None:
            raise SettingsError("no Redis is named: set redis.url or PROXYWELL_REDIS__URL")
        return cls.parse(
            settings.url,
            prefix=settings.prefix,
            answer_s=settings.answer_s,
            allow_plaintext=settings.allow_plaintext,
        )

    @classmethod
    def parse(
        cls,
        url: Secret | str,
        *,
        prefix: str = "proxywell",
        answer_s: float = 2.0,
        allow_plaintext: bool = False,
    ) -> RedisAddress:
        """Read a URL.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``; user and password percent-encoded;
                the database as a path or as ``?db=``; for TLS ``?ssl_ca_certs=FILE`` and so on.
            prefix: What every key begins with.
            answer_s: See the class.
            allow_plaintext: Whether another machine may be spoken to without TLS.

        Raises:
            SettingsError: The URL has an error, or asks for plaintext that is not allowed.
        """
        text = url.reveal() if isinstance(url, Secret) else url
        address = _read(text, prefix, answer_s)
        if address.scheme == PLAIN and not allow_plaintext and not _is_here(address.host):
            raise SettingsError(
                f"redis.url: {address.shown} is on another machine and would be spoken to without"
                " TLS, so the password and all candidates could be read on the way; use rediss://,"
                " or set redis.allow_plaintext if the network is your own"
            )
        return address

    @property
    def shown(self) -> str:
        """The URL without its password and options, for people."""
        user = "" if self.username is None else f"{quote(self.username, safe='')}@"
        if self.scheme == UNIX:
            return f"unix://{user}{self.path}" + (f"?db={self.database}" if self.database else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{user}{host}:{self.port}/{self.database}"

    @property
    def url(self) -> Secret:
        """The whole URL, with its password and options."""
        named = "" if self.username is None else quote(self.username, safe="")
        secret = "" if self.password is None else f":{quote(self.password.reveal(), safe='')}"
        user = f"{named}{secret}@" if named or secret else ""
        options = [f"{name}={quote(value)}" for name, value in self.tls]
        if self.scheme == UNIX:
            place = quote(self.path)
            options = [f"db={self.database}", *options]
        else:
            host = f"[{self.host}]" if ":" in self.host else self.host
            place = f"{host}:{self.port}/{self.database}"
        query = f"?{'&'.join(options)}" if options else ""
        return Secret(f"{self.scheme}://{user}{place}{query}")


def _read(text: str, prefix: str, answer_s: float) -> RedisAddress:
    scheme, mark, _ = text.partition("://")
    if not mark:
        raise _wrong(f"no scheme in {_without_secret(text)!r}")
    if scheme.casefold() not in _SCHEMES:
        raise _wrong(f"unknown scheme {scheme!r}{suggestion(scheme, _SCHEMES)}")
    if _ENDS_EARLY.match(text):
        raise _wrong("in user and password, / ? and # are written as %2F, %3F and %23")
    try:
        parsed = urlparse(text)
        port = parsed.port
        username, password = parsed.username, parsed.password
    except ValueError as error:
        raise _wrong(_what_of(text, error)) from error
    options = dict(parse_qsl(parsed.query, keep_blank_values=True))
    known: dict[str, Any] = {
        "scheme": parsed.scheme,
        "username": unquote(username) if username else None,
        "password": Secret(unquote(password)) if password else None,
        "prefix": prefix,
        "answer_s": answer_s,
    }
    if parsed.scheme == UNIX:
        known |= _of_socket(parsed, options)
    else:
        known |= _of_host(parsed, options, port)
    if parsed.scheme == TLS:
        known["tls"] = tuple(
            (name, options.pop(name)) for name in _TLS_OPTIONS if options.get(name)
        )
    if options:
        name = next(iter(options))
        raise _wrong(f"unknown option {name!r}{suggestion(name, ('db', *_TLS_OPTIONS))}")
    return RedisAddress(**known)


def _of_socket(parsed: ParseResult, options: dict[str, str]) -> dict[str, Any]:
    if parsed.netloc.rpartition("@")[2] or not parsed.path:
        raise _wrong("the socket's path does not begin with a slash")
    return {"path": unquote(parsed.path), "database": _database(options.pop("db", "0"))}


def _of_host(parsed: ParseResult, options: dict[str, str], port: int | None) -> dict[str, Any]:
    if not parsed.hostname:
        raise _wrong("no host")
    if port == 0:
        raise _wrong("port 0 is none")
    database = parsed.path.strip("/") or options.pop("db", "0")
    options.pop("db", None)
    return {"host": parsed.hostname, "port": port or PORT, "database": _database(database)}


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _wrong(f"the database {text!r} is not a number")
    return int(text)


def _what_of(text: str, error: ValueError) -> str:
    place = text.partition("://")[2].partition("/")[0].rpartition("@")[2]
    port = place.rpartition("]")[2].rpartition(":")[2]
    if "out of range" in str(error):
        return f"the port {port} is above 65535"
    if "port" in str(error).casefold():
        return f"the port {port!r} is not a number"
    return f"{place!r} is no host"


def _without_secret(text: str) -> str:
    return text.rpartition("@")[2]


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"redis.url: {what}; write {_FORM}")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
