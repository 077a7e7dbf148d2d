"""Reading a million candidates: time, memory, and what one entry costs by its form.

The million comes as four lists of a quarter each, in files, as ``scheme://ip:port``; every tenth
line repeats one of the list before. Memory is the peak of a process of its own, its start taken
off. ``guard_ns`` is one question to the guard about a public address.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path

from benchmarks.record import Figures
from proxywell.net.guard import Guard
from proxywell.sources.parse import ListParser

LISTS = 4
ENTRIES = 250_000
BUDGETS = {"million_s": 20.0, "million_mb": 300.0, "guard_ns": 1_000.0}
SAMPLE = 20_000
FORMS = {
    "plain": "{host}:{port}\n",
    "scheme": "socks5://{host}:{port}\n",
    "suffix": "{host}:{port} US-N-S! +\n",
    "credentials": "http://user:pass@{host}:{port}\n",
    "columns": "{host},{port},http,elite,Viet Nam\n",
    "ipv6": "[2606:4700::{port:x}]:{port}\n",
    "malformed": "{host}.1:{port}\n",
    "json": '{{"ip": "{host}", "port": {port}, "protocol": "http"}}\n',
}
READ = """
import asyncio, json, resource, sys, time
from pathlib import Path
from proxywell.config.schema import NetworkSettings, SourceSettings
from proxywell.model.clock import SystemClock
from proxywell.net.guard import Guard
from proxywell.sources.catalog import named_sources
from proxywell.sources.reader import SourceReader

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

async def main():
    clock, before_mb = SystemClock(), peak_mb()
    reader = SourceReader(SourceSettings(), NetworkSettings(), Guard(), None, clock)
    specs = named_sources(sys.argv[1:])
    before_s, before_cpu_s = time.perf_counter(), time.process_time()
    reading = await reader.read(specs, deadline_s=clock.monotonic_s() + 600)
    print(json.dumps({
        "million_s": time.perf_counter() - before_s,
        "million_cpu_s": time.process_time() - before_cpu_s,
        "million_mb": peak_mb() - before_mb,
        "read": reading.counts.read,
        "candidates": len(reading.candidates),
    }))

asyncio.run(main())
"""


def run() -> Figures:
    """Seconds and megabytes of a million candidates, microseconds of one entry by form."""
    drawn = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = [_write(Path(folder) / f"{number}.txt", drawn) for number in range(LISTS)]
        done = subprocess.run(
            [sys.executable, "-c", READ, *map(str, paths)],
            capture_output=True,
            check=True,
            timeout=600,
        )
    figures: dict[str, float] = json.loads(done.stdout)
    for form, line in FORMS.items():
        text = "".join(line.format(host=_host(drawn), port=_port(drawn)) for _ in range(SAMPLE))
        figures[f"parse_{form}_us"] = _parse_s(text.encode()) / SAMPLE * 1e6
    guard = Guard()
    asked = timeit.repeat(lambda: guard.refusal("8.8.8.8", 8080), number=100_000, repeat=3)
    figures["guard_ns"] = min(asked) / 100_000 * 1e9
    return figures


def _host(drawn: random.Random) -> str:
    return ".".join(str(drawn.randrange(1, 223)) for _ in range(4))


def _port(drawn: random.Random) -> int:
    return drawn.randrange(1_024, 65_536)


def _write(path: Path, drawn: random.Random) -> Path:
    lines = [
        f"{drawn.choice(('http', 'socks4', 'socks5'))}://{_host(drawn)}:{_port(drawn)}\n"
        for _ in range(ENTRIES)
    ]
    before = path.with_name(f"{int(path.stem) - 1}.txt")
    if before.exists():
        with before.open() as earlier:
            lines[::10] = [next(earlier) for _ in lines[::10]]
    path.write_text("".join(lines))
    return path


def _parse_s(data: bytes) -> float:
    best = float("inf")
    for _ in range(3):
        parser = ListParser()
        started_s = time.perf_counter()
        count = sum(1 for _ in parser.feed(data)) + sum(1 for _ in parser.finish())
        best = min(best, time.perf_counter() - started_s)
        assert count == SAMPLE, count
    return best
