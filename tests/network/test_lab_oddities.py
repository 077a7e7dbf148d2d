"""Working proxies with odd habits have them: bytes one by one, FIN with data, their own pace."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxywell.lab.oddities import SINGLE_BYTES
from tests.network.lab_client import OUR_ADDRESS, Served, Truth, curl, needs_curl, serving

SOON_S = 5.0


ODD = """
every_behaviour = true
[fleet]
candidates = 4
working_share = 1.0
[fleet.front]
http = 1
[working]
split_bytes = 1
data_with_fin = 1
early_tunnel_bytes = 1
long_bound_name = 1
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("profile") / "odd.toml"
    path.write_text(ODD)
    with serving("--profile", str(path)) as served:
        yield served


def reach(truth: Truth) -> socket.socket:
    return socket.create_connection((truth["host"], truth["port"]), SOON_S, (OUR_ADDRESS, 0))


def request(lab: Served) -> bytes:
    return f"GET {lab.azenv} HTTP/1.1\r\nHost: judge\r\n\r\n".encode()


def pieces(sock: socket.socket) -> list[bytes]:
    """What each single read gave, up to the end."""
    got = []
    while piece := sock.recv(65_536):
        got.append(piece)
    return got


def test_split_bytes_arrive_one_at_a_time(lab: Served) -> None:
    with reach(lab.one("split_bytes", "http")) as sock:
        sock.sendall(request(lab))
        got = pieces(sock)
        assert b"REMOTE_ADDR" in b"".join(got)
        assert sum(len(piece) == 1 for piece in got) > SINGLE_BYTES / 4  # a busy reader finds more


@pytest.mark.skipif(not hasattr(select, "EPOLLRDHUP"), reason="epoll is Linux's")
def test_data_with_fin_is_one_event(lab: Served) -> None:
    with reach(lab.one("data_with_fin", "http")) as sock, select.epoll() as poller:
        sock.sendall(request(lab))
        wanted = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
        poller.register(sock.fileno(), wanted)
        events = [mask for _, mask in poller.poll(SOON_S)]
        assert events == [select.EPOLLIN | select.EPOLLRDHUP]
        assert b"REMOTE_ADDR" in b"".join(pieces(sock))


def test_early_tunnel_bytes_share_a_segment_with_the_consent(lab: Served) -> None:
    host, _, port = lab.offer["sites"]["banner"].removeprefix("tcp://").partition(":")
    with reach(lab.one("early_tunnel_bytes", "connect")) as sock:
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        first = sock.recv(65_536)
        assert first.startswith(b"HTTP/1.1 200 ")
        assert first.endswith(b"\r\n\r\n220 greeter.lab.test at your service\r\n")
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"


def test_a_long_bound_name_comes_whole_and_the_tunnel_behind_it(lab: Served) -> None:
    host, _, port = lab.offer["sites"]["banner"].removeprefix("tcp://").partition(":")
    with reach(lab.one("long_bound_name", "socks5")) as sock:
        sock.sendall(b"\x05\x01\x00")
        assert sock.recv(2) == b"\x05\x00"
        sock.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(host) + int(port).to_bytes(2))
        got = b""
        while len(got) < 7 + 255 + 3:
            got += sock.recv(1000)
        assert got[:5] == b"\x05\x00\x00\x03\xff"
        assert got[5 + 255 + 2 :].startswith(b"220")


@needs_curl
def test_answers_take_the_time_that_the_profile_says(tmp_path: Path) -> None:
    path = tmp_path / "steady.toml"
    path.write_text(
        "every_behaviour = true\n[fleet]\ncandidates = 5\nworking_share = 1.0\n"
        "[fleet.front]\nhttp = 1\n[latency]\nmedian_s = 0.3\np95_s = 0.3\n"
        "[working]\nhttp = 1\nconnect = 1\nsocks4 = 1\nsocks5 = 1\nslow = 1\n"
    )
    with serving("--profile", str(path)) as lab:
        for truth in lab.proxies:
            factor = 6 if truth["behaviour"] == "slow" else 1
            started_s = time.monotonic()
            assert curl(truth, truth["protocols"][0], lab.azenv).code == 0
            took_s = time.monotonic() - started_s
            assert 0.3 * factor <= took_s < 0.3 * factor + 1.0, (truth, took_s)
