"""What is seen of a job on Celery: poison by name, its story, also when Redis is away."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxywell.model.progress import Progress
from proxywell.model.report import GivenUpWhy, Outcome, RefreshReport
from proxywell.refresh.engines.celery import CeleryKind
from proxywell.refresh.report import Dossier
from proxywell.refresh.run import RefreshRoom
from proxywell.refresh.timeline import Moment, Timeline
from tests.network.refresh_fakes import FakePool, Habits, candidates
from tests.services.redis_server import RedisServer
from tests.services.test_worker import main_of
from tests.services.worked import QUICK, children_of, worker

BOUND_S = 90.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as made:
        yield made


def room(server: RedisServer, state: Path) -> RefreshRoom:
    kind = CeleryKind(server.address(), state, configured=True)
    return RefreshRoom(state, QUICK, sink=FakePool(), kind=kind)


def looked_at(state: Path, job_id: str) -> tuple[RefreshReport, Timeline]:
    """As `job show` looks: at what is here, asking nobody."""
    with RefreshRoom(state, QUICK, sink=None) as looking:
        return looking.report(job_id), looking.timeline(job_id)


def by_kind(timeline: Timeline) -> dict[str, Moment]:
    return {moment.what: moment for moment in timeline.moments}


def test_poison_is_named_remembered_and_left_out_by_the_next_job(
    server: RedisServer, tmp_path: Path
) -> None:
    habits = Habits(delay_s=0.02, sockets=50, deadly=frozenset({3}))
    with (
        worker(server, habits, tmp_path / "worker.log"),
        room(server, tmp_path) as refresh,
    ):
        job_id = refresh.create(candidates(24), Dossier(), size=8)
        report = refresh.wait_for(job_id, bound_s=BOUND_S)
        assert report.outcome is Outcome.PARTIAL
        assert report.items.given_up == report.items.given_up_why[GivenUpWhy.POISON] == 1
        assert report.poison == ["socks5://10.0.0.3:1080"]
        again = refresh.wait_for(refresh.create(candidates(24), Dossier(), size=8))
    assert again.outcome is Outcome.COMPLETE
    assert (again.items.checked, again.candidates.refused) == (23, {"poison": 1})
    _, timeline = looked_at(tmp_path, job_id)
    moments = by_kind(timeline)
    assert moments["poison"].count == moments["split"].count == 1
    assert moments["rescued"].count >= 3
    assert timeline.losses[-1].says == "given up"
    assert 0 < sum(share.lost for share in timeline.nodes) <= report.chunks.rescued


def test_the_story_of_a_job_is_told_while_redis_is_away_with_its_age(
    server: RedisServer, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    habits = Habits(delay_s=0.3, sockets=8)
    with worker(server, habits, tmp_path / "worker.log") as process:
        with room(server, tmp_path) as refresh:
            job_id = refresh.create(candidates(400), Dossier(), size=8)
        waiting = threading.Thread(target=wait_a_while, args=(server, tmp_path, job_id, seen))
        waiting.start()
        main = main_of(process.pid)
        end_s = time.monotonic() + 30.0
        while not any(look.chunks_done >= 2 for look in seen) and time.monotonic() < end_s:
            time.sleep(0.05)
        os.kill(children_of(main)[0], signal.SIGKILL)
        waiting.join(BOUND_S)
    assert any(look.nodes == 1 and look.chunks_running for look in seen)
    assert any(look.rescued for look in seen)
    server.kill()
    time.sleep(0.5)
    report, timeline = looked_at(tmp_path, job_id)
    assert report.outcome is None
    assert report.items.checked == sum(share.items for share in timeline.nodes) > 0
    assert timeline.silent_s is not None
    assert timeline.silent_s > 0.4
    assert {share.there for share in timeline.nodes} == {None}, "nobody was asked"
    moments = by_kind(timeline)
    assert [what for what in moments if what in {"created", "dispatched", "claimed"}] == [
        "created", "dispatched", "claimed",
    ]  # fmt: skip
    assert moments["rescued"].count >= 1
    assert moments["claimed"].count == report.chunks.attempts


def wait_a_while(server: RedisServer, state: Path, job_id: str, seen: list[Progress]) -> None:
    with room(server, state) as refresh:
        refresh.wait_for(job_id, bound_s=10.0, close_at_bound=False, show=seen.append)
