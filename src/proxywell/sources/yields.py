"""Which sources lead to proxies that work: how often each is read, and where its candidates queue.

The rules are pure. Their memory is one small JSON file beside the copies of the lists, not a table
of the pool: it belongs to this room alone, losing it costs a few days of learning and nothing
else, and it is replaced as a whole, under a lock, once a job.
"""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from proxywell.errors import StateError
from proxywell.sources.catalog import SourceSpec
from proxywell.sources.harvest import Harvest

FILE = "yields.json"
HALF_LIFE_S = 7 * 86_400.0
PRIOR_SHARE = 0.03  # of a source that nothing is known about
PRIOR_CHECKS = 50.0  # so many checks weigh as much as that belief
BARREN_CHECKS = 20  # fewer say nothing about a source
INTERVAL_MIN_S = 900.0
INTERVAL_MAX_S = 86_400.0
LOCK_WAIT_S = 2.0  # a process that was stopped in the middle must not stop others for good
_LOCK_LOOK_S = 0.01


class SourceYield(Struct, frozen=True):
    """What is remembered of one source; counts fade with a half-life of seven days.

    Attributes:
        updated_s: When it was brought up to date, seconds since the epoch.
        rounds: Jobs that counted it, never faded.
        barren: Jobs in a row without one that works.
        read, new, checked, working, exits: As in Harvest, summed up and faded.
        last_new: ``new`` of the last job.
    """

    updated_s: float
    rounds: int = 0
    barren: int = 0
    read: float = 0.0
    new: float = 0.0
    checked: float = 0.0
    working: float = 0.0
    exits: float = 0.0
    last_new: int = 0

    @property
    def share(self) -> float:
        """Working candidates per checked one, in [0, 1], each exit address counted once.

        Counting exits keeps one operator's thousand ports from winning the queue. Little
        knowledge is drawn towards ``PRIOR_SHARE``.
        """
        return (self.exits + PRIOR_SHARE * PRIOR_CHECKS) / (self.checked + PRIOR_CHECKS)


def after(before: SourceYield | None, harvest: Harvest, *, now_s: float) -> SourceYield:
    """Add one job's harvest to what is remembered.

    Args:
        before: What was remembered; None for a new source.
        harvest: Of the job that has just ended.
        now_s: Seconds since the epoch; a clock that went back fades nothing.
    """
    before = before or SourceYield(now_s)
    fade = 0.5 ** (max(0.0, now_s - before.updated_s) / HALF_LIFE_S)
    barren = before.barren
    if harvest.working:
        barren = 0
    elif harvest.checked >= BARREN_CHECKS:
        barren += 1
    return SourceYield(
        updated_s=now_s,
        rounds=before.rounds + 1,
        barren=barren,
        read=before.read * fade + harvest.read,
        new=before.new * fade + harvest.new,
        checked=before.checked * fade + harvest.checked,
        working=before.working * fade + harvest.working,
        exits=before.exits * fade + harvest.exits,
        last_new=harvest.new,
    )


def interval_s(usual_s: float, known: SourceYield | None) -> float:
    """Say how long a source rests after it was read.

    The catalogue's interval; twice as long when the last read showed nothing new; and doubled
    for every job in a row in which nothing of it worked, up to a day.

    Args:
        usual_s: The catalogue's interval.
        known: What is remembered; None for a new source.

    Returns:
        Seconds, from 900 to the larger of a day and ``usual_s``.
    """
    rest_s = usual_s
    if known is not None:
        rest_s *= 2 ** min(known.barren, 10)
        if known.last_new == 0:
            rest_s *= 2
    return max(INTERVAL_MIN_S, min(rest_s, max(usual_s, INTERVAL_MAX_S)))


class YieldBook:
    """The memory of yields in one directory.

    Args:
        directory: Where the copies of the lists are; made on the first ``record``.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def known(self) -> dict[str, SourceYield]:
        """Give what is remembered, by source; nothing if the file is missing or damaged."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, SourceYield])
        except (OSError, msgspec.MsgspecError):
            return {}

    def shares(self) -> dict[str, float]:
        """Give each source's share of working candidates, in [0, 1], to order the queue by."""
        return {source: known.share for source, known in self.known().items()}

    def record(self, harvests: Mapping[str, Harvest], *, now_s: float) -> None:
        """Add one job's harvests; two processes that do so at once lose nothing.

        Args:
            harvests: By source.
            now_s: Seconds since the epoch.

        Raises:
            StateError: The file cannot be written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self._path.with_suffix(".lock")):
                known = self.known()
                for source, harvest in harvests.items():
                    known[source] = after(known.get(source), harvest, now_s=now_s)
                self._replace(msgspec.json.encode(known))
        except OSError as error:
            raise StateError(
                f"what sources yielded cannot be kept in {self._path}: {error.strerror}; "
                "mend that, or name another place with --state"
            ) from error

    def _replace(self, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self._path.parent, delete=False) as file:
            try:
                file.write(data)
                file.close()
                Path(file.name).replace(self._path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def resting_s(known: Mapping[str, SourceYield], spec: SourceSpec) -> float:
    """Say how long this source rests; ``SourceReader`` takes it with the first argument bound."""
    return interval_s(spec.interval_s, known.get(spec.name))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; it is held for milliseconds, and ends with its process.

    Raises:
        TimeoutError: Another process held it all the time that we wait.
    """
    with path.open("ab") as file:
        try:
            import fcntl  # noqa: PLC0415 - not on every system
        except ImportError:
            yield
            return
        until_s = time.monotonic() + LOCK_WAIT_S
        while True:  # ends with the lock, or at until_s
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until_s:
                    held = f"another process has held {path.name} for {LOCK_WAIT_S:g} s"
                    raise TimeoutError(errno.ETIMEDOUT, held) from error
                time.sleep(_LOCK_LOOK_S)
        yield
