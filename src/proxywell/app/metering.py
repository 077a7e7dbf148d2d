"""Figures for Prometheus, kept over commands and shown in a file when one is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxywell.config.schema import Settings
from proxywell.errors import ProxywellError, SettingsError
from proxywell.refresh.metering import settle
from proxywell.refresh.run import RefreshRoom
from proxywell.telemetry.events import MetricsNotWritten, emit, tapped
from proxywell.telemetry.metrics import Meter

SUFFIX = ".prom"  # what node_exporter's textfile collector reads


@contextmanager
def metered(settings: Settings, state_dir: Path) -> Iterator[None]:
    """Count the remarks of the context, and at its end show them with all jobs that are over.

    Nothing is done unless ``metrics.textfile`` is set. What cannot be written then is remarked
    and stops nothing.

    Raises:
        SettingsError: ``metrics.textfile`` cannot be such a file.
    """
    if settings.metrics.textfile is None:
        yield
        return
    textfile = _textfile(settings.metrics.textfile)
    events = Meter()
    with tapped(events.count_event):
        try:
            yield
        finally:
            try:
                with RefreshRoom(state_dir, settings.refresh, sink=None) as room:
                    settle(room, state_dir, events, textfile)
            except ProxywellError as error:
                emit(MetricsNotWritten(reason=str(error)))


def _textfile(named: str) -> Path:
    path = Path(named).expanduser().absolute()
    if path.suffix != SUFFIX:
        raise SettingsError(
            f"metrics.textfile: {named!r} does not end in {SUFFIX}, and node_exporter reads no "
            "other file"
        )
    if not path.parent.is_dir():
        raise SettingsError(
            f"metrics.textfile: there is no directory {path.parent}; make it, and name it to "
            "node_exporter with --collector.textfile.directory"
        )
    return path
