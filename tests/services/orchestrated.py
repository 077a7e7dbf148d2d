"""A program that uses the orchestrator as a refresh does, and a worker that only says it lives.

``python -m tests.services.orchestrated STATE [--worker]``: brings services up in a state directory,
prints the Redis' URL when they are there, and holds them until stdin ends or it is interrupted.
With ``--worker`` it is the worker: it tells the ledger that it lives until SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from proxywell.config.schema import RedisSettings, Settings
from proxywell.config.secret import Secret
from proxywell.errors import ProxywellError, StateError
from proxywell.orchestrator.services import running
from proxywell.refresh.engines.node import node_name
from proxywell.refresh.ledgers.redis import RedisLedger
from proxywell.refresh.ledgers.redis_address import RedisAddress

BEAT_S = 0.3
TERM_S = 2.0
WORKER = (sys.executable, "-m", "tests.services.orchestrated", "--worker")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def be_worker() -> None:
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    address = RedisAddress.parse(
        Secret(os.environ["PROXYWELL_REDIS__URL"]),
        prefix=os.environ["PROXYWELL_REDIS__PREFIX"],
        answer_s=float(os.environ["PROXYWELL_REDIS__ANSWER_S"]),
    )
    ledger, node = RedisLedger(address), node_name()
    say(node)
    while not over.wait(BEAT_S):
        try:
            ledger.node_beat(node, "", term_s=TERM_S)
        except StateError as error:
            say(str(error))
    ledger.node_gone(node)


def be_command(state: Path, url: str | None) -> int:
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    redis = RedisSettings(url=None if url is None else Secret(url), answer_s=1.0)
    try:
        with running(Settings(redis=redis), state, workers=2, worker_program=WORKER) as services:
            say(services.address.url.reveal())
            sys.stdin.read()
    except ProxywellError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    if "--worker" in sys.argv:
        be_worker()
    else:
        raise SystemExit(be_command(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
