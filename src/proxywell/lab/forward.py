"""A proxy that forwards: HTTP, CONNECT, SOCKS4, SOCKS4a and SOCKS5 on one port, by first byte."""

from __future__ import annotations

import base64
from collections.abc import Callable

from proxywell.lab.answers import is_whole, restyled
from proxywell.lab.channel import QUEUE_MAX_BYTES, Channel
from proxywell.lab.fronts import (
    HOP_BY_HOP,
    Malformed,
    Request,
    Wanted,
    read_request,
    read_socks4,
    read_socks5_greeting,
    read_socks5_login,
    read_socks5_request,
    split_absolute,
    split_authority,
)
from proxywell.lab.junk import PAGES, page
from proxywell.lab.proxy import Proxy
from proxywell.lab.visit import HEAD_MAX_BYTES, HELD_MAX_BYTES, Surroundings, Visit
from proxywell.model.endpoint import Protocol

# Shares of the time to answer at which each reply leaves: round trips of a real network.
GREETED, GRANTED, ANSWERED = 0.25, 0.5, 1.0

_NO_SOCKS4 = b"\x00\x5b" + bytes(6)
_OK_SOCKS4 = b"\x00\x5a" + bytes(6)
_OK_SOCKS5 = b"\x05\x00\x00\x01" + bytes(6)
_OK_CONNECT = b"HTTP/1.1 200 Connection established\r\n\r\n"
_UNREACHABLE, _NOT_ALLOWED, _CONNECTION_REFUSED = 3, 2, 5


class ProxyVisit(Visit):
    """Forwards honestly; liars and oddities override single steps.

    The steps, in order: a request is read, ``allows`` it, ``reach`` opens the way to the
    target, ``granted`` tells the client, ``from_target`` passes answers back.
    """

    def __init__(self, around: Surroundings, proxy: Proxy, peer: str) -> None:
        super().__init__(around, proxy, peer)
        self.target: Channel | None = None
        self.wanted: Wanted | None = None
        self.request: Request | None = None  # of HTTP forwarding
        self._got = bytearray()
        self._step: Callable[[], None] = self._read_first
        self._held: bytearray | None = bytearray()  # answers wait until they are due
        self._due = False
        self._target_ended = False

    # --- what the channels say

    def received(self, channel: Channel, data: bytes) -> None:
        """See channel.Owner."""
        if channel is not self.client:
            self.from_target(data)
            return
        self._got += data
        try:
            self._step()
        except Malformed:
            self.client.send(PAGES["bad_request_400"])
            self.close()

    def connected(self, channel: Channel) -> None:
        """See channel.Owner: the target is reached."""
        self.granted()

    def ended(self, channel: Channel) -> None:
        """See channel.Owner."""
        if channel is self.client:
            if self.target is None or (self._target_ended and self._held is None):
                self.close()
            elif self.request is None:  # a forwarded request goes on without more from us
                self.target.end()
        else:
            self._target_ended = True
            if self._held is None:
                self.answer_ended()
            else:
                self._advance()

    def lost(self, channel: Channel) -> None:
        """See channel.Owner."""
        if channel is self.client:
            self.close()
        elif channel.connecting:
            self.refuse(_CONNECTION_REFUSED, "502 Bad Gateway")
        else:
            self._target_ended = True
            if self._held is None:
                self.close()
            else:
                self._advance()

    def drained(self, channel: Channel) -> None:
        """See channel.Owner."""
        other = self.target if channel is self.client else self.client
        if other is not None and not (other is self.target and self._target_ended):
            other.resume()

    def close(self) -> None:
        """See Visit."""
        if self.target is not None:
            self.target.close()
        super().close()

    # --- the steps that liars and oddities override

    def allows(self, wanted: Wanted) -> bool:
        """Whether this target may be reached through us."""
        return True

    def reach(self, wanted: Wanted) -> None:
        """Open the way to the target: only ever on loopback, from one of our exits."""
        if not self.client.open:
            return
        address = self.around.resolve(wanted.host)
        if address is None:
            self.refuse(_UNREACHABLE, "503 Service Unavailable")
            return
        channel = Channel.dial(
            self.around.watch, address, wanted.port, source=self.exit(), owner=self
        )
        if channel is None:
            self.refuse(_CONNECTION_REFUSED, "502 Bad Gateway")
            return
        self.around.count("forwarded")
        self.target = channel
        if not channel.connecting:
            self.connected(channel)

    def exit(self) -> str:
        """The address that this request leaves from; rotating ones take turns."""
        exits = self.proxy.exits
        if len(exits) == 1:
            return exits[0]
        turn: int = self.proxy.memory.get("turn", 0)
        self.proxy.memory["turn"] = turn + 1
        return exits[turn % len(exits)]

    def granted(self) -> None:
        """The way stands: pass the request on, or tell the client that the tunnel is open."""
        wanted = self.wanted
        assert wanted is not None
        self._step = self._pass_on
        if wanted.protocol is Protocol.HTTP:
            self._pass_on()
            self.at(ANSWERED, self.release)
        else:
            self.say_granted(wanted.protocol)

    def say_granted(self, protocol: Protocol) -> None:
        """Send the reply that opens the tunnel."""
        if protocol is Protocol.CONNECT:
            self.reply(_OK_CONNECT)
        else:
            self.reply(_OK_SOCKS5 if protocol is Protocol.SOCKS5 else _OK_SOCKS4)
        self.at(ANSWERED, self.release)
        if self._got:
            self._pass_on()

    def from_client(self, data: bytes) -> None:
        """Bytes for the target: the request of HTTP forwarding, or of the tunnel."""
        assert self.target is not None
        self.target.send(data)
        if self.target.queued_bytes > QUEUE_MAX_BYTES:
            self.client.pause()

    def from_target(self, data: bytes) -> None:
        """Bytes from the target: held until they are due, then passed on."""
        if self._held is None:
            self.reply(data)
            if self.client.queued_bytes > QUEUE_MAX_BYTES and self.target is not None:
                self.target.pause()
            return
        self._held += data
        if len(self._held) > HELD_MAX_BYTES:
            self.close()
        else:
            self._advance()

    def release(self) -> None:
        """From here on answers may pass."""
        self._due = True
        self._advance()

    def waits_for_whole(self) -> bool:
        """Whether the answer is held until it is whole, because it will be changed."""
        return self.request is not None and self.proxy.answer_style != "kept"

    def _advance(self) -> None:
        held = self._held
        if not self._due or held is None or not (held or self._target_ended):
            return
        if self.waits_for_whole():
            if not self._target_ended and not is_whole(bytes(held)):
                return
            self._held = None
            self.reply(self.change(bytes(held)))
            self.answer_changed()
            return
        self._held = None
        if held:
            self.reply(bytes(held))
        if self._target_ended:
            self.answer_ended()

    def answer_changed(self) -> None:
        """A whole answer was changed and sent; nothing may follow it."""
        self.close()

    def change(self, answer: bytes) -> bytes:
        """A whole answer to a forwarded request, as the client will see it."""
        return restyled(answer, self.proxy.answer_style)

    def answer_ended(self) -> None:
        """The target sent FIN and everything has been passed on."""
        self.close()

    def reply(self, data: bytes) -> None:
        """Send to the client."""
        self.client.send(data)

    def refuse(self, code: int, status: str) -> None:
        """Say no in the client's protocol (a SOCKS5 reply code, an HTTP status), and close."""
        protocol = self.wanted.protocol if self.wanted is not None else Protocol.HTTP
        if protocol is Protocol.SOCKS5:
            self.at(GRANTED, self._last_words, bytes((5, code, 0, 1)) + bytes(6))
        elif protocol in {Protocol.SOCKS4, Protocol.SOCKS4A}:
            self.at(GRANTED, self._last_words, _NO_SOCKS4)
        else:
            self.at(GRANTED, self._last_words, page(status, f"<h1>{status}</h1>"))

    # --- reading the client's request

    def _last_words(self, data: bytes) -> None:
        self.client.send(data)
        self.close()

    def _speaks(self, *protocols: Protocol) -> bool:
        return any(protocol in self.proxy.protocols for protocol in protocols)

    def _read_first(self) -> None:
        first = self._got[0]
        if first == 5 and self._speaks(Protocol.SOCKS5):
            self._step = self._read_greeting
        elif first == 4 and self._speaks(Protocol.SOCKS4, Protocol.SOCKS4A):
            self._step = self._read_socks4
        elif 65 <= first <= 90 and self._speaks(Protocol.HTTP, Protocol.CONNECT):
            self._step = self._read_http
        elif self._speaks(Protocol.HTTP, Protocol.CONNECT):
            raise Malformed
        else:
            self.close()  # SOCKS servers hang up on strange bytes
            return
        self._step()

    def _read_greeting(self) -> None:
        greeting = read_socks5_greeting(self._got)
        if greeting is None:
            return
        methods, used = greeting
        del self._got[:used]
        login = self.proxy.user is not None
        method = 2 if login else 0
        if method not in methods:
            self.at(GREETED, self._last_words, b"\x05\xff")
            return
        self._step = self._read_login if login else self._read_socks5
        self.at(GREETED, self.reply, bytes((5, method)))
        self._step()

    def _read_login(self) -> None:
        login = read_socks5_login(self._got)
        if login is None:
            return
        user, password, used = login
        del self._got[:used]
        proxy = self.proxy
        if (user.decode("latin-1"), password.decode("latin-1")) != (proxy.user, proxy.password):
            self._last_words(b"\x01\x01")
            return
        self._step = self._read_socks5
        self.reply(b"\x01\x00")
        self._step()

    def _read_socks5(self) -> None:
        try:
            wanted = read_socks5_request(self._got)
        except Malformed:
            self._last_words(b"\x05\x07\x00\x01" + bytes(6))
            return
        self._open(wanted)

    def _read_socks4(self) -> None:
        try:
            wanted = read_socks4(self._got)
        except Malformed:
            self._last_words(_NO_SOCKS4)
            return
        self._open(wanted)

    def _read_http(self) -> None:
        if len(self._got) > HEAD_MAX_BYTES:
            raise Malformed
        request = read_request(self._got)
        if request is None:
            return
        if not self._logged_in(request):
            self.at(GRANTED, self._last_words, PAGES["need_login_407"])
        elif request.method == b"CONNECT":
            host, port = split_authority(request.target, 443)
            self._open(Wanted(Protocol.CONNECT, host, port, request.used_bytes))
        else:
            host, port, path = split_absolute(request.target)
            if not self._speaks(Protocol.HTTP):
                self._open(Wanted(Protocol.HTTP, host, port, request.used_bytes))
                return
            self.request = request
            self._open(Wanted(Protocol.HTTP, host, port, request.used_bytes), path)

    def _logged_in(self, request: Request) -> bool:
        if self.proxy.user is None:
            return True
        pair = f"{self.proxy.user}:{self.proxy.password}".encode("latin-1")
        wanted = b"Basic " + base64.b64encode(pair)
        return any(
            name.lower() == b"proxy-authorization" and value == wanted
            for name, value in request.headers
        )

    def _open(self, wanted: Wanted | None, path: bytes = b"/") -> None:
        if wanted is None:
            return
        self.wanted = wanted
        del self._got[: wanted.used_bytes]
        self._step = self._wait
        if not self._speaks(wanted.protocol):
            self.request = None
            self.refuse(7, "405 Method Not Allowed")
        elif not self.allows(wanted):
            self.refuse(_NOT_ALLOWED, "403 Forbidden")
        elif self.request is not None:
            self._got[:0] = self.forwarded(self.request, path)
            self.reach(wanted)
        else:  # later, or the target would find its new client slow to speak
            self.at(GRANTED, self.reach, wanted)

    def _wait(self) -> None:
        """More may come while the target is being reached; it stays in ``_got``."""
        if len(self._got) > QUEUE_MAX_BYTES:
            self.close()

    def _pass_on(self) -> None:
        if self._got:
            data = bytes(self._got)
            self._got.clear()
            self.from_client(data)

    def forwarded(self, request: Request, path: bytes) -> bytes:
        """The request as the target will see it: origin form, our marks added."""
        headers = [pair for pair in request.headers if pair[0].lower() not in HOP_BY_HOP]
        for name, value in self.proxy.marks:
            filled = value.replace(b"%CLIENT%", self.peer.encode())
            if b"%OTHER%" in filled:
                other = ".".join(str(self.around.draw.randint(11, 99)) for _ in range(4))
                filled = filled.replace(b"%OTHER%", other.encode())
            headers.append((name, filled))
        if self.proxy.header_style == "lower":
            headers = [(name.lower(), value) for name, value in headers]
        elif self.proxy.header_style == "shuffled":
            self.around.draw.shuffle(headers)
        lines = [b"%b %b HTTP/1.1" % (request.method, path)]
        lines += [b"%b: %b" % pair for pair in headers]
        return b"\r\n".join(lines) + b"\r\nConnection: close\r\n\r\n"
