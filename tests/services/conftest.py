"""State directories that must be left without a process, and commands that use them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.commands import Command, processes_of
from tests.services.redis_server import needed_binary
from tests.services.test_orchestrator_children import until


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory; at the end no process may have anything to do with it."""
    needed_binary()
    directory = tmp_path / "state"
    directory.mkdir()
    yield directory
    left = processes_of(directory)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == {}


@pytest.fixture
def command(state: Path) -> Iterator[type[Command]]:
    made: list[Command] = []

    class Ours(Command):
        def __init__(self, state: Path, *more: str) -> None:
            super().__init__(state, *more)
            made.append(self)

    yield Ours
    for one in made:
        if one.process.returncode is None:
            one.end(signal.SIGKILL)
    until(lambda: not processes_of(state))
