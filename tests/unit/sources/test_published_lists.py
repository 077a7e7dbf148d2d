"""Every published list is read whole; the counts agree with a second, independent count."""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from proxywell.config.schema import SourceSettings
from proxywell.model.report import RefusalReason
from proxywell.net.guard import Guard
from proxywell.sources.parse import ListParser
from proxywell.sources.tally import SourceTally

LISTS = Path(__file__).parents[2] / "data" / "lists"
SERVICES = {22, 23, 25, 53, 110, 143, 389, 445, 465, 587, 993, 995, 3306, 5432, 6379, 9200, 11211,
            27017}  # fmt: skip
WORDS = {"http": "http", "https": "connect", "socks4": "socks4", "socks5": "socks5"}
# scheme, host, port; the port ends where the line does or at a blank
LINE = re.compile(r"^(?:([a-z0-9]+)://)?(\d+\.\d+\.\d+\.\d+):(\d+)(?=\s|$)")


def read(path: Path) -> SourceTally:
    tally = SourceTally(Guard(), SourceSettings(), keep_credentials=True)
    parser = ListParser()
    for item in (*parser.feed(path.read_bytes()), *parser.finish()):
        tally.add(item)
    return tally


def independent(path: Path) -> tuple[int, int, dict[str, int], Counter[str]]:
    """Count with nothing of ours: entries, distinct endpoints, refused, hints of endpoints."""
    text = path.read_text()
    rows: list[tuple[str | None, str, int] | None] = []
    if path.suffix == ".json":
        rows = [(each["protocol"], each["host"], each["port"]) for each in json.loads(text)]
    else:
        for line in filter(None, map(str.strip, text.splitlines())):
            found = LINE.match(line)
            rows.append((found[1], found[2], int(found[3])) if found else None)
    refused: Counter[str] = Counter()
    hints: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        if row is None:
            refused["malformed"] += 1
            continue
        word, host, port = row
        assert str(ipaddress.ip_address(host)) == host
        if not ipaddress.ip_address(host).is_global:
            refused["private_address"] += 1
        elif port in SERVICES:
            refused["service_port"] += 1
        hints.setdefault((host, port), set()).update({WORDS[word]} if word else ())
    by_protocol = Counter(hint for each in hints.values() for hint in each or {"unknown"})
    return len(rows), len(hints), dict(refused), by_protocol


@pytest.mark.parametrize("path", sorted(LISTS.glob("*.[tj]*")), ids=lambda path: path.name)
def test_a_published_list_is_counted_as_by_an_independent_count(path: Path) -> None:
    rows, unique, refused, by_protocol = independent(path)
    tally = read(path)
    assert rows > 100
    assert tally.read == rows
    assert tally.unique == unique
    assert {reason.value: count for reason, count in tally.refused.items()} == refused
    assert tally.by_protocol() == dict(by_protocol)


def test_all_the_published_lists_are_here() -> None:
    assert len(list(LISTS.glob("*.[tj]*"))) == 11


def test_prose_around_a_published_list_is_malformed_and_named() -> None:
    tally = read(LISTS / "clarketm-proxy-list.txt")
    assert tally.refused[RefusalReason.MALFORMED] == 6
    assert tally.examples[1] == "Socks proxy=https://spys.me/socks.txt"
