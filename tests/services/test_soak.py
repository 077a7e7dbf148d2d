"""Random faults for a while, then none: every job that was begun comes to its end, and balances."""

from __future__ import annotations

import os
import sys
from random import SystemRandom

import pytest

from tests.services.matrix.soak import QUIET_S, soaked
from tests.services.redis_server import needed_binary

SOAK_S = float(os.environ.get("PROXYWELL_SOAK_S") or 300.0)


@pytest.mark.deep
@pytest.mark.timeout(SOAK_S + QUIET_S + 300.0)
def test_after_the_last_fault_every_job_ends() -> None:
    needed_binary()
    seed = int(os.environ.get("PROXYWELL_MATRIX_SEED") or SystemRandom().randrange(1 << 32))
    came = soaked(SOAK_S, seed)
    sys.stdout.write(f"seed {seed}: {came.told()}\n")
    assert not came.wrong, f"seed {seed}: {came.told()}"
    assert came.jobs > 0
    assert came.faults.total() > 0
