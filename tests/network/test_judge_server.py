"""The judge's server over real sockets, asked by a neutral client and by hostile ones."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import stat
import sys
import time
from base64 import b64decode
from pathlib import Path

import msgspec
import pytest

from proxywell.checking.wire import Seen, Verifier, path_of
from proxywell.errors import StateError, UsageError
from proxywell.judge.certificate import (
    context_from_files,
    load_or_make_certificate,
    make_certificate,
    spki_pin,
)
from proxywell.judge.connection import Limits
from proxywell.judge.keys import KEY_FILE, load_or_make_key
from proxywell.judge.server import JudgeServer, JudgeStartError, Listen
from tests.network.conftest import Run

LOOPBACK = Listen("127.0.0.1", 0)
NONCE = "0123456789abcdef" * 2
CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is missing: apt-get install curl")


async def raw(url: str, data: bytes, *, close_after: bool = False) -> bytes:
    """Send bytes, read to the end of the stream."""
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(data)
    if close_after:
        writer.write_eof()
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def flood(writer: asyncio.StreamWriter, data: bytes, *, total_bytes: int) -> None:
    async with asyncio.timeout(20):
        for _ in range(total_bytes // len(data)):
            writer.write(data)
            await writer.drain()


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "Connection: close", "", ""]).encode()


def seen_in(answer: bytes) -> Seen:
    envelope = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
    return msgspec.json.decode(b64decode(envelope["seen"]), type=Seen)


async def curl(*arguments: str) -> tuple[int, bytes]:
    assert CURL is not None
    process = await asyncio.create_subprocess_exec(
        CURL, "-sS", "--max-time", "20", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output


@needs_curl
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_curl_gets_a_signed_account_of_its_own_request(host: str) -> None:
    async with JudgeServer(http=[Listen(host, 0)], name="here") as judge:
        url = judge.url.rstrip("/") + path_of(NONCE)
        status, body = await curl("-A", "curious", "-H", "X-odd-CASE:  v ", url)
        assert status == 0
        verdict = Verifier([judge.public_key]).open(
            body, nonce=NONCE, now_s=time.time(), clock_skew_s=30
        )
    assert isinstance(verdict, Seen)
    assert verdict.peer_ip == host
    assert verdict.judge == "here"
    assert (verdict.method, verdict.target_form, verdict.http_version) == ("GET", "origin", "1.1")
    assert [name for name, _ in verdict.raw_headers] == [
        "Host", "User-Agent", "Accept", "X-odd-CASE",
    ]  # fmt: skip
    assert ("X-odd-CASE", "v") in verdict.raw_headers


@needs_curl
async def test_curl_trusts_the_certificate_that_the_judge_made_and_no_other(
    tmp_path: Path,
) -> None:
    certificate, anchor = load_or_make_certificate(tmp_path, ["127.0.0.1", "::1", "judge.test"])
    async with JudgeServer(
        http=[], https=[LOOPBACK, Listen("::1", 0)], tls=certificate.server_context()
    ) as judge:
        for url in judge.https_urls:
            status, body = await curl("--cacert", str(anchor), url + path_of(NONCE)[1:])
            assert status == 0
            assert b'"seen"' in body
        port = judge.https_urls[0].rstrip("/").rpartition(":")[2]
        pin = f"sha256//{certificate.spki_pin}"
        resolve = f"judge.test:{port}:127.0.0.1"
        named = f"https://judge.test:{port}/healthz"
        assert await curl(
            "--cacert", str(anchor), "--pinnedpubkey", pin, "--resolve", resolve, named
        ) == (0, b"ok\n")
        status, _ = await curl(judge.https_urls[0])
        assert status == 60  # not trusted without the anchor


async def test_order_case_and_odd_bytes_of_headers_arrive_as_sent() -> None:
    lines = ["hOsT: a", "B: 2", "A: 1", "B: ", "via:1.1 x", "X: \xff {y} %s"]
    data = "\r\n".join([f"GET {path_of(NONCE)} HTTP/1.0", *lines, "", ""]).encode("latin-1")
    async with JudgeServer() as judge:
        answer = await raw(judge.url, data)
    seen = seen_in(answer)
    assert seen.raw_headers == (
        ("hOsT", "a"), ("B", "2"), ("A", "1"), ("B", ""), ("via", "1.1 x"), ("X", "\xff {y} %s"),
    )  # fmt: skip
    assert seen.http_version == "1.0"


async def test_an_absolute_target_is_reported_as_such() -> None:
    async with JudgeServer() as judge:
        answer = await raw(judge.url, get(f"http://judge.test{path_of(NONCE)}?x=1", "Host: j"))
    assert seen_in(answer).target_form == "absolute"


async def test_a_request_in_single_bytes_is_answered_like_a_whole_one() -> None:
    async with JudgeServer() as judge:
        host, _, port = judge.url.removeprefix("http://").rstrip("/").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for byte in get(path_of(NONCE), "Host: j"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        answer = await reader.read()
        writer.close()
    assert seen_in(answer).nonce == NONCE


async def test_a_kept_connection_answers_pipelined_requests_in_order() -> None:
    nonces = [f"{number:032x}" for number in range(50)]
    pipeline = b"".join(
        f"GET {path_of(nonce)} HTTP/1.1\r\nHost: j\r\n\r\n".encode() for nonce in nonces
    )
    async with JudgeServer() as judge:
        answers = await raw(judge.url, pipeline + get("/healthz", "Host: j"))
        assert judge.served == 51
    found = [
        seen_in(b"\r\n\r\n" + part.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1")[0]).nonce
        for part in answers.split(b"HTTP/1.1 200 OK")[1:-1]
    ]
    assert found == nonces


async def test_head_has_no_body_and_nothing_identifies_the_server() -> None:
    async with JudgeServer() as judge:
        answer = await raw(judge.url, get(path_of(NONCE), "Host: j").replace(b"GET", b"HEAD"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b""
    names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    expected = {b"date", b"content-type", b"content-length", b"cache-control", b"connection"}
    assert names == expected
    assert b"Cache-Control: no-store" in head


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: j\r\nContent-Length: 3\r\n\r\nabc", b"405"),
        (b"DELETE / HTTP/1.1\r\nHost: j\r\n\r\n", b"405"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", b"4"),
        (get("/nothing/here"), b"404"),
        (b"\x05\x01\x00" * 4, b"400"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1_000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99_999, b"413"),
    ],
)
async def test_what_is_not_a_modest_request_is_refused(data: bytes, status: bytes) -> None:
    async with JudgeServer() as judge:
        answer = await raw(judge.url, data)
        assert answer.startswith(b"HTTP/1.1 " + status) or answer == b""  # or reset, if it wrote on
        assert (await raw(judge.url, get("/healthz"))).endswith(b"ok\n")


async def test_an_endless_header_line_is_cut_soon() -> None:
    async with JudgeServer() as judge:
        host, _, port = judge.url.removeprefix("http://").rstrip("/").rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        with pytest.raises(ConnectionError):
            await flood(writer, b"a" * 65_536, total_bytes=50_000_000)
        writer.close()


async def test_a_slow_client_is_told_that_time_is_up() -> None:
    limits = Limits(head_s=0.2, idle_s=0.2)
    async with JudgeServer(limits=limits) as judge:
        answer = await raw(judge.url, b"GET / HTTP/1.1\r\nX: a")
        assert answer.startswith(b"HTTP/1.1 408")
        silent = await raw(judge.url, b"")
        assert silent.startswith(b"HTTP/1.1 408")


async def test_an_idle_kept_connection_is_closed_without_a_word() -> None:
    async with JudgeServer(limits=Limits(idle_s=0.2)) as judge:
        answer = await raw(judge.url, b"GET /healthz HTTP/1.1\r\nHost: j\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_client_that_takes_no_answers_is_cut_and_costs_little() -> None:
    async with JudgeServer(limits=Limits(stall_s=0.3)) as judge:
        host, _, port = judge.url.removeprefix("http://").rstrip("/").rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        request = f"GET {path_of(NONCE)} HTTP/1.1\r\nHost: j\r\n\r\n".encode()
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport, not its base
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(8):  # before the limits of a head or of idling
                await flood(writer, request * 500, total_bytes=100_000_000)
        writer.close()
        assert judge.served < 100_000


async def test_one_connection_too_many_is_refused_and_the_others_go_on() -> None:
    async with JudgeServer(limits=Limits(connections_max=3)) as judge:
        host, _, port = judge.url.removeprefix("http://").rstrip("/").rpartition(":")
        kept = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert (await raw(judge.url, b"")).startswith(b"HTTP/1.1 503")
        for reader, writer in kept:
            writer.write(get("/healthz"))
            assert (await reader.read()).endswith(b"ok\n")
            writer.close()
        await asyncio.sleep(0.1)
        assert (await raw(judge.url, get("/healthz"))).endswith(b"ok\n")


async def test_closing_is_quick_works_twice_and_frees_the_port() -> None:
    judge = JudgeServer()
    async with judge:
        url = judge.url
        host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            await judge.close()
    async with JudgeServer(http=[Listen(host, int(port))]):
        pass
    writer.close()


async def test_a_port_in_use_is_said_in_one_sentence_with_a_remedy() -> None:
    async with JudgeServer() as judge:
        port = int(judge.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(JudgeStartError, match=f"127.0.0.1:{port}.*in use.*another port"):
            async with JudgeServer(http=[Listen("127.0.0.1", port)]):
                pass
        with pytest.raises(JudgeStartError, match="no such address"):
            async with JudgeServer(http=[Listen("192.0.2.77", 0)]):
                pass


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    place = tmp_path / "new"
    first, second = load_or_make_key(place), load_or_make_key(place)
    assert first.public == second.public
    assert stat.S_IMODE((place / KEY_FILE).stat().st_mode) == 0o600
    assert sorted(path.name for path in place.iterdir()) == [KEY_FILE]
    assert first.public not in repr(first).replace(first.public, "", 1)


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
     make_certificate(["x"]).key_pem],
)  # fmt: skip
def test_a_key_file_that_holds_something_else_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(StateError, match="move it away"):
        load_or_make_key(tmp_path)


def test_a_key_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match=r"cannot be (written|read)"):
        load_or_make_key(tmp_path / "file")


def test_the_certificate_is_kept_until_other_names_are_wanted(tmp_path: Path) -> None:
    first, anchor = load_or_make_certificate(tmp_path, ["127.0.0.1"])
    again, _ = load_or_make_certificate(tmp_path, ["127.0.0.1"])
    assert again.spki_pin == first.spki_pin == spki_pin(first.chain_pem)
    assert anchor.read_bytes() == first.anchor_pem
    wider, _ = load_or_make_certificate(tmp_path, ["127.0.0.1", "judge.test"])
    assert wider.spki_pin != first.spki_pin
    assert anchor.read_bytes() == wider.anchor_pem


def test_a_certificate_that_does_not_fit_its_key_is_said(tmp_path: Path) -> None:
    one, other = make_certificate(["a.test"]), make_certificate(["b.test"])
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(one.chain_pem)
    key.write_bytes(other.key_pem)
    with pytest.raises(UsageError, match="its own unencrypted key"):
        context_from_files(chain, key)
    with pytest.raises(UsageError, match="cannot be read"):
        context_from_files(tmp_path / "none.pem", key)
    key.write_bytes(one.key_pem)
    assert isinstance(context_from_files(chain, key), ssl.SSLContext)


@pytest.mark.parametrize(
    "text", ["", "80", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "a:65536", "::1:80", "a:-1"]
)
def test_what_is_no_place_to_listen_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        Listen.parse(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [("127.0.0.1:80", Listen("127.0.0.1", 80)), ("[::1]:0", Listen("::1", 0)),
     ("judge.test:8085", Listen("judge.test", 8085))],
)  # fmt: skip
def test_places_to_listen_are_read(text: str, place: Listen) -> None:
    assert Listen.parse(text) == place


if sys.platform == "linux":

    def test_a_key_that_this_user_may_not_read_is_said(tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may read everything: run the tests as another user")
        load_or_make_key(tmp_path)
        (tmp_path / KEY_FILE).chmod(0)
        with pytest.raises(StateError, match="cannot be read"):
            load_or_make_key(tmp_path)


def test_it_serves_http_and_https_on_each_event_loop(run: Run) -> None:
    certificate = make_certificate(["127.0.0.1"])

    async def scene() -> None:
        tls = certificate.server_context()
        async with JudgeServer(http=[LOOPBACK], https=[LOOPBACK], tls=tls) as judge:
            assert seen_in(await raw(judge.url, get(path_of(NONCE)))).peer_ip == "127.0.0.1"
            context = ssl.create_default_context(cadata=certificate.anchor_pem.decode())
            port = int(judge.https_urls[0].rstrip("/").rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(get(path_of(NONCE)))
            assert seen_in(await reader.read()).nonce == NONCE
            writer.close()

    run(scene())
