"""A main's caretaker at a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxywell.refresh.engines.caretaker import DEAF_LOOKS, Caretaker
from tests.services.redis_server import RedisServer

QUEUE = "proxywell:broker:proxywell.refresh"
LOOK_S = 0.05


class Ear:
    """A main's hearing, as the test wants it."""

    def __init__(self, *, idle: bool = True, hears: bool = False) -> None:
        self.idle = idle
        self.hears = hears
        self.count = 0
        self.told_deaf = threading.Event()

    def is_idle(self) -> bool:
        return self.idle

    def heard(self) -> int:
        self.count += self.hears
        return self.count

    def deaf(self) -> None:
        self.told_deaf.set()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as made:
        yield made


@contextmanager
def caretaker(server: RedisServer, ear: Ear) -> Iterator[Caretaker]:
    made = Caretaker(
        "host:1:1:x",
        server.address(),
        queue=QUEUE,
        hearing=ear,
        ring=lambda _: None,
        look_s=LOOK_S,
    )
    made.start()
    try:
        yield made
    finally:
        made.stop(5.0)


def test_a_main_that_leaves_messages_lying_while_a_child_is_idle_is_deaf(
    server: RedisServer,
) -> None:
    server.call("LPUSH", QUEUE, "a doorbell")
    with caretaker(server, ear := Ear()):
        assert ear.told_deaf.wait(10.0)


@pytest.mark.parametrize(
    ("ear", "waiting"),
    [(Ear(idle=False), True), (Ear(hears=True), True), (Ear(), False)],
    ids=["busy", "hears", "nothing-waits"],
)
def test_a_main_that_is_busy_or_hears_or_has_nothing_to_hear_is_not_deaf(
    server: RedisServer, ear: Ear, *, waiting: bool
) -> None:
    if waiting:
        server.call("LPUSH", QUEUE, "a doorbell")
    with caretaker(server, ear):
        assert not ear.told_deaf.wait(LOOK_S * DEAF_LOOKS * 6)
