from __future__ import annotations

from pathlib import Path

import pytest

from proxywell.refresh.engines.node import is_gone, node_name


def test_this_process_is_there_and_has_a_new_name_each_time() -> None:
    first, second = node_name(), node_name()
    assert first != second
    assert not is_gone(first)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc; runs on Linux")
def test_a_process_that_ended_or_whose_number_was_used_again_is_gone() -> None:
    place, pid, started, draw = node_name().rsplit(":", 3)
    assert is_gone(f"{place}:{pid}:{int(started) - 1}:{draw}")
    assert is_gone(f"{place}:4194304:{started}:{draw}")


@pytest.mark.parametrize("name", ["elsewhere/1:1:1:ab", "n1", "", ":::", "a:b:c:d"])
def test_nothing_is_claimed_about_other_machines_and_other_names(name: str) -> None:
    assert not is_gone(name)
