from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxywell.refresh.engines.node import is_gone, node_name, process_of, version_of


def test_this_process_is_there_and_has_a_new_name_each_time() -> None:
    first, second = node_name(), node_name()
    assert first != second
    assert not is_gone(first)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc; runs on Linux")
def test_a_process_that_ended_or_whose_number_was_used_again_is_gone() -> None:
    place, pid, started, draw = node_name().rsplit(":", 3)
    assert is_gone(f"{place}:{pid}:{int(started) - 1}:{draw}")
    assert is_gone(f"{place}:4194304:{started}:{draw}")


def test_a_main_says_its_version_if_it_is_asked_to() -> None:
    assert version_of(node_name("1.2.3")) == "1.2.3"
    assert version_of(node_name("1.0rc1-dev")) == "1.0rc1-dev"
    assert version_of(node_name()) is None
    assert version_of("no name of ours") is None


def test_the_process_of_a_main_is_known_on_its_own_machine_alone() -> None:
    assert process_of(node_name("1.2.3")) == os.getpid()
    assert process_of("elsewhere/1:77:1:ab") is None
    assert process_of("") is None


@pytest.mark.parametrize("name", ["elsewhere/1:1:1:ab", "n1", "", ":::", "a:b:c:d"])
def test_nothing_is_claimed_about_other_machines_and_other_names(name: str) -> None:
    assert not is_gone(name)
