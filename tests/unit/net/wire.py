"""A simulated network under a simulated clock, for the reactor: sockets, back end, peers."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from proxywell.model.failure import FailureKind
from proxywell.net.backends import ERROR, HANG_UP, READ, READ_HANG_UP, WRITE
from proxywell.net.conversation import Conversation
from proxywell.net.deadlines import Times
from proxywell.net.limits import SocketLimit
from proxywell.net.reactor import Reactor

TIMES = Times(connect_soft_s=1.0, connect_hard_s=4.0, answer_soft_s=2.0, answer_hard_s=10.0)


@dataclass
class Peer:
    """What an address does.

    Attributes:
        connect_after_s: When it accepts; None: never.
        error: Told in place of accepting.
        says: (seconds after accepting, bytes); empty bytes end the stream, None resets it.
    """

    connect_after_s: float | None = 0.1
    error: int = 0
    says: list[tuple[float, bytes | None]] = field(default_factory=list)


class WireSocket:
    """One socket; the edges that a real epoll would tell are queued with their instant."""

    def __init__(self, wire: Wire, descriptor: int) -> None:
        self.wire = wire
        self.descriptor = descriptor
        self.peer: Peer | None = None
        self.began_s = 0.0
        self.closed = False
        self.sent = b""
        self.room = 1 << 30
        self.told_up_to_s = -1.0
        self.read = 0

    def fileno(self) -> int:
        return self.descriptor

    def _instants(self) -> list[tuple[float, str, bytes | None]]:
        peer = self.peer
        if peer is None or peer.connect_after_s is None:
            return []
        stood_s = self.began_s + peer.connect_after_s
        if peer.error:
            return [(stood_s, "error", None)]
        return [(stood_s, "stood", None), *((stood_s + at, "data", data) for at, data in peer.says)]

    def events(self) -> int:
        """The mask as of now, and only if something is new: an edge."""
        now_s, mask, new = self.wire.now_s, 0, False
        for at_s, what, data in self._instants():
            if at_s > now_s:
                break
            new = new or at_s > self.told_up_to_s
            if what == "error":
                mask |= ERROR | HANG_UP
            elif what == "stood":
                mask |= WRITE
            else:
                mask |= READ
                if data == b"":
                    mask |= READ_HANG_UP
                if data is None:
                    mask |= READ_HANG_UP | ERROR | HANG_UP
        self.told_up_to_s = now_s
        return mask if new else 0

    def connect_ex(self, address: tuple[str, int], /) -> int:
        assert not self.closed
        if self.peer is not None:  # it was used before
            if self.peer.error and self._instants() and self._instants()[0][0] <= self.wire.now_s:
                told, self.peer = self.peer.error, None
                return told
            return errno.EISCONN
        at_once = self.wire.refuses_connect(address[0])
        if at_once:
            return at_once
        self.peer = self.wire.peers[address[0]]
        self.began_s, self.told_up_to_s, self.read, self.sent = self.wire.now_s, -1.0, 0, b""
        return errno.EINPROGRESS

    def shutdown(self, how: int, /) -> None:
        assert self.peer is not None
        instants = self._instants()
        if instants and instants[0][0] <= self.wire.now_s:
            if instants[0][1] == "error":
                raise OSError(errno.ENOTCONN, "failed meanwhile")
            return  # it stood meanwhile: the socket is spoilt, and nobody is told
        self.peer = None

    def send(self, data: bytes, /) -> int:
        if self.room == 0:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def recv(self, max_bytes: int, /) -> bytes:
        come = [d for at, what, d in self._instants() if what == "data" and at <= self.wire.now_s]
        while self.read < len(come):
            data = come[self.read]
            self.read += 1
            if data is None:
                raise ConnectionResetError(errno.ECONNRESET, "reset")
            assert len(data) <= max_bytes
            return data
        raise BlockingIOError

    def getsockopt(self, level: int, option: int, /) -> int:
        return 0

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.wire.gone(self)


class Wire:
    """The network: opens sockets, polls them, moves time on."""

    edge = True

    def __init__(self) -> None:
        self.now_s = 100.0
        self.peers: dict[str, Peer] = {}
        self.open: dict[int, WireSocket] = {}
        self.most_open = 0
        self.descriptors_max = 1 << 30
        self.no_route: set[str] = set()
        self.network_down = False

    # --- as a socket factory

    def open_socket(self, ipv6: bool) -> WireSocket:
        if len(self.open) >= self.descriptors_max:
            raise OSError(errno.EMFILE, "too many open files")
        descriptor = next(n for n in range(3, 1 << 20) if n not in self.open)  # the lowest free
        self.open[descriptor] = made = WireSocket(self, descriptor)
        self.most_open = max(self.most_open, len(self.open))
        return made

    def refuses_connect(self, host: str) -> int:
        return errno.ENETUNREACH if self.network_down or host in self.no_route else 0

    def gone(self, closed: WireSocket) -> None:
        del self.open[closed.descriptor]

    # --- as a back end

    def descriptor(self) -> int | None:
        return None

    def watch(self, descriptor: int) -> None:
        assert descriptor in self.open

    def awaits_write(self, descriptor: int, wanted: bool) -> None:
        raise AssertionError("an edge-triggered back end is not told")

    def forget(self, descriptor: int) -> None:
        raise AssertionError("an edge-triggered back end is not told")

    def poll(self, at_most: int) -> list[tuple[int, int]]:
        happened: list[tuple[int, int]] = []
        for descriptor, one in self.open.items():
            if len(happened) == at_most:
                break  # the others are told next time
            mask = one.events()
            if mask:
                happened.append((descriptor, mask))
        return happened

    def close(self) -> None:
        assert not self.open, "sockets outlive their reactor"


class Talk(Conversation):
    """A conversation that keeps a diary."""

    def __init__(
        self,
        diary: Wire,
        host: str,
        *,
        patient: bool = False,
        guess: bool = False,
        wants: int = 1 << 30,
    ) -> None:
        super().__init__(host, 80, patient=patient, guess=guess)
        self.diary = diary
        self.wants = wants
        self.got = b""
        self.ends: list[tuple[str, float]] = []
        self.kind: FailureKind | None = None
        self.late_s: float | None = None
        self.raises: type[Exception] | None = None
        self.opening = b"hello"
        self.began_s = diary.now_s
        self.next: Callable[[], None] = lambda: None

    def _end(self, how: str) -> None:
        self.ends.append((how, round(self.diary.now_s - self.began_s, 3)))
        self.next()

    @property
    def end(self) -> tuple[str, float]:
        assert len(self.ends) == 1, f"{self.host} ended {len(self.ends)} times"
        return self.ends[0]

    def connected(self, now_s: float) -> bytes | None:
        if self.raises is not None:
            raise self.raises
        return self.opening

    def received(self, data: bytes, now_s: float) -> bytes | None:
        self.got += data
        return None if len(self.got) >= self.wants else b""

    def finished(self, now_s: float) -> None:
        self._end("finished")

    def ended(self, now_s: float) -> None:
        self._end("ended")

    def failed(self, kind: FailureKind | None, now_s: float) -> None:
        self.kind = kind
        self._end("timed_out" if kind is None else kind.value)

    def late(self, now_s: float) -> None:
        self.late_s = round(now_s - self.began_s, 3)

    def deferred(self, now_s: float) -> None:
        self._end("deferred")

    def broke(self, error: Exception, now_s: float) -> None:
        self._end(type(error).__name__)


class World:
    """A wire with a reactor on it."""

    def __init__(self, sockets: int = 100) -> None:
        self.wire = Wire()
        self.refused_hosts: set[str] = set()
        self.limit = SocketLimit(sockets)
        self.reactor = Reactor(
            backend=self.wire,
            open_socket=self.wire.open_socket,
            monotonic_s=lambda: self.wire.now_s,
            times=TIMES,
            limit=self.limit,
            refusal=lambda host, _: "no" if host in self.refused_hosts else None,
            on_work=lambda: None,
        )

    def talk(self, host: str, peer: Peer | None = None, **how: bool | int) -> Talk:
        if peer is not None:
            self.wire.peers[host] = peer
        conversation = Talk(self.wire, host, **how)  # type: ignore[arg-type]  # flags and a count
        self.reactor.submit(conversation)
        return conversation

    def run(self, seconds: float, step_s: float = 0.05) -> None:
        end_s = self.wire.now_s + seconds
        while self.wire.now_s < end_s:
            self.turn()
            self.wire.now_s += step_s
        self.turn()

    def turn(self) -> None:
        self.reactor.turn()
        assert self.reactor.in_use <= self.limit.ceiling

    def run_out(self, at_most_s: float = 200.0) -> None:
        end_s = self.wire.now_s + at_most_s
        while self.reactor.busy:
            assert self.wire.now_s < end_s, "the reactor does not come to an end"
            self.run(0.5)
