"""Checkers and the candidates that they check: judges, guard and inspections joined."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from msgspec import structs

from proxywell.checking.checker import Checker
from proxywell.checking.inspections import default_inspections
from proxywell.checking.judges import Judges, loopback_source
from proxywell.config.schema import RedisSettings, Settings
from proxywell.errors import InputMissingError, ProxywellError, SettingsError
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Protocol
from proxywell.model.member import PoolMember
from proxywell.model.report import PoolChange
from proxywell.model.verdict import Verdict
from proxywell.net.guard import Guard, canonical_address
from proxywell.net.loop import run
from proxywell.pool.lookup import endpoint_of
from proxywell.pool.pool import Pool
from proxywell.refresh.engines.local import LocalKind
from proxywell.refresh.report import Dossier
from proxywell.refresh.run import RefreshRoom
from proxywell.sources.catalog import SourceSpec
from proxywell.sources.reader import SourceReader, SourceReading
from proxywell.sources.yields import YieldBook, resting_s
from proxywell.telemetry.remarks import listen

SOURCES_DIR = "sources"  # last good copies, in the state directory

READ_MAX_S = 120.0  # all sources together; each has its own shorter limit
_CLOCK = SystemClock()


async def read_candidates(
    settings: Settings, specs: Sequence[SourceSpec], cache_dir: Path | None
) -> SourceReading:
    """Read the sources and join what they gave.

    Args:
        settings: All settings.
        specs: The sources, names unique.
        cache_dir: Home of last good copies; None: keep none.

    Raises:
        InputMissingError: A file that was named is not there.
    """
    known = {} if cache_dir is None else YieldBook(cache_dir).known()
    reader = SourceReader(
        settings.sources,
        settings.network,
        _guard(settings),
        cache_dir,
        _CLOCK,
        interval_s=partial(resting_s, known),
    )
    return await reader.read(specs, deadline_s=_CLOCK.monotonic_s() + READ_MAX_S)


class NoSourceError(ProxywellError):
    """Not one list could be fetched."""

    code = "no_source"


def must_have_read(reading: SourceReading, specs: Sequence[SourceSpec]) -> None:
    """Refuse to go on if not one of the sources could be read.

    Raises:
        InputMissingError: All of them are files, and none is a list.
        NoSourceError: Some had to be fetched.
    """
    if not reading.all_failed:
        return
    sentence = f"{reading.why_nothing}; see `proxywell sources test`"
    fetched = any(spec.is_url for spec in specs)
    raise NoSourceError(sentence) if fetched else InputMissingError(sentence)


@asynccontextmanager
async def open_checker(
    settings: Settings, *, protocol: Protocol | None = None
) -> AsyncIterator[Checker]:
    """A checker with judges that answer, for the time of the context.

    Args:
        settings: All settings.
        protocol: Try only this one; None: the ladder decides.

    Raises:
        UsageError: A judge is misspelt or refused.
        NoJudgeError: No judge answers a direct request.
    """
    source_address = _source_address(settings)
    judges = _judges(settings, source_address)
    async with (
        judges,
        Checker(
            structs.replace(settings.checking, source_address=source_address),
            panel=judges,
            guard=_guard(settings, judges.own_addresses),
            inspections=[
                inspection
                for inspection in default_inspections(settings, clock=_CLOCK)
                if protocol is None or inspection.name != "siblings"
            ],
            clock=_CLOCK,
            protocol=protocol,
        ) as checker,
    ):
        yield checker


def must_be_sound(settings: Settings) -> None:
    """Find out now what would otherwise be told when the first checker starts.

    Raises:
        UsageError: A judge is misspelt or refused.
        SettingsError: A key, a file of certificates or a local address is none.
    """
    source_address = settings.checking.source_address
    if source_address is not None and canonical_address(source_address) is None:
        raise SettingsError(
            f"checking.source_address: {source_address!r} is not an address of this machine, "
            "such as 127.0.0.2"
        )
    _judges(settings, _source_address(settings))


def _source_address(settings: Settings) -> str | None:
    given = settings.checking.source_address
    if given is None and settings.network.allow_private:
        # a proxy beside us on 127.0.0.1 must not be taken for ourselves
        return loopback_source(settings.judges)
    return given


def _judges(settings: Settings, source_address: str | None) -> Judges:
    return Judges(
        settings.judges,
        settings.judge,
        settings.network,
        _guard(settings),
        clock=_CLOCK,
        source_address=source_address,
        answer_max_bytes=settings.checking.judge_answer_max_bytes,
    )


def _guard(settings: Settings, own: frozenset[str] = frozenset()) -> Guard:
    network = settings.network
    # on loopback, sharing an address says nothing
    denied = {address for address in own if not ip_address(address).is_loopback}
    return Guard(network.allow_private, network.allow_service_ports, denied)


def verify_members(
    settings: Settings, state_dir: Path, members: Sequence[PoolMember]
) -> list[PoolMember]:
    """Check members again, now, keep the verdicts, and return those that work.

    Args:
        settings: All settings.
        state_dir: Home of the pool.
        members: Whom to check.

    Raises:
        NoJudgeError: No judge answers a direct request.
        StateError: The pool cannot be written.
    """
    with Pool.open(state_dir, settings.pool) as pool:
        candidates = [
            Candidate(endpoint_of(member.proxy), member.protocols, member.sources)
            for member in members
        ]
        verdicts = run(_verdicts(settings, candidates))
        pool.observe(verdicts, origin="verify")
        passed = {c.endpoint.key: verdict.protocols for c, verdict in verdicts if verdict.working}
        return [
            member
            for member in members
            if member.protocol in passed.get(endpoint_of(member.proxy).key, ())
        ]


def check_in_processes(
    settings: Settings,
    candidates: list[Candidate],
    *,
    workers: int,
    protocol: Protocol | None,
    want: int | None,
    tell: Callable[[Verdict], None],
) -> None:
    """Check candidates in several processes and tell each verdict as it comes; keep nothing.

    It is a refresh job in a directory of its own, so a worker that dies costs no candidate.

    Args:
        settings: All settings.
        candidates: Whom to check; emptied.
        workers: Processes; from 2.
        protocol: Try only this one; None: the ladder decides.
        want: Stop as soon as so many work.
        tell: Gets every verdict once, on this thread.

    Raises:
        NoJudgeError: No judge answers a direct request.
        StateError: No temporary directory can be written.
    """
    with (
        tempfile.TemporaryDirectory(prefix="proxywell-check-") as place,
        RefreshRoom(
            Path(place),
            settings.refresh,
            sink=_Teller(tell),
            kind=local_kind(settings, Path(place), workers=workers, protocol=protocol),
            workers=workers,
            announce=lambda _event: None,
        ) as room,
    ):
        job_id = room.create(candidates, Dossier(workers=workers), want=want)
        candidates.clear()
        room.wait_for(job_id)


class _Teller:
    """A sink that keeps nothing: it tells every verdict once."""

    def __init__(self, tell: Callable[[Verdict], None]) -> None:
        self._tell = tell
        self._told: set[int] = set()

    def record(
        self, job_id: str, epoch: int, verdicts: Iterable[tuple[int, Candidate, Verdict]]
    ) -> None:
        """See ``refresh.ports.VerdictSink``."""
        for item, _, verdict in verdicts:
            if item not in self._told:
                self._told.add(item)
                self._tell(verdict)

    def seal(self, job_id: str, epoch: int) -> PoolChange:
        """See ``refresh.ports.VerdictSink``."""
        return PoolChange()

    def sealed(self, job_id: str, epoch: int) -> PoolChange | None:
        """See ``refresh.ports.VerdictSink``."""
        return None


async def _verdicts(
    settings: Settings, candidates: Sequence[Candidate]
) -> list[tuple[Candidate, Verdict]]:
    async with open_checker(settings) as checker:
        return [pair async for pair in checker.check(candidates)]


def local_kind(
    settings: Settings, state_dir: Path, *, workers: int, protocol: Protocol | None = None
) -> LocalKind:
    """Jobs that are worked on by this process, or by children of it.

    Args:
        settings: All settings; a child is handed those that it needs, and no secret.
        state_dir: Home of the ledger.
        workers: Processes; 1 checks in this one.
        protocol: Try only this one; None: the ladder decides.
    """
    log = settings.log
    without_secrets = structs.replace(settings, redis=RedisSettings())
    return LocalKind(
        state_dir,
        settings.refresh,
        make_checker=partial(open_checker, without_secrets, protocol=protocol),
        workers=workers,
        prepare_child=partial(listen, form=log.format, level=log.level),
    )
