"""Reading many sources: copies, courtesy, faults that stay with their source, files and pipes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxywell.errors import SettingsError
from proxywell.sources import visit
from proxywell.sources.grammar import Entry, Malformed
from proxywell.sources.parse import Form, ListParser
from tests.network.list_server import ListServer, list_server
from tests.network.whole_readings import LIST, MANY, SetClock, read, spec_of


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def server() -> AsyncIterator[ListServer]:
    async with list_server() as running:
        yield running


async def test_one_faulty_source_stops_none_of_the_others(
    server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    good = tmp_path / "good.txt"
    good.write_bytes(LIST + b"10.0.0.1:22\njunk\n")

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n1.1.1.1:80\n")
        await writer.drain()
        await asyncio.sleep(5)

    places = [
        server.put("/missing", b"", status="404 Not Found"),
        server.put_page("/drip", drip),
        server.put("/html", b"<html><h1>down</h1>"),
        server.put("/empty", b""),
        str(good),
        server.put("/fine", b"1.2.3.5:80\n1.2.3.6:80\n"),
    ]
    reading = await read([spec_of(place) for place in places], clock, total_s=0.5)
    errors = [report.error for report in reading.reports]
    assert [report.source for report in reading.reports] == places
    assert [error is None for error in errors] == [False, False, False, False, True, True]
    assert "status 404" in str(errors[0])
    assert "within 0.5 s" in str(errors[1])
    assert "HTML page without a table" in str(errors[2])
    assert errors[3] == "it holds no entries"
    assert [(c.endpoint.netloc, c.sources) for c in reading.candidates] == [
        ("1.2.3.4:80", (places[4],)),
        ("1.2.3.5:80", (places[4], places[5])),
        ("1.2.3.6:80", (places[5],)),
    ]
    counts = reading.counts
    assert (counts.read, counts.unique) == (6, 4)
    assert counts.refused == {"malformed": 1, "service_port": 1}
    assert reading.why_nothing is None


async def test_reading_ends_at_the_deadline_that_was_passed_down(
    server: ListServer, clock: SetClock
) -> None:
    async def silence(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(20)

    specs = [spec_of(server.put_page(f"/{n}", silence)) for n in range(30)]
    started_s = time.monotonic()
    reading = await read(specs, clock, limit_s=0.5, parallel=2)
    assert time.monotonic() - started_s < 3
    assert reading.all_failed
    assert "no list gave an entry" in str(reading.why_nothing)
    assert "(and 29 more)" in str(reading.why_nothing)


async def test_only_so_many_lists_are_asked_of_one_host_at_a_time(
    server: ListServer, clock: SetClock
) -> None:
    at_once = most = 0

    async def count(writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n1.2.3.4:80\n")
        await writer.drain()
        at_once -= 1

    specs = [spec_of(server.put_page(f"/{n}", count)) for n in range(12)]
    await read(specs, clock, parallel=8)
    assert most == 4
    most = 0
    await read(specs, clock, parallel=2)
    assert most == 2


async def test_a_list_that_did_not_change_is_not_sent_again(
    server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    url = server.put("/list", LIST, 'ETag: "v1"', "Last-Modified: Tue, 14 Nov 2023 00:00:00 GMT")
    await read([spec_of(url)], clock, tmp_path)
    server.put("/list", b"", status="304 Not Modified")
    clock.wall_s += 1_000
    reading = await read([spec_of(url)], clock, tmp_path)
    assert (reading.reports[0].read, reading.reports[0].error) == (2, None)
    second = server.asked("/list")[1].headers
    assert second["if-none-match"] == '"v1"'
    assert second["if-modified-since"] == "tue, 14 nov 2023 00:00:00 gmt"


async def test_a_list_is_not_asked_again_before_its_interval_is_over(
    server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    url = server.put("/list", LIST)
    for _ in range(3):
        reading = await read([spec_of(url)], clock, tmp_path)
        assert (reading.reports[0].read, reading.reports[0].error) == (2, None)
    assert len(server.asked("/list")) == 1
    clock.wall_s += 899
    await read([spec_of(url)], clock, tmp_path)
    assert len(server.asked("/list")) == 1
    clock.wall_s += 2
    server.put("/list", LIST + b"1.2.3.6:80\n")
    reading = await read([spec_of(url)], clock, tmp_path)
    assert reading.reports[0].read == 3
    clock.wall_s -= 10_000  # a clock that went back does not silence a source for ever
    await read([spec_of(url)], clock, tmp_path)
    assert len(server.asked("/list")) == 3


BROKEN = {
    "empty": b"",
    "comments": b"# under construction\n",
    "array": b"Array",
    "page": b"<!DOCTYPE html><table><tr><td>6.6.6.6</td><td>80</td></tr></table>",
    "cut json": b'[{"ip": "6.6.6.6", "port": 80}, {"ip',
    "binary": bytes(2_000),
    "tenfold": MANY,
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_source_that_breaks_is_flagged_and_its_last_good_copy_is_read(
    broken: str, server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    url = server.put("/list", LIST, 'ETag: "good"')
    spec = spec_of(url, form=Form.TEXT)
    await read([spec], clock, tmp_path)
    clock.wall_s += 3_600
    server.put("/list", BROKEN[broken], 'ETag: "bad"')
    reading = await read([spec], clock, tmp_path)
    report = reading.reports[0]
    assert "; its last good copy of 2023-11-14 22:13 UTC was read" in str(report.error)
    assert [c.endpoint.host for c in reading.candidates] == ["1.2.3.4", "1.2.3.5"]
    assert (reading.counts.read, reading.counts.unique) == (2, 2)
    clock.wall_s += 3_600
    server.put("/list", LIST + b"1.2.3.6:80\n", 'ETag: "mended"')
    reading = await read([spec], clock, tmp_path)
    assert (reading.reports[0].read, reading.reports[0].error) == (3, None)
    assert server.asked("/list")[2].headers["if-none-match"] == '"good"'  # never the bad one's


async def test_a_source_that_does_not_answer_is_replaced_by_its_copy_for_a_week(
    server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    url = server.put("/list", LIST)
    await read([spec_of(url)], clock, tmp_path)
    server.put("/list", b"", status="503 x")
    clock.wall_s += 6 * 86_400
    reading = await read([spec_of(url)], clock, tmp_path)
    assert "status 503; its last good copy" in str(reading.reports[0].error)
    assert len(reading.candidates) == 2
    clock.wall_s += 2 * 86_400
    reading = await read([spec_of(url)], clock, tmp_path)
    assert reading.reports[0].error == "127.0.0.1 answers with status 503"
    assert reading.candidates == []


async def test_a_list_that_stays_large_for_a_day_is_believed(
    server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    url = server.put("/list", LIST)
    await read([spec_of(url)], clock, tmp_path)
    server.put("/list", MANY)
    for hours, believed in ((1, False), (13, False), (24.5, False), (26, True)):
        clock.wall_s = 1_700_000_000.0 + hours * 3_600
        reading = await read([spec_of(url)], clock, tmp_path)
        assert (reading.reports[0].error is None) == believed, hours
    assert len(reading.candidates) == 2_000


async def test_a_page_where_a_list_was_expected_is_not_believed_even_with_a_table(
    server: ListServer, clock: SetClock
) -> None:
    url = server.put("/list", BROKEN["page"])
    flagged = await read([spec_of(url, form=Form.JSON)], clock)
    assert flagged.reports[0].error == ("it shows an HTML page where a list in json was expected")
    assert flagged.candidates == []
    believed = await read([spec_of(url, form=Form.HTML)], clock)
    assert [c.endpoint.netloc for c in believed.candidates] == ["6.6.6.6:80"]


@pytest.mark.parametrize(
    ("robots", "status", "error"),
    [
        (b"", "404 x", None),
        (b"User-agent: *\nDisallow: /private\n", "200 OK", None),
        (b"User-agent: *\nDisallow: /\n", "200 OK", "its robots.txt asks programs not to"),
        (b"User-agent: proxywell\nDisallow: /page\n", "200 OK", "its robots.txt asks programs"),
        (b"", "503 x", "status 503"),
    ],
)
async def test_a_page_is_read_only_if_its_site_lets_programs_read_it(
    robots: bytes, status: str, error: str | None, server: ListServer, clock: SetClock
) -> None:
    url = server.put("/page", BROKEN["page"])
    server.put("/robots.txt", robots, status=status)
    reading = await read([spec_of(url, form=Form.HTML)], clock)
    told = reading.reports[0].error
    assert told is None if error is None else error in str(told)
    assert len(server.asked("/page")) == (error is None)


async def test_a_certificate_file_that_is_none_is_one_sentence(
    clock: SetClock, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SettingsError, match=r"sources\.ca_file: .* holds no certificates"):
            await read([], clock, ca_file=str(path))


async def test_a_bug_that_one_list_brings_to_light_stays_with_that_list(
    server: ListServer, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stumbles(ListParser):
        def finish(self) -> Iterator[Entry | Malformed]:
            for item in super().finish():
                if isinstance(item, Entry) and item.port == 666:
                    raise ZeroDivisionError("planted")
                yield item

    monkeypatch.setattr(visit, "ListParser", Stumbles)
    urls = [server.put("/bad", b"1.1.1.1:666\n"), server.put("/good", LIST)]
    reading = await read([spec_of(url) for url in urls], clock)
    assert [report.error for report in reading.reports] == [
        "internal error: ZeroDivisionError: planted",
        None,
    ]


async def test_a_cache_that_cannot_be_written_costs_the_copy_and_nothing_else(
    server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("in the way")
    reading = await read([spec_of(server.put("/list", LIST))], clock, occupied)
    assert (reading.reports[0].read, reading.reports[0].error) == (2, None)


def damage(directory: Path, pattern: str, content: bytes | None) -> None:
    for path in directory.glob(pattern):
        path.unlink()
        if content is not None:
            path.write_bytes(content)


def files_in(directory: Path) -> int:
    return len(list(directory.iterdir()))


async def test_a_damaged_cache_is_as_none(
    server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    url = server.put("/list", LIST)
    await read([spec_of(url)], clock, tmp_path)
    damage(tmp_path, "*.list", None)
    assert (await read([spec_of(url)], clock, tmp_path)).reports[0].read == 2
    damage(tmp_path, "*.json", b"{")
    assert (await read([spec_of(url)], clock, tmp_path)).reports[0].read == 2
    assert len(server.asked("/list")) == 3
    assert files_in(tmp_path) == 2  # older bodies are dropped
