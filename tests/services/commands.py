"""Commands that use services, and what can be seen of their processes from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from proxywell.config.secret import Secret
from proxywell.errors import StateError
from proxywell.orchestrator.services import Services
from proxywell.orchestrator.tending import Pace
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link
from tests.services.test_orchestrator_children import exists

ROOT = Path(__file__).parents[2]
QUICK = Pace(
    pause_first_s=0.05, pause_most_s=0.5, steady_s=1.0, rise_s=20.0, silent_s=1.0, stop_s=1.0
)


def processes_of(state: Path) -> dict[int, str]:
    """Processes whose command names the state directory, other than the commands themselves."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or not exists(int(entry.name)):
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if any(str(state) in word for word in words) and not _is_command(words):
            found[int(entry.name)] = " ".join(words)
    return found


def groups() -> set[int]:
    """All process groups that have a member that is no zombie."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and exists(int(entry.name)):
            with contextlib.suppress(ProcessLookupError):
                found.add(os.getpgid(int(entry.name)))
    return found


def _is_command(words: list[str]) -> bool:
    return "tests.services.orchestrated" in words and "--worker" not in words


def of(state: Path, part: str) -> int:
    """The one process of a state directory whose command has a part."""
    (pid,) = [pid for pid, words in processes_of(state).items() if part in words.split(" ")[0]]
    return pid


class Command:
    """A program that uses services, in a process of its own."""

    def __init__(self, state: Path, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.orchestrated", str(state), *more],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def ready(self) -> RedisAddress:
        assert self.process.stdout is not None
        url = self.process.stdout.readline().strip()
        assert url, self.process.communicate()
        return RedisAddress.parse(Secret(url))

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.closed()

    def leave(self) -> int:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.closed()

    def closed(self) -> int:
        code = self.process.wait(30)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code


def ask(address: RedisAddress, *words: str) -> bytes:
    link = Link(address)
    try:
        answer = link.call(*words)
    finally:
        link.close()
    assert isinstance(answer, bytes)
    return answer


def answers(address: RedisAddress) -> bool:
    try:
        return ask(address, "PING") == b"PONG"
    except StateError:
        return False


def mains(services: Services) -> frozenset[str]:
    return services.health.mains or frozenset()


def pid_of(main: str) -> int:
    return int(main.rsplit(":", 3)[1])
