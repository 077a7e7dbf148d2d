"""Every limit of a fetch, over real connections on loopback."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxywell.config.schema import NetworkSettings, SourceSettings
from proxywell.model.clock import SystemClock
from proxywell.model.report import RefusalReason
from proxywell.net.guard import Guard
from proxywell.sources.catalog import SourceSpec, named_sources
from proxywell.sources.reader import SourceReader
from proxywell.sources.visit import Visit
from tests.network.list_server import ListServer, list_server

WHAT_IS_SENT = {"host", "user-agent", "accept", "accept-encoding", "connection"}
LIST = b"1.2.3.4:80\n1.2.3.5:80\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
async def server() -> AsyncIterator[ListServer]:
    async with list_server() as running:
        yield running


def reader_of(
    url: str, *, allow_private: bool = True, denied: tuple[str, ...] = (), **settings: Any
) -> tuple[SystemClock, SourceReader, SourceSpec]:
    clock = SystemClock()
    reader = SourceReader(
        SourceSettings(**settings),
        NetworkSettings(allow_private=allow_private),
        Guard(allow_private, denied=denied),
        None,
        clock,
    )
    (spec,) = named_sources([url])
    return clock, reader, spec


async def examine(url: str, **more: Any) -> Visit:
    clock, reader, spec = reader_of(url, **more)
    return await reader.examine(spec, deadline_s=clock.monotonic_s() + 30)


async def error_of(url: str, **more: Any) -> str:
    clock, reader, spec = reader_of(url, **more)
    reading = await reader.read([spec], deadline_s=clock.monotonic_s() + 30)
    report = reading.reports[0]
    assert report.error is not None
    assert (report.read, report.unique) == (0, 0)  # nothing of it is trusted
    assert reading.candidates == []
    return report.error


async def test_a_list_is_read_over_http_in_a_network_of_ones_own(server: ListServer) -> None:
    visit = await examine(server.put("/list", LIST))
    assert (visit.report.read, visit.report.unique, visit.report.error) == (2, 2, None)


async def test_a_list_is_read_over_https_if_its_certificate_is_vouched_for(
    authority: trustme.CA, ca_file: str
) -> None:
    async with list_server(tls=server_tls(authority, "127.0.0.1")) as server:
        url = server.put("/list", LIST)
        visit = await examine(url, ca_file=ca_file)
        assert (visit.report.read, visit.report.error) == (2, None)
        assert "certificate is not trusted" in await error_of(url)
        assert len(server.requests) == 1  # nothing was sent to the one that was not trusted


async def test_a_certificate_of_another_name_is_not_trusted(
    authority: trustme.CA, ca_file: str
) -> None:
    async with list_server(tls=server_tls(authority, "lists.example")) as server:
        error = await error_of(server.put("/list", LIST), ca_file=ca_file)
        assert "certificate is not trusted" in error
        assert not server.requests


async def test_the_request_names_us_and_carries_nothing_else(
    server: ListServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # would be refused
    server.put("/list", LIST, "Set-Cookie: session=1; Path=/")
    server.put("/from", b"", "Location: /list", "Set-Cookie: a=1", status="302 Found")
    await examine(server.base + "/from", contact="https://example.com/about")
    for request in server.requests:
        assert request.headers["user-agent"].startswith("proxywell/")
        assert request.headers["user-agent"].endswith("(+https://example.com/about)")
        assert request.headers["accept-encoding"] == "gzip"
        assert set(request.headers) == WHAT_IS_SENT


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate", "two gzip members"])
async def test_content_codings_are_undone(server: ListServer, coding: str) -> None:
    raw = zlib.compressobj(wbits=-15)
    body = {
        "gzip": gzip.compress(LIST),
        "deflate": zlib.compress(LIST),
        "raw deflate": raw.compress(LIST) + raw.flush(),
        "two gzip members": gzip.compress(LIST[:11]) + gzip.compress(LIST[11:]),
    }[coding]
    name = "deflate" if "deflate" in coding else "gzip"
    visit = await examine(server.put("/list", body, f"Content-Encoding: {name}"))
    assert (visit.report.read, visit.report.error) == (2, None)


@pytest.mark.parametrize(
    ("headers", "body", "complaint"),
    [
        (("Content-Encoding: br",), LIST, "content coding 'br'"),
        (("Content-Encoding: gzip, gzip",), gzip.compress(gzip.compress(LIST)), "content coding"),
        (("Content-Encoding: gzip", "Content-Encoding: gzip"), LIST, "content coding"),
        (("Content-Encoding: gzip",), LIST, "gzip coding is damaged"),
        (("Content-Encoding: gzip",), gzip.compress(LIST)[:-9], "gzip coding breaks off"),
        (("Content-Encoding: gzip",), gzip.compress(LIST) + b"junk", "gzip coding is damaged"),
    ],
)
async def test_other_and_damaged_codings_are_refused(
    server: ListServer, headers: tuple[str, ...], body: bytes, complaint: str
) -> None:
    assert complaint in await error_of(server.put("/list", body, *headers))


async def test_a_gzip_bomb_is_stopped_while_it_expands(server: ListServer) -> None:
    bomb = gzip.compress(b"1.2.3.4:80\n" * 3_000_000, 6)  # 33 MB
    assert len(bomb) < 33_000_000 / 200
    url = server.put("/bomb", bomb, "Content-Encoding: gzip")
    started_s = time.process_time()
    assert "expands to more than 100 times" in await error_of(url)
    assert "longer than 2000000 bytes" in await error_of(
        url, expansion_max_ratio=10_000, body_max_bytes=2_000_000
    )
    assert time.process_time() - started_s < 10


async def test_a_body_is_cut_off_at_its_limit_whatever_it_announced(server: ListServer) -> None:
    assert "longer than 1000 bytes as sent" in await error_of(
        server.put("/announced", b"1.2.3.4:80\n" * 200), wire_max_bytes=1_000
    )

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"b\r\n1.2.3.4:80\n\r\n" * 100)
            await writer.drain()

    url = server.put_page("/endless", endless)
    assert "longer than 100000 bytes as sent" in await error_of(url, wire_max_bytes=100_000)
    assert "longer than 1000 bytes" in await error_of(url, body_max_bytes=1_000)


async def test_a_source_that_drips_is_given_up_after_the_total_time(server: ListServer) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1_000):
            writer.write(b"1")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def drip_head(writer: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async def silence(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    for path, page in (("/drip", drip), ("/head", drip_head), ("/silence", silence)):
        started_s = time.monotonic()
        error = await error_of(server.put_page(path, page), total_s=0.4)
        assert "not read to its end within 0.4 s" in error
        assert time.monotonic() - started_s < 3


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 port 80"),
        ("https://169.254.169.254/", "169.254.169.254 port 443"),
        ("http://[fd00:ec2::254]/", "fd00:ec2::254 port 80"),
        ("http://[::ffff:127.0.0.1]/", "must not be dialled"),
        ("http://0.0.0.0:9/", "0.0.0.0 port 9"),
        ("http://127.0.0.1:22/", "127.0.0.1 port 22"),
        ("file:///etc/passwd", "no https URL"),
        ("ftp://127.0.0.1/x", "no https URL"),
        ("gopher://127.0.0.1/x", "no https URL"),
        ("https://", "no https URL"),
        ("http://me:pw@127.0.0.1:1/", "holds a user name"),
        ("http://[::1/", "which is no URL"),
        ("http://127.0.0.1:99999/", "is no URL"),
        ("https://127.0.0.1/" + "x" * 3_000, "more than 2000 characters"),
    ],
)
async def test_a_redirect_is_vetted_like_the_first_address(
    server: ListServer, target: str, complaint: str
) -> None:
    url = server.put("/from", b"", f"Location: {target}", status="302 Found")
    assert complaint in await error_of(url)
    assert len(server.requests) == 1


async def test_redirects_are_followed_so_far_and_no_further(server: ListServer) -> None:
    server.put("/3", LIST)
    for n, status in enumerate(("301 x", "302 x", "307 x")):
        server.put(f"/{n}", b"", f"Location: {n + 1}", status=status)
    assert (await examine(server.base + "/0")).report.read == 2
    assert "redirects more than 2 times" in await error_of(server.base + "/0", redirects_max=2)
    server.put("/loop", b"", "Location: /loop", status="308 x")
    assert "redirects more than 3 times" in await error_of(server.base + "/loop")


@pytest.mark.parametrize("status", ["206 x", "404 x", "500 x", "429 x", "302 x", "300 x"])
async def test_other_answers_are_no_lists(server: ListServer, status: str) -> None:
    error = await error_of(server.put("/list", LIST, status=status))
    assert f"answers with status {status[:3]}" in error


@pytest.mark.parametrize("status", ["204 x", "304 x"])
async def test_an_answer_that_must_not_have_a_body_is_no_list(
    server: ListServer, status: str
) -> None:
    assert "no sound HTTP" in await error_of(server.put("/list", LIST, status=status))
    error = await error_of(server.put("/list", b"", status=status), total_s=2)
    assert f"status {status[:3]}" in error


async def test_an_answer_that_breaks_off_is_not_trusted(server: ListServer) -> None:
    async def half(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + LIST)
        await writer.drain()

    async def junk(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xffSSH-2.0\r\n" * 20)
        await writer.drain()

    assert "breaks off" in await error_of(server.put_page("/half", half))
    assert "no answer" in await error_of(server.put_page("/junk", junk))


async def test_without_leave_neither_plain_http_nor_a_private_address_is_contacted() -> None:
    async with list_server() as canary:
        port = canary.base.rpartition(":")[2]
        for url, complaint in (
            (canary.base + "/", "plain http"),
            (f"https://127.0.0.1:{port}/", "must not be dialled"),
            (f"https://localhost:{port}/", "localhost is at "),
            (f"https://127.1:{port}/", "127.1 gives no answer"),
            (f"https://2130706433:{port}/", "2130706433 gives no answer"),
            (f"https://[::ffff:127.0.0.1]:{port}/", "must not be dialled"),
            (f"https://0.0.0.0:{port}/", "must not be dialled"),
        ):
            assert complaint in await error_of(url, allow_private=False)
        assert canary.connections == 0


async def test_a_name_that_changes_its_address_gains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with list_server("127.0.0.1") as outside, list_server("127.0.0.2") as inside:
        ports = [int(server.base.rpartition(":")[2]) for server in (outside, inside)]
        answers = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])

        def rebinding(_host: str, port: int, *_more: Any, **_named: Any) -> list[Any]:
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, (next(answers), port))]

        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        url = f"http://rebind.example:{ports[0]}/a"
        outside.put("/a", b"", f"Location: http://rebind.example:{ports[1]}/b", status="302 Found")
        inside.put("/b", LIST)
        error = await error_of(url, denied=("127.0.0.2",))
        assert error == "rebind.example is at 127.0.0.2, which must not be dialled"
        assert (outside.connections, inside.connections) == (1, 0)


async def test_nothing_of_a_hostile_list_is_ever_contacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "the-secret-value")
    async with list_server() as canary:
        port = canary.base.rpartition(":")[2]
        forms = [
            "127.0.0.1", "127.1", "127.0.1", "0x7f.1", "0x7f000001", "017700000001", "2130706433",
            "0177.0.0.1", "127.000.000.001", "localhost", "LOCALHOST", "[::1]",
            "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[::127.0.0.1]",
            "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1", "0.0.0.0", "[::]",
            "x@127.0.0.1",
            "{{SECRET}}@127.0.0.1", "${SECRET}.example.com", "127.0.0.1\r\nX: y", "127.0.0.1/24",
            "metadata.google.internal",
        ]  # fmt: skip
        lines = [f"{scheme}{form}:{port}" for form in forms for scheme in ("", "http://")]
        path = tmp_path / "list.txt"
        path.write_text("\n".join(lines), newline="")
        visit = await examine(str(path), allow_private=False)
        assert visit.report.read == len(lines) + 2  # two entries hold a line end
        assert visit.tally.accepted == 0
        assert set(visit.tally.refused) <= {
            RefusalReason.MALFORMED, RefusalReason.PRIVATE_ADDRESS, RefusalReason.HOST_NAME,
        }  # fmt: skip
        assert "the-secret-value" not in repr(visit.tally.examples)
        assert canary.connections == 0


async def test_credentials_in_a_strangers_list_are_refused(server: ListServer) -> None:
    visit = await examine(server.put("/list", b"u:p@1.2.3.4:80\n1.2.3.5:80:user:pass\n1.2.3.6:8\n"))
    assert visit.tally.refused == {RefusalReason.CREDENTIALS: 2}
    assert visit.tally.accepted == 1


async def test_a_header_bomb_is_one_clear_error(server: ListServer) -> None:
    async def bomb(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n")
        await writer.drain()

    error = await error_of(server.put_page("/bomb", bomb))
    assert "no answer" in error
    assert len(error) < 400
