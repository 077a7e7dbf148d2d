"""What an examination is of and what it finds; the checks are in ``doctor*.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from proxywell.config.schema import Settings


class State(StrEnum):
    """How a check ended."""

    WELL = "well"
    WEAK = "weak"  # it works, with a limit worth knowing
    FAILED = "failed"


class Finding(Struct, frozen=True):
    """What one check found.

    Attributes:
        check: What was examined.
        state: How it ended.
        said: What was found, with figures.
        remedy: What to do; None when there is nothing to do.
    """

    check: str
    state: State
    said: str
    remedy: str | None = None


class Patient(Struct, frozen=True):
    """What is examined.

    Attributes:
        settings: As loaded, or the defaults where they could not be.
        settings_error: Why they could not be loaded.
        state_dir: Where state lives; it may not exist.
    """

    settings: Settings
    settings_error: str | None
    state_dir: Path


Check = Callable[[Patient], Iterator[Finding]]
