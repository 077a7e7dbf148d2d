"""What the judge costs: requests per second of the server's CPU, and the checker's side of one.

The server runs in a process of its own and reports its CPU time; the load comes from this one,
over 64 connections that are kept, and over connections used once (which is how a checker comes).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import timeit
from collections.abc import Callable
from multiprocessing.connection import Connection

import uvloop

from benchmarks.record import Figures
from proxywell.checking.judge import Judge, parse_judge
from proxywell.checking.wire import Seen, Verifier, seal
from proxywell.judge.keys import JudgeKey
from proxywell.judge.server import JudgeServer

BUDGETS = {"kept_us": 200.0, "once_us": 400.0, "request_us": 10.0}
CLIENTS, KEPT, ONCE = 64, 30_000, 10_000
ROUNDS, TIMES = 20, 2_000


def run() -> Figures:
    """CPU microseconds of the server per request, and of the checker per request and answer."""
    kept_us, once_us = uvloop.run(_server_costs())
    return {
        "kept_us": round(kept_us, 1),
        "kept_requests_per_core_s": round(1e6 / kept_us),
        "once_us": round(once_us, 1),
        "once_requests_per_core_s": round(1e6 / once_us),
        "request_us": round(_request_us(), 2),
        "verify_us": round(_verify_us(), 1),
    }


async def _server_costs() -> tuple[float, float]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    process.start()
    try:
        port = await asyncio.to_thread(ours.recv)
        costs = []
        for count, keep in ((KEPT, True), (ONCE, False)):
            before_s = await _ask(ours)
            share = count // CLIENTS
            await asyncio.gather(*(_client(port, share, keep=keep) for _ in range(CLIENTS)))
            costs.append((await _ask(ours) - before_s) / (share * CLIENTS) * 1e6)
    finally:
        ours.send("stop")
        await asyncio.to_thread(process.join, 10)
    return costs[0], costs[1]


async def _ask(server: Connection) -> float:
    server.send("cpu")
    cpu_s: float = await asyncio.to_thread(server.recv)
    return cpu_s


def _serve(parent: Connection) -> None:
    async def serve() -> None:
        async with JudgeServer() as judge:
            parent.send(int(judge.url.rstrip("/").rpartition(":")[2]))
            while await asyncio.to_thread(parent.recv) == "cpu":
                used = resource.getrusage(resource.RUSAGE_SELF)
                parent.send(used.ru_utime + used.ru_stime)

    uvloop.run(serve())


async def _client(port: int, count: int, *, keep: bool) -> None:
    judge = Judge(parse_judge(f"proxywell:http://127.0.0.1:{port}/"))
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    for _ in range(count):
        if reader is None or writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = judge.request().origin()
        writer.write(request.replace(b"Connection: close", b"Connection: keep-alive", keep))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not body.startswith(b'{"seen":'):
            raise RuntimeError(f"no answer of the judge: {body[:80]!r}")
        if not keep:
            writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


def _request_us() -> float:
    judge = Judge(parse_judge("proxywell:http://judge.example:8085/"))
    return _least_us(lambda: judge.request().absolute())


def _verify_us() -> float:
    key, nonce = JudgeKey.fresh(), "0" * 32
    headers = Judge(parse_judge("ip:http://judge.example/")).sent_headers
    seen = Seen(
        nonce=nonce,
        peer_ip="192.0.2.7",
        peer_port=4711,
        http_version="1.1",
        target_form="origin",
        method="GET",
        raw_headers=headers,
        ts=0.0,
    )
    body, verifier = seal(seen, sign=key.sign, key=key.public), Verifier([key.public])
    return _least_us(lambda: verifier.open(body, nonce=nonce, now_s=0.0, clock_skew_s=1.0))


def _least_us(act: Callable[[], object]) -> float:
    return min(timeit.repeat(act, number=TIMES, repeat=ROUNDS)) / TIMES * 1e6
