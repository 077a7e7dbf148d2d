"""A small writer of MaxMind DB files, format version 2.0, 24-bit records, for tests."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

_MARK = b"\xab\xcd\xefMaxMind.com"


def write_mmdb(file: Path, networks: dict[str, dict[str, Any]], *, ip_version: int = 4) -> None:
    """Write networks and their records; IPv4 ones in an IPv6 tree stand under ::/96."""
    data = bytearray()
    nodes: list[list[int | None]] = [[None, None]]
    leaves: list[tuple[int, int, int]] = []
    for text, record in networks.items():
        network = ip_network(text)
        width = 32 if ip_version == 4 else 128
        lead = width - network.max_prefixlen
        bits = f"{int(network.network_address):0{width}b}"[: lead + network.prefixlen]
        node = 0
        for bit in bits[:-1]:
            child = nodes[node][int(bit)]
            if child is None:
                nodes.append([None, None])
                child = nodes[node][int(bit)] = len(nodes) - 1
            node = child
        leaves.append((node, int(bits[-1]), len(data)))
        data += _encoded(record)
    tree = bytearray()
    for node, side, offset in leaves:
        nodes[node][side] = len(nodes) + 16 + offset
    for node_record in nodes:
        for value in node_record:
            tree += (len(nodes) if value is None else value).to_bytes(3, "big")
    metadata = {
        "node_count": len(nodes),
        "record_size": 24,
        "ip_version": ip_version,
        "database_type": "Test",
        "languages": [],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1_700_000_000,
        "description": {},
    }
    file.write_bytes(bytes(tree) + bytes(16) + bytes(data) + _MARK + _encoded(metadata))


def _encoded(value: Any, key: str = "") -> bytes:
    if isinstance(value, str):
        raw = value.encode()
        return bytes([2 << 5 | len(raw)]) + raw
    if isinstance(value, int):
        raw = value.to_bytes(8, "big").lstrip(b"\0")
        if key == "build_epoch":  # the only 64-bit number
            return bytes([len(raw), 9 - 7]) + raw
        kind = 5 if key.endswith(("_size", "_version")) else 6
        return bytes([kind << 5 | len(raw)]) + raw
    if isinstance(value, dict):
        inner = b"".join(_encoded(key) + _encoded(one, key) for key, one in value.items())
        return bytes([7 << 5 | len(value)]) + inner
    assert isinstance(value, list)
    return bytes([len(value), 11 - 7]) + b"".join(_encoded(one) for one in value)
