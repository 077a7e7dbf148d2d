from __future__ import annotations

from pathlib import Path

import pytest

from proxywell.cli.doctor import Patient, State, source_address_is_ours
from proxywell.config.schema import CheckingSettings, Settings


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
