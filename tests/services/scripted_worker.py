"""A real worker process whose checker follows a script: ``Habits`` as JSON in the environment.

``python -m tests.services.scripted_worker`` is ``proxywell worker`` but for the checker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path

from proxywell.config.schema import RedisSettings, RefreshSettings, Settings
from proxywell.config.secret import Secret
from proxywell.errors import ProxywellError
from proxywell.refresh.ports import CandidateChecker
from proxywell.telemetry.remarks import listen
from proxywell.worker import run_worker
from tests.network.refresh_fakes import Habits

ROOT = Path(__file__).parents[2]
_SCRIPT = "PROXYWELL_TEST_WORKER"
_SETS = ("deadly", "raises", "hangs", "spins", "sleeps")


def start(
    url: str,
    habits: Habits,
    *,
    workers: int = 2,
    prefix: str = "proxywell",
    refresh: RefreshSettings | None = None,
    log: Path | None = None,
    before: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start one; the caller ends it, by its pid."""
    given = asdict(habits) | {name: sorted(getattr(habits, name)) for name in _SETS}
    settings = refresh or RefreshSettings()
    script = {
        "url": url,
        "prefix": prefix,
        "workers": workers,
        "habits": given,
        "refresh": {name: getattr(settings, name) for name in settings.__struct_fields__},
    }
    with (log or Path(os.devnull)).open("ab") as out:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "tests.services.scripted_worker"],
            cwd=ROOT,
            env={**os.environ, _SCRIPT: json.dumps(script)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )


def main() -> int:
    script = json.loads(os.environ[_SCRIPT])
    given = script["habits"]
    for name in _SETS:
        given[name] = frozenset(given[name])
    habits = Habits(**given)
    settings = Settings(
        redis=RedisSettings(
            url=Secret(script["url"]), prefix=script["prefix"], allow_plaintext=True
        ),
        refresh=RefreshSettings(**script["refresh"]),
    )
    listen(form="text", level="debug")

    def checker_of(_: Settings) -> AbstractAsyncContextManager[CandidateChecker]:
        return habits.factory()()

    try:
        return run_worker(settings, workers=script["workers"], checker_of=checker_of)
    except ProxywellError as error:
        sys.stderr.write(f"proxywell: {error}\n")
        return error.exit_status


if __name__ == "__main__":
    raise SystemExit(main())
