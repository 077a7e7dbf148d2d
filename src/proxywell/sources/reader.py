"""The room's front: sources in, candidates and an account of every entry out."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from proxywell.config.schema import NetworkSettings, SourceSettings
from proxywell.errors import SettingsError
from proxywell.model.candidate import Candidate
from proxywell.model.clock import Clock
from proxywell.model.report import CandidateCounts, SourceReport
from proxywell.net.guard import Guard
from proxywell.sources.catalog import SourceSpec
from proxywell.sources.copies import Copies
from proxywell.sources.fetch import Fetcher, FetchLimits
from proxywell.sources.gathering import Gathering
from proxywell.sources.local import must_be_there
from proxywell.sources.trust import NO_ENTRIES
from proxywell.sources.visit import Visit, Visitor
from proxywell.telemetry.events import SourceFaulty, emit

_PER_HOST = 4  # lists asked of one host at one time


class SourceReading(Struct):
    """What all sources gave.

    Attributes:
        candidates: Distinct candidates that are allowed, with hints and sources, in the order
            in which they were first listed. Whoever is done with them may clear the list.
        reports: One for each source, in the order that was asked for.
        counts: Over all sources; ``planned`` is left to who plans.
    """

    candidates: list[Candidate]
    reports: list[SourceReport]
    counts: CandidateCounts

    @property
    def all_failed(self) -> bool:
        """True if not one source could be read, and no copy stood in; an empty list was read."""
        errors = [report.error for report in self.reports]
        return not self.counts.read and all(error not in {None, NO_ENTRIES} for error in errors)

    @property
    def why_nothing(self) -> str | None:
        """Why there are no candidates, in one sentence; None if there are some."""
        return None if self.candidates else why_nothing(self.reports, self.counts)


def why_nothing(reports: Sequence[SourceReport], counts: CandidateCounts) -> str:
    """Say in one sentence why these sources gave no candidate.

    Args:
        reports: One for each source.
        counts: Over all sources.
    """
    if counts.read:
        return why_refused(counts.read, counts.refused)
    faulty = [f"{report.source}: {report.error}" for report in reports if report.error]
    if not faulty:
        return "no list was named"
    more = f" (and {len(faulty) - 1} more)" if len(faulty) > 1 else ""
    return f"no list gave an entry; {faulty[0]}{more}"


def why_refused(read: int, refused: dict[str, int]) -> str:
    """Say why none of the entries became a candidate.

    Args:
        read: Entries; above zero.
        refused: Entries by reason.
    """
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items()))
    advice = "; --allow-private admits addresses of a network of your own, never link-local ones"
    every = "the only entry was" if read == 1 else f"all {read} entries were"
    return f"{every} refused: {told}" + (advice if "private_address" in refused else "")


class SourceReader:
    """Reads sources side by side; one that fails, drips or lies stops none of the others.

    Args:
        settings: Limits and caps.
        network: Whether plain http and private addresses are allowed.
        guard: Vets every candidate, and every address that is asked for a list.
        cache_dir: Home of the last good copies; None: keep none, ask unconditionally.
        clock: Time for deadlines and for the age of copies.
        interval_s: How long a source rests after it was asked, in seconds; None: as the
            catalogue says. ``min_interval_s`` of the settings is the least.

    Raises:
        SettingsError: ``ca_file`` cannot be read.
    """

    def __init__(
        self,
        settings: SourceSettings,
        network: NetworkSettings,
        guard: Guard,
        cache_dir: Path | None,
        clock: Clock,
        *,
        interval_s: Callable[[SourceSpec], float] | None = None,
    ) -> None:
        assert guard.allow_private == network.allow_private, "one rule for lists and candidates"
        limits = FetchLimits(
            wire_max_bytes=settings.wire_max_bytes,
            body_max_bytes=settings.body_max_bytes,
            ratio_max=settings.expansion_max_ratio,
            redirects_max=settings.redirects_max,
        )
        self._settings = settings
        self._clock = clock
        self._visitor = Visitor(
            settings,
            guard,
            Fetcher(
                guard,
                limits,
                user_agent=_user_agent(settings.contact),
                tls=_trusted(settings.ca_file),
            ),
            copies=None if cache_dir is None else Copies(cache_dir),
            clock=clock,
            interval_s=interval_s or (lambda spec: spec.interval_s),
        )

    async def read(self, specs: Sequence[SourceSpec], *, deadline_s: float) -> SourceReading:
        """Read all sources and join what they gave.

        Args:
            specs: Names are unique.
            deadline_s: Monotonic instant (of the clock) at which reading ends; what was not
                whole by then is an ``error`` of its source.

        Raises:
            InputMissingError: A file that was named is not there or must not be read; nothing
                was read then.
        """
        for spec in specs:
            if not spec.is_url:
                must_be_there(spec.place)
        gathering = Gathering()
        counts = CandidateCounts()
        reports: list[SourceReport] = []
        async with asyncio.TaskGroup() as group:
            slots = asyncio.Semaphore(self._settings.parallel)
            host_slots: dict[str, asyncio.Semaphore] = {}
            visits = deque(
                group.create_task(
                    self._in_turn(
                        spec,
                        deadline_s,
                        slots,
                        host_slots.setdefault(_host_of(spec), asyncio.Semaphore(_PER_HOST)),
                    )
                )
                for spec in specs
            )
            # Joined in the order of the sources, whichever ends first, so that equal input gives
            # equal output; what is joined is forgotten, so that memory holds it once.
            for spec in specs:
                visit = await visits.popleft()
                for _ in gathering.merge(spec.name, visit.tally):
                    await asyncio.sleep(0)
                reports.append(visit.report)
                # a single source without an entry is the caller's sentence: see why_nothing
                if visit.report.error is not None and (len(specs) > 1 or visit.tally.read):
                    emit(SourceFaulty(source=spec.name, reason=visit.report.error))
                counts.read += visit.tally.read
                for reason, count in visit.tally.refused.items():
                    counts.refused[reason.value] = counts.refused.get(reason.value, 0) + count
                del visit
        counts.unique = gathering.unique
        candidates: list[Candidate] = []
        for _ in gathering.take(candidates):
            await asyncio.sleep(0)
        return SourceReading(candidates, reports, counts)

    async def examine(self, spec: SourceSpec, *, deadline_s: float) -> Visit:
        """Read one source for its own sake, asking it even if it was asked a moment ago.

        Args:
            spec: The source.
            deadline_s: As in ``read``.

        Raises:
            InputMissingError: As in ``read``.
        """
        if not spec.is_url:
            must_be_there(spec.place)
        limit_s = self._limit_s(spec, deadline_s)
        return await self._visitor.visit(spec, limit_s=limit_s, always_ask=True)

    async def _in_turn(
        self,
        spec: SourceSpec,
        deadline_s: float,
        slots: asyncio.Semaphore,
        host_slots: asyncio.Semaphore,
    ) -> Visit:
        async with host_slots, slots:
            return await self._visitor.visit(spec, limit_s=self._limit_s(spec, deadline_s))

    def _limit_s(self, spec: SourceSpec, deadline_s: float) -> float:
        left_s = max(0.0, deadline_s - self._clock.monotonic_s())
        return min(left_s, self._settings.total_s) if spec.is_url else left_s


def _host_of(spec: SourceSpec) -> str:
    return (urlsplit(spec.place).hostname or "") if spec.is_url else spec.place


def _user_agent(contact: str) -> str:
    return f"proxywell/{version('proxywell')}" + (f" (+{contact})" if contact else "")


def _trusted(ca_file: str | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"sources.ca_file: {ca_file} holds no certificates that can be read ({error})"
        ) from error
    return context
