"""What the truth calls junk is broken in just the way that it says, seen by plain sockets."""

from __future__ import annotations

import contextlib
import errno
import gzip
import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from proxywell.lab.behaviours import BEHAVIOURS
from proxywell.lab.junk import DRIP_S, PAGES
from tests.network.lab_client import OUR_ADDRESS, Served, Truth, serving

GET = b"GET http://site.lab.test/ HTTP/1.1\r\nHost: site.lab.test\r\n\r\n"
GREETING = b"\x05\x01\x00"
SOCKS5_REQUEST = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"
SOCKS4_REQUEST = b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00"
CONNECT = b"CONNECT site.lab.test:80 HTTP/1.1\r\nHost: site.lab.test:80\r\n\r\n"
SOON_S = 5.0
QUIET_S = 0.4


@pytest.fixture(scope="module")
def lab() -> Iterator[Served]:
    with serving("--profile", "small", "--seed", "12") as served:
        yield served


def reach(truth: Truth) -> socket.socket:
    place = truth["host"], truth["port"]
    return socket.create_connection(place, SOON_S, (OUR_ADDRESS, 0))


def read_all(sock: socket.socket, limit: int = 4_000_000, within_s: float = SOON_S) -> bytes:
    """All that comes until the end, the limit, or the time; a reset raises."""
    got = bytearray()
    ends_s = time.monotonic() + within_s
    while len(got) < limit:
        sock.settimeout(max(0.01, ends_s - time.monotonic()))
        try:
            data = sock.recv(65_536)
        except TimeoutError:
            break
        if not data:
            break
        got += data
    return bytes(got)


def says_nothing(sock: socket.socket) -> bool:
    """True while the connection stands and is silent."""
    return not select.select([sock], [], [], QUIET_S)[0]


def ended(sock: socket.socket) -> str:
    """How the connection ends: ``fin`` or ``rst``; fails if it does not."""
    sock.settimeout(SOON_S)
    try:
        return "fin" if sock.recv(1) == b"" else "data"
    except ConnectionResetError:
        return "rst"


def greet(truth: Truth) -> tuple[socket.socket, bytes]:
    sock = reach(truth)
    sock.sendall(GREETING)
    return sock, sock.recv(2)


def after_request(truth: Truth) -> socket.socket:
    sock, answer = greet(truth)
    assert answer == b"\x05\x00"
    sock.sendall(SOCKS5_REQUEST)
    return sock


def test_every_kind_of_junk_is_there_and_called_not_working(lab: Served) -> None:
    junk = {name for name, behaviour in BEHAVIOURS.items() if behaviour.group == "junk"}
    assert junk == {truth["behaviour"] for truth in lab.proxies if truth["group"] == "junk"}
    for truth in lab.proxies:
        assert truth["working"] == (truth["group"] == "working")
        assert bool(truth["failures"]) != truth["working"]


def test_black_holes_never_answer_not_even_a_thousand_at_once(lab: Served) -> None:
    ports = {truth["port"] for truth in lab.all_of("black_hole")}
    waiting = []
    for number in range(1000):
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((OUR_ADDRESS, 0))
        host = f"127.{16 + number % 180}.{number % 256}.{1 + number % 254}"
        place = host, sorted(ports)[number % len(ports)]
        assert sock.connect_ex(place) == errno.EINPROGRESS
        waiting.append(sock)
    watcher = select.poll()
    for sock in waiting:
        watcher.register(sock, select.POLLOUT)
    try:
        assert watcher.poll(2500) == []  # two rounds of retransmission, and nobody came through
    finally:
        for sock in waiting:
            sock.close()


def test_refusing_ones_refuse(lab: Served) -> None:
    for truth in lab.all_of("refuse"):
        with pytest.raises(ConnectionRefusedError):
            reach(truth)


def test_resets_come_at_once_or_after_the_request(lab: Served) -> None:
    with contextlib.suppress(ConnectionResetError), reach(lab.one("reset")) as sock:
        assert ended(sock) == "rst"
    with reach(lab.one("reset_after_request")) as sock:
        assert says_nothing(sock)
        sock.sendall(GET)
        assert ended(sock) == "rst"


def test_hanging_up_is_a_fin_and_half_closing_reads_on(lab: Served) -> None:
    with reach(lab.one("hang_up")) as sock:
        assert ended(sock) == "fin"
    with reach(lab.one("half_close")) as sock:
        assert ended(sock) == "fin"
        for _ in range(5):
            sock.sendall(GET)
            time.sleep(0.02)  # a closed socket would have answered with RST by now


def test_silent_ones_say_nothing_to_anybody(lab: Served) -> None:
    for opening in (GET, GREETING, SOCKS4_REQUEST, CONNECT):
        with reach(lab.one("silent")) as sock:
            sock.sendall(opening)
            assert says_nothing(sock)


def test_drips_come_one_byte_at_a_time(lab: Served) -> None:
    with reach(lab.one("drip")) as sock:
        sock.sendall(GET)
        got = read_all(sock, within_s=DRIP_S + 1)
        body = got.partition(b"\r\n\r\n")[2]
        assert 1 <= len(body) <= 2


def test_garbage_is_no_word_of_any_protocol(lab: Served) -> None:
    for opening in (GET, GREETING, SOCKS4_REQUEST):
        with reach(lab.one("garbage")) as sock:
            sock.sendall(opening)
            got = read_all(sock)
            assert got
            assert got[:1] not in {b"H", b"\x00", b"\x04", b"\x05"}
    with reach(lab.one("banner")) as sock:
        assert sock.recv(4) == b"SSH-"


@pytest.mark.parametrize("name", PAGES)
def test_web_servers_answer_their_page_to_everything(lab: Served, name: str) -> None:
    for request in (GET, CONNECT):
        with reach(lab.one(name)) as sock:
            sock.sendall(request)
            assert read_all(sock) == PAGES[name]
    with reach(lab.one(name)) as sock:
        sock.sendall(GREETING)
        assert read_all(sock).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("name", ["endless_chunked", "endless_length"])
def test_endless_bodies_go_on_past_any_sensible_limit(lab: Served, name: str) -> None:
    with reach(lab.one(name)) as sock:
        sock.sendall(GET)
        assert len(read_all(sock, limit=20_000_000)) >= 20_000_000


def test_header_bombs_are_big(lab: Served) -> None:
    for name in BEHAVIOURS:
        if name.startswith("header_bomb"):
            with reach(lab.one(name)) as sock:
                sock.sendall(GET)
                head = read_all(sock)
                assert head.startswith(b"HTTP/1.1 ")
                assert len(head) > 400_000


def test_the_gzip_bomb_unpacks_to_a_thousand_times_its_size(lab: Served) -> None:
    with reach(lab.one("gzip_bomb")) as sock:
        sock.sendall(GET)
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
        assert b"Content-Encoding: gzip" in head
        assert len(gzip.decompress(body)) > 500 * len(body)


def test_an_empty_tunnel_says_yes_and_has_nothing_behind_it(lab: Served) -> None:
    endings = {"silent": False, "close": True, "body": True, "no_blank_line": False}
    for option, ends in endings.items():
        with reach(lab.one(f"empty_tunnel_{option}")) as sock:
            sock.sendall(CONNECT)
            got = read_all(sock, within_s=1.0)
            assert got.startswith(b"HTTP/1.1 200 ")
            assert (b"\r\n\r\n" in got) == (option != "no_blank_line")
            assert got.endswith(b"</h1>") == (option == "body")
            assert (ended(sock) == "fin") if ends else says_nothing(sock)


def test_socks_greetings_are_answered_wrongly(lab: Served) -> None:
    for option, answer in {
        "wrong_version": b"\x06\x00",
        "method_ff": b"\x05\xff",
        "method_not_offered": b"\x05\x03",
    }.items():
        sock, got = greet(lab.one(f"socks_{option}"))
        with sock:
            assert got == answer
            assert ended(sock) == "fin"


def test_socks_replies_are_malformed(lab: Served) -> None:
    with after_request(lab.one("socks_address_type_0")) as sock:
        assert read_all(sock)[3] == 0
    with after_request(lab.one("socks_short_reply")) as sock:
        assert read_all(sock) == b"\x05\x00"
    with after_request(lab.one("socks_extra_bytes")) as sock:
        assert len(read_all(sock)) > 10
    with after_request(lab.one("socks_name_cut_short")) as sock:
        got = read_all(sock, within_s=0.5)
        assert got[3:5] == b"\x03\xff"
        assert len(got) < 5 + 255
        assert says_nothing(sock)
    with after_request(lab.one("socks_never_ends")) as sock:
        got = read_all(sock, within_s=DRIP_S + 1)
        assert got[3:5] == b"\x03\xfa"
        assert len(got) < 10


@pytest.mark.parametrize("code", range(1, 9))
def test_socks5_refusals_carry_their_code(lab: Served, code: int) -> None:
    with after_request(lab.one(f"socks_refuses_{code}")) as sock:
        assert read_all(sock)[:2] == bytes((5, code))


@pytest.mark.parametrize("code", [91, 92, 93])
def test_socks4_refusals_carry_their_code(lab: Served, code: int) -> None:
    with reach(lab.one(f"socks_refuses_{code}")) as sock:
        sock.sendall(SOCKS4_REQUEST)
        assert read_all(sock) == struct.pack("BB6x", 0, code)


def test_closing_in_mid_body_cuts_what_was_announced(lab: Served) -> None:
    site = lab.offer["sites"]["http"].rstrip("/")
    for truth in lab.all_of("closes_mid_body"):
        if "http" not in truth["protocols"]:
            continue
        with reach(truth) as sock:
            sock.sendall(f"GET {site}/page.html HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, body = read_all(sock).partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            assert 0 < len(body) < length
