"""The lab: a simulated internet on loopback, with lists, proxies, judges, a site, and the truth."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from proxywell.judge.server import JudgeServer, Listen
from proxywell.lab import sites
from proxywell.lab.certificates import Authority
from proxywell.lab.channel import Channel
from proxywell.lab.churn import HABITS, ModelTimeline, Timeline, Trace
from proxywell.lab.fleet import build_fleet
from proxywell.lab.junk import SilentVisit
from proxywell.lab.listening import (
    Doors,
    device_trick_works,
    has_ipv6,
    raise_file_limit,
    require_addresses,
)
from proxywell.lab.lists import PublishedList, publish
from proxywell.lab.profile import Profile
from proxywell.lab.proxy import Proxy, Truth, truth_of
from proxywell.lab.visit import Surroundings
from proxywell.lab.watch import LoopWatch, Watch, watch_on
from proxywell.lab.web import Reply, Site, WebListener, serve_tls
from proxywell.model.endpoint import Protocol

HOME = "127.0.0.1"  # judges, lists, truth and the site
SOURCE_ADDRESS = "127.0.0.2"  # where the checker is to connect from
JUDGE_NAME, SITE_NAME = "judge.lab.test", "site.lab.test"
VISIT_MAX_S = 600.0
SWEEP_S = 5.0
APART_EXITS = [f"127.0.0.{last}" for last in range(3, 10)]


class OfferedList(Struct, frozen=True):
    """One list: where it is, the protocol of its entries if it is one, and how many."""

    url: str
    path: str
    protocol: Protocol | None
    entries: int


class LabOffer(Struct, frozen=True, kw_only=True):
    """All that a client of the lab needs.

    Attributes:
        profile, seed: What was asked for.
        lists: Where candidates are published, by http and as files.
        judges: ``KIND:URL``, ready for ``--judge``; every simulated proxy reaches them.
        ipv6_judges: The same on ``::1``, which no simulated proxy reaches.
        public_key: Of the signed judge, base64.
        ca_file: PEM that vouches for every https server of the lab.
        source_address: What ``checking.source_address`` must be, so that proxies which
            connect from 127.0.0.1 are not taken for ours.
        truth, truth_file: The truth at this instant, and at the start.
        sites: An ordinary site by http and https, for neutral clients; ``banner`` is a TCP
            server that speaks first.
        names: Host names that simulated proxies resolve.
        counts: Proxies by group, and by behaviour.
    """

    profile: str
    seed: int
    lists: tuple[OfferedList, ...]
    judges: tuple[str, ...]
    ipv6_judges: tuple[str, ...]
    public_key: str
    ca_file: str
    source_address: str
    truth: str
    truth_file: str
    sites: dict[str, str]
    names: dict[str, str]
    counts: dict[str, dict[str, int]]


class Truths(Struct, frozen=True):
    """The truth about the whole fleet at one instant.

    Attributes:
        profile, seed: Of the lab.
        virtual_s: Virtual seconds since the start.
        proxies: One by one.
    """

    profile: str
    seed: int
    virtual_s: float
    proxies: tuple[Truth, ...]


class Lab:
    """A simulated internet that serves while its context is open.

    Args:
        profile: What the fleet is made of.
        seed: The same seed gives the same fleet and lists; ports differ if some are taken.
        candidates: Instead of the profile's number.
        directory: Where lists, truth and certificates are written; None: a temporary one,
            removed at the end.
        one_device: None: one socket for all addresses where the system can; False: a socket
            for each proxy and the loop's own readers, as on other systems.
    """

    def __init__(
        self,
        profile: Profile,
        seed: int,
        *,
        candidates: int | None = None,
        directory: Path | None = None,
        one_device: bool | None = None,
    ) -> None:
        if candidates is not None:
            fleet = msgspec.structs.replace(profile.fleet, candidates=candidates)
            profile = msgspec.structs.replace(profile, fleet=fleet)
        self.profile = profile
        self.seed = seed
        self.fleet: list[Proxy] = []
        self._directory = directory
        self._one_device = device_trick_works() if one_device is None else one_device
        self._closing = contextlib.AsyncExitStack()
        self._by_place: dict[tuple[str, int], Proxy] = {}
        self._timelines: dict[tuple[str, int], Timeline] = {}
        self._started_s = 0.0
        self._around: Surroundings
        self._sweeper: asyncio.TimerHandle
        self._offer: LabOffer | None = None

    @property
    def offer(self) -> LabOffer:
        """What clients need; only while the lab serves."""
        assert self._offer is not None, "the lab has not been started"
        return self._offer

    @property
    def figures(self) -> dict[str, int]:
        """What happened so far: connections accepted, requests forwarded, and so on."""
        return dict(self._around.figures)

    async def __aenter__(self) -> Self:
        """Start everything.

        Raises:
            LabError: It cannot listen.
            JudgeStartError: Its judge cannot.
            InputMissingError, UsageError: The presence file is not there or is none.
        """
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything and remove what was temporary."""
        await self._closing.aclose()

    def truths(self) -> Truths:
        """The truth at this instant."""
        return Truths(
            self.profile.name,
            self.seed,
            self.virtual_s(),
            tuple(truth_of(proxy, on=self._is_on(proxy)) for proxy in self.fleet),
        )

    def virtual_s(self) -> float:
        """Seconds since the start on the churn's clock."""
        return (self._around.loop.time() - self._started_s) * self.profile.churn.speed

    async def _start(self) -> None:
        raise_file_limit()
        loop = asyncio.get_running_loop()
        if self._directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="proxywell-lab-")
            self._closing.callback(temporary.cleanup)
            self._directory = Path(temporary.name)
        self._directory.mkdir(parents=True, exist_ok=True)
        watch: Watch = watch_on(loop) if self._one_device else LoopWatch(loop)
        self._closing.callback(watch.close)
        chance = random.Random(f"{self.seed} visits")  # noqa: S311 - a simulation's chance
        self._around = Surroundings(loop, watch, chance, Authority(self._directory))
        self._around.names = {JUDGE_NAME: HOME, SITE_NAME: HOME, "localhost": HOME}
        self._closing.callback(self._close_visits)
        self.fleet = build_fleet(self.profile, self.seed, ipv6=has_ipv6())
        if not self._one_device:
            self._move_exits()
        doors = Doors(watch, self._accepted, one_device=self._one_device)
        self._closing.callback(doors.close)
        await doors.place(self.fleet, self.seed)
        self._by_place = {(proxy.host, proxy.port): proxy for proxy in self.fleet}
        self._started_s = loop.time()
        self._start_churn()
        self._offer = await self._serve_sites(self._directory)
        self._sweep_later()
        self._closing.callback(self._stop_sweeping)

    def _move_exits(self) -> None:
        """Without the device trick only a few addresses can be connected from."""
        require_addresses([SOURCE_ADDRESS, *APART_EXITS])
        for number, proxy in enumerate(self.fleet):
            count = len(set(proxy.exits))
            spots = [(number + turn) % len(APART_EXITS) for turn in range(count)]
            proxy.exits = tuple(APART_EXITS[spot] for spot in spots)

    def _start_churn(self) -> None:
        churn = self.profile.churn
        if churn.mode == "none":
            return
        trace = Trace(Path(churn.trace)) if churn.trace is not None else None
        for number, proxy in enumerate(self.fleet):
            if proxy.behaviour.group != "working":
                continue
            draw = random.Random(f"{self.seed} churn {number}")  # noqa: S311 - as above
            first = proxy.protocols[0]
            timeline: Timeline
            if trace is not None:
                timeline = trace.timeline(first, draw)
            else:
                habit = HABITS.get(first, HABITS[Protocol.SOCKS4])
                timeline = ModelTimeline(habit, draw)
            self._timelines[proxy.host, proxy.port] = timeline

    def _is_on(self, proxy: Proxy) -> bool:
        timeline = self._timelines.get((proxy.host, proxy.port))
        return timeline is None or timeline.on_at(self.virtual_s())

    def _accepted(self, sock: socket.socket, place: tuple[str, int], peer: str) -> None:
        around = self._around
        around.count("accepted")
        proxy = self._by_place.get(place)
        if proxy is None or proxy.behaviour.visit is None:
            sock.close()
            return
        if self._is_on(proxy):
            visit = proxy.behaviour.visit(around, proxy, peer)
        elif proxy.off == "silent":
            visit = SilentVisit(around, proxy, peer)
        else:
            Channel(around.watch, sock, SilentVisit(around, proxy, peer)).reset()
            return
        around.visits[visit] = visit.opened_s
        visit.start(Channel(around.watch, sock, visit))

    def _sweep_later(self) -> None:
        self._sweeper = self._around.loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Close visits that nobody ended for ten minutes; the oldest come first."""
        limit_s = self._around.loop.time() - VISIT_MAX_S
        old = []
        for visit, opened_s in self._around.visits.items():
            if opened_s > limit_s:
                break
            old.append(visit)
        for visit in old:
            visit.close()
        self._sweep_later()

    def _stop_sweeping(self) -> None:
        self._sweeper.cancel()  # always the latest one

    def _close_visits(self) -> None:
        for visit in list(self._around.visits):
            visit.client.reset()  # what is still queued would keep it open
            visit.close()

    async def _serve_sites(self, directory: Path) -> LabOffer:
        v6 = [Listen("::1", 0)] if has_ipv6() else []
        judge = JudgeServer(
            http=[Listen(HOME, 0), Listen(HOME, 0), *v6],
            https=[Listen(HOME, 0)],
            tls=self._tls(),
            name="lab",
        )
        await self._closing.enter_async_context(judge)
        ipv6_judges = tuple(f"proxywell:{url}" for url in judge.http_urls[2:])
        judges = [f"proxywell:{url}" for url in (*judge.http_urls[:2], *judge.https_urls)]
        for kind, site, path in (
            ("azenv", sites.azenv, "/azenv.php"),
            ("httpbin", sites.httpbin, "/get"),
            ("ip", sites.address, "/"),
        ):
            judges.append(f"{kind}:{self._serve(site)}{path}")
        for url in judges:
            host, _, port = url.split("//")[1].partition("/")[0].rpartition(":")
            self._around.judges.add((host, int(port)))
        lists = publish(self.fleet, self.profile, self.seed)
        pages: dict[bytes, Callable[[], Reply]] = {b"/truth": self._truth_page}
        for entry in lists:
            reply = Reply(entry.text.encode(), entry.kind)
            pages[f"/lists/{entry.name}".encode()] = lambda reply=reply: reply  # type: ignore[misc]  # a default pins it
        base = self._serve(sites.documents(pages))
        truth_file = directory / "truth.json"
        truth_file.write_bytes(msgspec.json.encode(self.truths()))
        return LabOffer(
            profile=self.profile.name,
            seed=self.seed,
            lists=tuple(self._write_list(entry, directory, base) for entry in lists),
            judges=tuple(judges),
            ipv6_judges=ipv6_judges,
            public_key=judge.public_key,
            ca_file=str(self._around.authority.ca_file),
            source_address=SOURCE_ADDRESS,
            truth=f"{base}/truth",
            truth_file=str(truth_file),
            sites={
                "http": f"{self._serve(sites.library)}/",
                "https": f"{await self._serve_tls(sites.library)}/",
                "banner": f"tcp://{HOME}:{await self._serve_banner()}",
            },
            names=dict(self._around.names),
            counts=self._counts(),
        )

    def _serve(self, site: Site) -> str:
        listener = WebListener(self._around.watch, site, HOME)
        self._closing.callback(listener.close)
        return f"http://{HOME}:{listener.port}"

    async def _serve_tls(self, site: Site) -> str:
        server, port = await serve_tls(site, HOME, self._tls())
        self._closing.callback(server.close)
        return f"https://{HOME}:{port}"

    def _tls(self) -> ssl.SSLContext:
        names = [HOME, JUDGE_NAME, SITE_NAME, "localhost"]
        return self._around.authority.server_context(names)

    async def _serve_banner(self) -> int:
        server = await asyncio.get_running_loop().create_server(sites.Greeter, HOME, 0)
        self._closing.callback(server.close)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def _truth_page(self) -> Reply:
        return Reply(msgspec.json.encode(self.truths()), "application/json")

    def _write_list(self, entry: PublishedList, directory: Path, base: str) -> OfferedList:
        path = directory / entry.name
        path.write_text(entry.text, encoding="utf-8")
        return OfferedList(f"{base}/lists/{entry.name}", str(path), entry.protocol, entry.entries)

    def _counts(self) -> dict[str, dict[str, int]]:
        groups: dict[str, int] = {"candidates": len(self.fleet)}
        behaviours: dict[str, int] = {}
        for proxy in self.fleet:
            behaviour = proxy.behaviour
            groups[behaviour.group] = groups.get(behaviour.group, 0) + 1
            behaviours[behaviour.name] = behaviours.get(behaviour.name, 0) + 1
        return {"groups": groups, "behaviours": dict(sorted(behaviours.items()))}
