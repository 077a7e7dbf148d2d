"""One lab for all, and one pool that was filled from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.command import Done, Home, listed, settings_for
from tests.network.lab_client import Served, serving


@dataclass(frozen=True)
class Filled:
    """A home whose pool was filled by one refresh, and what that refresh said."""

    home: Home
    refresh: Done


@pytest.fixture(scope="session")
def lab() -> Iterator[Served]:
    with serving("--profile", "small", "--seed", "11", "--seconds", "1200") as served:
        yield served


@pytest.fixture(scope="session")
def _filled(lab: Served, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    home = Home(tmp_path_factory.mktemp("filled"), settings_for(lab))
    return Filled(home, home.run("refresh", "--output", "json"))


@pytest.fixture(scope="session")
def refreshed(_filled: Filled) -> Filled:
    """Only to be looked at."""
    return _filled


@pytest.fixture
def filled(_filled: Filled, tmp_path: Path) -> Home:
    """A copy that a test may change."""
    directory = tmp_path / "copy"
    shutil.copytree(_filled.home.directory, directory)
    return Home(directory, (directory / "proxywell.toml").read_text())


@pytest.fixture
def home(lab: Served, tmp_path: Path) -> Home:
    """A user who has done nothing yet."""
    return Home(tmp_path, settings_for(lab))


@pytest.fixture
def short_list(lab: Served, home: Home) -> str:
    """A list that is checked within a second: seven that work, three that do not."""
    working = [lab.all_of(name)[0] for name in ("http", "connect", "socks4", "socks5", "mixed")]
    working += lab.all_of("http_connect")[:2]
    return home.write("short.txt", listed([*working, *lab.all_of("refuse")[:3]]))
