"""Thousands of connections on one descriptor, without a task or a timer for each.

The reactor watches its own sockets; an event loop sees a single descriptor that becomes
readable. Nobody is called between two polls but the conversations themselves.

The rules behind it, each found by measuring: one edge-triggered registration for a connection's
whole life; data and end of stream come as one event, so reading goes on to the end when the
other side has closed; sockets are opened only after all events of a poll were handled, so that
an event can never reach a later owner of the same descriptor; a socket that never got a
connection serves the next connect: after a refusal one clearing call is needed, which also tells
the error, and after a time-out a shutdown.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable

from proxywell.model.failure import FailureKind
from proxywell.net.backends import ERROR, HANG_UP, READ, READ_HANG_UP, WRITE, Backend
from proxywell.net.conversation import Conversation
from proxywell.net.deadlines import Deadlines, Line, Times
from proxywell.net.faults import SHORTAGES, Figures, failure_of_connect, patience_s
from proxywell.net.limits import SocketLimit
from proxywell.net.sockets import IN_PROGRESS, Socket, SocketFactory, SocketStock, disconnect
from proxywell.net.translate import Stage, failure_of_errno

EVENTS_AT_ONCE = 1024  # of one poll
CONNECTS_AT_ONCE = 256  # between two polls, so that answers are not kept waiting
READ_BYTES = 4096
_CLOSING = ERROR | HANG_UP
_READABLE = READ | READ_HANG_UP | ERROR | HANG_UP
_TO_THE_END = READ_HANG_UP | ERROR | HANG_UP
_NOWHERE = Line(0.0)  # where a cancelled conversation stands until its turn comes


class Reactor:
    """The sockets of many conversations, driven by calls of ``turn``.

    Args:
        backend: How sockets are watched; closed with the reactor.
        open_socket: Opens one; told whether it is for IPv6.
        monotonic_s: The clock.
        times: Soft and hard times.
        limit: How many sockets may be in use.
        refusal: The guard's last word on an address and port; anything but None refuses.
        on_work: Called when a turn is needed soon, on the caller's own stack.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        open_socket: SocketFactory,
        monotonic_s: Callable[[], float],
        times: Times,
        limit: SocketLimit,
        refusal: Callable[[str, int], object | None],
        on_work: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._edge = backend.edge
        self._stock = SocketStock(backend, open_socket)
        self._monotonic_s = monotonic_s
        self._refusal = refusal
        self._on_work = on_work
        self.limit = limit
        self.figures = Figures()
        self.paused = False  # only what is urgent is opened while it is
        self.now_s = monotonic_s()
        self.heard_s = float("-inf")  # when the network last answered a connect, yes or no
        self._talking: dict[int, Conversation] = {}
        self._queue: deque[Conversation] = deque()
        self._urgent: deque[Conversation] = deque()
        self._reached = [False, False]  # per family: a connect got beyond our own system
        lines = self._lines = Deadlines(times)
        self._late: tuple[tuple[Line, Callable[[Conversation, float], None]], ...] = (
            (lines.connect_soft, self._connect_is_late),
            (lines.connect_rest, self._connect_is_over),
            (lines.connect_hard, self._connect_is_over),
            (lines.answer_soft, self._answer_is_late),
            (lines.answer_rest, self._answer_is_over),
            (lines.answer_patient_rest, self._answer_is_over),
            (lines.faulty, self._fault_is_past),
        )

    @property
    def busy(self) -> bool:
        """Whether any conversation is open, queued or waiting out a fault."""
        return bool(self._talking or self._queue or self._urgent or self._lines.faulty.count)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a socket."""
        return bool(self._queue)

    @property
    def in_use(self) -> int:
        """Sockets in use."""
        return len(self._talking)

    def room(self) -> int:
        """How many conversations more would find a socket soon; 0 when full.

        Those past their soft time count as room: they give way. A short queue is welcome, so
        that sockets do not lie idle until somebody notices.
        """
        limit = self.limit.now
        taken = len(self._talking) + len(self._queue) + len(self._urgent) + self._lines.faulty.count
        late = self._lines.connect_rest.count + self._lines.answer_rest.count
        return max(0, limit + min(limit // 4 + 1, CONNECTS_AT_ONCE) + late - taken)

    def submit(self, conversation: Conversation, *, urgent: bool = False) -> None:
        """Queue a conversation; nothing is opened before the next turn.

        Args:
            conversation: Never submitted before.
            urgent: It goes before all others and may take a socket beyond the limit, one for
                each sixteen within it.
        """
        (self._urgent if urgent else self._queue).append(conversation)
        self._on_work()

    def cancel(self, conversation: Conversation) -> None:
        """Forget a conversation; none of its methods is called any more. Works twice."""
        if conversation.socket is not None:
            self._hang_up(conversation)
        elif conversation.line is not _NOWHERE:
            conversation.leave_line()
            conversation.line = _NOWHERE

    def turn(self) -> float | None:
        """Handle what happened and what is due, then open what has room.

        Returns:
            Seconds until the next turn is needed even if nothing happens: 0 when there is more
            to open, None when nothing waits.
        """
        now_s = self.now_s = self._monotonic_s()
        talking = self._talking
        happened = self._backend.poll(EVENTS_AT_ONCE)
        for descriptor, events in happened:
            conversation = talking.get(descriptor)
            if conversation is None:
                continue  # a spare socket, or hung up earlier in this round
            try:
                if conversation.stands:
                    self._go_on(conversation, events, now_s)
                else:
                    self._connect_ended(conversation, events, now_s)
            except Exception as error:  # noqa: BLE001 - a bug must not stop the other sockets
                self._break_off(conversation, error, now_s)
        if len(happened) == EVENTS_AT_ONCE:
            return 0.0  # nobody's time is over while an answer may lie there unread
        self._expire(now_s)
        self.limit.grow(now_s)
        more = self._open_some(now_s)
        self.figures.peak = max(self.figures.peak, len(talking))
        if more:
            return 0.0
        if not talking:
            self._stock.drop_spare()
        return self._next_due_s(now_s)

    def close(self) -> None:
        """Close every socket and forget every conversation; works twice."""
        for conversation in list(self._talking.values()):
            self._hang_up(conversation)
        self._queue.clear()
        self._urgent.clear()
        for line in self._lines.lines():
            line.clear()
        self._stock.drop_spare()
        self._backend.close()

    # --- opening

    def _open_some(self, now_s: float) -> bool:
        """Open what has room, at most CONNECTS_AT_ONCE; True if that bound stopped it."""
        for _ in range(CONNECTS_AT_ONCE):
            if self._urgent and len(self._talking) <= self.limit.now * 17 // 16:
                queue = self._urgent
            elif self._may_open(now_s):
                queue = self._queue
            else:
                return False
            conversation = queue.popleft()
            if conversation.line is _NOWHERE:
                continue
            try:
                self._connect(conversation, now_s)
            except Exception as error:  # noqa: BLE001 - as in turn
                self._break_off(conversation, error, now_s)
        return bool(self._urgent or (self._queue and not self.paused))

    def _may_open(self, now_s: float) -> bool:
        queue = self._queue
        while queue and queue[0].line is _NOWHERE:  # nobody is deferred for the cancelled
            queue.popleft()
        if not queue or self.paused:
            return False
        return len(self._talking) < self.limit.now or self._defer_one(now_s)

    def _connect(self, conversation: Conversation, now_s: float) -> None:
        host, port = conversation.host, conversation.port
        if self._refusal(host, port) is not None:
            conversation.failed(FailureKind.ADDRESS_REFUSED, now_s)
            return
        ipv6 = ":" in host
        opened = self._stock.used(ipv6)
        if opened is not None and opened.connect_ex((host, port)) == errno.EINPROGRESS:
            self.figures.reused += 1
        else:
            if opened is not None:  # it was not as good as new after all
                opened.close()
            try:
                opened = self._stock.fresh(ipv6)
                error_number = opened.connect_ex((host, port))
                if error_number not in IN_PROGRESS:
                    opened.close()
                    self._connect_failed(conversation, error_number, now_s, late=False)
                    return
                self._backend.watch(opened.fileno())
            except OSError as error:
                if opened is not None:
                    opened.close()
                self._fault(conversation, error.errno or 0, now_s)
                return
            self._reached[ipv6] = True
        conversation.socket = opened
        conversation.opened_s = now_s
        self._talking[opened.fileno()] = conversation
        self.figures.connections += 1
        line = self._lines.connect_hard if conversation.patient else self._lines.connect_soft
        line.enter(conversation, now_s)

    def _fault(self, conversation: Conversation, error_number: int, now_s: float) -> None:
        """Our own system said no: fall back, and try the same again a little later."""
        self.figures.local_faults += 1
        if error_number in SHORTAGES:
            self.limit.shrink(len(self._talking), now_s)
        if not conversation.fault_s:
            conversation.fault_s = now_s
        reached = self._reached[":" in conversation.host]
        if now_s - conversation.fault_s >= patience_s(error_number, family_reached=reached):
            conversation.failed(FailureKind.LOCAL_FAULT, now_s)
        else:
            self._lines.faulty.enter(conversation, now_s)

    def _defer_one(self, now_s: float) -> bool:
        """Free the socket of whoever is longest past its soft time; False if nobody is."""
        for line in (self._lines.connect_rest, self._lines.answer_rest):
            conversation = line.first()
            if conversation is not None:
                self.figures.deferred += 1
                self._hang_up(conversation, clean=self._disconnect(conversation))
                try:
                    conversation.deferred(now_s)
                except Exception as error:  # noqa: BLE001 - as in turn
                    conversation.broke(error, now_s)
                return True
        return False

    # --- talking

    def _connect_ended(self, conversation: Conversation, events: int, now_s: float) -> None:
        opened = conversation.socket
        assert opened is not None, "an event of a closed socket"
        error_number = 0
        if not self._edge:
            error_number = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        elif events & _CLOSING:
            # Tells the error and, after a refusal, clears the socket for its next connect.
            error_number = opened.connect_ex((conversation.host, conversation.port))
            if error_number in IN_PROGRESS:
                error_number = errno.ECONNABORTED
        elif not events & WRITE:
            return
        if error_number:
            self._hang_up(conversation, clean=error_number == errno.ECONNREFUSED)
            self._connect_failed(conversation, error_number, now_s, late=True)
            return
        self.heard_s = now_s
        conversation.stands = True
        self._lines.answer_soft.enter(conversation, now_s)
        opening = conversation.connected(now_s)
        if conversation.socket is not opened:
            return
        if opening is None:
            self._hang_up(conversation)
            conversation.finished(now_s)
            return
        self._send(conversation, opening)
        if not self._edge:
            self._backend.awaits_write(opened.fileno(), bool(conversation.unsent))
        elif events & _READABLE:
            self._read(conversation, opened, events, now_s)

    def _connect_failed(
        self, conversation: Conversation, error_number: int, now_s: float, *, late: bool
    ) -> None:
        kind = failure_of_connect(error_number, late=late)
        if kind is FailureKind.CONNECT_REFUSED or kind is FailureKind.RESET:
            self.heard_s = now_s
        if kind is FailureKind.LOCAL_FAULT:
            self._fault(conversation, error_number, now_s)
        else:
            conversation.failed(kind, now_s)

    def _go_on(self, conversation: Conversation, events: int, now_s: float) -> None:
        opened = conversation.socket
        assert opened is not None, "an event of a closed socket"
        if conversation.unsent and events & WRITE:
            unsent, conversation.unsent = conversation.unsent, b""
            self._send(conversation, unsent)
            if not self._edge:
                self._backend.awaits_write(opened.fileno(), bool(conversation.unsent))
        if events & _READABLE:
            self._read(conversation, opened, events, now_s)

    def _read(self, conversation: Conversation, opened: Socket, events: int, now_s: float) -> None:
        """Read until a short piece, or to the end if the other side has closed."""
        while True:
            try:
                data = opened.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._hang_up(conversation)
                conversation.failed(failure_of_errno(error.errno or 0, Stage.ANSWER), now_s)
                return
            if not data:
                self._hang_up(conversation)
                conversation.ended(now_s)
                return
            conversation.spoke = True
            reply = conversation.received(data, now_s)
            if conversation.socket is not opened:
                return  # it was cancelled meanwhile
            if reply is None:
                self._hang_up(conversation)
                conversation.finished(now_s)
                return
            if reply:
                self._send(conversation, reply)
            if len(data) < READ_BYTES and not events & _TO_THE_END:
                return

    def _send(self, conversation: Conversation, data: bytes) -> None:
        opened = conversation.socket
        assert opened is not None, "sending on a closed socket"
        if conversation.unsent:
            conversation.unsent += data
            return
        try:
            sent = opened.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # what was said before the end may still be read; the end comes as an event
        if sent < len(data):
            conversation.unsent = data[sent:]
            if not self._edge:
                self._backend.awaits_write(opened.fileno(), True)

    # --- time

    def _expire(self, now_s: float) -> None:
        for line, end in self._late:
            waiting = line.waiting
            while waiting:
                conversation = waiting[0]
                if conversation.line is line:
                    if conversation.due_s > now_s:
                        break
                    waiting.popleft()
                    try:
                        end(conversation, now_s)
                    except Exception as error:  # noqa: BLE001 - as in turn
                        self._break_off(conversation, error, now_s)
                else:
                    waiting.popleft()

    def _next_due_s(self, now_s: float) -> float | None:
        due = [first.due_s for line, _ in self._late if (first := line.first()) is not None]
        return max(0.0, min(due) - now_s) if due else None

    def _connect_is_late(self, conversation: Conversation, now_s: float) -> None:
        self._lines.connect_rest.enter(conversation, now_s)

    def _connect_is_over(self, conversation: Conversation, now_s: float) -> None:
        self._hang_up(conversation, clean=self._disconnect(conversation))
        conversation.failed(FailureKind.CONNECT_TIMEOUT, now_s)

    def _answer_is_late(self, conversation: Conversation, now_s: float) -> None:
        if conversation.guess and not conversation.spoke:
            self._answer_is_over(conversation, now_s)
            return
        patient = conversation.patient
        rest = self._lines.answer_patient_rest if patient else self._lines.answer_rest
        rest.enter(conversation, now_s)
        if not conversation.spoke:
            conversation.late(now_s)

    def _answer_is_over(self, conversation: Conversation, now_s: float) -> None:
        self._hang_up(conversation)
        conversation.failed(None, now_s)

    def _fault_is_past(self, conversation: Conversation, now_s: float) -> None:
        conversation.leave_line()
        self._queue.appendleft(conversation)

    # --- giving sockets back

    def _hang_up(self, conversation: Conversation, *, clean: bool = False) -> None:
        """Give the socket back; ``clean`` says that it is as good as new."""
        opened = conversation.socket
        assert opened is not None, "a socket is given back once"
        del self._talking[opened.fileno()]
        conversation.socket = None
        conversation.leave_line()
        if clean or not self._edge:
            self._stock.give_back(opened, ipv6=":" in conversation.host, clean=clean)
        else:
            opened.close()

    def _disconnect(self, conversation: Conversation) -> bool:
        opened = conversation.socket
        assert opened is not None, "a socket is disconnected before it is given back"
        worth_it = self._edge and self._stock.wants(len(self._queue))
        return worth_it and not conversation.stands and disconnect(opened)

    def _break_off(self, conversation: Conversation, error: Exception, now_s: float) -> None:
        if conversation.socket is not None:
            self._hang_up(conversation)
        conversation.leave_line()
        conversation.broke(error, now_s)
