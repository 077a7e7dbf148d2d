"""From a profile and a seed to every proxy of the fleet: the same ones each time. No I/O."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from proxywell.lab.behaviours import BEHAVIOURS, FRONTS
from proxywell.lab.profile import Profile, Weights
from proxywell.lab.proxy import Behaviour, Proxy
from proxywell.model.endpoint import Protocol
from proxywell.model.verdict import Anonymity

# First two bytes behind 127: where proxies live, and where other exits do. 127.0.0.* is left to
# judges, sites and the checker itself.
PROXY_NETWORKS = range(16, 200)
EXIT_NETWORKS = range(200, 250)
BLACK_HOLE_PORTS = 2
REFUSING_PORTS = 2

_CLIENT, _OTHER = b"%CLIENT%", b"%OTHER%"
_SQUID = (b"Via", b"1.1 gate (squid/5.7)")
_MIKROTIK = (b"Via", b"1.1 10.5.50.1 (Mikrotik HttpProxy)")
_STALE = (b"Cache-Control", b"max-age=259200")
# Which headers transparent proxies add, by weight.
_TRANSPARENT: list[tuple[float, tuple[tuple[bytes, bytes], ...]]] = [
    (50, ((b"Via", b"1.1 gate (squid/5.7)"), (b"X-Forwarded-For", _CLIENT), _STALE)),
    (20, ((b"X-Forwarded-For", _CLIENT),)),
    (15, (_MIKROTIK, (b"X-Proxy-ID", b"1414381542"), (b"X-Forwarded-For", _CLIENT))),
    (3, ((b"Forwarded", b"for=" + _CLIENT),)),
    (3, ((b"X-Real-IP", _CLIENT),)),
    (2, ((b"Client-IP", _CLIENT),)),
]
_HEADER_STYLES = [(80, "kept"), (10, "lower"), (10, "shuffled")]
_ANSWER_STYLES = [(80, "kept"), (8, "via"), (4, "http10"), (4, "rechunked"), (4, "lower")]
_LABELS = {
    "transparent": Anonymity.TRANSPARENT,
    "anonymous": Anonymity.ANONYMOUS,
    "distorting": Anonymity.ANONYMOUS,
    "elite": Anonymity.ELITE,
}
_EXITS_OF_MANY = 4


def build_fleet(profile: Profile, seed: int, *, ipv6: bool = True) -> list[Proxy]:
    """Make every proxy of a profile, in no order that tells anything.

    Args:
        profile: How many of what.
        seed: The same seed makes the same fleet.
        ipv6: Whether ``::1`` can be listened on.

    Returns:
        Proxies without ports yet: each has an address and a slot, the number of one of the
        ``profile.ports`` live ports (of the black holes' or refusing ones' for those).
    """
    builder = _Builder(profile, random.Random(seed))  # noqa: S311 - a simulation's chance
    fleet = [builder.proxy(behaviour) for behaviour in builder.behaviours()]
    left = profile.fleet.ipv6 if ipv6 else 0
    for proxy in fleet:
        fit = proxy.behaviour.group == "working" and not proxy.behaviour.login
        # A checker without an IPv6 judge does not know its own IPv6 address, so it cannot tell
        # that this is what a transparent one gives away.
        if left and fit and proxy.anonymity is not Anonymity.TRANSPARENT:
            proxy.host, proxy.slot = "::1", left
            left -= 1
    return fleet


class _Builder:
    def __init__(self, profile: Profile, draw: random.Random) -> None:
        self._profile = profile
        self._draw = draw
        self._taken: set[tuple[str, str, int]] = set()
        network = draw.choice(PROXY_NETWORKS), draw.randint(0, 255)
        self._crowded = f"127.{network[0]}.{network[1]}"

    def behaviours(self) -> list[Behaviour]:
        """As many behaviours as there are candidates, shuffled."""
        profile = self._profile
        count = profile.fleet.candidates
        working = round(count * profile.fleet.working_share)
        liars = min(round(count * profile.fleet.liar_share), count - working)
        chosen = [
            *self._some(profile.working, working),
            *self._some(profile.liars, liars),
            *self._some(profile.junk, count - working - liars),
        ]
        self._draw.shuffle(chosen)
        return [BEHAVIOURS[name] for name in chosen]

    def _some(self, weights: Weights, count: int) -> Iterator[str]:
        names = [name for name, weight in weights.items() if weight > 0]
        first = names[:count] if self._profile.every_behaviour else []
        yield from first
        if count > len(first):
            yield from self._draw.choices(
                names, [weights[name] for name in names], k=count - len(first)
            )

    def proxy(self, behaviour: Behaviour) -> Proxy:
        """One proxy of this kind."""
        draw = self._draw
        protocols = behaviour.protocols
        if protocols is None:
            protocols = FRONTS[self._pick_name(self._profile.fleet.front)]
        proxy = Proxy(host="", behaviour=behaviour, protocols=protocols)
        proxy.host, proxy.slot = self._place(behaviour, protocols)
        proxy.hint = self._hint(behaviour, protocols)
        proxy.off = draw.choice(("reset", "silent"))
        if behaviour.login:
            proxy.user, proxy.password = f"user{draw.randint(1, 999)}", f"pw{draw.randint(1, 999)}"
        if protocols:
            self._give_speed(proxy)
            proxy.exits = self._exits(proxy)
            self._give_marks(proxy)
        return proxy

    def _pick_name(self, weights: Weights) -> str:
        return self._draw.choices(list(weights), list(weights.values()))[0]

    def _place(self, behaviour: Behaviour, protocols: tuple[Protocol, ...]) -> tuple[str, int]:
        draw = self._draw
        slots = {"black_hole": BLACK_HOLE_PORTS, "refuse": REFUSING_PORTS}
        count = slots.get(behaviour.name, self._profile.ports)
        kind = behaviour.name if behaviour.name in slots else "live"
        crowded = (
            behaviour.group == "working"
            and protocols == (Protocol.SOCKS5,)
            and draw.random() < self._profile.fleet.one_network_share
        )
        while True:  # ends at a free place; a profile asks for far fewer than there are
            if crowded:
                host = f"{self._crowded}.{draw.randint(1, 254)}"
            else:
                host = self._address(PROXY_NETWORKS)
            slot = draw.randrange(count)
            if (host, kind, slot) not in self._taken:
                self._taken.add((host, kind, slot))
                return host, slot
            crowded = crowded and draw.random() > 0.01  # a full network overflows

    def _address(self, networks: range) -> str:
        draw = self._draw
        return (
            f"127.{draw.choice(networks)}.{int(draw.random() * 256)}.{1 + int(draw.random() * 254)}"
        )

    def _hint(self, behaviour: Behaviour, protocols: tuple[Protocol, ...]) -> Protocol:
        draw = self._draw
        if behaviour.name.startswith("socks_"):
            code = behaviour.name.rpartition("_")[2]
            return Protocol.SOCKS4 if code in {"91", "92", "93"} else Protocol.SOCKS5
        if not protocols or draw.random() < self._profile.lists.wrong_hint:
            return draw.choices(
                (Protocol.HTTP, Protocol.CONNECT, Protocol.SOCKS4, Protocol.SOCKS5), (5, 1, 2, 2)
            )[0]
        first = protocols[0]
        return Protocol.SOCKS4 if first is Protocol.SOCKS4A else first

    def _give_speed(self, proxy: Proxy) -> None:
        latency = self._profile.latency
        if latency.median_s <= 0:
            return
        factor = proxy.behaviour.option if proxy.behaviour.name == "slow" else 1.0
        middle = math.log(latency.median_s * factor)
        proxy.latency_mu = self._draw.gauss(middle, latency.sigma_between)
        proxy.latency_sigma = latency.sigma_within
        proxy.latency_cap_s = latency.cap_s

    def _exits(self, proxy: Proxy) -> tuple[str, ...]:
        exits, draw = self._profile.exits, self._draw
        if proxy.behaviour.option == "no_exit":
            return ()
        if proxy.behaviour.option == "many_exits":
            return tuple(self._address(EXIT_NETWORKS) for _ in range(_EXITS_OF_MANY))
        share = {
            Protocol.SOCKS5: exits.other_socks5,
            Protocol.SOCKS4: exits.other_socks4,
            Protocol.SOCKS4A: exits.other_socks4,
        }.get(proxy.protocols[0], exits.other_http)
        if draw.random() >= share:
            return (proxy.host,)
        if draw.random() < exits.same_network:
            network = proxy.host.rpartition(".")[0]
            return (f"{network}.{draw.randint(1, 254)}",)
        elsewhere = share * (1 - exits.same_network)  # the share of those that come here
        count = 2 if draw.random() * elsewhere < exits.rotating else 1
        return tuple(self._address(EXIT_NETWORKS) for _ in range(count))

    def _give_marks(self, proxy: Proxy) -> None:
        if Protocol.HTTP not in proxy.protocols:
            proxy.anonymity = Anonymity.ELITE
            return
        draw, shares = self._draw, self._profile.anonymity
        kind = self._pick_name({name: float(getattr(shares, name)) for name in _LABELS})
        proxy.anonymity = _LABELS[kind]
        if kind == "transparent":
            weights = [weight for weight, _ in _TRANSPARENT]
            proxy.marks = draw.choices([marks for _, marks in _TRANSPARENT], weights)[0]
        elif kind == "distorting":
            proxy.marks = ((b"X-Forwarded-For", _OTHER),)
        elif kind == "anonymous":
            shown = draw.choice((b"unknown", (proxy.exits or (proxy.host,))[0].encode()))
            proxy.marks = (_SQUID, (b"X-Forwarded-For", shown))
        proxy.header_style = _weighted(draw, _HEADER_STYLES)
        proxy.answer_style = _weighted(draw, _ANSWER_STYLES)


def _weighted(draw: random.Random, table: list[tuple[int, str]]) -> str:
    return draw.choices([name for _, name in table], [weight for weight, _ in table])[0]
