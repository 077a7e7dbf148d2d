"""Candidates and verdicts as compact bytes: what the ledger keeps without looking inside. Pure.

Nine in ten verdicts say "did not answer", in a few dozen different ways. So a part holds each
way once, as a shape, and per item its number, its shape, the instant and the connect time: some
eight bytes. A verdict that tells more (it works, an exit was seen, an answer was timed) is
kept whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.verdict import Verdict

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_NO_CONNECT = -1


class _Candidates(Struct, array_like=True, gc=False):
    sources: list[tuple[str, ...]]  # each combination once
    rows: list[tuple[Endpoint, tuple[Protocol, ...], int]]


class _Row(Struct, array_like=True, gc=False):
    item_step: int  # from the row before
    shape: int
    at_ms: int  # since the part's base
    connect_tenths: int  # of a millisecond; _NO_CONNECT for None


class _Verdicts(Struct, array_like=True):
    base: datetime
    shapes: list[Verdict]
    rows: list[_Row]
    whole: list[tuple[int, Verdict]]


_ShapeKey: TypeAlias = tuple[object, ...]

_encode = msgspec.msgpack.Encoder().encode
_candidates = msgspec.msgpack.Decoder(_Candidates).decode
_verdicts = msgspec.msgpack.Decoder(_Verdicts).decode


def pack_candidates(candidates: Iterable[Candidate]) -> bytes:
    """Candidates of one block, in order."""
    numbers: dict[tuple[str, ...], int] = {}
    rows = [
        (candidate.endpoint, candidate.hints, numbers.setdefault(candidate.sources, len(numbers)))
        for candidate in candidates
    ]
    return _encode(_Candidates(list(numbers), rows))


def unpack_candidates(body: bytes) -> list[Candidate]:
    """Candidates of one block, in order.

    Raises:
        msgspec.DecodeError: The bytes are not of ``pack_candidates``.
    """
    block = _candidates(body)
    return [Candidate(endpoint, hints, block.sources[at]) for endpoint, hints, at in block.rows]


def pack_verdicts(verdicts: Iterable[tuple[int, Candidate, Verdict]]) -> bytes:
    """Verdicts of one part: item number, whom it is about, and what was found.

    Kept exactly, but for what did not work ``checks[].took_ms`` is dropped, ``connect_ms`` is
    kept to a tenth, and ``checked_at`` to a millisecond.
    """
    told = sorted(verdicts, key=lambda row: row[0])
    base = min((verdict.checked_at for _, _, verdict in told), default=_NO_TIME)
    numbers: dict[_ShapeKey, int] = {}
    shapes: list[Verdict] = []
    rows: list[_Row] = []
    whole: list[tuple[int, Verdict]] = []
    item_before = 0
    for item, candidate, verdict in told:
        scheme = verdict.proxy.partition("://")[0]
        if _is_plain(verdict) and verdict.proxy == f"{scheme}://{candidate.endpoint.key}":
            key = _shape_key(verdict, scheme)
            shape = numbers.setdefault(key, len(numbers))
            if shape == len(shapes):
                shapes.append(_shape(verdict, scheme))
            connect = verdict.connect_ms
            tenths = _NO_CONNECT if connect is None else round(connect * 10)
            at_ms = (verdict.checked_at - base) // _MS
            rows.append(_Row(item - item_before, shape, at_ms, tenths))
            item_before = item
        else:
            whole.append((item, verdict))
    return _encode(_Verdicts(base, shapes, rows, whole))


def unpack_verdicts(
    body: bytes, candidates: Mapping[int, Candidate]
) -> Iterator[tuple[int, Candidate, Verdict]]:
    """Verdicts of one part, for those of its items that are asked for.

    Args:
        body: What ``pack_verdicts`` made.
        candidates: By item number; items that are not in it are left out.

    Raises:
        msgspec.DecodeError: The bytes are not of ``pack_verdicts``.
    """
    part = _verdicts(body)
    item = 0
    for row in part.rows:
        item += row.item_step
        candidate = candidates.get(item)
        if candidate is None:
            continue
        shape, endpoint = part.shapes[row.shape], candidate.endpoint
        yield (
            item,
            candidate,
            replace(
                shape,
                proxy=f"{shape.proxy}://{endpoint.key}",
                host=endpoint.host,
                port=endpoint.port,
                checked_at=part.base + row.at_ms * _MS,
                connect_ms=None if row.connect_tenths == _NO_CONNECT else row.connect_tenths / 10,
            ),
        )
    for item, verdict in part.whole:
        candidate = candidates.get(item)
        if candidate is not None:
            yield item, candidate, verdict


def _is_plain(verdict: Verdict) -> bool:
    return not verdict.working and verdict.exit_ip is None and verdict.latency_ms is None


def _shape_key(verdict: Verdict, scheme: str) -> _ShapeKey:
    return (
        scheme,
        verdict.protocol,
        verdict.failure,
        verdict.blame,
        verdict.protocols,
        verdict.anonymity,
        verdict.exit_ips,
        verdict.tampering,
        verdict.intercepts_tls,
        verdict.https,
        verdict.judge,
        tuple((check.name, check.state, check.reason, check.target) for check in verdict.checks),
    )


def _shape(verdict: Verdict, scheme: str) -> Verdict:
    return replace(
        verdict,
        proxy=scheme,
        host="",
        port=0,
        checked_at=_NO_TIME,
        connect_ms=None,
        checks=tuple(replace(check, took_ms=None) for check in verdict.checks),
    )
