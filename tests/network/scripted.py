"""Servers on loopback that do to each connection exactly what a test's script says."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

PATIENCE_S = 20.0  # no script may hang a test for longer

Script: TypeAlias = Callable[[socket.socket], None]


@dataclass
class Scripted:
    """A server that is running; ``mistakes`` says where a script did not go as written."""

    host: str
    port: int
    connections: int = 0
    mistakes: list[BaseException] = field(default_factory=list)


@contextmanager
def scripted(script: Script, *, host: str = "127.0.0.1") -> Iterator[Scripted]:
    """Serve, one connection after the other, until the block is left."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    server = Scripted(host, listener.getsockname()[1])
    thread = threading.Thread(target=_serve, args=(listener, script, server), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        listener.close()
        thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the script outlived the test"
    assert not server.mistakes, server.mistakes


def _serve(listener: socket.socket, script: Script, server: Scripted) -> None:
    while True:  # until the listener is shut down
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        server.connections += 1
        with connection:
            connection.settimeout(PATIENCE_S)
            try:
                script(connection)
            except (OSError, AssertionError) as mistake:
                server.mistakes.append(mistake)


def expect(connection: socket.socket, due: bytes) -> None:
    """Read exactly these bytes."""
    got = b""
    while len(got) < len(due):
        part = connection.recv(len(due) - len(got))
        if not part:
            break
        got += part
    assert got == due


def expect_end(connection: socket.socket) -> None:
    """Wait until the other side closes or resets; whatever it still sends is dropped."""
    with suppress(ConnectionError, BrokenPipeError):
        while connection.recv(4_096):
            pass


def send_in_single_bytes(connection: socket.socket, data: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(len(data)):
        connection.sendall(data[at : at + 1])


def drip(connection: socket.socket, unit: bytes, *, every_s: float) -> None:
    """Send the unit again and again, until the other side has had enough."""
    give_up_s = time.monotonic() + PATIENCE_S
    with suppress(ConnectionError):
        while time.monotonic() < give_up_s:
            connection.sendall(unit)
            time.sleep(every_s)


def reset(connection: socket.socket) -> None:
    """Close with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def serve_tls(connection: socket.socket, context: ssl.SSLContext, script: Script) -> None:
    """Go on inside TLS; a client that breaks off the handshake is no mistake of the script."""
    connection.setblocking(True)
    try:
        inside = context.wrap_socket(connection, server_side=True)
    except OSError:
        return
    with inside:
        inside.settimeout(PATIENCE_S)
        script(inside)
