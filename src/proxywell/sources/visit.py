"""One visit to one source: a file, or a list that is fetched, believed or not, and kept."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import islice
from typing import BinaryIO

from msgspec.structs import replace

from proxywell.config.schema import SourceSettings
from proxywell.errors import InputMissingError
from proxywell.model.clock import Clock
from proxywell.model.report import SourceReport
from proxywell.net.guard import Guard
from proxywell.sources.catalog import SourceSpec
from proxywell.sources.copies import Copies, Copy
from proxywell.sources.errors import SourceError
from proxywell.sources.fetch import Fetched, Fetcher, Validators
from proxywell.sources.grammar import HINT_BITS, Entry, Malformed
from proxywell.sources.local import BLOCK_BYTES, read_file
from proxywell.sources.parse import DOCUMENT_MAX_BYTES, LINE_MAX_BYTES, Form, ListParser
from proxywell.sources.robots import ask_leave
from proxywell.sources.tally import SourceTally
from proxywell.sources.trust import fault_of, is_outsized
from proxywell.telemetry.events import (
    SourceCopyNotKept,
    SourceCopyRead,
    SourceLongLines,
    SourceRead,
    emit,
)

_SLICE = 2_000  # entries between two looks at the rest of the program
_IN_MEMORY_BYTES = 4 * 2**20


class Visit:
    """What came of one visit.

    Attributes:
        report: The source's line in the report; its ``error`` says what was wrong, and whether
            the last good copy was read instead.
        tally: The entries, decided and counted.
        is_list: A list was read to its end, be it empty, odd or not believed.
    """

    def __init__(self, report: SourceReport, tally: SourceTally, *, is_list: bool) -> None:
        self.report = report
        self.tally = tally
        self.is_list = is_list


class Visitor:
    """Visits sources.

    Args:
        settings: Limits and caps.
        guard: Vets every candidate.
        fetcher: Asks for lists.
        copies: Where last good copies are kept; None: nowhere.
        clock: The age of copies.
        interval_s: How long a source rests after it was asked, in seconds.
    """

    def __init__(
        self,
        settings: SourceSettings,
        guard: Guard,
        fetcher: Fetcher,
        *,
        copies: Copies | None,
        clock: Clock,
        interval_s: Callable[[SourceSpec], float],
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._fetcher = fetcher
        self._copies = copies
        self._clock = clock
        self._interval_s = interval_s

    async def visit(self, spec: SourceSpec, *, limit_s: float, always_ask: bool = False) -> Visit:
        """Read one source; whatever is wrong with it is in the report, never raised.

        Args:
            spec: The source.
            limit_s: Seconds after which it is given up; not below zero.
            always_ask: Ask the source even if it was asked a moment ago, and tell of what is
                not believed too.
        """
        reading = _Reading(spec, self._new_tally(spec), always_ask=always_ask)
        try:
            async with asyncio.timeout(limit_s):
                if spec.is_url:
                    await self._read_url(reading)
                else:
                    await self._read_file(reading)
        except TimeoutError:
            await self._fail(reading, f"not read to its end within {limit_s:.3g} s")
        except (SourceError, InputMissingError) as error:
            await self._fail(reading, str(error))
        except Exception as error:  # noqa: BLE001 - a bug met in one list must not lose the others
            await self._fail(reading, f"internal error: {type(error).__name__}: {error}")
        tally = reading.tally
        emit(SourceRead(source=spec.name, read=tally.read, unique=tally.unique))
        report = SourceReport(spec.name, tally.read, tally.unique, reading.error)
        return Visit(report, tally, is_list=reading.is_list)

    def _new_tally(self, spec: SourceSpec) -> SourceTally:
        return SourceTally(
            self._guard,
            self._settings,
            keep_credentials=spec.named and not spec.is_url,
            default_hints=0 if spec.hint is None else HINT_BITS[spec.hint],
        )

    async def _read_file(self, reading: _Reading) -> None:
        blocks = read_file(reading.spec.place, ratio_max=self._settings.expansion_max_ratio)
        async with aclosing(blocks):
            await reading.take(blocks, document_max_bytes=DOCUMENT_MAX_BYTES)
        tally = reading.tally
        reading.error = fault_of(
            reading.spec, reading.form, read=tally.read, unique=tally.unique, copy=None, now_s=0
        )

    async def _read_url(self, reading: _Reading) -> None:
        spec = reading.spec
        copy = None if self._copies is None else self._copies.find(spec.place)
        now_s = self._clock.now_s()
        if copy is not None and not reading.always_ask:
            age_s = now_s - copy.asked_s
            due_s = max(self._settings.min_interval_s, self._interval_s(spec))
            if 0 <= age_s < due_s:
                emit(SourceCopyRead(source=spec.name, age_s=age_s, due_s=due_s))
                await self._read_copy(reading, copy)
                return
        reading.copy = copy
        if spec.form is Form.HTML:
            await ask_leave(self._fetcher, spec.place)
        validators = Validators() if copy is None else Validators(copy.etag, copy.last_modified)
        async with self._fetcher.fetch(spec.place, validators) as fetched:
            if fetched.not_modified and copy is not None:
                await self._read_copy(reading, copy)
                self._note(spec, replace(copy, asked_s=now_s))
                return
            await self._read_answer(reading, fetched, now_s)

    async def _read_answer(self, reading: _Reading, fetched: Fetched, now_s: float) -> None:
        spec, tally, copy = reading.spec, reading.tally, reading.copy
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as body:
            async with aclosing(fetched.blocks()) as blocks:
                await reading.take(
                    _written(blocks, body), document_max_bytes=self._settings.body_max_bytes
                )
            fault = fault_of(
                spec, reading.form, read=tally.read, unique=tally.unique, copy=copy, now_s=now_s
            )
            if fault is not None:
                if copy is not None and is_outsized(tally.unique, copy):
                    since_s = copy.outsized_since_s
                    since_s = now_s if since_s is None else since_s
                    self._note(spec, replace(copy, outsized_since_s=since_s))
                raise SourceError(fault)
            if self._copies is None:
                return
            body.seek(0)
            try:
                self._copies.keep(
                    Copy(
                        url=spec.place,
                        body="",
                        fetched_s=now_s,
                        asked_s=now_s,
                        unique=tally.unique,
                        etag=fetched.validators.etag,
                        last_modified=fetched.validators.last_modified,
                    ),
                    body,
                )
            except OSError as error:
                emit(SourceCopyNotKept(source=spec.name, reason=str(error)))

    async def _fail(self, reading: _Reading, reason: str) -> None:
        """Remember the fault, and read the last good copy in place of what came.

        What a faulty list of strangers held so far is dropped, not trusted; of the user's own
        file it is kept.
        """
        reading.error = reason
        copy = reading.copy
        if reading.spec.is_url and not reading.always_ask:
            reading.tally = self._new_tally(reading.spec)
        if copy is None or self._clock.now_s() - copy.fetched_s > self._settings.copy_max_age_s:
            return
        try:
            await self._read_copy(reading, copy)
        except SourceError as error:
            reading.error = f"{reason}; and its last good copy is damaged: {error}"
            return
        when = datetime.fromtimestamp(copy.fetched_s, UTC)
        reading.error = f"{reason}; its last good copy of {when:%Y-%m-%d %H:%M} UTC was read"

    async def _read_copy(self, reading: _Reading, copy: Copy) -> None:
        assert self._copies is not None, "a copy has a home"
        try:
            with self._copies.open(copy) as file:
                await reading.take(_blocks_of(file), document_max_bytes=DOCUMENT_MAX_BYTES)
        except OSError as error:
            raise SourceError(f"the copy cannot be read: {error}") from error

    def _note(self, spec: SourceSpec, copy: Copy) -> None:
        assert self._copies is not None, "a copy has a home"
        try:
            self._copies.note(copy)
        except OSError as error:
            emit(SourceCopyNotKept(source=spec.name, reason=str(error)))


class _Reading:
    """What is known while a source is being read."""

    def __init__(self, spec: SourceSpec, tally: SourceTally, *, always_ask: bool) -> None:
        self.spec = spec
        self.tally = tally
        self.always_ask = always_ask
        self.is_list = False
        self.form = Form.AUTO
        self.copy: Copy | None = None
        self.error: str | None = None

    async def take(self, blocks: AsyncIterator[bytes], *, document_max_bytes: int) -> None:
        """Parse and count all blocks, letting the rest of the program run in between."""
        parser = ListParser(document_max_bytes=document_max_bytes)
        async for block in blocks:
            self._count(parser.feed(block))
            await asyncio.sleep(0)
        rest = parser.finish()
        more = True
        while more:
            more = self._count(islice(rest, _SLICE)) == _SLICE
            await asyncio.sleep(0)
        self.form, self.is_list = parser.form, True
        if parser.long_lines:
            emit(
                SourceLongLines(
                    source=self.spec.name, lines=parser.long_lines, max_bytes=LINE_MAX_BYTES
                )
            )

    def _count(self, items: Iterable[Entry | Malformed]) -> int:
        before = self.tally.read
        for item in items:
            self.tally.add(item)
        return self.tally.read - before


async def _written(
    blocks: AsyncIterator[bytes], body: tempfile.SpooledTemporaryFile[bytes]
) -> AsyncIterator[bytes]:
    async for block in blocks:
        body.write(block)
        yield block


async def _blocks_of(file: BinaryIO) -> AsyncIterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block
