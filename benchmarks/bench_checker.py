"""What a check costs, against a bare loop that only connects, on the same targets in the same run.

The lab's realistic mix, served by a process of its own. Each measurement is a process too, and
counts only its own CPU time. Bare loop, single protocol and ladder take turns; the figures are
medians, and the ratios are medians of ratios within a turn, so that a busy neighbour slows both
sides. The floor opens a socket, connects, waits with epoll, closes: nothing else.
"""

from __future__ import annotations

import _socket
import asyncio
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks.record import Figures
from proxywell.checking.checker import Checker
from proxywell.checking.judges import Judges
from proxywell.config.schema import CheckingSettings, JudgeSettings, NetworkSettings
from proxywell.model.candidate import Candidate
from proxywell.model.clock import SystemClock
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.net import loop
from proxywell.net.guard import Guard

BUDGETS = {
    **{
        f"{what}_{sockets}": limit
        for sockets in (2_000, 10_000)
        for what, limit in (
            ("single_per_candidate_to_floor", 2.5),
            ("ladder_per_connection_to_floor", 2.5),
            ("ladder_connections_per_candidate", 1.45),
            ("working_missed", 0.0),
        )
    },
    "rss_kb_per_open_probe": 6.0,
}
CANDIDATES = 10_000
SOCKETS = (2_000, 10_000)
TURNS = 3
CONNECT_S = 2.0  # soft and hard, so that each candidate is connected to once, as by the floor
ANSWER_SOFT_S, ANSWER_S = 2.0, 4.0
MEMORY_AFTER_S, MEMORY_CONNECT_S = 5.0, 20.0  # by then all are open, and none has timed out
CHILD_MAX_S = 240.0


class Target(msgspec.Struct, frozen=True, array_like=True):
    """One simulated proxy: where it is, what a list calls it, what it truly speaks."""

    host: str
    port: int
    hint: str
    protocols: tuple[str, ...]  # empty if it does not work, or only for a deeper look


class Order(msgspec.Struct, frozen=True):
    """What a measuring process is told on its standard input."""

    what: str
    sockets: int
    targets: list[Target]
    judges: list[str]


def run() -> Figures:
    """CPU µs per candidate and per connection, ratios to the floor, memory of open probes."""
    figures: dict[str, float | int | str | None] = {"candidates": CANDIDATES, "turns": TURNS}
    with _lab(CANDIDATES) as offer:
        for sockets in SOCKETS:
            turns = [
                {what: _measure(what, sockets, offer) for what in ("floor", "single", "ladder")}
                for _ in range(TURNS)
            ]
            figures.update(_summary(turns, sockets))
        figures["rss_kb_per_open_probe"] = _measure("memory", 10_000, offer)["rss_kb_per_probe"]
    return figures


def _summary(turns: list[dict[str, dict[str, float]]], sockets: int) -> dict[str, float]:
    def middle(what: str, figure: str) -> float:
        return median(turn[what][figure] for turn in turns)

    def ratio(what: str, figure: str) -> float:
        return median(turn[what][figure] / turn["floor"]["cpu_us"] for turn in turns)

    return {
        f"floor_us_{sockets}": middle("floor", "cpu_us"),
        f"single_us_{sockets}": middle("single", "cpu_us"),
        f"ladder_us_per_connection_{sockets}": middle("ladder", "cpu_us_per_connection"),
        f"single_per_candidate_to_floor_{sockets}": ratio("single", "cpu_us"),
        f"ladder_per_connection_to_floor_{sockets}": ratio("ladder", "cpu_us_per_connection"),
        f"ladder_connections_per_candidate_{sockets}": middle("ladder", "connections"),
        f"working_missed_{sockets}": max(
            turn[what]["missed"] for turn in turns for what in ("single", "ladder")
        ),
    }


@contextmanager
def _lab(candidates: int) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "proxywell", "lab", "serve", "--profile", "realistic"]
    command += ["--seed", "11", "--candidates", str(candidates), "--output", "json"]
    with tempfile.TemporaryDirectory() as directory:
        command += ["--directory", directory]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as serving:
            assert serving.stdout is not None
            try:
                yield json.loads(serving.stdout.readline())
            finally:
                serving.terminate()


def _measure(what: str, sockets: int, offer: dict[str, Any]) -> dict[str, float]:
    proxies = json.loads(Path(offer["truth_file"]).read_bytes())["proxies"]
    targets = [
        Target(
            proxy["host"],
            proxy["port"],
            proxy["listed_as"],
            tuple(proxy["protocols"]) if proxy["working"] else (),
        )
        for proxy in proxies
        if proxy["user"] is None
    ]
    if what == "memory":
        hole = next(proxy for proxy in proxies if proxy["behaviour"] == "black_hole")
        targets = [
            Target(f"127.9.{n >> 8}.{n & 255}", hole["port"], "http", ()) for n in range(sockets)
        ]
    judges = [judge for judge in offer["judges"] if judge.startswith("azenv:")]
    told = Order(what, sockets, targets, judges)
    measured = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_checker"],
        input=msgspec.json.encode(told),
        stdout=subprocess.PIPE,
        check=True,
        timeout=CHILD_MAX_S,
    )
    return dict(json.loads(measured.stdout))


# --- in the measuring process


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _floor(told: Order) -> dict[str, float]:
    """Connect, epoll, close; nothing else."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, told.sockets + 100), hard))
    flags = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    coming = iter([(target.host, target.port) for target in told.targets])
    epoll, opened, waiting = select.epoll(), {}, deque()
    more, started_s = True, _cpu_s()
    while more or opened:
        now_s, begun = time.monotonic(), 0
        while more and len(opened) < told.sockets and begun < 256:
            address = next(coming, None)
            if address is None:
                more = False
                break
            sock = _socket.socket(_socket.AF_INET, flags)
            sock.connect_ex(address)
            opened[sock.fileno()] = sock
            epoll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLET)
            waiting.append((now_s + CONNECT_S, sock.fileno(), sock))
            begun += 1
        for descriptor, _ in epoll.poll(0 if begun else 0.01, 1024):
            sock = opened.pop(descriptor, None)
            if sock is not None:
                sock.close()
        while waiting and waiting[0][0] <= now_s:
            _, descriptor, sock = waiting.popleft()
            if opened.get(descriptor) is sock:
                del opened[descriptor]
                sock.close()
    return {"cpu_us": (_cpu_s() - started_s) / len(told.targets) * 1e6}


async def _product(told: Order) -> dict[str, float]:
    """Check everything, and count what it cost and what was missed."""
    guard = Guard(allow_private=True)
    hints = {protocol.value: (protocol,) for protocol in Protocol}
    candidates = {Candidate(Endpoint(t.host, t.port), hints[t.hint]): t for t in told.targets}
    settings = CheckingSettings(
        connect_soft_s=CONNECT_S,
        connect_hard_s=CONNECT_S if told.what != "memory" else MEMORY_CONNECT_S,
        answer_soft_s=ANSWER_SOFT_S,
        answer_hard_s=ANSWER_S,
        max_sockets=told.sockets,
    )
    async with (
        Judges(
            told.judges,
            JudgeSettings(),
            NetworkSettings(allow_private=True),
            guard,
        ) as panel,
        Checker(
            settings,
            panel=panel,
            guard=guard,
            inspections=(),
            clock=SystemClock(),
            protocol=Protocol.HTTP if told.what == "single" else None,
        ) as checker,
    ):
        if told.what == "memory":
            return await _memory(checker, list(candidates))
        missed, started_s = 0, _cpu_s()
        async for candidate, verdict in checker.check(candidates):
            if not verdict.working:
                speaks = candidates[candidate].protocols
                missed += "http" in speaks if told.what == "single" else bool(speaks)
        cpu_s, connections = _cpu_s() - started_s, checker.figures().connections_stage_1
    return {
        "cpu_us": cpu_s / len(candidates) * 1e6,
        "cpu_us_per_connection": cpu_s / connections * 1e6,
        "connections": connections / len(candidates),
        "missed": missed,
    }


async def _memory(checker: Checker, candidates: list[Candidate]) -> dict[str, float]:
    """Resident memory that open probes add; the candidates are there before."""
    before_kb = _resident_kb()
    running = [checker.start(one, patient=True, done=lambda _: None) for one in candidates]
    await asyncio.sleep(MEMORY_AFTER_S)
    after_kb, in_use = _resident_kb(), checker.reactor.in_use
    assert in_use == len(running), f"{in_use} of {len(running)} are open"
    for one in running:
        one.cancel()
    return {"rss_kb_per_probe": (after_kb - before_kb) / in_use}


def _resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1024


def _main() -> None:
    told = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    measured = _floor(told) if told.what == "floor" else loop.run(_product(told))
    print(json.dumps(measured))


if __name__ == "__main__":
    _main()
