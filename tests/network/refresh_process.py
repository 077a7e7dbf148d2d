"""A refresh job in a process of its own, to be killed: ``python -m tests.network.refresh_process``.

Arguments: the state directory, candidates, workers, a log for verdicts, sockets, and how long a
lease is. Prints the job's id, works until the end, prints ``end``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from proxywell.config.schema import PoolSettings, RefreshSettings
from proxywell.pool.pool import Pool
from proxywell.refresh.report import Dossier
from tests.network.refresh_fakes import Habits, candidates

SETTINGS = RefreshSettings(lease_s=2.0, beat_s=0.3)
CHUNK = 10


def main(state: str, count: str, *rest: str) -> None:
    workers, log, sockets, lease_s = rest
    habits = Habits(delay_s=0.02, sockets=int(sockets), log=log)
    settings = RefreshSettings(lease_s=float(lease_s), beat_s=SETTINGS.beat_s)
    with (
        Pool.open(Path(state), PoolSettings()) as pool,
        habits.room(Path(state), settings, pool, workers=int(workers)) as room,
    ):
        job_id = room.create(candidates(int(count)), Dossier(), size=CHUNK)
        sys.stdout.write(f"{job_id}\n")
        sys.stdout.flush()
        room.wait_for(job_id)
        sys.stdout.write("end\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
