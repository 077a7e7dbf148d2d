"""Proxies that work and behave strangely: a good checker finds every one of them."""

from __future__ import annotations

from proxywell.lab.answers import is_whole
from proxywell.lab.forward import ProxyVisit
from proxywell.lab.proxy import Proxy
from proxywell.lab.visit import Surroundings
from proxywell.model.endpoint import Protocol

EARLY_WAIT_S = 0.02
SINGLE_BYTES = 200
PIECE_BYTES = 400
PAUSE_S = 0.001
_LONG_NAME = b"\x05\x00\x00\x03\xff" + b"n" * 255 + b"\x04\x38"


class SplitVisit(ProxyVisit):
    """Sends the beginning of everything one byte at a time, the rest in small pieces."""

    def __init__(self, around: Surroundings, proxy: Proxy, peer: str) -> None:
        super().__init__(around, proxy, peer)
        self._left = bytearray()
        self._single = 0  # bytes still to be sent one at a time
        self._ends = False

    def reply(self, data: bytes) -> None:
        """See ProxyVisit."""
        idle = not self._left
        self._left += data
        if idle:
            self._single = SINGLE_BYTES
            self._trickle()

    def answer_ended(self) -> None:
        """See ProxyVisit; the end comes behind the last byte."""
        if self._left:
            self._ends = True
        else:
            super().answer_ended()

    def answer_changed(self) -> None:
        """See ProxyVisit."""
        self.answer_ended()

    def _trickle(self) -> None:
        if not self.client.open:
            return
        size = 1 if self._single else PIECE_BYTES
        self._single = max(0, self._single - 1)
        self.client.send(bytes(self._left[:size]))
        del self._left[:size]
        if self._left:
            # Without a pause the system would put the pieces together again.
            self.around.loop.call_later(PAUSE_S, self._trickle)
        elif self._ends:
            super().answer_ended()


class DataWithFinVisit(ProxyVisit):
    """Sends a whole HTTP answer and FIN in one segment."""

    def waits_for_whole(self) -> bool:
        """See ProxyVisit; inside TLS nothing can be told apart."""
        return self.request is not None or bytes(self._held or b"")[:5] == b"HTTP/"

    def reply(self, data: bytes) -> None:
        """See ProxyVisit."""
        if self._due and data[:5] == b"HTTP/" and is_whole(data):
            self.client.send_with_end(data)
        else:
            super().reply(data)

    def answer_changed(self) -> None:
        """See ProxyVisit; the client closes when it has read the end."""
        self._target_ended = True
        if self.target is not None:
            self.target.close()


class EarlyBytesVisit(ProxyVisit):
    """Sends its consent and a target's greeting in one segment."""

    _waited = False
    _early = b""

    def say_granted(self, protocol: Protocol) -> None:
        """See ProxyVisit."""
        if not self._waited and not self._held:
            self._waited = True
            self.around.loop.call_later(EARLY_WAIT_S, self.say_granted, protocol)
            return
        if not self.client.open:
            return
        early = bytes(self._held or b"")
        if early:
            self._held = None
        self._early = early
        super().say_granted(protocol)
        if early and self._target_ended:
            self.answer_ended()

    def reply(self, data: bytes) -> None:
        """See ProxyVisit."""
        early, self._early = self._early, b""
        super().reply(data + early)


class LongNameVisit(ProxyVisit):
    """Names a bound host of 255 bytes in its SOCKS5 reply, which RFC 1928 allows."""

    _long = False

    def say_granted(self, protocol: Protocol) -> None:
        """See ProxyVisit."""
        self._long = protocol is Protocol.SOCKS5
        super().say_granted(protocol)

    def reply(self, data: bytes) -> None:
        """See ProxyVisit."""
        if self._long:
            self._long = False
            data = _LONG_NAME
        super().reply(data)
