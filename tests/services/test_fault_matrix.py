"""Whatever is done to workers, waiters and Redis: every job ends in time, and balances.

``python -m tests.services.matrix`` runs any row by hand, and writes docs/fault-matrix.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from random import SystemRandom

import pytest

from tests.services.matrix.lab import ALIGNED, RANDOM
from tests.services.matrix.runner import ROWS, Run, row_of, run
from tests.services.redis_server import needed_binary

QUICK = [row.name for row in ROWS if row.quick]
AT_ONCE = 3  # a run mostly waits; more would take each other's processor


def seed() -> int:
    """Drawn, unless ``PROXYWELL_MATRIX_SEED`` says which."""
    return int(os.environ.get("PROXYWELL_MATRIX_SEED") or SystemRandom().randrange(1 << 32))


@pytest.fixture(scope="module")
def quick_runs() -> Iterator[dict[str, Future[Run]]]:
    """The quick selection, some at a time."""
    needed_binary()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(run, row_of(name), phase=ALIGNED if at % 2 else RANDOM, seed=seed())
            for at, name in enumerate(QUICK)
        }


@pytest.mark.parametrize("name", QUICK)
def test_a_job_survives(name: str, quick_runs: dict[str, Future[Run]]) -> None:
    came = quick_runs[name].result()
    assert not came.wrong, came.told()


def test_ten_faults_are_in_every_test_run() -> None:
    assert len(QUICK) == 10


@pytest.mark.deep
@pytest.mark.parametrize("phase", [RANDOM, ALIGNED, RANDOM + " again"])
@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_a_job_survives_whenever_it_happens(name: str, phase: str) -> None:
    needed_binary()
    row = row_of(name)
    missing = row.missing()
    if missing is not None:
        pytest.skip(missing)
    came = run(row, phase=phase.partition(" ")[0], seed=seed())
    sys.stdout.write(came.told())
    assert not came.wrong, came.told()


NO_REAPER = "function rules._reap() end"
NO_FENCES = """
    function rules._is_final() return false end
    local beat = rules._beat
    function rules._beat(told, draining)
      local chunk = books.chunk(told.chunk_id)
      told.token = chunk and chunk.token or told.token
      return beat(told, draining)
    end"""


@pytest.mark.deep
@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("child-sigkill", NO_REAPER),
        ("worker-sigkill", NO_REAPER),
        ("main-sigkill", NO_REAPER),
        ("one-of-two-frozen", NO_FENCES),
        ("child-frozen", NO_FENCES),
    ],
)
def test_a_defect_of_the_rules_turns_the_row_red(name: str, defect: str) -> None:
    needed_binary()
    came = run(row_of(name), seed=seed(), defect=defect)
    sys.stdout.write(came.told())
    assert came.wrong, came.told()
