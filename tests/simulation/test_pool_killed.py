"""A pool whose writer is killed, and one that ten processes read while it is written."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxywell.config.schema import PoolSettings
from proxywell.errors import StateError
from proxywell.pool.pool import Pool
from proxywell.pool.store import FILE_NAME
from tests.pool_makers import SetClock, candidate, endpoint, passed
from tests.simulation.pool_writer import ITEMS

KILLS = 20
READERS = 10
HERE = Path(__file__).parents[2]

READER = """
import sys, time
from pathlib import Path
from proxywell.config.schema import PoolSettings
from proxywell.pool.pool import Pool
from proxywell.pool.selection import MemberFilter
from tests.pool_makers import SetClock
seen, until_s = 0, time.monotonic() + 20
while seen < 300:
    assert time.monotonic() < until_s, f"saw only {seen} of 300"
    with Pool.open(Path(sys.argv[1]), PoolSettings(), SetClock(), read_only=True) as pool:
        members = pool.members()
        assert len(members) >= seen, "a member that was there is gone"
        assert all(member.working for member in members)
        seen = len(members)
"""


def killed_writer(place: Path, first: int, after_s: float) -> list[str]:
    """Start a writer, kill it after a while, and give back what it had said."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.simulation.pool_writer", str(place), str(first)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]  # it is at work
    time.sleep(after_s)
    writer.kill()
    lines += writer.stdout.read().splitlines(keepends=True)
    writer.wait(timeout=10)
    writer.stdout.close()
    return [line.strip() for line in lines if line.endswith("\n")]


def test_nothing_that_was_recorded_or_sealed_is_missing_after_kill_9(tmp_path: Path) -> None:
    draw = random.Random(11)
    first, told, sealed = 0, set[int](), set[int]()
    for _ in range(KILLS):
        for line in killed_writer(tmp_path, first, draw.uniform(0.0, 0.15)):
            word, which = line.split()
            (told if word == "told" else sealed).add(int(which))
        with Pool.open(tmp_path, PoolSettings(), SetClock()) as pool:
            hosts = {member.host for member in pool.members()}
            for job in sealed:
                change = pool.sealed(f"job{job}", 1)
                assert change is not None
                assert (change.added, change.dropped) == (ITEMS // 4, 0)
            for last in told:
                for number in range(last - 9, last + 1):
                    if number % 4 == 0:
                        assert endpoint(number).host in hosts
                    else:
                        assert pool.explain(endpoint(number).key) is not None
            # Who goes on tells the job again from its start, and each item counts once.
            first = max(told) // ITEMS + 1
            pool.record(
                f"job{first - 1}",
                1,
                [
                    (n, who := candidate(n), passed(who.endpoint))
                    for n in range((first - 1) * ITEMS, first * ITEMS, 4)
                ],
            )
            assert all(member.times_checked == 1 for member in pool.members())
            assert pool.seal(f"job{first - 1}", 1).added == ITEMS // 4
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        told.clear()  # proved; the next writer starts behind them
        sealed.clear()
    assert first > KILLS  # the writers did get on


def test_ten_processes_read_while_one_writes(tmp_path: Path) -> None:
    with Pool.open(tmp_path, PoolSettings(), SetClock()) as pool:
        readers = [
            subprocess.Popen([sys.executable, "-c", READER, str(tmp_path)], cwd=HERE)
            for _ in range(READERS)
        ]
        try:
            for job in range(30):
                items = range(job * 10, job * 10 + 10)
                pool.record(f"job{job}", 1, [(n, candidate(n), passed(endpoint(n))) for n in items])
                pool.seal(f"job{job}", 1)
                time.sleep(0.02)
            assert [reader.wait(timeout=60) for reader in readers] == [0] * READERS
        finally:
            for reader in readers:
                reader.kill()
                reader.wait(timeout=10)
        assert len(pool.members()) == 300


def test_ten_processes_that_open_a_new_pool_at_once_all_get_it(tmp_path: Path) -> None:
    opening = (
        "import sys; from pathlib import Path; from tests.pool_makers import *\n"
        "from proxywell.pool.pool import Pool; from proxywell.config.schema import PoolSettings\n"
        "number = int(sys.argv[2])\n"
        "with Pool.open(Path(sys.argv[1]), PoolSettings(), SetClock()) as pool:\n"
        "    pool.record(f'job{number}', 1, [(0, candidate(number), passed(endpoint(number)))])\n"
        "    assert pool.seal(f'job{number}', 1).added == 1\n"
    )
    openers = [
        subprocess.Popen([sys.executable, "-c", opening, str(tmp_path), str(n)], cwd=HERE)
        for n in range(10)
    ]
    assert [opener.wait(timeout=60) for opener in openers] == [0] * 10
    with Pool.open(tmp_path, PoolSettings(), SetClock()) as pool:
        assert len(pool.members()) == 10


def small_disk(disk: Path, *options: str) -> bool:
    """Mount a tmpfs; False where that is not allowed."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(disk)],
        capture_output=True,
        check=False,
        timeout=10,
    )
    return mounted.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small tmpfs, which is Linux")
def test_a_disk_that_really_is_full_gives_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not small_disk(disk, "size=600k"):
        pytest.skip("mounting a small tmpfs is not allowed here (needs root with CAP_SYS_ADMIN)")
    try:
        recorded: set[str] = set()
        with Pool.open(disk, PoolSettings(), SetClock()) as pool:
            with pytest.raises(StateError, match="no space is left") as full:
                fill(pool, recorded)
            assert len(str(full.value).splitlines()) == 1
            assert {member.host for member in pool.members()} == recorded
            assert small_disk(disk, "remount", "size=8m")
            told = [(n, candidate(n), passed(endpoint(n))) for n in range(len(recorded) + 100)]
            pool.record("a", 1, told)
            assert pool.seal("a", 1).added == len(told)
        with Pool.open(disk, PoolSettings(), SetClock()) as pool:
            assert len(pool.members()) == len(told)
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


def fill(pool: Pool, recorded: set[str]) -> None:
    """Record members in parts of twenty until something is raised."""
    for part in range(1_000):
        numbers = range(part * 20, part * 20 + 20)
        pool.record("a", 1, [(n, candidate(n), passed(endpoint(n))) for n in numbers])
        recorded |= {endpoint(n).host for n in numbers}
