"""Proxies that open TLS: a certificate of their own towards the client, TLS again beyond."""

from __future__ import annotations

import ssl

from proxywell.lab.forward import ProxyVisit
from proxywell.lab.proxy import Proxy
from proxywell.lab.visit import Surroundings

_RECORD_HANDSHAKE = 0x16
READ_BYTES = 65_536


class TlsSide:
    """One side of TLS over bytes that somebody else carries."""

    def __init__(self, context: ssl.SSLContext, *, server: bool, host: str | None = None) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=host)
        self._ready = False
        self._waiting = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire; answers the plain bytes in them.

        Raises:
            ssl.SSLError: The other side broke off, or its certificate does not hold.
        """
        self._in.write(data)
        if not self._handshaken():
            return b""
        plain = bytearray()
        try:
            while True:  # ends when nothing more can be decrypted
                part = self._tls.read(READ_BYTES)
                if not part:
                    break
                plain += part
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return bytes(plain)

    def send(self, plain: bytes) -> None:
        """Encrypt, or keep until the handshake is over."""
        self._waiting += plain
        if self._handshaken() and self._waiting:
            self._tls.write(bytes(self._waiting))
            self._waiting.clear()

    def outgoing(self) -> bytes:
        """Bytes for the wire since the last call."""
        return self._out.read()

    def _handshaken(self) -> bool:
        if not self._ready:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            self._ready = True
            self.send(b"")
        return True


class InterceptingVisit(ProxyVisit):
    """Honest with plain HTTP; inside TLS it reads along.

    Option: the certificate's fault, as in ``certificates``.
    """

    def __init__(self, around: Surroundings, proxy: Proxy, peer: str) -> None:
        super().__init__(around, proxy, peer)
        self._near: TlsSide | None = None
        self._far: TlsSide | None = None
        self._looked = False

    def from_client(self, data: bytes) -> None:
        """See ProxyVisit."""
        if not self._looked:
            self._looked = True
            if data[0] == _RECORD_HANDSHAKE and self.request is None:
                self._open_tls()
        if self._near is None or self._far is None:
            super().from_client(data)
            return
        self._relay(self._near, self._far, data)

    def from_target(self, data: bytes) -> None:
        """See ProxyVisit."""
        if self._near is None or self._far is None:
            super().from_target(data)
            return
        self._relay(self._far, self._near, data)

    def _open_tls(self) -> None:
        wanted = self.wanted
        assert wanted is not None
        authority = self.around.authority
        fault = self.proxy.behaviour.option
        self._near = TlsSide(authority.server_context([wanted.host], fault=fault), server=True)
        self._far = TlsSide(authority.client_context(), server=False, host=wanted.host)
        self.around.count("intercepted")
        self._relay(self._far, self._near, b"")

    def _relay(self, source: TlsSide, sink: TlsSide, data: bytes) -> None:
        assert self._near is not None
        assert self._far is not None
        assert self.target is not None
        try:
            plain = source.feed(data)
            sink.send(plain)
            broken = False
        except ssl.SSLError:
            broken = True
        self.target.send(self._far.outgoing())
        self.reply(self._near.outgoing())
        if broken:
            self.close()
