"""A refresh job on a server as a graph of states: two chunks, two workers, a waiter, and faults.

What the parties do is explored in every order. The ledger's steps, the waiter's loop, its journal
and finalisation are the product's own; what is modelled here is who calls them and when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from proxywell.model.report import GivenUpWhy
from proxywell.refresh.books import BeatAnswer, FinAnswer, JobState, NoClaim, SubmitAnswer
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ledgers.journaled import JournaledLedger
from proxywell.refresh.spans import Spans, count
from proxywell.refresh.wait import WaitEnd
from tests.simulation.model_books import (
    BELLS_MOST,
    FIN_TOKEN,
    ITEMS,
    OLD_FIN_TOKEN,
    POISON,
    Token,
    token_of,
)
from tests.simulation.model_home import Home
from tests.simulation.model_server import NO_BOOK, Strike, What
from tests.simulation.model_truths import must
from tests.simulation.model_waiter import Waiter

HOLDERS = ("w0", "w1")
HEALTHY = [item for item in range(ITEMS) if item != POISON]


class Fault:
    """What may happen to a run, each at most once. Plain numbers, for they are looked at often."""

    CRASH: Final = 1  # of a child, or of the main with both
    LEASE_OUT: Final = 2  # while its holder lives
    BELL_LOST: Final = 4
    REPLY_LOST: Final = 8  # of a submit, or of a beat that tells something
    FINALISER_DIES: Final = 16
    WAITER_DIES: Final = 32
    FORGOTTEN: Final = 64  # all data of the server
    ALL: Final = 127


class Attempt(NamedTuple):
    """What a worker holds, or believes to hold."""

    token: Token
    items: Spans
    counts: bool = False  # has yet to count what it has stored; only the chord's worker


class Worker(NamedTuple):
    """A child: asleep, or in a shift. One that has died is asleep once its main has replaced it."""

    awake: bool
    held: tuple[Attempt, ...] = ()


class State(NamedTuple):
    """One state of the whole system."""

    book: int
    journal: int
    sealed: tuple[int, ...]
    waits: bool
    returned: bool
    ghost: str  # the token of a commit that is still under way from a finaliser that died
    bells: int
    node_up: bool
    left: int  # faults that may still happen
    w0: Worker
    w1: Worker


ASLEEP = Worker(awake=False)

Step: TypeAlias = "tuple[State, bool]"  # where it leads, and whether a fault did it


class System:
    """The steps that are possible in each state.

    Args:
        path: Where the journal's file may be.
        rules: The rule book; another one only to show that a defect is found.
        view: The waiter's ledger; likewise.
        two_steps: Workers store what is settled and count it in a second step, as a chord does.
        faults: Which may happen.
        most: How many of them may happen in one run.
    """

    def __init__(
        self,
        path: Path,
        *,
        rules: type[LedgerRules] = LedgerRules,
        view: Callable[..., Any] = JournaledLedger,
        two_steps: bool = False,
        faults: int = Fault.ALL,
        most: int = 2,
    ) -> None:
        self.home = Home(rules, counted=not two_steps)
        self.waiter = Waiter(self.home, path, view)
        self._two_steps = two_steps
        self._faults = faults
        self._most = most

    def close(self) -> None:
        self.waiter.close()

    def first(self) -> State:
        """Where it begins: the job is created, nobody was rung."""
        book, journal = self.waiter.first
        left = self._faults if self._most else 0
        return State(book, journal, (), True, False, "", 0, True, left, ASLEEP, ASLEEP)

    def steps(self, state: State) -> Iterator[Step]:
        """Every state that may be next, but for those that are this one."""
        if state.returned:
            return
        for at in (0, 1):
            yield from self._worker(state, at)
        yield from self._bells(state)
        yield from self._time(state)
        yield from self._looks(state)
        if state.left:
            yield from self._accidents(state)

    # --- workers

    def _worker(self, state: State, at: int) -> Iterator[Step]:
        worker = _who(state, at)
        if not worker.awake:
            if state.bells and state.node_up:
                yield from self._asks(state._replace(bells=state.bells - 1), at, worker)
            return
        if len(worker.held) < 2:
            yield from self._asks(state, at, worker)
        for attempt in worker.held:
            yield from self._works(state, at, worker, attempt)
        yield from self._beats(state, at, worker)

    def _asks(self, state: State, at: int, worker: Worker) -> Iterator[Step]:
        """A shift claims; if it holds nothing and gets nothing, it ends."""
        if state.book == NO_BOOK:
            yield _with(state, at, worker if worker.held else ASLEEP), False
            return
        epoch = self.home.books[state.book].job.epoch
        held = tuple(one.token[1] for one in worker.held if one.token[0] == epoch)
        book, answer = self.home.step(state.book, ("claim", HOLDERS[at], epoch, held))
        if isinstance(answer, NoClaim):
            now = worker if worker.held else ASLEEP
        else:
            now = Worker(True, tuple(sorted((*worker.held, Attempt(*answer)))))
        yield _with(state, at, now)._replace(book=book), False

    def _works(self, state: State, at: int, worker: Worker, attempt: Attempt) -> Iterator[Step]:
        if attempt.counts:
            book, _ = self.home.step(state.book, ("counted",)) if state.book >= 0 else (NO_BOOK, 0)
            yield _with(state, at, _without(worker, attempt))._replace(book=book), False
        elif attempt.items[0] <= POISON < attempt.items[1]:
            yield self._dies(state, at), False
            if count(attempt.items) > 1:
                yield from self._tells_some(state, at, worker, attempt)
        else:
            yield from self._submits(state, at, worker, attempt)

    def _tells_some(
        self, state: State, at: int, worker: Worker, attempt: Attempt
    ) -> Iterator[Step]:
        """A beat with what is settled so far, while the rest is being checked."""
        if state.book == NO_BOOK:
            return
        told = (attempt.items[0], attempt.items[0] + 1)
        before = state.book
        book, (answer,) = self.home.step(before, ("beat", HOLDERS[at], ((attempt.token, told),)))
        if answer is BeatAnswer.STOP:
            self._is_fenced(before, at, attempt)
            yield self._drops(state._replace(book=book), at, attempt), False
            return
        rest = attempt._replace(items=(told[1], attempt.items[1]))
        held = tuple(rest if one is attempt else one for one in worker.held)
        yield _with(state, at, worker._replace(held=held))._replace(book=book), False
        if state.left & Fault.REPLY_LOST and book != before:
            yield self._spent(state._replace(book=book), Fault.REPLY_LOST), True

    def _submits(self, state: State, at: int, worker: Worker, attempt: Attempt) -> Iterator[Step]:
        done = _with(state, at, _without(worker, attempt))
        if state.book == NO_BOOK:
            yield done, False  # told again in vain until the shift ends; then it is dropped
            return
        op = ("submit", HOLDERS[at], attempt.token, attempt.items)
        book, answer = self.home.step(state.book, op)
        must(answer is not SubmitAnswer.INCOMPLETE, "a submit of everything was not taken")
        if self._two_steps and answer is SubmitAnswer.OK:
            book = self._forgotten(book, at, attempt)
            stored = attempt._replace(counts=True)
            held = tuple(stored if one is attempt else one for one in worker.held)
            yield _with(state, at, worker._replace(held=held))._replace(book=book), False
            return
        book = self._forgotten(book, at, attempt)
        yield done._replace(book=book), False
        if state.left & Fault.REPLY_LOST and book != state.book:
            yield self._spent(state._replace(book=book), Fault.REPLY_LOST), True

    def _beats(self, state: State, at: int, worker: Worker) -> Iterator[Step]:
        """Renew everything that is held; what is not ours any more is dropped."""
        held = [attempt for attempt in worker.held if not attempt.counts]
        if not held or state.book == NO_BOOK:
            return
        op = ("beat", HOLDERS[at], tuple((attempt.token, ()) for attempt in held))
        book, answers = self.home.step(state.book, op)
        now = state._replace(book=book)
        for attempt, answer in zip(held, answers, strict=True):
            if answer is BeatAnswer.STOP:
                self._is_fenced(state.book, at, attempt)
                now = self._drops(now, at, attempt)
        if now != state:
            yield now, False

    def _is_fenced(self, book: int, at: int, attempt: Attempt) -> None:
        """A beat that is told to stop has changed nothing."""
        told, _ = self.home.step(book, ("beat", HOLDERS[at], ((attempt.token, ()),)))
        before, after = (self.home.books[one].chunks for one in (book, told))
        must(before == after, "I5: a beat of another token changed a chunk")

    def _drops(self, state: State, at: int, attempt: Attempt) -> State:
        book = self._forgotten(state.book, at, attempt)
        return _with(state, at, _without(_who(state, at), attempt))._replace(book=book)

    def _forgotten(self, book: int, at: int, attempt: Attempt) -> int:
        """Nobody will speak with this token any more, if it is still in the books."""
        chunk = self.home.books[book].chunks.get(attempt.token[1])
        if chunk is None or chunk.token != token_of(HOLDERS[at], attempt.token):
            return book
        return self.home.step(book, ("forget", HOLDERS[at], chunk.id))[0]

    def _dies(self, state: State, at: int) -> State:
        book = state.book
        if book != NO_BOOK:
            book, _ = self.home.step(book, ("forget", HOLDERS[at], None))
        return _with(state, at, ASLEEP)._replace(book=book)

    # --- bells and time

    def _bells(self, state: State) -> Iterator[Step]:
        if state.bells and state.left & Fault.BELL_LOST:
            yield self._spent(state._replace(bells=state.bells - 1), Fault.BELL_LOST), True

    def _time(self, state: State) -> Iterator[Step]:
        if not state.node_up:
            up = state._replace(node_up=True)
            if state.book != NO_BOOK and self.home.books[state.book].state is not JobState.DONE:
                up = up._replace(bells=min(BELLS_MOST, state.bells + 1))
            yield up, False
        if self.waiter.told[state.journal].finalises:
            yield state._replace(journal=self.waiter.fin_lapse(state.journal)), False
        if state.book == NO_BOOK:
            return
        book = self.home.books[state.book]
        if book.finalises:  # its finaliser is dead, or it would not rest here
            yield state._replace(book=self.home.step(state.book, ("fin_lapse",))[0]), False
        for chunk, orphaned in book.leases:
            later = state._replace(book=self.home.step(state.book, ("lapse", chunk))[0])
            if orphaned:
                yield later, False
            elif state.left & Fault.LEASE_OUT:
                yield self._spent(later, Fault.LEASE_OUT), True
        if state.ghost:
            yield from self._late_commit(state)

    def _late_commit(self, state: State) -> Iterator[Step]:
        yield state._replace(ghost=""), False  # it never arrives
        book, answer = self.home.step(state.book, ("fin_commit", state.ghost))
        fenced = state.ghost == OLD_FIN_TOKEN
        must(not (fenced and answer is FinAnswer.OK), "I6: a finaliser without the right committed")
        yield state._replace(ghost="", book=book), False

    # --- the waiter

    def _looks(self, state: State) -> Iterator[Step]:
        if not state.waits:
            yield state._replace(waits=True), False
            return
        plain = self._look(state, quiet=False, strike=None)
        yield plain.state, False
        for call in range(1, plain.calls + 1 if state.ghost else 0):
            late = What.LATE_COMMIT if state.ghost == FIN_TOKEN else What.OLDER_COMMIT
            met = self._look(state, quiet=False, strike=Strike(call, late))
            yield met.state._replace(ghost=""), False
        if self._is_quiet(state):
            yield self._look(state, quiet=True, strike=None).state, False
        deadly = state.left & (Fault.WAITER_DIES | Fault.FINALISER_DIES)
        if not (deadly or state.left & Fault.FORGOTTEN):
            return
        for call in range(1, plain.calls + 1):
            if deadly:
                yield from self._look_and_die(state, call)
            if state.left & Fault.FORGOTTEN:
                lost = self._look(state, quiet=False, strike=Strike(call, What.FORGETS))
                yield self._spent(lost.state._replace(bells=0), Fault.FORGOTTEN), True

    def _look_and_die(self, state: State, call: int) -> Iterator[Step]:
        died = self._look(state, quiet=False, strike=Strike(call, What.DIES))
        fault = Fault.FINALISER_DIES if died.claimed else Fault.WAITER_DIES
        if not state.left & fault:
            return
        gone = self._spent(died.state._replace(waits=False), fault)
        yield gone, True
        if died.unsent:
            yield gone._replace(ghost=FIN_TOKEN), True

    def _look(self, state: State, *, quiet: bool, strike: Strike | None) -> Seen:
        looked = self.waiter.look(
            state.book, state.journal, state.sealed,
            node_up=state.node_up, quiet=quiet, strike=strike,
        )  # fmt: skip
        ghost = state.ghost
        if ghost and (looked.claimed or looked.book == NO_BOOK):
            ghost = OLD_FIN_TOKEN
        bells = min(BELLS_MOST, state.bells + looked.bells)
        now = state._replace(
            book=looked.book, journal=looked.journal, sealed=looked.sealed, ghost=ghost,
            bells=bells, returned=looked.end is WaitEnd.REACHED,
        )  # fmt: skip
        if now.returned:
            self._is_well(now)
        return Seen(now, looked.claimed, looked.unsent, looked.calls)

    def _is_well(self, state: State) -> None:
        """Everybody is accounted for, and only the one that kills was not checked."""
        told = self.waiter.told[state.journal]
        must(told.settled == HEALTHY, f"settled, each once: {told.settled}")
        must(told.given_up == ((GivenUpWhy.POISON, 1),), f"given up: {told.given_up}")
        must(bool(state.sealed), "the job is done, and the pool not sealed")

    def _is_quiet(self, state: State) -> bool:
        """Whether it can come to pass that nobody rang or claimed for long: somebody sleeps."""
        if state.bells or state.book == NO_BOOK or not state.node_up:
            return False
        asleep = not (state.w0.awake and state.w1.awake)
        return asleep and self.home.books[state.book].ready > 0

    # --- faults that happen to somebody who does nothing

    def _accidents(self, state: State) -> Iterator[Step]:
        if state.left & Fault.CRASH and state.node_up:
            for at in (0, 1):
                if _who(state, at).held:
                    yield self._spent(self._dies(state, at), Fault.CRASH), True
            yield self._spent(self._main_dies(state), Fault.CRASH), True
        if state.left & Fault.WAITER_DIES and state.waits:
            yield self._spent(state._replace(waits=False), Fault.WAITER_DIES), True
        if state.left & Fault.FORGOTTEN and state.book != NO_BOOK:
            ghost = OLD_FIN_TOKEN if state.ghost else ""
            lost = state._replace(book=NO_BOOK, bells=0, ghost=ghost)
            yield self._spent(lost, Fault.FORGOTTEN), True

    def _main_dies(self, state: State) -> State:
        for at in (0, 1):
            state = self._dies(state, at)
        if state.book != NO_BOOK:
            state = state._replace(book=self.home.step(state.book, ("node_gone",))[0])
        return state._replace(node_up=False)

    def _spent(self, state: State, fault: int) -> State:
        left = state.left & ~fault
        spent = (self._faults & ~left).bit_count()
        return state._replace(left=left if spent < self._most else 0)


class Seen(NamedTuple):
    state: State
    claimed: bool
    unsent: bool
    calls: int


def _who(state: State, at: int) -> Worker:
    return state.w1 if at else state.w0


def _with(state: State, at: int, worker: Worker) -> State:
    return state._replace(w1=worker) if at else state._replace(w0=worker)


def _without(worker: Worker, attempt: Attempt) -> Worker:
    return worker._replace(held=tuple(one for one in worker.held if one != attempt))
