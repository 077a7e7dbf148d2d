"""How long conversations may take: one queue for each length of time, and no heap."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from proxywell.net.conversation import Conversation

FAULT_PAUSE_S = 0.5  # after a fault of our own a connect is tried again


class Times(Struct, frozen=True):
    """How long to wait for a connection and for an answer, in seconds; all above zero.

    Past the soft time a conversation is given up for now if somebody waits for its socket; at
    the hard time it ends. ``answer`` counts from the standing connection to the last byte.
    """

    connect_soft_s: float
    connect_hard_s: float
    answer_soft_s: float
    answer_hard_s: float


class Line:
    """A queue of conversations that all wait equally long, so the first is always due first.

    An entry is void as soon as its conversation stands in another line, or in none: nothing is
    searched for when a conversation moves on.
    """

    __slots__ = ("count", "duration_s", "waiting")

    def __init__(self, duration_s: float) -> None:
        self.duration_s = max(0.0, duration_s)
        self.waiting: deque[Conversation] = deque()
        self.count = 0

    def enter(self, conversation: Conversation, now_s: float) -> None:
        """Take a conversation in from wherever it stood."""
        old = conversation.line
        if old is not None:
            old.count -= 1
        conversation.line = self
        conversation.due_s = now_s + self.duration_s
        self.waiting.append(conversation)
        self.count += 1

    def first(self) -> Conversation | None:
        """The one that is due first, if any; void entries before it are dropped."""
        waiting = self.waiting
        while waiting:
            conversation = waiting[0]
            if conversation.line is self:
                return conversation
            waiting.popleft()
        return None

    def clear(self) -> None:
        """Forget everybody."""
        self.waiting.clear()
        self.count = 0


class Deadlines:
    """Every line that a conversation may stand in.

    Attributes:
        connect_soft, connect_rest: Up to the soft time of a connect, and from there to the hard.
        connect_hard: A patient connect.
        answer_soft, answer_rest: The same for an answer.
        answer_patient_rest: The rest for a patient one, which is never deferred.
        faulty: Waits out a fault of our own.
    """

    __slots__ = (
        "answer_patient_rest",
        "answer_rest",
        "answer_soft",
        "connect_hard",
        "connect_rest",
        "connect_soft",
        "faulty",
    )

    def __init__(self, times: Times) -> None:
        self.connect_soft = Line(times.connect_soft_s)
        self.connect_rest = Line(times.connect_hard_s - times.connect_soft_s)
        self.connect_hard = Line(times.connect_hard_s)
        self.answer_soft = Line(times.answer_soft_s)
        self.answer_rest = Line(times.answer_hard_s - times.answer_soft_s)
        self.answer_patient_rest = Line(times.answer_hard_s - times.answer_soft_s)
        self.faulty = Line(FAULT_PAUSE_S)

    def lines(self) -> list[Line]:
        """All of them."""
        return [getattr(self, name) for name in self.__slots__]
