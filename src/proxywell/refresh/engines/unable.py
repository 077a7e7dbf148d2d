"""Who cannot check for a job, and why: a note in Redis that fades by itself.

A worker whose judges do not answer claims nothing, so the books say nothing of it, and whoever
waits would wait until the deadline. Nothing is accounted with this note; it only tells a waiter
early what it would learn late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from proxywell.errors import ProxywellError
from proxywell.refresh.books import JobRow, JobState
from proxywell.refresh.engines.local import WorkerFailedError
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link

KEPT_S: Final = 90.0  # three times the longest pause between two doorbells
PATIENCE_S: Final = 3.0  # of a job of which nothing was checked; another worker may be starting


class Inability(Struct, frozen=True):
    """Why a worker cannot check, and the exit status of a command that ends for this reason."""

    sentence: str
    exit_status: int = 1

    @classmethod
    def of(cls, error: Exception) -> Inability:
        """What an error says: ours its sentence, any other one its name too."""
        if isinstance(error, ProxywellError):
            return cls(str(error), error.exit_status)
        return cls(f"a worker cannot go on ({type(error).__name__}: {error})")


class Unable:
    """The note about one job; for one thread.

    All methods raise StateError when Redis cannot be reached.

    Args:
        address: The server.
        job_id: The job.
    """

    def __init__(self, address: RedisAddress, job_id: str) -> None:
        self._link = Link(address)
        self._key = f"{address.prefix}:{job_id}:unable"

    def say(self, node: str, inability: Inability) -> None:
        """This main's workers cannot check for the job."""
        self._link.call("HSET", self._key, node, f"{inability.exit_status}{inability.sentence}")
        self._link.call("PEXPIRE", self._key, int(KEPT_S * 1000))

    def withdraw(self, node: str) -> None:
        """They can: a shift was held to its end."""
        self._link.call("HDEL", self._key, node)

    def all(self) -> dict[str, Inability]:
        """Mains, and why they cannot; empty while none has said so."""
        told = self._link.call("HGETALL", self._key)
        pairs = zip(told[::2], told[1::2], strict=True)
        return {node.decode(): _read(words.decode()) for node, words in pairs}

    def close(self) -> None:
        """Let go of the connection; works twice."""
        self._link.close()


class Hopelessness:
    """Says when nobody who is there can check, for long enough. Pure but for its clock.

    While nothing was checked, ``PATIENCE_S`` is enough: it is most likely a setting. A job that
    has come far is given as long as it may stand still for want of workers.

    Args:
        monotonic_s: The local clock.
    """

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._from_s: float | None = None

    def look(
        self, job: JobRow, there: frozenset[str], unable: Mapping[str, Inability]
    ) -> WorkerFailedError | None:
        """The error for the waiter; None while somebody can check, or may come in time.

        Args:
            job: The line as it stands.
            there: Mains that live.
            unable: What those said that cannot check.
        """
        waits = job.state is JobState.OPEN and job.ready > 0 and job.running == 0
        if not (waits and there and there <= unable.keys()):
            self.forget()
            return None
        now_s = self._monotonic_s()
        if self._from_s is None:
            self._from_s = now_s
        if now_s - self._from_s < (job.terms.stalled_s if job.checked else PATIENCE_S):
            return None
        reason = unable[min(there)]
        return WorkerFailedError(reason.sentence, reason.exit_status)

    def forget(self) -> None:
        """Somebody can check."""
        self._from_s = None


def _read(words: str) -> Inability:
    status, sentence = words[:1], words[1:]
    return Inability(sentence, int(status)) if status.isdigit() else Inability(words)
