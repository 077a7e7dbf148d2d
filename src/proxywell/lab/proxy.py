"""One simulated proxy: what it is made of, and the truth about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import Anonymity

if TYPE_CHECKING:
    from proxywell.lab.visit import Visit


class Need(StrEnum):
    """What a check must do to see through a liar; a check that does not cannot know."""

    SIGNED_JUDGE = "signed_judge"  # an unsigned judge's page can be made up
    SECOND_REQUEST = "second_request"  # it behaves once
    SECOND_JUDGE = "second_judge"  # it lets one judge through
    OTHER_HOST = "other_host"  # it lets all judges through, and nothing else
    HTTPS_JUDGE = "https_judge"  # it lies only inside TLS
    BAIT = "bait"  # it changes pages or files, not a judge's answer
    MANY_BAITS = "many_baits"  # it does so now and then


class Behaviour(Struct, frozen=True, kw_only=True):
    """A kind of proxy, with what is true of every proxy of the kind.

    Attributes:
        name: As profiles and truth files call it.
        group: ``working``, ``liars`` or ``junk``.
        visit: What handles one connection; None if no connection ever stands.
        protocols: What it speaks; None if the fleet draws that from ``[fleet] front``.
        failures: What a check may rightly report; empty for working ones.
        needs: What a check must do to notice; empty if any request shows it.
        tampering: Class of the change, in the words of the bait checks.
        intercepts_tls: It shows a certificate of its own inside TLS.
        login: Clients must log in.
        option: Meaning is the visit's.
    """

    name: str
    group: str
    visit: Callable[..., Visit] | None
    protocols: tuple[Protocol, ...] | None = ()
    failures: tuple[FailureKind, ...] = ()
    needs: tuple[Need, ...] = ()
    tampering: str | None = None
    intercepts_tls: bool = False
    login: bool = False
    option: Any = None


@dataclass(slots=True, kw_only=True)
class Proxy:
    """One endpoint of the fleet.

    Attributes:
        host, port: Where it listens; unique together. The port is set when it is placed.
        slot: Which of the lab's ports of its kind it gets.
        behaviour: Its kind.
        protocols: What it speaks.
        hint: The protocol under which lists publish it.
        exits: Addresses that it connects from, in turn; empty if it never does.
        anonymity: What an HTTP judge sees of the client, by our labels.
        marks: Headers that it adds to forwarded requests; ``%CLIENT%`` is the client's
            address, ``%OTHER%`` a made-up one.
        header_style: ``kept``, ``lower`` or ``shuffled``: what it does to request headers.
        answer_style: ``kept``, ``via``, ``http10``, ``rechunked`` or ``lower``: harmless
            changes to answers.
        latency_mu: Mean of ln of its time to answer in seconds; minus infinity: at once.
        latency_sigma: Standard deviation of the same between requests.
        latency_cap_s: It never takes longer.
        user, password: The login that it demands; None if it demands none.
        off: How it behaves while it is off: ``reset`` or ``silent``.
        memory: What it remembers between connections.
    """

    host: str
    behaviour: Behaviour
    slot: int = 0
    port: int = 0
    protocols: tuple[Protocol, ...] = ()
    hint: Protocol = Protocol.HTTP
    exits: tuple[str, ...] = ()
    anonymity: Anonymity | None = None
    marks: tuple[tuple[bytes, bytes], ...] = ()
    header_style: str = "kept"
    answer_style: str = "kept"
    latency_mu: float = -math.inf
    latency_sigma: float = 0.0
    latency_cap_s: float = 60.0
    user: str | None = None
    password: str | None = None
    off: str = "reset"
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def netloc(self) -> str:
        """``host:port``, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Truth(Struct, frozen=True, kw_only=True):
    """What an ideal checker would find out about one proxy.

    Attributes:
        host, port, user, password: The endpoint, with the login that it demands, if any.
        behaviour, group: Its kind.
        listed_as: The protocol under which lists publish it.
        working: Whether it may be called working by our rules while it is on.
        on: Whether it is on at this instant (churn); what is off does not work.
        protocols: All that it speaks truly.
        exit_ip, exit_ips: Where its requests come from, first and all; null for those that
            never connect on.
        anonymity: Level of a working one; of a liar that forwards requests too.
        https: It tunnels TLS untouched; null for what does not work.
        failures: FailureKinds that are a right answer for it; empty for working ones.
        blame: ``proxy`` for everything that does not work, else null.
        tampering: Class of the change, or null.
        intercepts_tls: It shows certificates of its own.
        needs: What a check must do to notice a liar.
    """

    host: str
    port: int
    user: str | None
    password: str | None
    behaviour: str
    group: str
    listed_as: Protocol
    working: bool
    on: bool
    protocols: tuple[Protocol, ...]
    exit_ip: str | None
    exit_ips: tuple[str, ...]
    anonymity: Anonymity | None
    https: bool | None
    failures: tuple[FailureKind, ...]
    blame: str | None
    tampering: str | None
    intercepts_tls: bool
    needs: tuple[Need, ...]


_TUNNELS = {Protocol.CONNECT, Protocol.SOCKS4, Protocol.SOCKS4A, Protocol.SOCKS5}
_WHILE_OFF = {
    "reset": (FailureKind.RESET, FailureKind.EOF_EARLY),
    "silent": (FailureKind.HANDSHAKE_TIMEOUT, FailureKind.ANSWER_TIMEOUT),
}


def truth_of(proxy: Proxy, *, on: bool = True) -> Truth:
    """Say what is true of a proxy that is on or off right now."""
    behaviour = proxy.behaviour
    working = behaviour.group == "working" and on
    return Truth(
        host=proxy.host,
        port=proxy.port,
        user=proxy.user,
        password=proxy.password,
        behaviour=behaviour.name,
        group=behaviour.group,
        listed_as=proxy.hint,
        working=working,
        on=on,
        protocols=proxy.protocols,
        exit_ip=proxy.exits[0] if proxy.exits else None,
        exit_ips=proxy.exits,
        anonymity=proxy.anonymity,
        https=any(protocol in _TUNNELS for protocol in proxy.protocols) if working else None,
        failures=() if working else behaviour.failures if on else _WHILE_OFF[proxy.off],
        blame=None if working else "proxy",
        tampering=behaviour.tampering,
        intercepts_tls=behaviour.intercepts_tls,
        needs=behaviour.needs,
    )
