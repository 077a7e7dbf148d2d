"""Members as text in the forms that other programs read; every form is a pure function."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote

import msgspec

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.member import PoolMember
from proxywell.model.shown import CONTROLS, visible

CSV_COLUMNS: Final = (
    "proxy",
    "host",
    "port",
    "protocol",
    "protocols",
    "anonymity",
    "exit_ip",
    "country",
    "asn",
    "https",
    "latency_ms",
    "score",
    "times_checked",
    "times_passed",
    "last_ok_at",
    "state",
    "sources",
)
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_SOCKS4: Final = frozenset({Protocol.SOCKS4, Protocol.SOCKS4A})
_CLASH_PROBE: Final = "http://www.gstatic.com/generate_204"


def urls(members: Iterable[PoolMember]) -> str:
    """One URL a line, credentials included."""
    return "".join(f"{member.proxy}\n" for member in members)


def places(members: Iterable[PoolMember], *protocols: Protocol) -> str:
    """One ``host:port`` a line, ``user:password@`` before it where needed, of who speaks one."""
    wanted = frozenset(protocols)
    return "".join(
        f"{member.proxy.partition('://')[2]}\n"
        for member in members
        if not wanted.isdisjoint(_spoken(member))
    )


def as_json(members: Sequence[PoolMember]) -> str:
    """An array, one member a line, with every field of the contract."""
    lines = ",\n".join(msgspec.json.encode(member).decode() for member in members)
    text = f"[\n{lines}\n]\n" if members else "[]\n"
    # Controls below U+0020 are escaped by the encoder; what is left of them is the layout.
    return CONTROLS.sub(
        lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text
    )


def as_csv(members: Iterable[PoolMember]) -> str:
    """A table with a head line; what a spreadsheet would take for a formula gets a ``'``."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([_cell(member, column) for column in CSV_COLUMNS] for member in members)
    return out.getvalue()


def _cell(member: PoolMember, column: str) -> str:
    value = getattr(member, column)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        value = ",".join(value)
    if column == "last_ok_at":
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    text = visible(str(value))
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


def as_proxychains(members: Iterable[PoolMember]) -> str:
    """A whole configuration for proxychains-ng: any one member per connection.

    It knows addresses, no names, and its ``http`` is CONNECT; members that offer neither that
    nor SOCKS are left out.
    """
    lines = ["random_chain", "chain_len = 1", "proxy_dns", "", "[ProxyList]"]
    for member in members:
        user, password = _credentials(member)
        kind = _first_kind(
            member, {Protocol.SOCKS5: "socks5", Protocol.CONNECT: "http", **_socks4("socks4")}
        )
        if kind is None or not _is_address(member.host) or _has_blank(user, password):
            continue
        login = "" if user is None else f" {user} {password}"
        lines.append(f"{kind} {member.host} {member.port}{login}")
    return "\n".join(lines) + "\n"


def as_squid(members: Iterable[PoolMember]) -> str:
    """Lines for ``squid.conf``: members as parents in turn, and never a direct request.

    Only members that speak HTTP can be parents; one that only forwards gets no CONNECT, one
    that only tunnels gets nothing else.
    """
    lines = ["acl proxywell_tunnel method CONNECT"]
    for number, member in enumerate(members, 1):
        spoken = _spoken(member)
        forwards, tunnels = Protocol.HTTP in spoken, Protocol.CONNECT in spoken
        user, password = _credentials(member)
        if not (forwards or tunnels) or _has_blank(user, password):
            continue
        name = f"proxywell{number}"
        login = "" if user is None else f" login={_percent(user)}:{_percent(password or '')}"
        lines.append(
            f"cache_peer {member.host} parent {member.port} 0 no-query no-digest "
            f"no-netdb-exchange round-robin name={name}{login}"
        )
        if not tunnels:
            lines.append(f"cache_peer_access {name} deny proxywell_tunnel")
        if not forwards:
            lines.append(f"cache_peer_access {name} deny !proxywell_tunnel")
    return "\n".join([*lines, "never_direct allow all"]) + "\n"


def as_clash(members: Iterable[PoolMember]) -> str:
    """A configuration for Clash and its descendants: requests spread over all members.

    It knows SOCKS5 and CONNECT; others are left out. Texts are JSON strings, which YAML reads
    as they stand.
    """
    proxies: list[str] = []
    names: list[str] = []
    for member in members:
        kind = _first_kind(member, {Protocol.SOCKS5: "socks5", Protocol.CONNECT: "http"})
        if kind is None:
            continue
        user, password = _credentials(member)
        name = f"{kind} {len(proxies) + 1} {Endpoint(member.host, member.port).netloc}"
        login = (
            "" if user is None else f", username: {_quoted(user)}, password: {_quoted(password)}"
        )
        proxies.append(
            f"  - {{name: {_quoted(name)}, type: {kind}, server: {_quoted(member.host)}, "
            f"port: {member.port}{login}}}"
        )
        names.append(f"      - {_quoted(name)}")
    if not proxies:
        return 'proxies: []\nproxy-groups: []\nrules:\n  - "MATCH,REJECT"\n'
    return "\n".join(
        [
            "proxies:",
            *proxies,
            "proxy-groups:",
            "  - name: proxywell",
            "    type: load-balance",
            "    strategy: round-robin",
            f"    url: {_quoted(_CLASH_PROBE)}",
            "    interval: 300",
            "    proxies:",
            *names,
            "rules:",
            '  - "MATCH,proxywell"',
            "",
        ]
    )


# The files that every export writes, in this order.
ALWAYS: Final[dict[str, Callable[[Sequence[PoolMember]], str]]] = {
    "all.txt": urls,
    "http.txt": lambda members: places(members, Protocol.HTTP),
    "connect.txt": lambda members: places(members, Protocol.CONNECT),
    "socks4.txt": lambda members: places(members, *_SOCKS4),
    "socks5.txt": lambda members: places(members, Protocol.SOCKS5),
    "proxies.json": as_json,
    "proxies.csv": as_csv,
}

# On request: name of the format -> file and form.
ON_REQUEST: Final[dict[str, tuple[str, Callable[[Sequence[PoolMember]], str]]]] = {
    "proxychains": ("proxychains.conf", as_proxychains),
    "squid": ("squid.conf", as_squid),
    "clash": ("clash.yaml", as_clash),
}


def _spoken(member: PoolMember) -> frozenset[Protocol]:
    own = (member.protocol,) if member.protocol else ()
    return frozenset((*member.protocols, *own))


def _first_kind(member: PoolMember, kinds: dict[Protocol, str]) -> str | None:
    """Another program's word for the first protocol of the table that the member speaks."""
    spoken = _spoken(member)
    return next((kind for protocol, kind in kinds.items() if protocol in spoken), None)


def _socks4(word: str) -> dict[Protocol, str]:
    return dict.fromkeys((Protocol.SOCKS4, Protocol.SOCKS4A), word)


def _credentials(member: PoolMember) -> tuple[str | None, str | None]:
    login, mark, _ = member.proxy.partition("://")[2].rpartition("@")
    if not mark:
        return None, None
    user, _, password = login.partition(":")
    return unquote(user), unquote(password)


def _has_blank(user: str | None, password: str | None) -> bool:
    """Whether a line of words cannot hold these credentials."""
    text = f"{user or ''}{password or ''}"
    return any(mark.isspace() for mark in text) or bool(CONTROLS.search(text))


def _percent(text: str) -> str:
    """Squid reads ``%`` in a login as the start of an escape."""
    return text.replace("%", "%%")


def _quoted(text: str | None) -> str:
    return json.dumps(text)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
