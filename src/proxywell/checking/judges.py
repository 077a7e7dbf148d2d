"""All judges of one checker: their health, their turn, and our own addresses as they see them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from proxywell.checking.control import ControlLine
from proxywell.checking.exit_ip import canonical_ip
from proxywell.checking.judge import Judge, JudgeKind, JudgeSpec, Request, parse_judge
from proxywell.checking.watched_judge import TIMEOUT_S, WatchedJudge
from proxywell.checking.wire import Verifier
from proxywell.config.schema import JudgeSettings, NetworkSettings
from proxywell.errors import NoJudgeError, SettingsError, UsageError
from proxywell.model.clock import Clock, SystemClock
from proxywell.net.guard import Guard
from proxywell.net.local import outgoing_addresses

# Asked when the user names none. Every verdict then says ``unsigned``.
PUBLIC_JUDGES = (
    "azenv:http://azenv.net/",
    "azenv:http://httpheader.net/azenv.php",
    "azenv:http://mojeip.net.pl/asdfa/azenv.php",
    "azenv:http://www.proxy-listen.de/azenv.php",
    "httpbin:http://httpbin.org/get?show_env=1",
    "httpbin:https://httpbin.org/get?show_env=1",
    "ip:https://api.ipify.org/",
)
_AGAIN_S = 0.5  # a judge in doubt is asked again this soon
_UNWELL_S = 2.0  # and so often when none is well, since all checks wait for it
_DOUBT_MIN_S = 1.0  # between rounds, however often judges are doubted
_FRESH_S = 2.0  # an answer this recent proves a judge well
_ADDRESSES_EVERY_S = 600.0
_ADDRESSES_KEPT_S = 3_600.0
_IDLE_ROUNDS = 6  # without a request for so many rounds, judges are left in peace


class Judges:
    """Implements ``ports.Panel``; an asynchronous context manager, or ``start`` and ``close``.

    Signed judges come first, public ones when no signed one is well (or as the other judge of
    a second request). Those that are equal take turns. A judge without an IPv4 address is for
    proxies that reach only IPv6, unless there is no other.

    Own addresses are those from which judges see us directly (asked at the start and every ten
    minutes, over IPv4 and IPv6), those of this machine that face the world, and
    ``network.own_addresses``. Loopback is never among those of the machine: a judge on
    loopback sees the source address of our direct request, ``source_address`` if one is given
    and 127.0.0.1 if not. In the latter case proxies that leave from 127.0.0.1 as well cannot
    be told from ourselves and are called ``not_a_proxy``; ``source_address="127.0.0.2"``
    keeps the two apart, see ``loopback_source``.
    """

    def __init__(
        self,
        specs: Sequence[str],
        settings: JudgeSettings,
        network: NetworkSettings,
        guard: Guard,
        *,
        clock: Clock | None = None,
        source_address: str | None = None,
        answer_max_bytes: int = 16_384,
    ) -> None:
        """Take the judges' names; nothing is asked yet.

        Args:
            specs: ``KIND:URL`` each; empty: ``PUBLIC_JUDGES``.
            settings: How judges are asked and believed.
            network: Our own addresses.
            guard: Says which addresses may be dialled.
            clock: None: the machine's.
            source_address: Local address to connect from; None: the system's choice.
            answer_max_bytes: Longest body of a judge's answer that is read.

        Raises:
            UsageError: A judge is misspelt, its address is refused, or none is plain http
                (which stage 1 needs).
            SettingsError: A public key, the file of certificates or an own address is none.
        """
        self._settings = settings
        self._clock = clock or SystemClock()
        parsed = [parse_judge(spec) for spec in dict.fromkeys(specs or PUBLIC_JUDGES)]
        try:
            verifier = Verifier(settings.public_keys)
        except ValueError as error:
            raise SettingsError(f"judge.public_keys: {error}") from error
        for spec in parsed:
            _refuse_literal(spec, guard)
        if all(spec.secure for spec in parsed):
            raise UsageError(
                f"no judge is plain http ({', '.join(spec.name for spec in parsed)}); "
                "checking starts without TLS, so name an http one as well"
            )
        self._context = _https_context(parsed, settings)
        line = ControlLine(
            guard.refusal, source_address, self._context, answer_max_bytes, TIMEOUT_S
        )
        self._watched = [
            WatchedJudge(
                self._judge(spec, verifier),
                line=line,
                clock=self._clock,
                public_rate_per_s=settings.public_rate_per_s,
                saw=self._saw,
            )
            for spec in parsed
        ]
        self._given_addresses = _own_addresses(network)
        self._seen_at_s: dict[str, float] = {}
        self._addresses_due_s = 0.0
        self._own: frozenset[str] = frozenset()
        self._turn = 0
        self._used_at_s = 0.0
        self._latency_s: float | None = None
        self._doubted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start, within the time of two direct requests."""
        await self.start(self._clock.monotonic_s() + 2 * TIMEOUT_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop asking."""
        await self.close()

    async def start(self, deadline_s: float) -> None:
        """Ask every judge directly, learn what it sees, and go on asking while it is used.

        Args:
            deadline_s: Monotonic instant by which this returns or raises.

        Raises:
            NoJudgeError: No plain judge answers; names each and what it said.
        """
        patience_s = max(0.1, deadline_s - self._clock.monotonic_s())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await asyncio.gather(*(one.meet() for one in self._watched))
        self._gather_own_addresses()
        if not any(one.health.well for one in self._watched if not one.judge.spec.secure):
            await self.close()
            raise NoJudgeError(
                "no judge answers a direct request: "
                + "; ".join(f"{one.name} said: {one.said}" for one in self._watched)
                + ". Name one that does with --judge KIND:URL, or start your own "
                "(proxywell judge serve)"
            )
        self._keeper = asyncio.create_task(self._keep_asking())

    async def close(self) -> None:
        """Stop asking. Works twice, and before the start."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in self._watched))

    @property
    def own_addresses(self) -> frozenset[str]:
        """Canonical addresses that are ours; empty if not known."""
        return self._own

    @property
    def https_context(self) -> ssl.SSLContext | None:
        """What verifies an https judge's certificate; None when no judge speaks https."""
        return self._context

    def request(
        self, *, avoid: str | None = None, https: bool = False, ipv6: bool = False
    ) -> Request | None:
        """A fresh request to a judge that is well; see ``ports.Panel``."""
        now_s = self._clock.monotonic_s()
        self._used_at_s = now_s
        self._turn += 1
        well = [b for b in self._watched if b.health.well and b.judge.spec.secure is https]
        fitting = [one for one in well if one.is_reached_by(ipv6=ipv6)]
        if not fitting and not ipv6:
            fitting = well  # better a judge that few proxies reach than none
        if len(fitting) > 1:
            turn = self._turn % len(fitting)
            fitting = fitting[turn:] + fitting[:turn]
            fitting.sort(key=lambda one: (one.name == avoid, one.judge.verifier is None))
        for one in fitting:
            if one.bucket is None or one.bucket.take(now_s):
                return one.judge.request()
        return None

    def unwell_since_s(self) -> float | None:
        """Monotonic instant since when no plain judge answers; None while one does."""
        plain = [one for one in self._watched if not one.judge.spec.secure]
        if any(one.health.well for one in plain):
            return None
        return max((one.health.failing_since_s or 0.0) for one in plain)

    def well_at_s(self) -> float | None:
        """Monotonic instant of the last direct request that a plain judge answered."""
        return max(
            (
                one.health.well_at_s
                for one in self._watched
                if one.health.well_at_s is not None and not one.judge.spec.secure
            ),
            default=None,
        )

    def control_latency_s(self) -> float | None:
        """How long the latest direct request took, whole answer included; None if unknown."""
        return self._latency_s

    def doubt(self) -> None:
        """Ask for direct requests soon; at most one round a second comes of it."""
        self._doubted.set()

    async def still_well(self, judge: str) -> bool:
        """Whether the judge answers us directly now; a public one: or did within two seconds.

        What it answered before says nothing: it may have died since.
        """
        one = next((one for one in self._watched if one.name == judge), None)
        if one is None:
            return False
        well_at_s = one.health.well_at_s
        fresh_s = 0.0 if one.bucket is None else _FRESH_S  # a public one is asked sparingly
        if well_at_s is None or self._clock.monotonic_s() - well_at_s >= fresh_s:
            await one.ask()
        return one.health.well and not one.health.in_doubt

    def _judge(self, spec: JudgeSpec, verifier: Verifier) -> Judge:
        signs = spec.kind is JudgeKind.PROXYWELL and bool(verifier.keys)
        return Judge(
            spec,
            verifier=verifier if signs else None,
            clock_skew_s=self._settings.clock_skew_s,
            own_addresses=lambda: self._own,
        )

    def _saw(self, own_ip: str, latency_s: float) -> None:
        self._latency_s = latency_s
        if own_ip:
            self._seen_at_s[own_ip] = self._clock.monotonic_s()
            self._own |= {own_ip}

    def _gather_own_addresses(self) -> None:
        oldest_s = self._clock.monotonic_s() - _ADDRESSES_KEPT_S
        seen = {ip for ip, at_s in self._seen_at_s.items() if at_s >= oldest_s}
        self._own = frozenset(seen) | self._given_addresses | outgoing_addresses()

    async def _keep_asking(self) -> None:
        self._addresses_due_s = self._clock.monotonic_s() + _ADDRESSES_EVERY_S
        while True:  # ends when it is cancelled by close()
            asked_at_s = self._clock.monotonic_s()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubted.wait(), self._until_next_round_s())
            doubted = self._doubted.is_set()
            if doubted:
                since_s = self._clock.monotonic_s() - asked_at_s
                await asyncio.sleep(max(0.0, _DOUBT_MIN_S - since_s))
                self._doubted.clear()
            if doubted or not self._idle():
                await self._round()

    def _idle(self) -> bool:
        """Nobody has used the judges for a while, and none of them is in question."""
        if self.unwell_since_s() is not None or any(one.health.in_doubt for one in self._watched):
            return False
        unused_s = self._clock.monotonic_s() - self._used_at_s
        return unused_s > _IDLE_ROUNDS * self._settings.control_s

    def _until_next_round_s(self) -> float:
        if any(one.health.in_doubt for one in self._watched):
            return _AGAIN_S
        ill = self.unwell_since_s() is not None
        return min(self._settings.control_s, _UNWELL_S) if ill else self._settings.control_s

    async def _round(self) -> None:
        now_s = self._clock.monotonic_s()
        due = [one for one in self._watched if one.health.leave_until_s <= now_s]
        await asyncio.gather(*(one.ask() for one in due))
        if now_s >= self._addresses_due_s:
            self._addresses_due_s = now_s + _ADDRESSES_EVERY_S
            well = [one for one in due if one.health.well]
            await asyncio.gather(*(one.ask_other_family() for one in well))
            self._gather_own_addresses()


def loopback_source(specs: Sequence[str]) -> str | None:
    """The source address that keeps us apart from proxies when all judges are on 127.0.0.0/8.

    Returns:
        127.0.0.2 if every judge is an IPv4 loopback address, else None. (Where a system has
        no such address, binding to it fails; Linux has all of 127.0.0.0/8.)

    Raises:
        UsageError: A judge is misspelt.
    """
    hosts = [canonical_ip(parse_judge(spec).host) for spec in specs]
    on_loopback = [host is not None and host.startswith("127.") for host in hosts]
    return "127.0.0.2" if hosts and all(on_loopback) else None


def _refuse_literal(spec: JudgeSpec, guard: Guard) -> None:
    address = canonical_ip(spec.host)
    if address is not None and guard.refusal(address, spec.port) is not None:
        raise UsageError(
            f"judge {spec.name} has an address or port that is refused; "
            "--allow-private permits loopback and private addresses"
        )


def _https_context(specs: Sequence[JudgeSpec], settings: JudgeSettings) -> ssl.SSLContext | None:
    secure = [spec for spec in specs if spec.secure]
    if not secure:
        return None
    if settings.ca_file is None:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=Path(settings.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"judge.ca_file: {settings.ca_file} is not a readable file of certificates in PEM "
            f"({error.strerror or error})"
        ) from error
    if any(spec.kind is not JudgeKind.PROXYWELL for spec in secure):
        context.load_default_certs()  # the public ones are vouched for by the usual authorities
    return context


def _own_addresses(network: NetworkSettings) -> frozenset[str]:
    found = set()
    for text in network.own_addresses:
        address = canonical_ip(text)
        if address is None:
            raise SettingsError(f"network.own_addresses: {text!r} is no address")
        found.add(str(ip_address(address)))
    return frozenset(found)
