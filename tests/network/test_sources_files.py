"""Lists in files, pipes and devices, and what is no list there."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxywell.config.schema import NetworkSettings, SourceSettings
from proxywell.errors import InputMissingError
from proxywell.net.guard import Guard
from proxywell.sources.reader import SourceReader
from tests.network.list_server import ListServer, list_server
from tests.network.whole_readings import LIST, MANY, SetClock, read, spec_of


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def server() -> AsyncIterator[ListServer]:
    async with list_server() as running:
        yield running


@pytest.mark.parametrize("bad", ["missing", "directory", "nul\x00name", "loop"])
async def test_a_file_that_is_not_there_ends_the_reading_before_it_starts(
    bad: str, server: ListServer, clock: SetClock, tmp_path: Path
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    fine = spec_of(server.put("/list", LIST))
    with pytest.raises(InputMissingError, match=r"source .*(check the path|name a file)") as caught:
        await read([fine, spec_of(str(tmp_path / bad))], clock)
    assert caught.value.exit_status == 2
    assert not server.requests


async def test_credentials_are_kept_from_a_file_that_the_user_names(
    clock: SetClock, tmp_path: Path
) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"1.2.3.4:80:joe:secret\nhttp://joe:other@1.2.3.4:80\n1.2.3.4:80\n")
    reading = await read([spec_of(str(path))], clock)
    assert [c.endpoint.key for c in reading.candidates] == [
        "joe:secret@1.2.3.4:80", "joe:other@1.2.3.4:80", "1.2.3.4:80",
    ]  # fmt: skip
    assert reading.counts.unique == 3


async def test_a_gzip_file_is_undone_and_a_bomb_in_one_is_refused(
    clock: SetClock, tmp_path: Path
) -> None:
    names = ("fine.gz", "zeros.gz", "bomb.gz", "cut.gz")
    fine, zeros, bomb, cut = (tmp_path / name for name in names)
    fine.write_bytes(gzip.compress(LIST))
    zeros.write_bytes(gzip.compress(bytes(30_000_000)))
    bomb.write_bytes(gzip.compress(b"1.2.3.4:80\n" * 1_000_000))
    cut.write_bytes(gzip.compress(MANY)[:-20])
    reading = await read([spec_of(str(path)) for path in (fine, zeros, bomb, cut)], clock)
    reports = reading.reports
    assert (reports[0].read, reports[0].error) == (2, None)
    assert "binary data" in str(reports[1].error)
    assert "expands to more than 100 times" in str(reports[2].error)
    assert reports[2].read < 1_000_000
    assert "breaks off" in str(reports[3].error)
    assert 1_900 < reports[3].read <= 2_000  # the user's own file: what came is kept


async def test_a_pipe_is_read_to_its_end_and_a_silent_one_to_the_deadline(
    clock: SetClock, tmp_path: Path
) -> None:
    pipe, silent = tmp_path / "pipe", tmp_path / "silent"
    os.mkfifo(pipe)
    os.mkfifo(silent)
    keeper = os.open(silent, os.O_RDWR)  # a writer that never writes
    opened = threading.Event()

    def write() -> None:
        with pipe.open("wb", buffering=0) as out:
            opened.set()
            for line in (b"1.2.3.4:80\n", b"1.2.3.5:", b"80\n"):
                out.write(line)
                time.sleep(0.05)

    reader_end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = threading.Thread(target=write)
    writer.start()
    opened.wait(5)
    try:
        reading = await read([spec_of(str(pipe)), spec_of(str(silent))], clock, limit_s=1)
    finally:
        writer.join(5)
        os.close(reader_end)
        os.close(keeper)
    assert (reading.reports[0].read, reading.reports[0].error) == (2, None)
    assert "not read to its end within" in str(reading.reports[1].error)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
async def test_a_device_ends_or_is_refused(device: str, clock: SetClock) -> None:
    reading = await read([spec_of(device)], clock, limit_s=5)
    assert reading.candidates == []
    assert ("holds no entries" if device == "/dev/null" else "binary data") in str(
        reading.reports[0].error
    )


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("megabytes", [64, pytest.param(1_024, marks=pytest.mark.deep)])
async def test_one_endless_line_is_one_malformed_entry_in_bounded_memory(
    megabytes: int, clock: SetClock, tmp_path: Path
) -> None:
    path = tmp_path / "line"
    block = b"1.2.3.4:80 " * 95_326
    with path.open("wb") as out:
        for _ in range(megabytes):
            out.write(block)
        out.write(b"\n1.2.3.5:80\n")
    before = resident_bytes()
    reading = await read([spec_of(str(path))], clock, limit_s=60)
    assert resident_bytes() - before < 30_000_000
    assert reading.counts.refused == {"malformed": 1}
    assert [c.endpoint.host for c in reading.candidates] == ["1.2.3.5"]


async def test_a_list_of_private_addresses_alone_says_so_and_what_to_do(
    clock: SetClock, tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"10.0.0.1:80\n127.0.0.1:80\n169.254.169.254:80\njunk\n")
    reader = SourceReader(SourceSettings(), NetworkSettings(), Guard(), None, clock)
    reading = await reader.read([spec_of(str(path))], deadline_s=clock.monotonic_s() + 5)
    assert reading.why_nothing == (
        "all 4 entries were refused: malformed 1, private_address 3; --allow-private admits "
        "addresses of a network of your own, never link-local ones"
    )


@pytest.mark.parametrize("others", [0, 1])
async def test_a_single_source_that_fails_is_told_by_its_reader_alone(
    others: int, clock: SetClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = [tmp_path / f"list{number}" for number in range(1 + others)]
    for path in places:
        path.write_bytes(b"\x00\x01binary")
    reading = await read([spec_of(str(path)) for path in places], clock)
    assert reading.all_failed
    assert caplog.text.count("sources.faulty") == (2 if others else 0)
