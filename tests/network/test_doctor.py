from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxywell.cli.doctor import judges_answer, source_address_is_ours
from proxywell.cli.findings import Patient, State
from proxywell.config.schema import CheckingSettings, JudgeSettings, NetworkSettings, Settings
from proxywell.judge.server import JudgeServer


@pytest.mark.parametrize(
    ("address", "state"),
    [("127.0.0.1", State.WELL), ("203.0.113.1", State.FAILED), ("no address", State.FAILED)],
)
def test_only_an_address_of_this_machine_can_be_connected_from(
    address: str, state: State, tmp_path: Path
) -> None:
    settings = Settings(checking=CheckingSettings(source_address=address))
    (finding,) = source_address_is_ours(Patient(settings, None, tmp_path))
    assert finding.state is state
    assert (finding.remedy is None) == (state is State.WELL)


async def test_a_judge_of_ours_answers_and_one_that_is_gone_does_not(tmp_path: Path) -> None:
    async with JudgeServer() as judge:
        settings = Settings(
            judges=(f"proxywell:{judge.url}",),
            judge=JudgeSettings(public_keys=(judge.public_key,)),
            network=NetworkSettings(allow_private=True),
        )
        patient = Patient(settings, None, tmp_path)
        (here,) = await asyncio.to_thread(lambda: list(judges_answer(patient)))
    (gone,) = await asyncio.to_thread(lambda: list(judges_answer(patient)))
    assert (here.state, gone.state) == (State.WELL, State.FAILED)
    assert "they see us as 127.0.0.1" in here.said
    assert "no judge answers a direct request" in gone.said
