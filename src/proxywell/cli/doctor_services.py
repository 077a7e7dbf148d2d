"""Checks of what the Celery engine needs: libraries, a Redis and how it is set, workers, jobs.

``redis_in_words`` and ``work_in_words`` make findings of what was seen, without looking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from msgspec import structs

from proxywell.cli.findings import Check, Finding, Patient, State
from proxywell.errors import ProxywellError, SettingsError, StateError

if TYPE_CHECKING:  # they import redis-py, which need not be installed
    from proxywell.orchestrator.place import ServerPlace, ServerState
    from proxywell.orchestrator.survey import OpenJob, ServerFacts, Survey
    from proxywell.refresh.ledgers.redis_address import RedisAddress

INSTALL: Final = "pip install 'proxywell[distributed]'"
PATIENCE_S: Final = 5.0
OLD: Final = (5,)
FULL_SHARE: Final = 0.9
SLOW_MS: Final = 50.0
BEAT_LATE_S: Final = 60.0
UNWATCHED_S: Final = 120.0
_RUNBOOK: Final = "see docs/operating/redis-is-gone.md"


def is_installed() -> bool:
    """Whether the extra is there."""
    return all(find_spec(name) is not None for name in ("celery", "redis"))


def celery_engine_can_run(patient: Patient) -> Iterator[Finding]:
    """The extra is installed where it is needed, and there is a Redis to use or to start."""
    url = patient.settings.redis.url
    if not is_installed():
        if url is None:
            yield Finding(
                "celery engine", State.WELL, "not installed; the local engine needs nothing"
            )
        else:
            yield Finding(
                "celery engine", State.FAILED, "redis.url is set, and celery or redis-py is not "
                "installed", INSTALL,
            )  # fmt: skip
        return
    said = ", ".join(f"{name} {_version(name)}" for name in ("celery", "redis"))
    yield Finding("celery engine", State.WELL, said)
    if url is None:
        yield _private_server()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of no version"


def _private_server() -> Finding:
    from proxywell.orchestrator.server import NoServerError, installed_server

    try:
        program = installed_server()
    except NoServerError as error:
        return _failed("redis", error, State.WEAK)
    return Finding(
        "redis", State.WELL, f"none is set; {program.version} would be started ({program.file})"
    )


def redis_is_well(patient: Patient) -> Iterator[Finding]:
    """The Redis answers, lets us in, is set as a ledger needs it; who works there, what waits."""
    if not is_installed():
        return
    from proxywell.orchestrator.place import ServerPlace, ServerState
    from proxywell.refresh.ledgers.redis_address import RedisAddress

    settings = patient.settings.redis
    if settings.url is not None:
        try:
            address = RedisAddress.of(settings)
        except SettingsError as error:
            yield _failed("redis", error)
            return
        yield from _examined(address)
        return
    place = ServerPlace(patient.state_dir)
    state = place.state()
    if state is ServerState.LOOKED_AFTER:
        yield from _examined(place.address(settings.prefix, settings.answer_s))
    else:
        yield from _left_over(place, state)


def _examined(address: RedisAddress) -> Iterator[Finding]:
    from proxywell.orchestrator.survey import survey

    patient = structs.replace(address, answer_s=min(address.answer_s, PATIENCE_S))
    try:
        found = survey(patient)
    except StateError as error:
        yield _failed("redis", error)
        return
    yield from redis_in_words(address.shown, found)
    yield from work_in_words(found, _version("proxywell"))


def redis_in_words(where: str, found: Survey) -> Iterator[Finding]:
    """What there is to say of a server and its settings."""
    slow = f", {found.answer_ms:.0f} ms an answer"
    if found.server is None:
        yield Finding(
            "redis", State.WEAK, f"{where} works{slow}; it does not say how it is set",
            "allow this user `+info` to have its settings examined",
        )  # fmt: skip
        return
    server = found.server
    said = f"{server.name} {server.version} at {where}{slow}"
    if found.answer_ms > SLOW_MS:
        yield Finding("redis", State.WEAK, said, "every step waits so long; use a nearer one")
    else:
        yield Finding("redis", State.WELL, said)
    yield from _settings_in_words(server)


def _settings_in_words(server: ServerFacts) -> Iterator[Finding]:
    if server.speaks and server.speaks < OLD:
        yield Finding(
            "redis version", State.WEAK, f"{server.version} is older than Redis 5",
            "use 5 or later: before it, scripts that read the clock may not write",
        )  # fmt: skip
    if server.mode != "standalone":
        yield Finding(
            "redis mode", State.FAILED, f"it runs as a {server.mode}",
            "name a single server in redis.url",
        )  # fmt: skip
    if server.role != "master":
        yield Finding(
            "redis role", State.WEAK, "a replica that takes writes, and loses them when its "
            "primary tells it to",
            "name the primary in redis.url",
        )  # fmt: skip
    yield from _memory_in_words(server)
    if server.save_trouble is not None:
        yield Finding(
            "redis disk", State.FAILED, server.save_trouble, "free space there, see its log"
        )
    elif server.keeps_writes:
        yield Finding("redis disk", State.WELL, "every write is kept (appendonly yes)")
    else:
        yield Finding(
            "redis disk", State.WEAK, "appendonly no: a restart loses what workers reported since "
            "the last snapshot, and that is checked again",
            "`redis-cli CONFIG SET appendonly yes`, and in its configuration file",
        )  # fmt: skip


def _memory_in_words(server: ServerFacts) -> Iterator[Finding]:
    limit, used = server.memory_max_bytes, server.memory_used_bytes
    if server.policy is not None and server.policy != "noeviction":
        when = "when it is full" if limit else "once maxmemory is set; it is not now"
        yield Finding(
            "redis policy", State.WEAK, f"{server.policy} throws jobs away {when}",
            "`redis-cli CONFIG SET maxmemory-policy noeviction`, and in its configuration file",
        )  # fmt: skip
    said = f"{used / 2**20:,.0f} MiB used"
    if not limit:
        yield Finding("redis memory", State.WELL, f"{said}, no limit set")
        return
    said += f" of {limit / 2**20:,.0f}"
    if used >= FULL_SHARE * limit:
        yield Finding("redis memory", State.WEAK, said, "raise its maxmemory, or make room in it")
    else:
        yield Finding("redis memory", State.WELL, said)


def work_in_words(found: Survey, ours: str) -> Iterator[Finding]:
    """What there is to say of the workers and the jobs.

    Args:
        found: What was seen.
        ours: The version of this program.
    """
    counts = Counter(told or "an unknown version" for told in found.versions.values())
    if not counts:
        waiting = any(job.ready for job in found.jobs)
        yield Finding(
            "workers", State.WEAK if waiting else State.WELL,
            "none; " + ("chunks wait for one" if waiting else "a refresh starts its own"),
            "run `proxywell worker` here or on another machine" if waiting else None,
        )  # fmt: skip
    else:
        said = ", ".join(f"{count} of {told}" for told, count in sorted(counts.items()))
        others = [main for main, told in found.versions.items() if told not in {None, ours}]
        if others:
            yield Finding(
                "workers", State.WEAK, f"{said}; this is {ours}",
                "run the same version everywhere; another one: "
                + ", ".join(main.partition("/")[0] for main in others[:3]),
            )  # fmt: skip
        else:
            yield Finding("workers", State.WELL, said)
    if found.jobs:
        yield _oldest(found.jobs[0], found)


def _oldest(job: OpenJob, found: Survey) -> Finding:
    said = (
        f"{found.jobs_open}; oldest {job.job_id}, {_age(job.age_s)} old, {job.ready} chunks ready, "
        f"{job.running} running"
    )
    late = max((one.beat_s for one in found.jobs if one.beat_s is not None), default=None)
    if late is not None:
        said += f", oldest beat {_age(late)} ago"
    if job.unwatched_s > UNWATCHED_S:
        return Finding(
            "open jobs", State.WEAK,
            f"{said}; nobody has waited for it for {_age(job.unwatched_s)}",
            f"`proxywell job wait {job.job_id}`, or `proxywell job cancel {job.job_id}`, with the "
            "--state that it was started with",
        )  # fmt: skip
    if late is not None and late > BEAT_LATE_S:
        return Finding(
            "open jobs", State.WEAK, said, "its workers are silent: see their log, restart them"
        )
    return Finding("open jobs", State.WELL, said)


def _age(seconds: float) -> str:
    for limit, unit, size in ((120, "s", 1), (7_200, "min", 60), (172_800, "h", 3_600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _failed(check: str, error: ProxywellError, state: State = State.FAILED) -> Finding:
    """An error's sentence: what is behind its last mark says what to do."""
    text = str(error)
    for mark in ("; ", ": "):
        said, found, remedy = text.rpartition(mark)
        if found:
            return Finding(check, state, said, remedy)
    return Finding(check, state, text, _RUNBOOK)


def _left_over(place: ServerPlace, state: ServerState) -> Iterator[Finding]:
    from proxywell.orchestrator.place import ServerState

    if state is ServerState.ORPHANED:
        yield Finding(
            "services", State.WEAK, "a private server runs that no command looks after",
            f"wait some seconds; if it stays, end the process that `fuser {place.server_lock}` "
            "names",
        )  # fmt: skip
    elif state is ServerState.AT_REST:
        size = f"{place.data_bytes() / 2**20:,.1f} MiB"
        yield Finding(
            "services", State.WELL, f"the private server is at rest, with {size} in {place.data}"
        )
    if place.damaged.exists():
        yield Finding(
            "services", State.WEAK, f"data that a server could not read lies in {place.damaged}",
            "delete it: what was in it was entered anew from the ledger",
        )  # fmt: skip


CHECKS: Final[tuple[Check, ...]] = (celery_engine_can_run, redis_is_well)
