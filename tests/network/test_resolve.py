"""Names to vetted addresses: rebinding, resolvers that lie, hang or are asked too much."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence

import pytest

from proxywell.model.failure import FailureKind
from proxywell.net.resolve import ADDRESSES_MAX, LOOKUPS_MAX, LookUp, resolve
from tests.network.conftest import Run

NAME = "list.example"
GOOD, BAD = "192.0.2.7", "127.0.0.1"
LIMIT_S, SLACK_S = 0.3, 5.0


def refuse_bad(host: str, _port: int) -> str | None:
    return "private_address" if host == BAD else None


async def ask(
    look_up: LookUp, *, host: str = NAME, limit_s: float = 10.0
) -> tuple[str, ...] | FailureKind:
    deadline_s = asyncio.get_running_loop().time() + limit_s
    return await resolve(host, 80, guard_refusal=refuse_bad, deadline_s=deadline_s, look_up=look_up)


def never(_host: str, _port: int) -> Sequence[str]:
    raise AssertionError("an address was looked up")


def test_an_address_is_vetted_without_being_looked_up(run: Run) -> None:
    assert run(ask(never, host=GOOD)) == (GOOD,)
    assert run(ask(never, host="2001:DB8:0::1")) == ("2001:db8::1",)
    assert run(ask(never, host=BAD)) is FailureKind.ADDRESS_REFUSED


def test_all_addresses_of_a_name_come_back_in_order(run: Run) -> None:
    assert run(ask(lambda _host, _port: (GOOD, "2001:DB8::1"))) == (GOOD, "2001:db8::1")


@pytest.mark.parametrize("found", [(BAD,), (GOOD, BAD), (BAD, GOOD)])
def test_one_refused_address_spoils_the_name(run: Run, found: tuple[str, ...]) -> None:
    assert run(ask(lambda _host, _port: found)) is FailureKind.ADDRESS_REFUSED


def test_a_name_with_very_many_addresses_is_cut(run: Run) -> None:
    found = tuple(f"192.0.2.{number}" for number in range(200))
    assert run(ask(lambda _host, _port: found)) == found[:ADDRESSES_MAX]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_NONAME, "not known"), FailureKind.DNS),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), FailureKind.LOCAL_FAULT),
        (UnicodeError("label too long"), FailureKind.DNS),
        (None, FailureKind.DNS),
    ],
)
def test_a_name_without_an_address_says_whose_fault_it_is(
    run: Run, error: Exception | None, kind: FailureKind
) -> None:
    def look_up(_host: str, _port: int) -> Sequence[str]:
        if error is not None:
            raise error
        return ()

    assert run(ask(look_up)) is kind


def test_the_system_resolves_what_it_knows_and_bad_names_never_raise(run: Run) -> None:
    async def scene(host: str) -> tuple[str, ...] | FailureKind:
        deadline_s = asyncio.get_running_loop().time() + 10
        return await resolve(
            host, 80, guard_refusal=lambda _host, _port: None, deadline_s=deadline_s
        )

    assert set(run(scene("localhost"))) <= {"127.0.0.1", "::1"}
    assert run(scene("x" * 64 + ".localhost")) is FailureKind.DNS


def test_a_resolver_that_hangs_costs_the_deadline_and_does_not_keep_the_loop(run: Run) -> None:
    release = threading.Event()

    def hang(_host: str, _port: int) -> Sequence[str]:
        release.wait(60)
        return (GOOD,)

    began_s = time.monotonic()
    try:
        assert run(ask(hang, limit_s=LIMIT_S)) is FailureKind.LOCAL_FAULT
        assert LIMIT_S * 0.9 <= time.monotonic() - began_s <= LIMIT_S + SLACK_S
    finally:
        release.set()  # the answer comes to a loop that is closed: nobody minds


def test_lookups_that_hang_cannot_pile_up_and_their_places_come_back(run: Run) -> None:
    release = threading.Event()
    running: list[str] = []

    def hang(host: str, _port: int) -> Sequence[str]:
        running.append(host)
        release.wait(60)
        return (GOOD,)

    async def scene() -> None:
        asked = LOOKUPS_MAX + 5
        kinds = await asyncio.gather(*(ask(hang, limit_s=LIMIT_S) for _ in range(asked)))
        assert kinds == [FailureKind.LOCAL_FAULT] * asked
        assert len(running) == LOOKUPS_MAX
        release.set()
        assert await ask(lambda _host, _port: (GOOD,)) == (GOOD,)

    try:
        run(scene())
    finally:
        release.set()
