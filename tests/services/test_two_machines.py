"""Two machines: network namespaces joined by a wire of their own, with nothing else on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import pytest

from proxywell.config.secret import Secret
from proxywell.errors import StateError
from proxywell.refresh.books import JobRow
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link
from proxywell.refresh.spans import items_of
from tests.network.refresh_fakes import Habits
from tests.services.redis_server import needed_binary
from tests.services.test_worker import assert_all_checked
from tests.services.worked import JOB, QUICK, Driven, driven_at, worker_at

NEAR, FAR = "192.0.2.1", "192.0.2.2"  # RFC 5737: nobody's
PORT = 6379  # nobody else is in the namespace
START_S = 10.0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10.0)


def _why_not() -> str | None:
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        return "network namespaces need Linux and the ip command (apt-get install iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"pw-try-{token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode:
        return f"this system makes no network namespaces: {made.stderr.decode().strip()}"
    _ip("netns", "delete", name)
    return None


@dataclass
class Machines:
    """Where Redis and one worker are, and where the other worker is."""

    near: str
    far: str

    def cut(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        _ip("-n", self.far, "link", "set", "wire", "down")

    def mend(self) -> None:
        _ip("-n", self.far, "link", "set", "wire", "up")


@pytest.fixture
def machines() -> Iterator[Machines]:
    reason = _why_not()
    if reason is not None:
        pytest.skip(reason)
    draw = token_hex(3)
    made = Machines(f"pw-near-{draw}", f"pw-far-{draw}")
    with ExitStack() as stack:
        for name in (made.near, made.far):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
        wire = ("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", made.far)
        _ip("-n", made.near, *wire)
        for name, address in ((made.near, NEAR), (made.far, FAR)):
            _ip("-n", name, "address", "add", f"{address}/30", "dev", "wire")
            _ip("-n", name, "link", "set", "wire", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield made


@pytest.fixture
def waiter(machines: Machines, tmp_path: Path) -> Iterator[Driven]:
    """Beside Redis, by its socket; the workers come by the wire."""
    socket = tmp_path / "s"
    program = [needed_binary(), "--bind", NEAR, "--port", str(PORT), "--protected-mode", "no"]
    more = ["--unixsocket", str(socket), "--dir", str(tmp_path), "--save", ""]
    process = subprocess.Popen(
        ["ip", "netns", "exec", machines.near, *program, *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = RedisAddress.parse(Secret(f"unix://{socket}"), prefix="proxywell", answer_s=5.0)
    try:
        _answers(address)
        with driven_at(address) as made:
            yield made
    finally:
        process.kill()
        process.wait(5.0)


def _answers(address: RedisAddress) -> None:
    end_s = time.monotonic() + START_S
    while True:
        link = Link(address)
        try:
            link.call("PING")
        except StateError:
            assert time.monotonic() < end_s, "the server did not start"
            time.sleep(0.05)
        else:
            return
        finally:
            link.close()


@contextmanager
def working_in(machine: str, habits: Habits, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with worker_at(
        f"redis://{NEAR}:{PORT}/0",
        habits,
        log,
        refresh=QUICK,
        before=("ip", "netns", "exec", machine),
    ) as process:
        yield process


def test_two_machines_share_a_job_and_one_finishes_what_the_other_cannot_report(
    machines: Machines, waiter: Driven, tmp_path: Path
) -> None:
    slow = Habits(delay_s=0.5, sockets=8)
    waiter.create(160)
    with (
        working_in(machines.near, slow, tmp_path / "near.log"),
        working_in(machines.far, slow, tmp_path / "far.log"),
    ):
        waiter.until(lambda job: len(nodes(waiter)) == 2 and enough(job))
        machines.cut()
        waiter.until(lambda job: job.rescued > 0)
        job = waiter.until_closed(bound_s=60.0)
        assert_all_checked(job, 160)
        machines.mend()
        waiter.until(lambda _: len(waiter.ledger.nodes(JOB)) == 2, bound_s=30.0)
    parts = waiter.ledger.parts(JOB, 0, 10_000)
    settled = [item for part in parts for item in items_of(part.items)]
    assert sorted(settled) == list(range(160)), "an item was settled twice, or not at all"
    assert "[ERROR]" not in (tmp_path / "far.log").read_text()


def enough(job: JobRow) -> bool:
    return job.chunks_done >= 2


def nodes(waiter: Driven) -> set[str]:
    """Mains that hold a chunk just now."""
    return {lease.node for lease in waiter.ledger.leases(JOB)}
