"""Our own checker, held against the lab's truth: every verdict right, for every kind of proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from proxywell.checking.checker import Checker
from proxywell.checking.inspections import default_inspections
from proxywell.checking.judges import Judges
from proxywell.config.schema import CheckingSettings, JudgeSettings, NetworkSettings, Settings
from proxywell.lab.lab import Lab
from proxywell.lab.profile import load_profile
from proxywell.lab.proxy import Need, Truth
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint
from proxywell.model.verdict import Verdict
from proxywell.net.guard import Guard

# What the checks of today do not look at yet; liars who need it may pass.
NOT_LOOKED_AT = {Need.OTHER_HOST, Need.BAIT, Need.MANY_BAITS}


@asynccontextmanager
async def checker_of(lab: Lab) -> AsyncIterator[Checker]:
    offer, clock, guard = lab.offer, SystemClock(), Guard(allow_private=True)
    settings = Settings(
        checking=CheckingSettings(
            source_address=offer.source_address,
            connect_soft_s=0.5,
            connect_hard_s=2.0,
            answer_soft_s=3.0,
            answer_hard_s=4.0,
        ),
        judge=JudgeSettings(public_keys=(offer.public_key,), ca_file=offer.ca_file),
        network=NetworkSettings(allow_private=True),
    )
    judges = [judge for judge in offer.judges if judge.startswith(("proxywell", "azenv"))]
    async with (
        Judges(
            judges,
            settings.judge,
            settings.network,
            guard,
            clock=clock,
            source_address=offer.source_address,
        ) as panel,
        Checker(
            settings.checking,
            panel=panel,
            guard=guard,
            inspections=default_inspections(settings),
            clock=clock,
        ) as checker,
    ):
        yield checker


def candidate_of(truth: Truth) -> Candidate:
    endpoint = Endpoint(truth.host, truth.port, truth.user, truth.password)
    return Candidate(endpoint, (truth.listed_as,), ("lab",))


def complaints(truth: Truth, verdict: Verdict) -> list[str]:
    """What of a verdict is not the truth."""
    if verdict.working != truth.working:
        return ["working"] if not set(truth.needs) & NOT_LOOKED_AT else []
    if not verdict.working:
        return [] if verdict.failure in truth.failures else [f"failure: {verdict.failure}"]
    wrong = {
        "protocols": set(verdict.protocols) != set(truth.protocols),
        "anonymity": verdict.anonymity is not truth.anonymity,
        "exit_ips": not set(verdict.exit_ips) <= set(truth.exit_ips),
        "https": verdict.https != truth.https,
        "judge": verdict.judge != "signed",
    }
    return [name for name, is_wrong in wrong.items() if is_wrong]


@pytest.mark.parametrize(("name", "candidates"), [("small", 240), ("hostile", 600)])
async def test_every_verdict_is_the_truth(name: str, candidates: int) -> None:
    async with Lab(load_profile(name), 5, candidates=candidates) as lab:
        truths = {(truth.host, truth.port): truth for truth in lab.truths().proxies}
        checked = 0
        wrong = []
        async with checker_of(lab) as checker:
            async for candidate, verdict in checker.check(map(candidate_of, truths.values())):
                truth = truths[candidate.endpoint.host, candidate.endpoint.port]
                checked += 1
                told = complaints(truth, verdict)
                if told:
                    wrong.append((told, truth.behaviour, msgspec.to_builtins(verdict)))
        assert checked == candidates
        assert wrong == []
