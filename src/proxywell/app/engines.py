"""Which engine carries a job: the local one, or Celery on a Redis that is found or brought up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxywell.app.checkers import local_kind
from proxywell.config.schema import Settings
from proxywell.errors import UsageError
from proxywell.refresh.engines.local import LocalKind
from proxywell.refresh.ports import EngineKind

LOCAL, CELERY = "local", "celery"


@contextmanager
def engine_kind(
    engine: str, settings: Settings, state_dir: Path, *, workers: int
) -> Iterator[EngineKind]:
    """What carries jobs, ready for work, for the time of the context.

    Args:
        engine: ``local`` or ``celery``.
        settings: As the job wants them.
        state_dir: The state directory; it exists and can be written.
        workers: Processes that check; for Celery they are started where nobody else works.

    Raises:
        UsageError: Celery is not installed.
        ProxywellError: There is no Redis, or it refuses us.
    """
    if engine == LOCAL:
        yield local_kind(settings, state_dir, workers=workers)
        return
    from proxywell.orchestrator.services import must_be_installed, running  # noqa: PLC0415

    must_be_installed()
    from proxywell.refresh.engines.celery import CeleryKind  # noqa: PLC0415

    with running(settings, state_dir, workers=workers) as services:
        yield CeleryKind(
            services.address,
            state_dir,
            configured=settings.redis.url is not None,
            failure=services.failure,
        )


def engine_that_goes_on(settings: Settings, state_dir: Path) -> EngineKind:
    """Celery where others carry a job on when this process has ended.

    Raises:
        UsageError: Nobody does.
        StateError: The Redis does not answer, or refuses us.
    """
    from proxywell.orchestrator.services import must_be_installed  # noqa: PLC0415

    must_be_installed()
    from proxywell.refresh.engines.celery import CeleryKind  # noqa: PLC0415
    from proxywell.refresh.ledgers.redis import open_redis_ledger  # noqa: PLC0415
    from proxywell.refresh.ledgers.redis_address import RedisAddress  # noqa: PLC0415

    advice = "or use --want N to stop as soon as N work"
    if settings.redis.url is None:
        raise UsageError(
            "--wait usable: Redis and workers would end with this command; set redis.url and run "
            f"`proxywell worker`, {advice}"
        )
    address = RedisAddress.of(settings.redis)
    ledger = open_redis_ledger(address)
    try:
        if not ledger.nodes(""):
            raise UsageError(
                f"--wait usable: nobody works at {address.shown}, so the job would end with this "
                f"command; run `proxywell worker` there, {advice}"
            )
    finally:
        ledger.close()
    return CeleryKind(address, state_dir, configured=True)


def engine_at_rest(engine: str, settings: Settings, state_dir: Path) -> EngineKind:
    """What is needed to name a job or to end it: nothing is started, nobody is asked yet.

    Raises:
        UsageError: Celery is not installed.
    """
    if engine == LOCAL:
        return LocalKind(state_dir, settings.refresh)
    from proxywell.orchestrator.place import ServerPlace  # noqa: PLC0415
    from proxywell.orchestrator.services import must_be_installed  # noqa: PLC0415

    must_be_installed()
    from proxywell.refresh.engines.celery import CeleryKind  # noqa: PLC0415
    from proxywell.refresh.ledgers.redis_address import RedisAddress  # noqa: PLC0415

    redis = settings.redis
    if redis.url is not None:
        return CeleryKind(RedisAddress.of(redis), state_dir, configured=True)
    place = ServerPlace(state_dir)
    address = place.address(redis.prefix, redis.answer_s)
    return CeleryKind(address, state_dir, configured=False)
