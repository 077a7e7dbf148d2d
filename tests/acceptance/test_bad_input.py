"""Bad input and bad surroundings: one sentence on stderr, the documented status, nothing lost."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.command import Home
from tests.network.list_server import list_server

HTML = "<!DOCTYPE html><html><head><title>503</title></head><body><h1>Busy</h1></body></html>"

# name, what is in it, status, words of the sentence
LISTS: list[tuple[str, bytes | None, int, str]] = [
    ("missing.txt", None, 2, "No such file"),
    ("junk.bin", bytes(range(256)) * 400, 2, "binary data"),
    ("page.html", HTML.encode(), 2, "HTML page"),
    ("broken.json", b'{"proxies": [{"ip": ', 2, "JSON"),
    ("empty.txt", b"", 4, "no entries"),
    ("remarks.txt", b"# nothing yet\n\n", 4, "no entries"),
    ("private.txt", b"10.0.0.1:80\n192.168.1.1:3128\n169.254.169.254:80\n", 4, "private_address 3"),
    ("words.txt", b"no list at all\n", 4, "malformed 1"),
]


@pytest.mark.parametrize("command", ["refresh --source", "check"])
@pytest.mark.parametrize("case", LISTS, ids=[case[0] for case in LISTS])
def test_a_list_that_gives_nothing_is_told_in_a_sentence(
    tmp_path: Path, command: str, case: tuple[str, bytes | None, int, str]
) -> None:
    name, content, status, words = case
    home = Home(tmp_path)  # private addresses are not allowed here
    if content is not None:
        home.write(name, content)
    done = home.run(*command.split(), name)
    assert done.status == status
    assert words in done.sentence
    assert status == 4 or name in done.sentence
    assert home.members() == []


def test_a_directory_is_no_list(home: Home) -> None:
    (home.directory / "lists").mkdir()
    for command in (["refresh", "--source", "lists"], ["check", "lists"]):
        done = home.run(*command)
        assert done.status == 2
        assert "lists" in done.sentence
        assert "directory" in done.sentence


def test_a_line_of_a_gigabyte_is_one_malformed_entry(home: Home) -> None:
    with (home.directory / "line.txt").open("wb") as file:
        for _ in range(1_000):
            file.write(b"a" * 1_000_000)
    done = home.run("refresh", "--source", "line.txt")
    (home.directory / "line.txt").unlink()
    assert done.status == 4
    assert "malformed 1" in done.sentence


async def test_hostile_lists_on_the_network_stop_nothing(home: Home, short_list: str) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:  # ends when the reader has left
            writer.write(b"1")
            await writer.drain()
            await asyncio.sleep(1)

    async with list_server() as server:
        bomb = gzip.compress(b"0" * 40_000_000)
        metadata = "Location: http://169.254.169.254/latest/meta-data/"
        places = {
            server.put("/bomb", bomb, "Content-Encoding: gzip"): "expand",
            server.put_page("/drip", drip): "second",
            server.put("/moved", b"", metadata, status="302 Found"): "169.254.169.254",
            server.put("/page.txt", HTML.encode(), "Content-Type: text/html"): "HTML",
        }
        hasty = {"PROXYWELL_SOURCES__TOTAL_S": "1.5"}
        for place in places:
            alone = await asyncio.to_thread(home.run, "refresh", "--source", place, more=hasty)
            assert alone.status == 1, place
            assert place in alone.sentence
        assert await asyncio.to_thread(home.jobs) == []
        named = [word for place in [*places, short_list] for word in ("--source", place)]
        together = await asyncio.to_thread(
            home.run, "refresh", "--output", "json", *named, more=hasty
        )
    assert together.status == 0
    errors = {one["source"]: one["error"] for one in together.json["sources"]}
    assert errors.pop(short_list) is None
    assert all(errors.values())
    assert together.json["verdicts"]["working"] >= 6


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PROXYWELL_CHECKING__CONECT_HARD_S", "3", "PROXYWELL_CHECKING__CONNECT_HARD_S"),
        ("PROXYWELL_CHECKING__CONNECT_HARD_S", "-3", "above 0"),
        ("PROXYWELL_CHECKING__MAX_SOCKETS", "many", "checking.max_sockets"),
        ("PROXYWELL_REFRESH__BEAT_S", "1000", "beat_s"),
    ],
)
def test_a_wrong_setting_is_named(home: Home, name: str, value: str, words: str) -> None:
    done = home.run("refresh", more={name: value})
    assert done.status == 2
    assert words in done.sentence
    assert not home.state.exists()


def test_an_unknown_setting_in_the_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    done = Home(tmp_path, "[checking]\nmax_socket = 3\n").run("refresh")
    assert done.status == 2
    assert "max_sockets" in done.sentence


def test_a_misspelt_command_or_judge_is_wrong_use(home: Home) -> None:
    assert home.run("refrsh").status == 2
    done = home.run("refresh", "--judge", "azenf:http://127.0.0.1/")
    assert done.status == 2
    assert "azenv" in done.sentence
    assert home.jobs() == []


def test_a_judge_that_is_not_there_fails_the_job_and_says_what_to_do(
    home: Home, short_list: str
) -> None:
    judge = ["--judge", "azenv:http://127.0.0.1:1/"]
    done = home.run("refresh", "--source", short_list, *judge)
    assert done.status == 1
    assert "proxywell judge serve" in done.sentence
    assert [job["outcome"] for job in home.jobs()] == ["failed"]
    assert home.run("check", short_list, *judge).status == 1


def test_a_state_directory_that_cannot_be_written_is_named(home: Home, short_list: str) -> None:
    home.write("file", "")
    for place in ("file", "file/state"):
        done = home.run("refresh", "--source", short_list, "--state", place)
        assert done.status == 1
        assert "file" in done.sentence
        assert "--state" in done.sentence


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    if os.geteuid() != 0:
        pytest.skip("a tiny file system needs root: run the tests as root")
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("this system lets nobody mount: run the tests outside the container")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_and_room_mends_it(home: Home, tiny_disk: Path) -> None:
    state = str(tiny_disk / "state")
    done = home.run("refresh", "--limit", "60", "--state", state)
    assert done.status == 1
    assert "space" in done.sentence or "disk is full" in done.sentence
    subprocess.run(["mount", "-o", "remount,size=20m", str(tiny_disk)], check=True)
    jobs = home.run("job", "list", "--output", "json", "--state", state).json
    for job in jobs:
        waited = home.run("job", "wait", job["job_id"], "--output", "json", "--state", state).json
        items = waited["items"]
        assert items["planned"] == items["checked"] + items["given_up"]
    again = home.run("refresh", "--limit", "30", "--output", "json", "--state", state)
    assert (again.status, again.json["outcome"]) == (0, "complete")
