"""Several processes' worth of jobs write one book of yields at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from proxywell.sources.harvest import Harvest
from proxywell.sources.yields import YieldBook

GOOD = Harvest(read=120, new=20, checked=100, working=10, exits=10)
BAD = Harvest(read=120, new=20, checked=100)


def test_two_jobs_that_end_at_once_lose_nothing(tmp_path: Path) -> None:
    def record(n: int) -> None:
        YieldBook(tmp_path).record({"a": GOOD, f"s{n}": BAD}, now_s=5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(40)))
    known = YieldBook(tmp_path).known()
    assert len(known) == 41
    assert known["a"].rounds == 40
