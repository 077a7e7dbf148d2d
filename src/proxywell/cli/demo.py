"""``demo``: lab, refresh and one request through a proxy of the pool, ending by itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

import msgspec
import rich_click as click
from msgspec import Struct, structs

from proxywell.cli import funnel
from proxywell.cli.exit_codes import SURROUNDINGS_FAILED
from proxywell.cli.members import COLUMNS, SPARE
from proxywell.cli.options import Output, loaded_option
from proxywell.cli.output import show_rows
from proxywell.cli.progress import progress_bar
from proxywell.config.loader import Loaded
from proxywell.config.schema import Settings
from proxywell.errors import ProxywellError
from proxywell.model.member import PoolMember
from proxywell.net import loop
from proxywell.net.fetch import Route, get
from proxywell.net.guard import Guard
from proxywell.pool.lookup import endpoint_of
from proxywell.pool.pool import Pool
from proxywell.pool.selection import MemberFilter, NothingFits
from proxywell.protocols.http import HttpAnswer

LAB_START_S: Final = 20.0
LAB_LIFE_S: Final = 58.0  # whatever becomes of us
LAB_STOP_S: Final = 5.0
TRUTH_S: Final = 5.0
DEADLINE_S: Final = 40.0
FETCH_TRIES: Final = 3
SHOWN: Final = 8


class LabNotStartedError(ProxywellError):
    """The simulated fleet did not come up."""

    code = "lab_not_started"


class _List(Struct):
    url: str


class _Offer(Struct):
    """What the demo needs of the lab's offer."""

    lists: list[_List]
    judges: list[str]
    public_key: str
    ca_file: str
    source_address: str
    truth: str
    counts: dict[str, dict[str, int]]


class _Proxy(Struct):
    host: str
    port: int
    working: bool


class _Truth(Struct):
    proxies: list[_Proxy]


@click.command()
@click.option("--profile", default="small", show_default=True, help="Of the lab.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the lab.")
@loaded_option
def demo(loaded: Loaded, profile: str, seed: int, **_places: Any) -> None:
    """Show the main job on a simulated fleet; nothing leaves this machine.

    Starts the lab (lists, proxies and judges on loopback), fills a pool of its own, picks a
    member and sends one request through it. Ends by itself in under a minute.
    """
    from proxywell import app
    from proxywell.lab.profile import load_profile

    load_profile(profile)  # a wrong one is refused here, not in the lab's own process
    with tempfile.TemporaryDirectory(prefix="proxywell-demo-") as place, _lab(profile, seed) as lab:
        groups = ", ".join(f"{count} {name}" for name, count in lab.counts["groups"].items())
        _say(f"1. A simulated internet on loopback: {groups}.")
        settings, state_dir = _settings(loaded.settings, lab), Path(place)
        _say("2. One refresh: read the lists, check every candidate, fill the pool.")
        with progress_bar() as view:
            wish = app.RefreshWish(deadline_s=DEADLINE_S)
            report = app.refresh(settings, state_dir, wish, show=view.update)
        click.echo(funnel.in_words(report))
        with Pool.open(state_dir, settings.pool, read_only=True) as pool:
            members = pool.members()
            chosen = pool.choose(MemberFilter(), FETCH_TRIES, SystemRandom().random)
        _say(_against_the_truth(_truth(lab), members))
        _say(f"3. The pool, best first ({SHOWN} of {report.pool.after}).")
        show_rows(members[:SHOWN], Output.TABLE, COLUMNS, spare=SPARE)
        _say("4. One request through a member of the pool.")
        asked = next(judge for judge in lab.judges if judge.startswith("ip:"))[len("ip:") :]
        fetched = None if isinstance(chosen, NothingFits) else _fetch(chosen, asked, settings)
    if fetched is None:
        _say("   No member could be had; the funnel above says why.")
        raise SystemExit(SURROUNDINGS_FAILED)
    click.echo(fetched)
    _say("Next: proxywell refresh (the real lists), then proxywell list and proxywell random.")


def _fetch(members: Sequence[PoolMember], url: str, settings: Settings) -> str | None:
    """Ask for the URL through the first member that gets through; what came, in words."""
    for member in members:
        assert member.protocol is not None, "a member that may be handed out has a protocol"
        route = Route(
            endpoint=endpoint_of(member.proxy),
            protocol=member.protocol,
            refusal=Guard(allow_private=True).refusal,
            source_address=settings.checking.source_address,
            connect_s=settings.checking.connect_hard_s,
            answer_s=settings.checking.answer_hard_s,
        )
        answer = loop.run(get(url, route))
        if isinstance(answer, HttpAnswer):
            seen = answer.body.decode(errors="replace").strip()
            return f"GET {url} through {member.proxy}: {answer.status}, and the site saw {seen}"
    return None


def _say(line: str) -> None:
    click.echo(line, err=True)


def _settings(settings: Settings, lab: _Offer) -> Settings:
    return structs.replace(
        settings,
        judges=tuple(lab.judges),
        network=structs.replace(settings.network, allow_private=True),
        sources=structs.replace(settings.sources, lists=tuple(one.url for one in lab.lists)),
        checking=structs.replace(
            settings.checking,
            source_address=lab.source_address,
            # the lab is next door: whoever is silent for so long here stays silent
            connect_hard_s=3.0,
            answer_soft_s=3.0,
            answer_hard_s=8.0,
        ),
        judge=structs.replace(settings.judge, public_keys=(lab.public_key,), ca_file=lab.ca_file),
    )


def _against_the_truth(truth: _Truth, members: Sequence[PoolMember]) -> str:
    found = {(member.host, member.port) for member in members}
    truly = {(proxy.host, proxy.port) for proxy in truth.proxies if proxy.working}
    line = f"   By the lab's own truth {len(truly)} are honest; {len(truly & found)} were found"
    more = len(found - truly)
    if not more:
        return f"{line}, and no other."
    return f"{line}. {more} more answer judges truly and alter other pages: not examined yet."


def _truth(lab: _Offer) -> _Truth:
    direct = build_opener(ProxyHandler({}))  # the lab is on loopback
    with direct.open(lab.truth, timeout=TRUTH_S) as answer:
        return msgspec.json.decode(answer.read(), type=_Truth)


@contextmanager
def _lab(profile: str, seed: int) -> Iterator[_Offer]:
    """The lab in a process of its own, which ends with us and at the latest after its life."""
    command = [sys.executable, "-m", "proxywell", "lab", "serve", "--output", "json"]
    options = ["--profile", profile, "--seed", str(seed), "--seconds", f"{LAB_LIFE_S:g}"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE)  # noqa: S603
    assert process.stdout is not None, "it was asked for"
    too_late = threading.Timer(LAB_START_S, process.kill)
    too_late.start()
    try:
        line = process.stdout.readline()
        too_late.cancel()
        if not line:
            raise LabNotStartedError(
                "the lab did not start; `proxywell lab serve --profile small` tells why"
            )
        yield msgspec.json.decode(line, type=_Offer)
    finally:
        too_late.cancel()
        process.terminate()
        try:
            process.wait(LAB_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(LAB_STOP_S)
        process.stdout.close()
