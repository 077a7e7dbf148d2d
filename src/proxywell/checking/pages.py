"""What public judges print, read without believing more than it says. Pure.

All of it comes through a proxy that may have written it: any bytes give a page or None.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from proxywell.checking.exit_ip import canonical_ip

_TAGS = re.compile(
    r"<!doctype[^<>]{0,200}>|</?(?:pre|html|head|body|title|p|div|code|tt|span|center|font|b|table|tbody|tr|td)"
    r"(?:\s[^<>]{0,200})?/?>",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br\s*/?>|\r\n|\r", re.IGNORECASE)
_WRAPPED = re.compile(r"<(?:!doctype html|html|pre|body|br)\b", re.IGNORECASE)
_LINE = re.compile(r"[ \t]*\[?([A-Za-z_][A-Za-z0-9_-]{0,99})\]?[ \t]*=>?(?:[ \t](.*)|(.*))")


class Page(Struct, frozen=True):
    """What a page tells of one request.

    Attributes:
        peer_ip: Canonical address that the request came from.
        headers: What arrived, names as HTTP writes them; None if the page does not tell.
        http_version: "1.1" or "1.0"; None if the page does not tell.
        targets: Where the page repeats the request's target or a part of it.
    """

    peer_ip: str
    headers: tuple[tuple[str, str], ...] | None = None
    http_version: str | None = None
    targets: tuple[str, ...] = ()


class _HttpbinPage(Struct):
    origin: str
    headers: dict[str, str | list[str]]
    url: str = ""


_HTTPBIN = msgspec.json.Decoder(_HttpbinPage)


def azenv_page(body: bytes) -> Page | None:
    """Read ``NAME = value`` lines of a CGI environment (RFC 3875, section 4.1).

    The lines may stand in HTML, end as they like, and be written in any case.

    Returns:
        The page, or None if it names no single peer address.
    """
    text = body.decode("latin-1")
    wrapped = _WRAPPED.search(text) is not None
    text = _BREAK.sub("\n", text)
    if wrapped:
        text = _TAGS.sub("", text)
    peers: set[str] = set()
    headers: list[tuple[str, str]] = []
    targets: list[str] = []
    version: str | None = None
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        name = match[1].upper()
        value = (match[2] if match[2] is not None else match[3]).strip()
        if wrapped:
            value = html.unescape(value)
        if name == "REMOTE_ADDR":
            peers.add(canonical_ip(value) or "")
        elif name.startswith("HTTP_") and len(name) > len("HTTP_"):
            headers.append((_header_name(name[len("HTTP_") :]), value))
        elif name in ("REQUEST_URI", "QUERY_STRING"):
            targets.append(value)
        elif name == "SERVER_PROTOCOL":
            version = _version(value)
    if len(peers) != 1 or "" in peers:
        return None
    return Page(peers.pop(), tuple(headers) or None, version, tuple(targets))


def httpbin_page(body: bytes) -> Page | None:
    """Read the JSON of httpbin's ``/get?show_env=1``.

    ``origin`` is a list where requests were forwarded; its last address is the peer.

    Returns:
        The page, or None if it is not of that form.
    """
    try:
        page = _HTTPBIN.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    peer_ip = canonical_ip(page.origin.rpartition(",")[2])
    if peer_ip is None:
        return None
    headers = tuple(
        (name, one)
        for name, value in page.headers.items()
        for one in ([value] if isinstance(value, str) else value)
    )
    return Page(peer_ip, headers, None, (page.url,) if page.url else ())


def ip_page(body: bytes) -> Page | None:
    """Read a page whose whole body is the peer's address."""
    peer_ip = canonical_ip(body.decode("latin-1"))
    return None if peer_ip is None else Page(peer_ip)


def repeats(targets: Iterable[str], nonce: str) -> bool:
    """Whether one of the targets carries the nonce."""
    return any(nonce in target for target in targets)


def _header_name(cgi_name: str) -> str:
    return "-".join(part.capitalize() for part in cgi_name.split("_"))


def _version(protocol: str) -> str | None:
    name, _, version = protocol.partition("/")
    return version if name.upper() == "HTTP" and version in ("1.0", "1.1") else None
