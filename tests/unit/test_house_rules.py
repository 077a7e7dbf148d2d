"""The guard of the unit tests is itself tested: it must really stop whoever tries."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st


def test_a_unit_test_cannot_sleep() -> None:
    with pytest.raises(AssertionError, match=r"time\.sleep"):
        time.sleep(0)


@pytest.mark.parametrize("call", [socket.socket.bind, socket.socket.connect])
def test_a_unit_test_cannot_bind_or_connect(call: Callable[..., None]) -> None:
    with socket.socket() as plain, pytest.raises(AssertionError, match=r"socket\.(bind|connect)"):
        call(plain, ("127.0.0.1", 9))


@given(st.integers())
def test_the_guard_holds_inside_a_property_test(number: int) -> None:
    assert isinstance(number, int)
    with pytest.raises(AssertionError):
        time.sleep(0)


async def test_an_event_loop_may_still_be_used() -> None:
    assert await asyncio.wait_for(asyncio.sleep(0, "done"), 1) == "done"
