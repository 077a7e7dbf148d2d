"""Show remarks on stderr: short lines for people, or one JSON object a line.

Neither ever shows the credentials of a URL or lets a control character through. What other
libraries log at warning or above is shown in the same forms.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from proxywell.model.shown import visible, without_credentials
from proxywell.telemetry.events import Event

OWN_LOGGER: Final = "proxywell"
REPEAT_S: Final = 10.0
_PLAIN_VALUES: Final = (bool, int, float, type(None))


class RemarkHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is now, so that a progress bar can stand below it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a stderr that is gone is no reason to stop the work."""
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except OSError:
            pass
        except Exception:  # noqa: BLE001 - logging's own habit: report, never raise
            self.handleError(record)


class NotAgain(logging.Filter):
    """Lets a warning or error through once in ``REPEAT_S``: many threads meet one full disk."""

    def __init__(self) -> None:
        super().__init__()
        self._shown_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for what a person has just read."""
        if record.levelno < logging.WARNING:
            return True
        now_s = record.created
        self._shown_s = {
            said: at_s for said, at_s in self._shown_s.items() if now_s - at_s < REPEAT_S
        }
        sentence = _sentence(record)
        if sentence in self._shown_s:
            return False
        self._shown_s[sentence] = now_s
        return True


class TextFormatter(logging.Formatter):
    """``12:00:01 A sentence``, with ``[WARNING]`` for what repairs itself, ``[ERROR]`` if not.

    Args:
        tracebacks: Add the traceback of an exception; else only its last line.
    """

    def __init__(self, *, tracebacks: bool = False) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the traceback if it was asked for."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        tone = "" if record.levelno == logging.INFO else f"[{record.levelname}] "
        line = f"{clock} {tone}{_sentence(record)}"
        if record.exc_info is None or record.exc_info[0] is None:
            return line
        if self._tracebacks:
            return f"{line}\n{without_credentials(self.formatException(record.exc_info))}"
        kind, error, _ = record.exc_info
        return f"{line} ({kind.__name__}: {_clean(str(error))})"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339), ``level``, ``event``, ``text``, the facts.

    A record that is no event of ours has the logger's name in ``event``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line; newlines and control characters are escaped as JSON does."""
        import json  # noqa: PLC0415 - only when JSON was asked for

        event = getattr(record, "event", None)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": event.name if isinstance(event, Event) else record.name,
            "text": _sentence(record),
        }
        if isinstance(event, Event):
            line |= {name: _plain(value) for name, value in event.facts().items()}
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["error"] = without_credentials(self.formatException(record.exc_info))
        return json.dumps(line)


def listen(*, form: str, level: str, tracebacks: bool = False) -> None:
    """Show remarks from now on; a second call takes the place of the first.

    Args:
        form: ``text`` or ``json``.
        level: The least important of our own remarks that is shown: ``debug``, ``info``,
            ``warning`` or ``error``. Of other libraries only warnings and errors are.
        tracebacks: In text, show the traceback of a logged exception.
    """
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, RemarkHandler)]:
        root.removeHandler(handler)
    handler = RemarkHandler()
    handler.setFormatter(
        JsonFormatter() if form == "json" else TextFormatter(tracebacks=tracebacks)
    )
    if form != "json":
        handler.addFilter(NotAgain())
    root.addHandler(handler)
    logging.getLogger(OWN_LOGGER).setLevel(level.upper())


def _sentence(record: logging.LogRecord) -> str:
    event = getattr(record, "event", None)
    return _clean(event.sentence() if isinstance(event, Event) else record.getMessage())


def _clean(text: str) -> str:
    return visible(without_credentials(text))


def _plain(value: object) -> object:
    """A fact as JSON has it; whatever JSON has no form for is shown as text, cleaned."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, _PLAIN_VALUES):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {_clean(str(name)): _plain(one) for name, one in value.items()}
    return _clean(str(value))
