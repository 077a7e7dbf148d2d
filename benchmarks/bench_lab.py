"""What the simulated internet costs: it shares its machine with the checker under test.

CPU is the lab's own process, judge included: an ``azenv`` one for the protocols, since its page
costs least to make. The client keeps 200 connections open, all proxies answer at once.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.record import Figures

REQUESTS = 8_000
IN_FLIGHT = 200
STALLED_S = 10.0
OUR_ADDRESS = "127.0.0.2"
BUDGETS = {"start_of_40000_s": 5.0}
PROFILE = """
[fleet]
candidates = 400
working_share = 0.8
[latency]
median_s = 0
p95_s = 0
[working]
http = 1
socks5 = 1
connect = 1
[junk]
forbidden_403 = 1
"""


def run() -> Figures:
    """Microseconds of CPU per request and protocol, start-up and memory of the largest profile."""
    figures: dict[str, float] = {"requests": REQUESTS, "in_flight": IN_FLIGHT}
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "quick.toml"
        profile.write_text(PROFILE)
        with lab(str(profile)) as (pid, offer):
            proxies = json.loads(Path(offer["truth_file"]).read_bytes())["proxies"]
            for protocol in ("http", "connect", "socks5", "page"):
                before_s = cpu_s(pid)
                load(addresses(proxies, protocol), script(protocol, judge(offer, "azenv")))
                figures[f"{protocol}_us"] = (cpu_s(pid) - before_s) / REQUESTS * 1e6
            signed = judge(offer, "proxywell") + "data/" + "0" * 32 + ".json"
            before_s = cpu_s(pid)
            load(addresses(proxies, "http"), script("http", signed))
            figures["http_signed_us"] = (cpu_s(pid) - before_s) / REQUESTS * 1e6
    started_s = time.perf_counter()
    with lab("hard") as (pid, _):
        figures["start_of_40000_s"] = time.perf_counter() - started_s
        figures["resident_of_40000_mb"] = resident_mb(pid)
    return figures


@contextmanager
def lab(profile: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """A lab in a process of its own: its id, and what it offers."""
    command = [sys.executable, "-m", "proxywell", "lab", "serve", "--profile", profile]
    with subprocess.Popen([*command, "--seconds", "300"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def cpu_s(pid: int) -> float:
    """User and system time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of one process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def judge(offer: dict[str, Any], kind: str) -> str:
    """The URL of the first judge of a kind."""
    return str(next(j for j in offer["judges"] if j.startswith(f"{kind}:")).partition(":")[2])


def addresses(proxies: list[dict[str, Any]], protocol: str) -> list[tuple[str, int]]:
    """Where proxies of one protocol are; ``page``: web servers that are none."""
    return [
        (truth["host"], truth["port"])
        for truth in proxies
        if truth["protocols"][:1] == [protocol] or (protocol == "page" and not truth["protocols"])
    ]


def script(protocol: str, url: str) -> list[bytes]:
    """What a client sends, each piece when the answer to the one before has come."""
    place, _, path = url.partition("//")[2].partition("/")
    host, _, port = place.partition(":")
    headers = f"Host: {place}\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nConnection: close"
    inside = f"GET /{path} HTTP/1.1\r\n{headers}\r\n\r\n".encode()
    if protocol == "connect":
        return [f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode(), inside]
    if protocol == "socks5":
        target = socket.inet_aton(host) + int(port).to_bytes(2)
        return [b"\x05\x01\x00", b"\x05\x01\x00\x01" + target, inside]
    return [f"GET {url} HTTP/1.1\r\n{headers}\r\n\r\n".encode()]


@dataclass
class _Talk:
    sock: socket.socket
    sent: int = 0
    got: bytearray = field(default_factory=bytearray)


def load(places: list[tuple[str, int]], pieces: list[bytes]) -> None:
    """Send ``REQUESTS`` requests, ``IN_FLIGHT`` at a time; fails if one has no HTTP answer."""
    poller = select.epoll()
    talks: dict[int, _Talk] = {}
    started = done = 0
    while done < REQUESTS:
        while started < REQUESTS and len(talks) < IN_FLIGHT:
            sock = socket.socket()
            sock.setblocking(False)
            sock.bind((OUR_ADDRESS, 0))
            sock.connect_ex(places[started % len(places)])
            talks[sock.fileno()] = _Talk(sock)
            poller.register(sock.fileno(), select.EPOLLOUT)
            started += 1
        ready = poller.poll(STALLED_S)
        assert ready, "the lab has stalled"
        for fd, _ in ready:
            if _step(talks[fd], pieces, poller):
                talks.pop(fd).sock.close()
                done += 1
    poller.close()


def _step(talk: _Talk, pieces: list[bytes], poller: select.epoll) -> bool:
    """One event of one talk; true when it is over."""
    if talk.sent == 0:
        poller.modify(talk.sock.fileno(), select.EPOLLIN)
    else:
        data = talk.sock.recv(8192)
        if not data:
            assert talk.got.startswith(b"HTTP/1."), talk.got
            return True
        if talk.sent == len(pieces):
            talk.got += data
            return False
    talk.sock.send(pieces[talk.sent])
    talk.sent += 1
    return False
