"""The directory of a private Redis: its files, its locks, and in which state they are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
from enum import Enum
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from proxywell.config.secret import Secret
from proxywell.errors import StateError
from proxywell.refresh.ledgers.redis_address import RedisAddress

DIRECTORY: Final = "services"
SOCKET_PATH_MAX_BYTES: Final = 103  # macOS has room for so many, Linux for four more


class ServerState(Enum):
    """What a private server's directory shows from outside."""

    NONE = "none"  # there has never been one
    LOOKED_AFTER = "looked after"  # a command has it
    ORPHANED = "orphaned"  # nobody looks after it, and it runs
    AT_REST = "at rest"  # it does not run; its data is there


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
        self._worker_config = self.home / "worker.toml"
        self.server_home = self.home / "redis"
        self.server_lock = self.server_home / "server.lock"
        self.log = self.server_home / "server.log"
        self.socket = self.server_home / "socket"
        self.data = self.server_home / "data"
        self._config = self.server_home / "server.conf"
        self._access = self.server_home / "access.json"

    def make(self) -> None:
        """Create the directory of all services, readable by its owner alone.

        Raises:
            StateError: It cannot be made, or belongs to somebody else.
        """
        self._make(self.home)

    def make_for_server(self) -> None:
        """Create all that a private server needs, readable by its owner alone.

        Raises:
            StateError: A directory cannot be made, or belongs to somebody else.
        """
        self._make(self.home, self.server_home, self.data)
        if not self.has_room_for_socket() and self.access() is None:
            try:
                self._access.unlink(missing_ok=True)
                access = Access(free_port(), secrets.token_urlsafe(24))
                _write_private(self._access, msgspec.json.encode(access), only_if_absent=True)
            except OSError as error:
                raise self._not_made(error) from error

    def _make(self, *directories: Path) -> None:
        try:
            for directory in directories:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory.chmod(0o700)
        except OSError as error:
            raise self._not_made(error) from error

    def _not_made(self, error: OSError) -> StateError:
        why = os.strerror(error.errno) if error.errno else str(error)
        return StateError(
            f"{error.filename or self.home} cannot be made ready for services ({why}); mend that,"
            " or name another state directory with --state"
        )

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

    def state(self) -> ServerState:
        """Whether anybody has it; changes nothing."""
        if is_locked(self.owner_lock):
            return ServerState.LOOKED_AFTER
        if is_locked(self.server_lock):
            return ServerState.ORPHANED
        return ServerState.AT_REST if self.data.is_dir() else ServerState.NONE

    def data_bytes(self) -> int:
        """How much the server's data takes on disk."""
        return sum(file.stat().st_size for file in self.data.rglob("*") if file.is_file())

    def move_port(self) -> None:
        """Choose another port if somebody else has ours; only while nobody relies on it."""
        access = self.access()
        if access is not None and not _is_free(access.port):
            moved = Access(free_port(), access.password)
            _write_private(self._access, msgspec.json.encode(moved))

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

    def write_worker_config(self) -> Path:
        """Write a settings file that says nothing: a worker's settings come by its environment."""
        _write_private(self._worker_config, b"# see the environment of the worker's process\n")
        return self._worker_config

    @property
    def damaged(self) -> Path:
        """Where data is that the server could not read."""
        return self.data.with_name(f"{self.data.name}.damaged")

    def set_data_aside(self) -> Path:
        """Move damaged data away, in place of what was moved before; start from nothing."""
        shutil.rmtree(self.damaged, ignore_errors=True)
        self.data.rename(self.damaged)
        self.data.mkdir(mode=0o700, exist_ok=True)  # others make it ready too
        return self.damaged


def _quoted(path: str) -> str:
    """A path as a configuration file of Redis takes it."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_private(file: Path, content: bytes, *, only_if_absent: bool = False) -> None:
    """Write a whole file or nothing, readable by its owner alone; one of several at once wins."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(3)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
        if only_if_absent:
            with contextlib.suppress(FileExistsError):
                file.hardlink_to(draft)
        else:
            draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


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


def is_locked(file: Path) -> bool:
    """Whether a process holds a lock on a file; one that is not there is not locked."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


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
