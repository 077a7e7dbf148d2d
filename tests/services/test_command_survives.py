"""``refresh --engine celery`` on a lab, while the processes that it brought up are hurt."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random, SystemRandom
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import pytest

from tests.acceptance.command import Home, settings_for
from tests.network.lab_client import Served, serving
from tests.services.commands import processes_of
from tests.services.redis_server import needed_binary
from tests.services.test_orchestrator_children import until

HURT_S = 15.0
END_S = 150.0
LASTS_S = (0.5, 6.0)
EVERY_S = (0.2, 2.0)


@pytest.fixture(scope="module")
def lab() -> Iterator[Served]:
    with serving("--profile", "realistic", "--seed", "11", "--seconds", "1500") as served:
        yield served


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for word in (thread / "children").read_text(encoding="ascii").split():
                found += [int(word), *descendants(int(word))]
    return found


def hurt(command: subprocess.Popen[str], draw: Random) -> list[str]:
    """Signal processes of a command, one after the other; what was done."""
    done: list[str] = []
    began_s = time.monotonic()
    while command.poll() is None and time.monotonic() - began_s < HURT_S:
        victims = descendants(command.pid)
        if victims:
            victim, number = draw.choice(victims), draw.choice([SIGKILL, SIGTERM, SIGSTOP])
            done.append(f"{time.monotonic() - began_s:.2f} s: {number.name} to {victim}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, number)
            if number is SIGSTOP:
                time.sleep(draw.uniform(*LASTS_S))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, SIGCONT)
        time.sleep(draw.uniform(*EVERY_S))
    return done


@pytest.mark.deep
@pytest.mark.parametrize("once_more", [False, True])
@pytest.mark.parametrize("waited_for", ["by itself", "by job wait, when it was killed too"])
def test_a_command_whose_processes_are_hurt_reports_complete(
    tmp_path: Path, lab: Served, waited_for: str, once_more: bool
) -> None:
    needed_binary()
    seed = int(os.environ.get("PROXYWELL_MATRIX_SEED") or SystemRandom().randrange(1 << 32))
    home = Home(tmp_path, settings_for(lab))
    words = ["refresh", "--engine", "celery", "--workers", "2", "--chunk-size", "50"]
    command = home.start(*words, "--output", "json")
    time.sleep(2.0)  # or nothing is there yet
    done = [f"seed {seed}", *hurt(command, Random(seed))]
    if waited_for != "by itself":
        command.kill()
        job = command.communicate(timeout=END_S)[1].partition("Refresh job ")[2].partition(":")[0]
        ended = home.run("job", "wait", job, "--output", "json", limit_s=END_S)
        status, report, said = ended.status, ended.json, ended.err
    else:
        out, said = command.communicate(timeout=END_S)
        assert "Traceback" not in said
        status, report = command.returncode, json.loads(out)
    told = "\n".join([*done, said])
    assert status == 0, told
    assert report["outcome"] == "complete", told
    items = report["items"]
    assert items["planned"] == items["checked"] == report["candidates"]["planned"], told
    until(lambda: not processes_of(home.state))
