"""One client's connection to one simulated proxy, and what the proxy's surroundings offer."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxywell.lab.channel import Channel
from proxywell.lab.watch import Watch

if TYPE_CHECKING:
    from proxywell.lab.certificates import Authority
    from proxywell.lab.proxy import Proxy

HEAD_MAX_BYTES = 65_536
HELD_MAX_BYTES = 16 * 2**20  # of an answer that is held back to be changed


@dataclass(slots=True)
class Surroundings:
    """What every visit shares.

    Attributes:
        loop, watch: Timers and sockets.
        draw: Chance, seeded.
        names: Host names that simulated proxies can resolve, to loopback IPv4 text.
        judges: Where judges listen, as (host, port).
        authority: Signs certificates for interceptors.
        visits: Open visits, oldest first, with the instant when each is closed at last.
        figures: Counts of what happened, for people.
    """

    loop: asyncio.AbstractEventLoop
    watch: Watch
    draw: random.Random
    authority: Authority
    names: dict[str, str] = field(default_factory=dict)
    judges: set[tuple[str, int]] = field(default_factory=set)
    visits: dict[Visit, float] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """Add one to a figure."""
        self.figures[what] = self.figures.get(what, 0) + 1

    def resolve(self, host: str) -> str | None:
        """The loopback IPv4 address behind a target's host; None for all the world outside."""
        host = self.names.get(host.lower().rstrip("."), host)
        parts = host.split(".")
        if len(parts) == 4 and parts[0] == "127":
            valid = all(part.isdecimal() and int(part) <= 255 for part in parts)
            return host if valid else None
        return None

    def place_of(self, host: str, port: int) -> tuple[str, int]:
        """A target as in ``judges``: its address where it is known, else its name."""
        return self.resolve(host) or host, port


class Visit:
    """Base: does nothing with what arrives, and closes when the client leaves."""

    def __init__(self, around: Surroundings, proxy: Proxy, peer: str) -> None:
        self.around = around
        self.proxy = proxy
        self.peer = peer
        self.opened_s = around.loop.time()
        self.client: Channel  # set by start
        self.takes_s = 0.0

    def start(self, client: Channel) -> None:
        """Begin with an accepted connection."""
        self.client = client
        proxy = self.proxy
        if proxy.latency_mu > -math.inf:
            drawn_s = math.exp(self.around.draw.gauss(proxy.latency_mu, proxy.latency_sigma))
            self.takes_s = min(drawn_s, proxy.latency_cap_s)
        self.begin()

    def begin(self) -> None:
        """Do what comes before the client's first byte."""

    def at(self, share: float, action: Callable[..., Any], *args: Any) -> None:
        """Act when this share of the visit's time to answer has passed since it began."""
        wait_s = self.opened_s + share * self.takes_s - self.around.loop.time()
        if wait_s <= 0:
            action(*args)
        else:
            self.around.loop.call_later(wait_s, action, *args)

    def connected(self, channel: Channel) -> None:
        """See channel.Owner."""

    def received(self, channel: Channel, data: bytes) -> None:
        """See channel.Owner."""

    def ended(self, channel: Channel) -> None:
        """See channel.Owner: the client is gone."""
        self.close()

    def lost(self, channel: Channel) -> None:
        """See channel.Owner."""
        self.close()

    def drained(self, channel: Channel) -> None:
        """See channel.Owner."""

    def close(self) -> None:
        """End everything; works twice."""
        self.client.close()
        self.around.visits.pop(self, None)


class RequestVisit(Visit):
    """Reads one HTTP request head, and hangs up on anything else."""

    def __init__(self, around: Surroundings, proxy: Proxy, peer: str) -> None:
        super().__init__(around, proxy, peer)
        self.got = bytearray()
        self.answered = False

    def received(self, channel: Channel, data: bytes) -> None:
        """See channel.Owner."""
        if self.answered:
            return
        self.got += data
        if not self.got[:1].isalpha() or len(self.got) > HEAD_MAX_BYTES:
            self.answered = True
            self.not_http()
        elif b"\r\n\r\n" in self.got:
            self.answered = True
            self.at(1.0, self.answer, bytes(self.got))

    def not_http(self) -> None:
        """Something else than HTTP came, in ``got``."""
        self.close()

    def answer(self, request: bytes) -> None:
        """Answer a request, which is at least a whole head."""
        raise NotImplementedError
