"""A process that fills a pool until it is killed, and says what it was told is safe.

Run as ``python -m tests.simulation.pool_writer DIR FIRST``: prints ``told N`` when item N is
recorded and ``sealed N`` when job N is sealed; jobs are numbered from FIRST.
"""

from __future__ import annotations

import sys
from pathlib import Path

from proxywell.config.schema import PoolSettings
from proxywell.pool.pool import Pool
from tests.pool_makers import SetClock, candidate, failed, passed

JOBS_MAX = 10_000
ITEMS = 40


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(place: Path, first: int) -> None:
    with Pool.open(place, PoolSettings(), SetClock()) as pool:
        for job in range(first, first + JOBS_MAX):
            for start in range(0, ITEMS, 10):
                numbers = range(job * ITEMS + start, job * ITEMS + start + 10)
                pool.record(
                    f"job{job}",
                    1,
                    [
                        (n, who := candidate(n), (failed if n % 4 else passed)(who.endpoint))
                        for n in numbers
                    ],
                )
                say(f"told {numbers[-1]}")
            pool.seal(f"job{job}", 1)
            say(f"sealed {job}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
