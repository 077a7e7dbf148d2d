"""A byte stream through a proxy, perhaps inside TLS, on a socket of the event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_READ_BYTES = 16_384
_Value = TypeVar("_Value")


class ProxyStream:
    """What ``checking.ports.Stream`` asks for, on asyncio and on uvloop. One user at a time.

    Every method that waits raises TimeoutError once ``deadline_s`` has passed, and another
    OSError when the connection or TLS fails; ``net.translate.failure_of`` says what it means.
    The stream can then only be closed.

    Args:
        sock: Connected, non-blocking; the stream closes it.
        deadline_s: Instant of ``loop.time()`` by which everything must be over.

    Attributes:
        deadline_s: May be set anew between two waits.
    """

    def __init__(self, sock: socket.socket, *, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = sock
        self._leftover = b""
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._certificate: bytes | None = None

    def give_back(self, data: bytes) -> None:
        """Put back what was read too early; it comes first. Before TLS only."""
        assert self._tls is None, "what is inside TLS cannot be put back outside of it"
        self._leftover = data + self._leftover

    async def send(self, data: bytes) -> None:
        """Send all of it, however often the other side must be waited for."""
        if self._tls is None:
            await self._send_raw(data)
        elif data:
            await self._with_tls(self._tls.write, data)

    async def receive(self, max_bytes: int) -> bytes:
        """What is there, at most ``max_bytes`` (at least 1); empty at the end of the stream.

        Inside TLS the end must be announced; a connection that just ends raises
        ssl.SSLEOFError, so that a cut answer never looks like a whole one.
        """
        assert max_bytes > 0, "an empty read would look like the end of the stream"
        if self._tls is None:
            return await self._receive_raw(max_bytes)
        try:
            return await self._with_tls(self._tls.read, max_bytes)
        except ssl.SSLZeroReturnError:
            return b""

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Shake hands as a client; what was left over belongs to the handshake.

        Args:
            context: Says what is trusted; its verification is never weakened here.
            server_name: Name or address that the certificate must be for.

        Raises:
            ssl.SSLCertVerificationError: The certificate does not verify; its ``verify_code``
                says why, and ``peer_certificate`` still shows it.
            ssl.SSLError: The handshake broke off.
            OSError: The connection failed; TimeoutError at the deadline.
        """
        assert self._tls is None, "TLS inside TLS was never asked for"
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        try:
            await self._with_tls(self._tls.do_handshake)
        except ssl.SSLError:
            with suppress(OSError):
                await self._send_raw(self._outgoing.read())  # the alert that says why
            raise
        finally:
            self._certificate = _leaf(self._tls)

    def peer_certificate(self) -> bytes | None:
        """The leaf in DER, as it was shown; also after a failed verification.

        None before TLS, and where the handshake broke off before a certificate came. Needs
        OpenSSL 3, whose verification comes after keeping the chain; with an older one None
        after a failed verification.
        """
        return self._certificate

    def close(self) -> None:
        """Close at once; works twice. Whoever still waits, waits until the deadline."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
        sock.close()

    async def _with_tls(self, act: Callable[..., _Value], *arguments: object) -> _Value:
        """Act on the TLS object, and carry its bytes to and fro until it is content."""
        while True:  # each turn waits for bytes of the other side, at most until the deadline
            try:
                value = act(*arguments)
            except ssl.SSLWantReadError:
                await self._send_raw(self._outgoing.read())
                data = await self._receive_raw(_READ_BYTES)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                continue
            await self._send_raw(self._outgoing.read())
            return value

    async def _send_raw(self, data: bytes) -> None:
        if data:
            async with asyncio.timeout_at(self.deadline_s):
                await self._loop.sock_sendall(self._open_socket(), data)

    async def _receive_raw(self, max_bytes: int) -> bytes:
        if self._leftover:
            data, self._leftover = self._leftover[:max_bytes], self._leftover[max_bytes:]
            return data
        async with asyncio.timeout_at(self.deadline_s):
            return await self._loop.sock_recv(self._open_socket(), max_bytes)

    def _open_socket(self) -> socket.socket:
        if self._sock is None:
            raise ConnectionAbortedError("the stream was closed on our side")
        return self._sock


def _leaf(tls: ssl.SSLObject) -> bytes | None:
    """The certificate that was shown, whether or not it was believed."""
    try:
        return tls.getpeercert(binary_form=True)
    except ValueError:  # the handshake is not over: it was not believed, or broke off
        return _unverified_leaf(tls)


def _unverified_leaf(tls: ssl.SSLObject) -> bytes | None:
    public = getattr(tls, "get_unverified_chain", None)  # from Python 3.13
    if public is not None:
        shown = public()
        return bytes(shown[0]) if shown else None
    # Older ones have it too, one layer down and with certificates as objects.
    inner = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", None)
    chain = inner() if inner is not None else None
    return ssl.PEM_cert_to_DER_cert(chain[0].public_bytes()) if chain else None
