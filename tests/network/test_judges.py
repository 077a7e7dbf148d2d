"""All judges of a checker, over real sockets: health, own addresses, keys, https."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxywell.checking.anonymity import assess
from proxywell.checking.judges import Judges, loopback_source
from proxywell.checking.ports import Sighting
from proxywell.config.schema import JudgeSettings, NetworkSettings
from proxywell.errors import NoJudgeError, SettingsError, UsageError
from proxywell.judge.certificate import make_certificate
from proxywell.judge.keys import JudgeKey
from proxywell.judge.server import JudgeServer, Listen
from proxywell.model.clock import SystemClock
from proxywell.net.guard import Guard
from proxywell.protocols.head import HttpLimits
from proxywell.protocols.http import Answered, AnswerReader

GUARD = Guard(allow_private=True)
QUICK = JudgeSettings(control_s=0.1)
Page = Callable[[str, str, list[tuple[str, str]]], tuple[int, bytes]]


def judges(
    *specs: str,
    settings: JudgeSettings = QUICK,
    network: NetworkSettings | None = None,
    guard: Guard = GUARD,
    source_address: str | None = None,
) -> Judges:
    return Judges(
        specs, settings, network or NetworkSettings(), guard, source_address=source_address
    )


@asynccontextmanager
async def page_server(page: Page, *, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A web server that answers what ``page`` makes of peer, target and headers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.removesuffix("\r\n\r\n").split("\r\n")
        fields = [line.partition(":") for line in lines[1:]]
        headers = [(name, value.strip()) for name, _, value in fields]
        peer = writer.get_extra_info("peername")[0]
        status, body = page(peer, lines[0].split(" ")[1], headers)
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    finally:
        server.close()


def azenv(
    peer: str, target: str, headers: list[tuple[str, str]], *extra: tuple[str, str]
) -> tuple[int, bytes]:
    lines = [f"REMOTE_ADDR = {peer}", f"REQUEST_URI = {target}"]
    lines += [f"HTTP_{n.upper().replace('-', '_')} = {v}" for n, v in (*headers, *extra)]
    return 200, ("<html><body><pre>\n" + "\n".join(lines) + "\n</pre></body></html>").encode()


def names(panel: Judges, *, avoid: str | None = None) -> set[str]:
    """Which judges are given out."""
    return {request.judge for _ in range(20) if (request := panel.request(avoid=avoid))}


async def eventually(truth: Callable[[], bool], *, within_s: float = 15.0) -> None:
    async with asyncio.timeout(within_s):
        while not truth():  # noqa: ASYNC110 - there is no event for what a test looks at
            await asyncio.sleep(0.02)


async def through(request_bytes: bytes, url: str, *, source: str = "127.0.0.1") -> Answered:
    """Send a request as an exit at ``source`` would; returns the answer."""
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
    writer.write(request_bytes)
    answer = AnswerReader(HttpLimits())
    while True:
        data = await reader.read(4096)
        step = answer.receive(data) if data else answer.ended()
        if isinstance(step, Answered):
            writer.close()
            return step
        assert data, step


def nobody_listens() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


async def test_our_own_address_is_the_one_that_a_judge_sees() -> None:
    async with JudgeServer() as server, judges(f"proxywell:{server.url}") as panel:
        assert "127.0.0.1" in panel.own_addresses
    async with (
        JudgeServer() as server,
        judges(f"proxywell:{server.url}", source_address="127.0.0.2") as panel,
    ):
        assert "127.0.0.2" in panel.own_addresses
        assert "127.0.0.1" not in panel.own_addresses


async def test_own_addresses_of_both_families_and_given_ones_are_known() -> None:
    async with JudgeServer(http=[Listen("127.0.0.1", 0), Listen("::1", 0)]) as server:
        specs = [f"proxywell:{url}" for url in server.http_urls]
        network = NetworkSettings(own_addresses=("198.51.100.7", "2001:DB8:0::7"))
        async with judges(*specs, network=network) as panel:
            assert {"127.0.0.1", "::1", "198.51.100.7", "2001:db8::7"} <= panel.own_addresses


async def test_a_whole_probe_from_another_address_becomes_a_signed_elite_sighting() -> None:
    async with (
        JudgeServer() as server,
        judges(f"proxywell:{server.url}", source_address="127.0.0.2") as panel,
    ):
        request = panel.request()
        assert request is not None
        answered = await through(request.origin(), server.url, source="127.0.0.3")
        sighting = request.read(answered.answer, now_s=SystemClock().now_s())
        assert isinstance(sighting, Sighting)
        assert sighting.exit_ip == "127.0.0.3"
        found = assess(
            [sighting], own=panel.own_addresses, own_known=True, proxy_addresses=frozenset()
        )
        assert found.level.value == "elite"
        again = await through(request.origin(), server.url, source="127.0.0.3")
        assert request.read(again.answer, now_s=SystemClock().now_s()) == "judge_replay"
        other = panel.request()
        assert other is not None
        assert other.read(again.answer, now_s=SystemClock().now_s()) == "judge_replay"


def panel_request_bytes(panel: Judges) -> bytes:
    request = panel.request()
    assert request is not None
    return request.origin()


async def test_what_leaves_from_our_own_address_is_no_proxy() -> None:
    async with JudgeServer() as server, judges(f"proxywell:{server.url}") as panel:
        request = panel.request()
        assert request is not None
        answered = await through(request.origin(), server.url)
        assert request.read(answered.answer, now_s=SystemClock().now_s()) == "not_a_proxy"


async def test_a_configured_key_is_insisted_on() -> None:
    stranger = JudgeKey.fresh()
    async with JudgeServer() as server:
        spec = f"proxywell:{server.url}"
        right = JudgeSettings(public_keys=(stranger.public, server.public_key))
        async with judges(spec, settings=right) as panel:
            assert panel.request() is not None
        wrong = JudgeSettings(public_keys=(stranger.public,))
        with pytest.raises(NoJudgeError, match="judge bad signature"):
            async with judges(spec, settings=wrong):
                pass


async def test_no_judge_names_each_and_what_it_said() -> None:
    async with (
        page_server(lambda *_: (404, b"no")) as missing,
        page_server(lambda *_: (200, b"<html>log in</html>")) as portal,
    ):
        gone = nobody_listens()
        with pytest.raises(NoJudgeError) as caught:
            async with judges(f"azenv:{gone}", f"azenv:{missing}", f"ip:{portal}"):
                pass
    text = str(caught.value)
    assert f"azenv:{gone} said: connect refused" in text
    assert f"azenv:{missing} said: status 404" in text
    assert f"ip:{portal} said: wrong answer" in text
    assert "--judge" in text
    assert caught.value.exit_status == 1


async def test_a_silent_judge_does_not_hold_up_the_start() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        spec = f"azenv:http://127.0.0.1:{silent.getsockname()[1]}/"
        panel = judges(spec)
        clock = SystemClock()
        begin_s = clock.monotonic_s()
        with pytest.raises(NoJudgeError, match="said"):
            await panel.start(begin_s + 0.5)
        assert clock.monotonic_s() - begin_s < 4
        await panel.close()


async def test_a_judge_falls_ill_and_recovers() -> None:
    healthy = True

    def page(peer: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
        return azenv(peer, target, headers) if healthy else (200, b"sick")

    async with page_server(page) as url, judges(f"azenv:{url}") as panel:
        assert panel.unwell_since_s() is None
        assert panel.well_at_s() is not None
        assert panel.control_latency_s() is not None
        healthy = False
        assert not await panel.still_well(f"azenv:{url}")  # though it answered a moment ago
        panel.doubt()
        panel.request()
        await eventually(lambda: panel.unwell_since_s() is not None)
        assert panel.request() is None
        assert not await panel.still_well(f"azenv:{url}")
        healthy = True
        await eventually(lambda: panel.unwell_since_s() is None)
        assert panel.request() is not None
        assert await panel.still_well(f"azenv:{url}")


async def test_when_one_judge_falls_ill_the_other_takes_over() -> None:
    healthy = True

    def page(peer: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
        return azenv(peer, target, headers) if healthy else (200, b"sick")

    async with (
        page_server(page) as ill,
        page_server(azenv) as sound,
        judges(f"azenv:{ill}", f"azenv:{sound}") as panel,
    ):
        ill_name, sound_name = f"azenv:{ill}", f"azenv:{sound}"
        assert names(panel) == {ill_name, sound_name}  # they take turns
        assert names(panel, avoid=ill_name) == {sound_name}
        healthy = False
        panel.doubt()
        await eventually(lambda: names(panel) == {sound_name})
        assert panel.unwell_since_s() is None


async def test_signed_judges_come_before_public_ones() -> None:
    async with JudgeServer() as server, page_server(azenv) as public:
        ours, theirs = f"proxywell:{server.url}", f"azenv:{public}"
        async with judges(theirs, ours) as panel:
            assert names(panel) == {ours}
            assert names(panel, avoid=ours) == {theirs}


async def test_judges_on_ipv6_alone_are_for_proxies_that_reach_only_ipv6() -> None:
    async with JudgeServer(http=[Listen("127.0.0.1", 0), Listen("::1", 0)]) as server:
        v4, v6 = (f"proxywell:{url}" for url in server.http_urls)
        async with judges(v4, v6) as panel:
            assert names(panel) == {v4}
            assert names(panel, avoid=v4) == {v4}
            assert {r.judge for _ in range(9) if (r := panel.request(ipv6=True))} == {v6}
        async with judges(v6) as panel:
            assert names(panel) == {v6}
        async with judges(v4) as panel:
            assert panel.request(ipv6=True) is None


async def test_a_start_that_fails_leaves_nothing_running() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        panel = judges(f"azenv:http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(NoJudgeError):
            await panel.start(SystemClock().monotonic_s() + 0.2)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_judge_that_asks_for_peace_gets_it() -> None:
    asked = 0
    status = 200

    def page(peer: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        return (status, azenv(peer, target, headers)[1])

    async with page_server(page) as url, judges(f"azenv:{url}") as panel:
        status = 429
        panel.doubt()
        panel.request()
        await eventually(lambda: panel.unwell_since_s() is not None)
        so_far = asked
        await asyncio.sleep(0.5)  # several control rounds
        assert asked == so_far


async def test_judges_that_nobody_uses_are_left_in_peace() -> None:
    asked = 0

    def page(peer: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        return azenv(peer, target, headers)

    settings = JudgeSettings(control_s=0.02)
    async with page_server(page) as url, judges(f"azenv:{url}", settings=settings):
        await asyncio.sleep(0.5)
        so_far = asked
        await asyncio.sleep(0.3)
        assert asked == so_far


async def test_a_page_that_bears_no_query_is_asked_bare() -> None:
    def page(peer: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
        return azenv(peer, target, headers) if target == "/" else (404, b"")

    async with page_server(page) as url, judges(f"azenv:{url}") as panel:
        assert panel_request_bytes(panel).startswith(b"GET / HTTP/1.1\r\n")


async def test_a_page_that_repeats_the_target_must_do_so_through_proxies() -> None:
    async with (
        page_server(azenv) as url,
        judges(f"azenv:{url}", source_address="127.0.0.2") as panel,
    ):
        one, two = panel.request(), panel.request()
        assert one is not None
        assert two is not None
        answered = await through(one.origin(), url)
        assert two.read(answered.answer, now_s=0) == "judge_replay"
        assert isinstance(one.read(answered.answer, now_s=0), Sighting)


async def test_what_a_balancer_adds_is_not_held_against_a_proxy() -> None:
    count = 0

    def page(peer: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
        nonlocal count
        count += 1
        added = (("X-Forwarded-For", peer), ("Via", "1.1 balancer"), ("X-Trace", str(count)))
        return azenv(peer, target, headers, *added)

    async with (
        page_server(page) as url,
        judges(f"azenv:{url}", source_address="127.0.0.2") as panel,
    ):
        request = panel.request()
        assert request is not None
        answered = await through(request.origin(), url, source="127.0.0.3")
        sighting = request.read(answered.answer, now_s=0)
        assert isinstance(sighting, Sighting)
        found = assess(
            [sighting], own=panel.own_addresses, own_known=True, proxy_addresses=frozenset()
        )
        assert (found.level.value, found.adds_headers) == ("elite", ())


async def test_https_judges_are_verified_by_the_given_certificates(tmp_path: Path) -> None:
    certificate = make_certificate(["127.0.0.1"])
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(certificate.anchor_pem)
    async with JudgeServer(
        http=[Listen("127.0.0.1", 0)],
        https=[Listen("127.0.0.1", 0)],
        tls=certificate.server_context(),
    ) as server:
        specs = [f"proxywell:{url}" for url in (*server.http_urls, *server.https_urls)]
        trusting = JudgeSettings(ca_file=str(ca_file))
        async with judges(*specs, settings=trusting) as panel:
            assert isinstance(panel.https_context, ssl.SSLContext)
            request = panel.request(https=True)
            assert request is not None
            assert request.judge == specs[1]
            plain = panel.request()
            assert plain is not None
            assert plain.judge == specs[0]
        async with judges(*specs) as panel:  # the usual authorities do not know it
            assert panel.request(https=True) is None
            assert panel.request() is not None
            assert not await panel.still_well(specs[1])


def test_bad_settings_are_said_before_anything_is_asked(tmp_path: Path) -> None:
    plain = "azenv:http://127.0.0.1:9/"
    with pytest.raises(UsageError, match="--allow-private"):
        judges(plain, guard=Guard())
    with pytest.raises(UsageError, match="--allow-private"):
        judges("azenv:http://169.254.169.254/")
    with pytest.raises(UsageError, match="no judge is plain http"):
        judges("azenv:https://127.0.0.1:9/")
    with pytest.raises(SettingsError, match=r"judge\.public_keys"):
        judges(plain, settings=JudgeSettings(public_keys=("x",)))
    with pytest.raises(SettingsError, match=r"judge\.ca_file"):
        judges(plain, "ip:https://127.0.0.1:9/", settings=JudgeSettings(ca_file="/none"))
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    with pytest.raises(SettingsError, match=r"judge\.ca_file"):
        judges(plain, "ip:https://127.0.0.1:9/", settings=JudgeSettings(ca_file=str(junk)))
    with pytest.raises(SettingsError, match=r"network\.own_addresses"):
        judges(plain, network=NetworkSettings(own_addresses=("here",)))


async def test_a_name_that_leads_to_a_private_address_is_refused() -> None:
    with pytest.raises(NoJudgeError, match="its address is refused"):
        async with judges("azenv:http://localhost:9/", guard=Guard()):
            pass


async def test_stopping_works_before_starting_and_twice() -> None:
    panel = judges("azenv:http://127.0.0.1:9/")
    await panel.close()
    async with JudgeServer() as server, judges(f"proxywell:{server.url}") as running:
        await running.close()
        await running.close()


@pytest.mark.parametrize(
    ("specs", "source"),
    [
        (["azenv:http://127.0.0.1:80/"], "127.0.0.2"),
        (["azenv:http://127.0.0.1:80/", "proxywell:http://127.0.0.9:80/"], "127.0.0.2"),
        (["azenv:http://127.0.0.1:80/", "azenv:http://203.0.113.1/"], None),
        (["azenv:http://judge.test/"], None),
        (["azenv:http://[::1]:80/"], None),
        ([], None),
    ],
)
def test_judges_on_loopback_suggest_a_source_address(specs: list[str], source: str | None) -> None:
    assert loopback_source(specs) == source
