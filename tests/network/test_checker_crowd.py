"""Ten thousand sockets at once, on both back ends: no proxy is lost, nothing is mixed up."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from tests.network.checker_fleet import fleet
from tests.network.test_checker import WORKS, address, checker, verdicts

SOCKETS = 10_000
CROWD = {
    "http": 1_200,
    "http_fin": 1_200,
    "http_slow": 800,
    "connect": 600,
    "socks4": 600,
    "socks5": 600,
    "http_split": 200,
    "connect_split": 200,
    "socks4_split": 200,
    "socks5_split": 200,
    "reset": 500,
    "close": 500,
    "refuse": 900,
    "silent": 600,
    "garbage": 300,
    "error_page": 300,
    "black_hole": 1_100,
}
HINTS = {"connect": Protocol.CONNECT, "socks4": Protocol.SOCKS4, "socks5": Protocol.SOCKS5}


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < SOCKETS + 200:
        pytest.skip(f"needs {SOCKETS + 200} open files, the limit is {hard}: raise ulimit -n")
    with fleet() as listening:
        yield listening


@pytest.mark.parametrize("backend", ["epoll", "selectors"])
async def test_ten_thousand_sockets_lose_no_proxy(ports: dict[str, int], backend: str) -> None:
    assert sum(CROWD.values()) == SOCKETS
    kinds = [kind for kind, count in CROWD.items() for _ in range(count)]
    order = sorted(range(SOCKETS), key=lambda n: n * 7_919 % SOCKETS)  # well mixed, always alike
    some = {
        Candidate(
            Endpoint(address(n), ports[kinds[n]]),
            (HINTS.get(kinds[n].removesuffix("_split"), Protocol.HTTP),),
        ): kinds[n]
        for n in order
    }
    async with checker(
        backend=backend,
        max_sockets=SOCKETS,
        connect_soft_s=6.0,
        connect_hard_s=6.0,
        answer_soft_s=3.0,
        answer_hard_s=8.0,
    ) as checking:
        found = await verdicts(checking, some)
        figures = checking.figures()
    wrong = [
        (some[candidate], verdict.failure)
        for candidate, verdict in found.items()
        if verdict.working is not (some[candidate] in WORKS)
    ]
    assert wrong == []
    mixed_up = [
        candidate
        for candidate, verdict in found.items()
        if verdict.working and verdict.exit_ip != candidate.endpoint.host
    ]
    assert mixed_up == []
    assert figures.faults == 0
    assert figures.peak_sockets > SOCKETS // 2
