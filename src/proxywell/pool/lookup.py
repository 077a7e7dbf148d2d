"""Find the proxy that a person means, in whatever form it is written."""

from __future__ import annotations

import sqlite3
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote, urlsplit

from proxywell.errors import UsageError
from proxywell.model.endpoint import Endpoint, Protocol

_NEAR_MAX: Final = 400  # endpoints that are compared to find the nearest
_SCHEMES: Final = {protocol.value for protocol in Protocol} | {"https", "socks5h"}


class UnknownProxyError(UsageError):
    """The proxy that was named is not known; the text names the nearest one, if any is near."""

    code = "unknown_proxy"


def endpoint_of(text: str) -> Endpoint:
    """Read ``host:port``, a URL, or either with ``user:password@``; IPv6 stands in brackets.

    Raises:
        UsageError: It is none of these.
    """
    scheme, mark, rest = text.strip().rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or (mark and scheme.lower() not in _SCHEMES):
        raise UsageError(
            f"{_without_secret(text)!r} is no proxy; write host:port, [IPv6]:port or a URL "
            "such as socks5://host:port"
        )
    try:
        host = str(ip_address(host))
    except ValueError:
        host = host.lower()
    if parts.username is None:
        return Endpoint(host, port)
    return Endpoint(host, port, unquote(parts.username), unquote(parts.password or ""))


def find_key(reader: sqlite3.Connection, text: str) -> str:
    """Find the one endpoint of the pool's file that is meant, member or rejected.

    Credentials may be left out where they are not needed to tell two apart.

    Returns:
        The endpoint's key.

    Raises:
        UsageError: Not a proxy, or several that differ in their credentials.
        UnknownProxyError: Nothing is known about it.
    """
    wanted = endpoint_of(text)
    found = _with_place(reader, wanted)
    if wanted.key in found:
        return wanted.key
    if wanted.user is None and len(found) == 1:
        return found[0]
    if wanted.user is None and found:
        users = ", ".join(sorted(endpoint_of(key).user or "no user" for key in found))
        raise UsageError(
            f"{wanted.netloc} is known with different credentials ({users}); "
            "write user:password@host:port"
        )
    nearest = _nearest(reader, wanted)
    hint = f"the nearest that is known is {nearest}" if nearest else "nothing near it is either"
    raise UnknownProxyError(f"{wanted.netloc} is not known; {hint}")


def _with_place(reader: sqlite3.Connection, wanted: Endpoint) -> list[str]:
    members = reader.execute(
        "SELECT key FROM member WHERE host = ? AND port = ?", (wanted.host, wanted.port)
    )
    found = [str(key) for (key,) in members]
    found += [
        str(key)
        for table in ("rejected", "rejection")
        for (key,) in reader.execute(
            f"SELECT key FROM {table} WHERE key IN (?, ?)",  # noqa: S608 - constants
            (wanted.key, wanted.netloc),
        )
    ]
    if not found:  # rejected with credentials: rare, so it has no index
        tail = f"@{wanted.netloc}"
        rows = reader.execute(
            "SELECT key FROM rejected WHERE substr(key, -?1) = ?2 UNION ALL "
            "SELECT key FROM rejection WHERE substr(key, -?1) = ?2",
            (len(tail), tail),
        )
        found = [str(key) for (key,) in rows]
    return list(dict.fromkeys(found))


def _nearest(reader: sqlite3.Connection, wanted: Endpoint) -> str | None:
    """The known ``host:port`` most like the wanted one: same host first, then same start."""
    near: list[str] = []
    stem = wanted.host
    while not near and stem:
        start, end = stem, stem[:-1] + chr(ord(stem[-1]) + 1)
        rows = reader.execute(
            "SELECT host, port FROM member WHERE host >= ? AND host < ? LIMIT ?",
            (start, end, _NEAR_MAX),
        )
        near = [Endpoint(host, port).netloc for host, port in rows]
        for table in ("rejected", "rejection"):
            rows = reader.execute(
                f"SELECT key FROM {table} WHERE key >= ? AND key < ? LIMIT ?",  # noqa: S608 - constants
                (start, end, _NEAR_MAX),
            )
            near += [str(key) for (key,) in rows]
        stem = stem[: max(stem.rfind("."), stem.rfind(":"), 0)]
    best = get_close_matches(wanted.netloc, near, n=1, cutoff=0.0)
    return best[0] if best else None


def _without_secret(text: str) -> str:
    before, mark, after = text.rpartition("@")
    scheme = before.partition("://")[0] + "://" if "://" in before else ""
    return f"{scheme}***@{after}" if mark else text
