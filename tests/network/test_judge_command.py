"""``proxywell judge serve`` as a user runs it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is missing: apt-get install curl")
COMMAND = [sys.executable, "-m", "proxywell", "judge", "serve"]


@contextmanager
def serving(state: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [*COMMAND, "--state", str(state), "--output", "json", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    try:
        while not lines or lines[-1].rstrip() != "}":
            line = process.stdout.readline()
            assert line, process.communicate(timeout=10)
            lines.append(line)
        yield process, json.loads("".join(lines))
    finally:
        process.kill()
        process.communicate(timeout=10)


def refused(state: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, "--state", str(state), *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    return done.returncode, done.stderr.strip()


@needs_curl
def test_what_is_offered_can_be_used_as_it_stands(tmp_path: Path) -> None:
    arguments = ["--http", "127.0.0.1:0", "--http", "[::1]:0", "--https", "127.0.0.1:0"]
    with serving(tmp_path, *arguments) as (process, offer):
        assert [url.partition(":")[0] for url in offer["urls"]] == ["http", "http", "https"]
        assert offer["judges"] == [f"proxywell:{url}" for url in offer["urls"]]
        for url in offer["urls"]:
            pin = ["--cacert", offer["ca_file"], "--pinnedpubkey", f"sha256//{offer['spki_pin']}"]
            assert CURL is not None
            answer = subprocess.run(
                [CURL, "-sS", "--max-time", "10", *pin, f"{url}healthz"],
                capture_output=True, text=True, timeout=20, check=False,
            )  # fmt: skip
            assert answer.stdout == "ok\n", answer.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with serving(tmp_path, *arguments) as (_, again):
        assert again["public_key"] == offer["public_key"]
        assert again["spki_pin"] == offer["spki_pin"]


def test_wrong_use_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    for arguments, words in [
        (["--http", "nowhere"], "HOST:PORT"),
        (["--https", "0.0.0.0:0"], "--name"),
        (["--cert", "/x", "--https", "127.0.0.1:0"], "--cert and --key"),
        (["--cert", "/x", "--key", "/y"], "--https"),
        (["--https", "127.0.0.1:0", "--cert", "/none", "--key", "/none"], "cannot be read"),
    ]:
        status, said = refused(tmp_path, *arguments)
        assert status == 2, said
        assert words in said
        assert len(said.splitlines()) == 1


def test_what_the_surroundings_refuse_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = refused(tmp_path, "--http", f"127.0.0.1:{port}")
    assert status == 1
    assert "in use" in said
    (tmp_path / "judge.key").write_text("junk")
    status, said = refused(tmp_path, "--http", "127.0.0.1:0")
    assert status == 1
    assert "move it away" in said
