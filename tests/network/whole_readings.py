"""What tests of whole readings share: a clock that they set, and one call that reads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proxywell.config.schema import NetworkSettings, SourceSettings
from proxywell.net.guard import Guard
from proxywell.sources.catalog import SourceSpec
from proxywell.sources.parse import Form
from proxywell.sources.reader import SourceReader, SourceReading

LIST = b"1.2.3.4:80\n1.2.3.5:80\n"
MANY = b"".join(b"9.%d.%d.1:80\n" % (n >> 8, n & 255) for n in range(2_000))


class SetClock:
    """The wall clock as the test sets it; the monotonic one is real."""

    def __init__(self) -> None:
        self.wall_s = 1_700_000_000.0

    def now_s(self) -> float:
        return self.wall_s

    def monotonic_s(self) -> float:
        return time.monotonic()


def spec_of(place: str, *, form: Form = Form.AUTO, name: str = "") -> SourceSpec:
    return SourceSpec(name or place, place, form=form, named=True, interval_s=0)


async def read(
    specs: Sequence[SourceSpec],
    clock: SetClock,
    cache_dir: Path | None = None,
    *,
    limit_s: float = 20,
    **settings: Any,
) -> SourceReading:
    reader = SourceReader(
        SourceSettings(**settings),
        NetworkSettings(allow_private=True),
        Guard(allow_private=True),
        cache_dir,
        clock,
    )
    return await reader.read(specs, deadline_s=clock.monotonic_s() + limit_s)
