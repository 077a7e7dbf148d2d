"""Unit tests use no network and never sleep: whoever tries is stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

_FORBIDDEN = frozenset(
    f"socket.{call}"
    for call in ("bind", "connect", "getaddrinfo", "gethostbyname", "sendmsg", "sendto")
)
_watching = False


def _stop(event: str, _arguments: tuple[object, ...]) -> None:
    if _watching and event in _FORBIDDEN:
        raise AssertionError(f"a unit test called {event}; it belongs in tests/network")


def _no_sleep(seconds: float) -> None:
    raise AssertionError(f"a unit test called time.sleep({seconds}); hand it a simulated clock")


sys.addaudithook(_stop)  # sees calls from C too; it stays for good, so it has a switch


@pytest.fixture(autouse=True)
def _no_network_and_no_sleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    global _watching  # noqa: PLW0603 - the hook's switch
    monkeypatch.setattr(time, "sleep", _no_sleep)
    _watching = True
    try:
        yield
    finally:
        _watching = False
