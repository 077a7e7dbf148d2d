"""Proxies that others wrote, each an unprivileged process on loopback with a directory of its own.

What each is known to do (by its own manual) is written beside how it is started, so that a test
can hold the checker's verdict against it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxywell.model.endpoint import Protocol
from proxywell.model.verdict import Anonymity

READY_S = 20.0  # squid on a busy machine takes five
STOP_S = 5.0
HTTP, CONNECT = Protocol.HTTP, Protocol.CONNECT
SOCKS4, SOCKS4A, SOCKS5 = Protocol.SOCKS4, Protocol.SOCKS4A, Protocol.SOCKS5


@dataclass(frozen=True)
class Peer:
    """A third-party proxy: how it is started and what is known of it."""

    name: str
    program: str
    package: str | None  # Debian's name; None when it comes with the test requirements
    command: Callable[[str, Path, int], list[str]]
    protocols: frozenset[Protocol]
    anonymity: Anonymity
    https: bool

    def found(self) -> str | None:
        """Path of the program, or None when it is not installed."""
        beside = Path(sys.executable).parent / self.program
        if self.package is None:
            return str(beside) if beside.exists() else None
        return shutil.which(self.program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

    @property
    def install_line(self) -> str:
        """What to type to have it."""
        return f"apt-get install {self.package}" if self.package else "make .venv/test.ready"


def _squid(*extra: str) -> Callable[[str, Path, int], list[str]]:
    def command(program: str, home: Path, port: int) -> list[str]:
        config = home / "squid.conf"
        lines = [
            f"http_port 127.0.0.1:{port}",
            "http_access allow all",
            "cache deny all",
            "pid_filename none",
            "access_log none",
            f"cache_log {home}/cache.log",
            f"coredump_dir {home}",
            "pinger_enable off",
            "shutdown_lifetime 0 seconds",
            "visible_hostname squid.test",
            "dns_nameservers 127.0.0.1",
            "tcp_outgoing_address 127.0.0.1",
            *extra,
        ]
        config.write_text("\n".join(lines) + "\n")
        return [program, "-N", "-f", str(config)]

    return command


def _tinyproxy(program: str, home: Path, port: int) -> list[str]:
    config = home / "tinyproxy.conf"
    config.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 200\nAllow 127.0.0.0/8\n"
        f'LogFile "{home}/tinyproxy.log"\nViaProxyName "tinyproxy"\n'
    )
    return [program, "-d", "-c", str(config)]


def _dante(program: str, home: Path, port: int) -> list[str]:
    config = home / "danted.conf"
    config.write_text(
        f"logoutput: {home}/danted.log\ninternal: 127.0.0.1 port = {port}\n"
        "external: 127.0.0.1\nclientmethod: none\nsocksmethod: none\n"
        "client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
        "socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
    )
    return [program, "-f", str(config), "-p", str(home / "danted.pid")]


def _privoxy(program: str, home: Path, port: int) -> list[str]:
    config = home / "config"
    config.write_text(
        f"confdir {home}\nlogdir {home}\nlogfile log\nlisten-address 127.0.0.1:{port}\n"
        "toggle 0\nkeep-alive-timeout 5\n"
    )
    return [program, "--no-daemon", str(config)]


def _haproxy(program: str, home: Path, port: int) -> list[str]:
    config = home / "haproxy.cfg"
    config.write_text(
        "global\n  maxconn 400\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"
        f"listen forward\n  bind 127.0.0.1:{port}\n"
        "  http-request deny if METH_CONNECT\n"  # or it would connect to itself
        "  http-request set-dst url_ip\n  http-request set-dst-port url_port\n"
        "  server any 0.0.0.0:0\n"
    )
    return [program, "-db", "-f", str(config)]


def _microsocks(program: str, home: Path, port: int) -> list[str]:
    return [program, "-i", "127.0.0.1", "-p", str(port)]


def _pproxy(program: str, home: Path, port: int) -> list[str]:
    # its own command expects a default event loop, which uvloop no longer makes
    start = (
        "import asyncio, sys; sys.modules['uvloop'] = None;"
        "asyncio.set_event_loop(asyncio.new_event_loop());"
        "from pproxy.server import main; main()"
    )
    return [sys.executable, "-c", start, "-l", f"http+socks4+socks5://127.0.0.1:{port}"]


def _proxy_py(program: str, home: Path, port: int) -> list[str]:
    home_options = ["--data-dir", str(home), "--num-workers", "1", "--num-acceptors", "1"]
    return [program, "--hostname", "127.0.0.1", "--port", str(port), *home_options]


_BOTH_HTTP = frozenset({HTTP, CONNECT})
PEERS = (
    # forwarded_for is on by default: the client's address is added
    Peer("squid", "squid", "squid", _squid(), _BOTH_HTTP, Anonymity.TRANSPARENT, https=True),
    Peer(
        "squid-anonymous",
        "squid",
        "squid",
        _squid("forwarded_for delete"),
        _BOTH_HTTP,
        Anonymity.ANONYMOUS,
        https=True,
    ),
    Peer(
        "squid-elite",
        "squid",
        "squid",
        _squid(
            "forwarded_for delete",
            "via off",
            "reply_header_access Cache-Control allow all",
            "request_header_access Cache-Control deny all",
        ),
        _BOTH_HTTP,
        Anonymity.ELITE,
        https=True,
    ),
    Peer(
        "tinyproxy",
        "tinyproxy",
        "tinyproxy",
        _tinyproxy,
        _BOTH_HTTP,
        Anonymity.ANONYMOUS,
        https=True,
    ),
    Peer(
        "dante",
        "danted",
        "dante-server",
        _dante,
        frozenset({SOCKS4, SOCKS5}),
        Anonymity.ELITE,
        https=True,
    ),
    Peer(
        "microsocks",
        "microsocks",
        "microsocks",
        _microsocks,
        frozenset({SOCKS5}),
        Anonymity.ELITE,
        https=True,
    ),
    Peer("privoxy", "privoxy", "privoxy", _privoxy, _BOTH_HTTP, Anonymity.ELITE, https=True),
    Peer(
        "haproxy",
        "haproxy",
        "haproxy",
        _haproxy,
        frozenset({HTTP}),
        Anonymity.ELITE,
        https=False,
    ),
    Peer(
        "pproxy",
        "pproxy",
        None,
        _pproxy,
        frozenset({HTTP, CONNECT, SOCKS4, SOCKS5}),
        Anonymity.ELITE,
        https=True,
    ),
    Peer("proxy.py", "proxy", None, _proxy_py, _BOTH_HTTP, Anonymity.ANONYMOUS, https=True),
)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(peer: Peer, program: str, home: Path) -> Iterator[int]:
    """Start the peer, yield its port, stop it by its process id."""
    port = free_port()
    command = peer.command(program, home, port)
    if os.geteuid() == 0:
        command = [*_without_privileges(peer, home), *command]
    with (home / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(home)},
        )
    try:
        _wait_until_it_listens(process, port, home)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


def _without_privileges(peer: Peer, home: Path) -> list[str]:
    if peer.package is None:  # nobody may not be let into our Python's directory
        return ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    nobody = pwd.getpwnam("nobody")
    for place in (home, *home.rglob("*")):
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
    identity = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return ["setpriv", "--no-new-privs", *identity]


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, home: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    said = (home / "output.txt").read_text(errors="replace")[-2000:]
    raise AssertionError(f"{process.args!r} did not listen on {port}: {said}")
