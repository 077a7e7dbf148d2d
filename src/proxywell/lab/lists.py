"""The fleet as public lists publish it: raw, with schemes, as JSON; with duplicates and dirt."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from msgspec import Struct

from proxywell.lab.profile import Profile
from proxywell.lab.proxy import Proxy
from proxywell.model.endpoint import Protocol

# Lines that no form fits; never an address that anybody could connect to.
MALFORMED = (
    "127.0.0.300:8080",
    "127.16.1:3128",
    "127.20.1.2:99999",
    "Array",
    "127.0x10.3.4:80",
    "updated every ten minutes",
    "127.20.010.2:1080",
    "{{HOME}}:${PORT}",
)


class PublishedList(Struct, frozen=True):
    """One list.

    Attributes:
        name: Its file name.
        protocol: The protocol of all its entries; None if entries say themselves or do not.
        text: What is published.
        entries: Well-formed ones, duplicates included.
        kind: Content type.
    """

    name: str
    protocol: Protocol | None
    text: str
    entries: int
    kind: str = "text/plain; charset=utf-8"


def publish(fleet: list[Proxy], profile: Profile, seed: int) -> list[PublishedList]:
    """Write the lists: every proxy in one of them, some in two.

    A third of the proxies is listed raw under its protocol, a third with schemes, a third in
    JSON; those that demand a login are only in a list of their own, with their login.
    """
    draw = random.Random(f"{seed} lists")  # noqa: S311 - a simulation's chance
    raw: dict[Protocol, list[str]] = {}
    schemed: list[str] = []
    objects: list[dict[str, object]] = []
    logins: list[str] = []
    forms = ("raw", "schemed", "json")
    for proxy in fleet:
        if proxy.user is not None:
            logins.append(f"{proxy.hint.scheme}://{proxy.user}:{proxy.password}@{proxy.netloc}")
            continue
        chosen = [draw.choice(forms)]
        if draw.random() < profile.lists.duplicates:
            chosen.append(draw.choice(forms))
        for form in chosen:
            if form == "raw":
                raw.setdefault(proxy.hint, []).append(proxy.netloc)
            elif form == "schemed":
                schemed.append(f"{_word(proxy.hint)}://{proxy.netloc}")
            else:
                entry = {"ip": proxy.host, "port": proxy.port, "protocol": _word(proxy.hint)}
                objects.append(entry)
    lists = list(_raw_lists(raw, profile, draw))
    if schemed:
        lists.append(PublishedList("all.txt", None, _lines(schemed), len(schemed)))
    if objects:
        text = json.dumps(objects, indent=0) + "\n"
        lists.append(
            PublishedList("proxies.json", None, text, len(objects), kind="application/json")
        )
    if logins:
        lists.append(PublishedList("logins.txt", None, _lines(logins), len(logins)))
    return lists


def _raw_lists(
    raw: dict[Protocol, list[str]], profile: Profile, draw: random.Random
) -> Iterator[PublishedList]:
    dirt = [MALFORMED[number % len(MALFORMED)] for number in range(profile.lists.malformed_lines)]
    for protocol, lines in sorted(raw.items()):
        text = list(lines)
        for line in dirt:
            text.insert(draw.randint(0, len(text)), line)
        dirt = []  # the first list has all of it
        yield PublishedList(f"{_word(protocol)}.txt", protocol, _lines(text), len(lines))


def _word(protocol: Protocol) -> str:
    return "https" if protocol is Protocol.CONNECT else protocol.value


def _lines(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
