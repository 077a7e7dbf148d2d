"""Rows of the Redis ledger as msgpack, fields by name: a list of Lua's ends at its first None."""

from __future__ import annotations

from typing import Any

import msgspec

from proxywell.refresh.books import Claim, JobRow, LedgerEvent, Part, Terms
from proxywell.refresh.ports import NewJob
from proxywell.refresh.spans import count


def _by_name(row: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The fields of a row that is a list, by name; the terms are a row of their own."""
    fields = [
        (field.name, field.type, _absent(field))
        for field in msgspec.structs.fields(row)
        if field.name != "terms"
    ]
    return msgspec.defstruct(row.__name__, fields, kw_only=True)


def _absent(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.field() if field.required else msgspec.field(default=field.default)


pack = msgspec.msgpack.Encoder().encode
claim_of = msgspec.msgpack.Decoder(Claim).decode
number_of = msgspec.msgpack.Decoder(float).decode
_line = msgspec.msgpack.Decoder(_by_name(JobRow)).decode
_terms = msgspec.msgpack.Decoder(dict[str, Any]).decode
_header = msgspec.msgpack.Decoder(tuple[int, tuple[int, ...]]).decode
_facts = msgspec.msgpack.Decoder(dict[str, int | float | str]).decode


def job_row(line: bytes, terms: bytes) -> JobRow:
    """A job's line, from the two fields that keep it."""
    agreed = Terms(**{"want": None, **_terms(terms)})
    return JobRow(terms=agreed, **msgspec.structs.asdict(_line(line)))


def new_row(job: NewJob, chunks: int) -> tuple[bytes, bytes]:
    """Line and terms of a job whose chunks are all ready; its instants are the server's to add."""
    agreed = msgspec.structs.asdict(job.terms)
    line = {
        "job_id": job.job_id,
        "items": job.items,
        "created_at_s": job.created_at_s,
        "epoch": job.epoch,
        "checked": count(job.settled),
        "working": job.working,
        "ready": chunks,
        "chunks": chunks,
        "next_chunk": chunks,
    }
    return pack(line), pack({name: term for name, term in agreed.items() if term is not None})


def parts_of(found: list[bytes], after: int) -> list[Part]:
    """Parts behind a sequence number, from two entries each."""
    pairs = zip(found[::2], found[1::2], strict=True)
    return [
        Part(seq, *_header(header), body) for seq, (header, body) in enumerate(pairs, after + 1)
    ]


def event_of(entry: bytes, told: list[bytes]) -> LedgerEvent:
    """An event, from its entry in the stream."""
    said = dict(zip(told[::2], told[1::2], strict=True))
    return LedgerEvent(
        seq=int(entry.partition(b"-")[0]),
        at_s=float(said[b"at_s"]),
        kind=said[b"kind"].decode(),
        chunk_id=int(said[b"chunk"]) if b"chunk" in said else None,
        facts=_facts(said[b"facts"]) if b"facts" in said else {},
    )
