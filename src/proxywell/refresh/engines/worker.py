"""One worker of the local engine: shift after shift until the job is closed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias, TypeVar

from msgspec import Struct

from proxywell.errors import ProxywellError
from proxywell.refresh.bell import DatagramBell, Role
from proxywell.refresh.books import Worker
from proxywell.refresh.engines.loop_thread import end_process, interruptible, run_again_when_hung
from proxywell.refresh.engines.tie import tie_to_parent
from proxywell.refresh.ledgers.sqlite import open_ledger
from proxywell.refresh.ports import CandidateChecker
from proxywell.refresh.shift import Shift, ShiftEnd, ShiftTerms
from proxywell.refresh.standstill import LoopThread

CheckerFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[CandidateChecker]]
T = TypeVar("T")


class Post(Struct, frozen=True):
    """Where a worker works: the job, whose leases they are, the state directory, the terms."""

    job_id: str
    worker: Worker
    state_dir: Path
    terms: ShiftTerms


async def work(
    post: Post,
    make_checker: CheckerFactory,
    leaving: asyncio.Event,
    give_up: Callable[[], None] = end_process,
) -> ShiftEnd:
    """Hold shift after shift until the job is closed or ``leaving`` is set.

    Args:
        post: Where.
        make_checker: Makes the checker, inside this loop.
        leaving: Set by whoever wants this to end.
        give_up: Called on another thread when a check hangs and cannot be interrupted.

    Raises:
        LoopHungError: A check hung and was interrupted; what was held is handed back.
        ProxywellError: The checker cannot start (no judge answers, ...).
        Exception: A bug; what was held is released or runs out.
    """
    bell = DatagramBell(post.state_dir, Role.WORKER)
    try:
        with interruptible(give_up) as thread:
            async with make_checker() as checker:
                end = ShiftEnd.OVER
                while end is ShiftEnd.OVER:
                    end = await _one_shift(post, checker, bell, leaving, thread)
                return end
    finally:
        bell.close()


async def _one_shift(
    post: Post,
    checker: CandidateChecker,
    bell: DatagramBell,
    leaving: asyncio.Event,
    thread: LoopThread,
) -> ShiftEnd:
    shift = Shift(
        post.job_id,
        post.worker,
        open_ledger=partial(open_ledger, post.state_dir),
        checker=checker,
        terms=post.terms,
        bell=bell,
        thread=thread,
    )
    watch = asyncio.create_task(_pass_on(leaving, shift))
    try:
        return await shift.run()
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


async def _pass_on(leaving: asyncio.Event, shift: Shift) -> None:
    await leaving.wait()
    shift.leave()


def child_main(
    post: Post,
    make_checker: CheckerFactory,
    prepare: Callable[[], None] | None,
    parent: int,
    tell: Connection,
) -> None:
    """Be a child process: loop, reactor and connections are made here.

    Ends with the parent, whatever ends it. SIGTERM drains. SIGINT is the parent's business.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    tie_to_parent(parent)
    try:
        if prepare is not None:
            prepare()
        run_again_when_hung(partial(_child, post, make_checker))
    except ProxywellError as error:
        with contextlib.suppress(OSError):
            tell.send_bytes(f"{error.exit_status}{error}".encode())
        raise SystemExit(1) from None


async def _child(post: Post, make_checker: CheckerFactory) -> ShiftEnd:
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    return await work(post, make_checker, leaving)
