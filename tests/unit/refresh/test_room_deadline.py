"""The bound that a job is given when it is planned, from the settings of its room."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxywell.config.schema import RefreshSettings
from proxywell.model.report import DeadlineFigures
from proxywell.refresh.report import Dossier
from proxywell.refresh.run import RefreshRoom
from tests.network.refresh_fakes import candidates


def planned(
    state: Path, chunks: int, settings: RefreshSettings, deadline_s: float | None = None
) -> DeadlineFigures:
    with RefreshRoom(state, settings, sink=None, announce=lambda _event: None) as room:
        job_id = room.create(candidates(chunks), Dossier(), size=1, deadline_s=deadline_s)
        return room.report(job_id).deadline


@pytest.mark.parametrize(
    ("chunks", "floor_s"), [(0, 600), (29, 600), (50, 945), (100, 1_755), (200, 3_375)]
)
def test_a_jobs_floor_follows_its_chunks(tmp_path: Path, chunks: int, floor_s: float) -> None:
    found = planned(tmp_path, chunks, RefreshSettings())
    assert (found.floor_s, found.in_force_s, found.cap_s) == (floor_s, floor_s, 4 * floor_s)


def test_time_per_chunk_workers_and_factor_are_settings(tmp_path: Path) -> None:
    settings = RefreshSettings(
        time_per_chunk_s=400, floor_workers=2, floor_factor=2, floor_min_s=10, cap_factor=3
    )
    assert planned(tmp_path, 5, settings).floor_s == 3 * 400 * 2
    assert planned(tmp_path, 5, settings).cap_s == 3 * 3 * 400 * 2
    assert planned(tmp_path, 0, settings).floor_s == 10


def test_a_callers_deadline_is_the_cap_also_below_the_floor(tmp_path: Path) -> None:
    found = planned(tmp_path, 200, RefreshSettings(), deadline_s=30)
    assert (found.floor_s, found.in_force_s, found.cap_s) == (3_375, 30, 30)
