"""The whole checking room against the simulated internet, compared with its truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import pytest

from proxywell.checking.checker import Checker, CheckerFigures
from proxywell.checking.inspections import default_inspections
from proxywell.checking.judges import Judges
from proxywell.config.schema import CheckingSettings, JudgeSettings, NetworkSettings, Settings
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.verdict import Verdict
from proxywell.net.guard import Guard
from tests.network.lab_client import Served, Truth, serving

CANDIDATES = 1_500
Backend: TypeAlias = Literal["auto", "epoll", "selectors"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Served]:
    with serving("--profile", "realistic", "--candidates", str(CANDIDATES)) as served:
        yield served


async def check_all(
    lab: Served, *, backend: Backend, hinted: bool
) -> tuple[list[tuple[Truth, Verdict]], CheckerFigures]:
    offer = lab.offer
    settings = Settings(
        judges=tuple(judge for judge in offer["judges"] if judge.startswith("proxywell:")),
        network=NetworkSettings(allow_private=True),
        judge=JudgeSettings(public_keys=(offer["public_key"],), ca_file=offer["ca_file"]),
        checking=CheckingSettings(
            connect_soft_s=1.5,
            connect_hard_s=2.0,
            answer_soft_s=2.0,
            answer_hard_s=5.0,
            backend=backend,
            source_address=offer["source_address"],
        ),
    )
    truths = {
        Candidate(
            Endpoint(truth["host"], truth["port"], truth["user"], truth["password"]),
            (Protocol(truth["listed_as"]),) if hinted else (),
        ): truth
        for truth in lab.proxies
    }
    guard = Guard(allow_private=True)
    async with (
        Judges(
            settings.judges,
            settings.judge,
            settings.network,
            guard,
            source_address=offer["source_address"],
        ) as panel,
        Checker(
            settings.checking,
            panel=panel,
            guard=guard,
            inspections=default_inspections(settings),
            clock=SystemClock(),
        ) as checking,
    ):
        found = [(truths[one], verdict) async for one, verdict in checking.check(truths)]
        return found, checking.figures()


@pytest.mark.parametrize(("backend", "hinted"), [("epoll", True), ("selectors", False)])
async def test_a_realistic_fleet_is_told_as_it_is_with_few_connections(
    lab: Served, backend: Backend, hinted: bool
) -> None:
    found, figures = await check_all(lab, backend=backend, hinted=hinted)
    assert len(found) == CANDIDATES
    missed = [truth for truth, verdict in found if truth["working"] and not verdict.working]
    assert missed == []
    junk = [
        truth["behaviour"]
        for truth, verdict in found
        if truth["group"] == "junk" and verdict.working
    ]
    assert junk == []
    for truth, verdict in found:
        if truth["working"]:
            assert set(verdict.protocols) == set(truth["protocols"]), truth
            assert verdict.exit_ip in truth["exit_ips"], truth
            assert verdict.anonymity == truth["anonymity"], truth
            assert verdict.https == truth["https"], truth
        elif not verdict.working:
            assert verdict.failure in truth["failures"], (truth, verdict)
    assert figures.patient_checks == 0, "there is a socket for everybody"
    assert figures.connections_stage_1 <= 1.45 * CANDIDATES
    assert figures.faults == figures.local_faults == 0
