from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proxywell.errors import StateError
from proxywell.refresh.intents import Intents


def test_an_intent_is_found_until_it_is_dropped_and_only_its_owner_may_read_it(
    tmp_path: Path,
) -> None:
    intents = Intents(tmp_path)
    intents.keep("20260101-000000-abcdef", b"first")
    intents.keep("20260101-000000-abcdef", b"second")
    assert Intents(tmp_path).find("20260101-000000-abcdef") == b"second"
    [file] = (tmp_path / "begun").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    intents.drop("20260101-000000-abcdef")
    intents.drop("20260101-000000-abcdef")
    assert intents.find("20260101-000000-abcdef") is None


def test_an_id_that_is_a_path_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes(b"not an intent")
    assert Intents(tmp_path).find("../secret") is None


def test_an_intent_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "begun").write_text("in the way")
    with pytest.raises(StateError, match="cannot be written"):
        Intents(tmp_path).keep("20260101-000000-abcdef", b"x")
