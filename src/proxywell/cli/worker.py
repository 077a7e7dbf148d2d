"""``worker``: a Celery worker for refresh jobs, on this or any further machine."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from proxywell.cli.options import setting_flag, settings_option
from proxywell.config.schema import Settings
from proxywell.errors import UsageError


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(min=1, max=64),
    default=1,
    show_default=True,
    help="Children that check, each with sockets of its own.",
)
@setting_flag("--max-sockets", "checking.max_sockets")
@settings_option
def worker(*, settings: Settings, state_dir: Path, workers: int) -> None:
    """Work on the refresh jobs of a Redis until SIGTERM or Ctrl-C.

    The Redis is the one of `redis.url`: PROXYWELL_REDIS__URL=redis://HOST proxywell worker.
    Run it on as many machines as you like. Ctrl-C gives back what is not finished; a second one
    ends at once. What a job checks with (judges, time-outs) comes with the job.

    Exit status: 0 ended as asked, 1 Redis does not answer or refuses us, 2 wrong use.
    """
    del state_dir  # a worker keeps nothing
    try:
        from proxywell.worker import run_worker
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a worker needs {error.name}, which is not installed; "
            "run: pip install 'proxywell[distributed]'"
        ) from error
    raise SystemExit(run_worker(settings, workers=workers))
