"""Rows in which Redis, its data, or the way to it is lost, slow, full or late."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from proxywell.errors import StateError
from tests.services.matrix.lab import ITEMS, Lab, Setup
from tests.services.matrix.row import BOOT_S, LEASE_S, RESCUE_S, WORK_S, Row

DOWN_S = 1.0
PAUSE_S = 10.0
HOLE_S = 20.0
FULL_S = 3.0
SLOW_S = 0.05
LONG = 3  # so that there is something left when its log was cut
ANSWER_S = 2.0  # a call that was under way when the answer stayed away


def restart(lab: Lab) -> None:
    """SIGKILL, a second away, and there again with what it kept."""
    lab.moment()
    lab.struck()
    lab.note(f"SIGKILL to {lab.server.pid} (Redis)")
    lab.server.kill()
    lab.pause(DOWN_S)
    lab.server.start()
    lab.note(f"Redis {lab.server.pid} started")


def cut_aof(lab: Lab) -> None:
    """As ``restart``, but the last second of what it wrote is lost, as with a power cut."""
    lab.moment()
    (log,) = (lab.data / "appendonlydir").glob("*.incr.aof")
    lab.pause(1.1)  # what is older than a second is on the disk
    kept = log.stat().st_size
    lab.pause(1.0)
    lab.struck()
    lab.note(f"SIGKILL to {lab.server.pid} (Redis)")
    lab.server.kill()
    lost = log.stat().st_size - kept
    with log.open("r+b") as file:
        file.truncate(kept)
    lab.note(f"{lost} bytes were cut from its log")
    assert lost > 0, "nothing was written in the last second"
    lab.server.start()


def pause(lab: Lab) -> None:
    lab.moment()
    lab.struck()
    lab.server.call("CLIENT", "PAUSE", int(PAUSE_S * 1000), "ALL")
    lab.note(f"CLIENT PAUSE {PAUSE_S:g} s")
    lab.pause(PAUSE_S)


def stand_still(lab: Lab) -> None:
    lab.moment()
    lab.struck()
    lab.server.pause()
    lab.note(f"SIGSTOP to {lab.server.pid} (Redis)")
    lab.pause(PAUSE_S)
    lab.server.resume()
    lab.note(f"SIGCONT to {lab.server.pid} (Redis)")


def hole(whose: str) -> Callable[[Lab], None]:
    def strike(lab: Lab) -> None:
        lab.moment()
        way = lab.to_workers if whose == "workers" else lab.to_waiter
        assert way is not None, "the row has no forwarders"
        lab.struck()
        way.make_hole()
        lab.note(f"nothing passes between {whose} and Redis")
        lab.pause(HOLE_S)
        way.heal()
        lab.note("everything passes")

    return strike


def cut_once(lab: Lab) -> None:
    lab.moment()
    lab.struck()
    for way in (lab.to_workers, lab.to_waiter):
        assert way is not None, "the row has no forwarders"
        way.cut()
    lab.note("every connection was reset")


def kill_clients(kind: str, *, times: int = 1) -> Callable[[Lab], None]:
    def strike(lab: Lab) -> None:
        lab.moment()
        lab.struck()
        for _ in range(times):
            killed = lab.server.call("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            lab.note(f"CLIENT KILL TYPE {kind}: {killed}")
            lab.pause(0.1)

    return strike


def delete_books(lab: Lab) -> None:
    lab.moment()
    lab.struck()
    deleted = lab.server.call("DEL", *lab.system.book_keys(lab))
    lab.note(f"{deleted} keys of the job were deleted")


def expire_books(lab: Lab) -> None:
    lab.moment(share=0.1)
    lab.struck()
    for key in lab.system.book_keys(lab):
        lab.server.call("EXPIRE", key, 3)
    lab.note("the keys of the job expire in 3 s")


def flush(lab: Lab) -> None:
    lab.moment()
    lab.struck()
    lab.server.call("FLUSHALL")
    lab.note("FLUSHALL")


def refuse_writes(lab: Lab) -> None:
    lab.moment()
    lab.struck()
    lab.server.call("CONFIG", "SET", "maxmemory", "1")
    lab.note("maxmemory 1 byte")
    lab.pause(FULL_S)
    lab.server.call("CONFIG", "SET", "maxmemory", "0")
    lab.note("maxmemory without limit")


def drop_bells(lab: Lab) -> None:
    """Take every message away for a while, as soon as it lies there."""
    lab.until(lambda: "open" in lab.system.books(lab), bound_s=30.0, what="the job")
    lab.struck()
    dropped = 0
    lab.add_worker()
    end_s = time.monotonic() + FULL_S + BOOT_S
    while time.monotonic() < end_s:
        with contextlib.suppress(StateError):
            dropped += int(lab.server.call("DEL", lab.system.queue()))
        lab.pause(0.02)
    lab.note(f"messages were taken away {dropped} times")


def double_bells(lab: Lab) -> None:
    """Every message lies there twice before a worker is there to take it."""
    queue = lab.system.queue()
    lab.until(lambda: bool(lab.server.call("LLEN", queue)), bound_s=30.0, what="a message")
    lab.pause(0.5)
    lab.struck()
    waiting = lab.server.call("LRANGE", queue, 0, -1)
    lab.server.call("RPUSH", queue, *waiting)
    lab.note(f"{len(waiting)} messages were doubled")
    lab.add_worker()


def slow_down(lab: Lab) -> None:
    for way in (lab.to_workers, lab.to_waiter):
        assert way is not None, "the row has no forwarders"
        way.slow_down(SLOW_S)
    lab.moment()
    lab.struck()


FORWARDED = Setup(forwarded=True)

ROWS = [
    Row(
        "redis-empty",
        "Redis SIGKILL, restarted empty after 1 s",
        restart,
        lasts_s=DOWN_S,
        recover_s=RESCUE_S,
        boots=1,
        quick=True,
        chord=True,
    ),
    Row(
        "redis-aof",
        "Redis SIGKILL, restarted after 1 s with AOF everysec",
        restart,
        Setup(aof=True),
        lasts_s=DOWN_S,
        recover_s=RESCUE_S,
        boots=1,
        chord=True,
    ),
    Row(
        "aof-cut",
        "Redis SIGKILL, its log cut by the last second, restarted",
        cut_aof,
        Setup(aof=True, items=LONG * ITEMS),
        recover_s=RESCUE_S,
        boots=1,
        work_s=LONG * WORK_S,
    ),
    Row(
        "pause",
        "CLIENT PAUSE 10 s",
        pause,
        lasts_s=PAUSE_S + ANSWER_S,
        recover_s=LEASE_S,
        chord=True,
    ),
    Row(
        "hole-workers",
        "network black hole workers-Redis 20 s (no RST)",
        hole("workers"),
        FORWARDED,
        lasts_s=HOLE_S + ANSWER_S,
    ),
    Row(
        "hole-waiter",
        "network black hole waiter-Redis 20 s (no RST)",
        hole("waiter"),
        FORWARDED,
        lasts_s=HOLE_S + ANSWER_S,
        recover_s=1.0,
    ),
    Row(
        "redis-frozen",
        "Redis SIGSTOP 10 s",
        stand_still,
        lasts_s=PAUSE_S + ANSWER_S,
        recover_s=LEASE_S,
    ),
    Row("cut", "every TCP connection reset", cut_once, FORWARDED),
    Row("clients-normal", "CLIENT KILL TYPE normal", kill_clients("normal")),
    Row("clients-pubsub", "CLIENT KILL TYPE pubsub", kill_clients("pubsub")),
    Row(
        "clients-20",
        "CLIENT KILL TYPE normal 20 times, 100 ms apart",
        kill_clients("normal", times=20),
        lasts_s=2.0,
        chord=True,
    ),
    Row(
        "books-deleted",
        "the job's keys deleted (chord: the chord's)",
        delete_books,
        quick=True,
        chord=True,
    ),
    Row(
        "books-expire",
        "the job's keys expire after 3 s, and one candidate takes 8 s (chord: result_expires=3)",
        expire_books,
        Setup(script={"slow": {161: 8.0}}, chord={"result_expires": 3}),
        lasts_s=3.0 + 8.0,
        chord=True,
    ),
    Row("flushall", "FLUSHALL midway", flush, quick=True, chord=True),
    Row(
        "full",
        "Redis refuses writes (maxmemory) for 3 s",
        refuse_writes,
        lasts_s=FULL_S,
        recover_s=RESCUE_S,
        boots=1,
        chord=True,
    ),
    Row(
        "bells-doubled",
        "every doorbell delivered twice",
        double_bells,
        recover_s=RESCUE_S,
        boots=1,
        chord=True,
        begins=lambda lab: lab.add_waiter(first=True),
    ),
    Row(
        "bells-dropped",
        "every doorbell dropped for 7 s, those that a new worker rings among them",
        drop_bells,
        lasts_s=FULL_S + BOOT_S,
        recover_s=8.0,  # rung again after 1, 2, 4 and 8 s: once, for all children
        begins=lambda lab: lab.add_waiter(first=True),
    ),
    Row(
        "slow",
        "every call to Redis takes 50 ms longer",
        slow_down,
        FORWARDED,
        recover_s=0.0,
        work_s=12.0,
    ),
]
