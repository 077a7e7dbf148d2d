"""A lab as its own process, and neutral clients of it: curl, openssl, plain sockets."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import pytest

STARTED_S = 30.0
CLIENT_S = 8.0
OUR_ADDRESS = "127.0.0.2"

needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl is missing: apt-get install curl"
)
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is missing: apt-get install openssl"
)

Truth = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """A running lab: what it offers, and the truth about its proxies at the start."""

    offer: dict[str, Any]
    proxies: list[Truth]

    @functools.cached_property
    def azenv(self) -> str:
        return self.judge("azenv:http")

    def judge(self, start: str) -> str:
        judge = next(judge for judge in self.offer["judges"] if judge.startswith(start))
        return str(judge.partition(":")[2])

    def all_of(self, behaviour: str, protocol: str | None = None) -> list[Truth]:
        return [
            truth
            for truth in self.proxies
            if truth["behaviour"] == behaviour
            and truth["host"] != "::1"
            and (protocol is None or protocol in truth["protocols"])
        ]

    def one(self, behaviour: str, protocol: str | None = None) -> Truth:
        return self.all_of(behaviour, protocol)[0]

    def truth_now(self) -> list[Truth]:
        with urlopen(self.offer["truth"], timeout=CLIENT_S) as answer:
            proxies: list[Truth] = json.load(answer)["proxies"]
        return proxies


@contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    """``proxywell lab serve`` until the context ends."""
    command = [sys.executable, "-m", "proxywell", "lab", "serve", "--seconds", "300", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                assert process.stderr is not None
                pytest.fail(f"the lab did not start: {process.stderr.read()}")
            offer = json.loads(line)
            with urlopen(offer["truth"], timeout=STARTED_S) as answer:
                yield Served(offer, json.load(answer)["proxies"])
        finally:
            process.terminate()
            _, remarks = process.communicate(timeout=STARTED_S)
    assert process.returncode == 0, remarks
    assert remarks == "", remarks


@dataclass(frozen=True)
class Curled:
    """What curl made of one request."""

    code: int
    status: int
    body: str
    headers: str

    @property
    def environment(self) -> dict[str, str]:
        """The lines of an azenv page."""
        pairs = (line.partition(" = ") for line in self.body.splitlines())
        return {name: value for name, found, value in pairs if found}


def curl(truth: Truth, protocol: str, url: str, *more: str) -> Curled:
    """One request through a proxy, by curl, from our address."""
    host = f"[{truth['host']}]" if ":" in truth["host"] else truth["host"]
    login = f"{truth['user']}:{truth['password']}@" if truth["user"] else ""
    scheme = "http" if protocol == "connect" else protocol
    tunnel = ["--proxytunnel"] if protocol == "connect" else []
    source = ["--interface", OUR_ADDRESS] if ":" not in truth["host"] else []
    proxy = f"{scheme}://{login}{host}:{truth['port']}"
    command = ["curl", "-s", "-S", "-i", "--suppress-connect-headers", "--max-time", str(CLIENT_S)]
    done = subprocess.run(
        [*command, *source, "-x", proxy, *tunnel, *more, url],
        capture_output=True,
        timeout=CLIENT_S + 5,
        check=False,
    )
    head, _, body = done.stdout.decode("latin-1").partition("\r\n\r\n")
    status = head.partition(" ")[2][:3]
    return Curled(done.returncode, int(status) if status.isdigit() else 0, body, head)
