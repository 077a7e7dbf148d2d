"""Feeding a machine as TCP would: in any cut, with or without the end of the stream.

Whatever is fed, a machine must keep its promises (``protocols.machine.Handshake``); ``feed``
asserts the ones that hold for every input and returns what the others are about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeAlias

from hypothesis import strategies as st

from proxywell.protocols.http import Answered, AnswerReader, HttpConnect, Reading
from proxywell.protocols.machine import Established, NeedMore, Refused, Step
from proxywell.protocols.socks4 import Socks4aConnect, Socks4Connect
from proxywell.protocols.socks5 import Socks5Connect

Machine: TypeAlias = Socks4Connect | Socks4aConnect | Socks5Connect | HttpConnect | AnswerReader
Maker: TypeAlias = Callable[[], Machine]


class Feeding(Protocol):
    """What a handshake and an answer have in common."""

    def receive(self, data: bytes) -> Step | Reading: ...

    def ended(self) -> Step | Reading: ...


class Outcome(NamedTuple):
    """What came of one feeding; equal outcomes cannot be told apart by a caller.

    ``rest`` is everything behind the point where the machine was done: its own leftover and
    what it was not fed any more. ``sent`` only counts if a tunnel stands.
    """

    step: Step | Reading
    rest: bytes
    sent: bytes


def feed(make: Maker, pieces: Sequence[bytes], *, end: bool = False) -> Outcome:
    """Feed the pieces, then perhaps the end, until the machine is done."""
    machine: Feeding = make()
    sent = b""
    for number, piece in enumerate(pieces):
        step = machine.receive(piece)
        if not isinstance(step, NeedMore):
            return _outcome(step, b"".join(pieces[number + 1 :]), sent)
        sent += step.send
    if end:
        return _outcome(machine.ended(), b"", sent)
    return Outcome(NeedMore(), b"", sent)


def _outcome(step: Step | Reading, unfed: bytes, sent: bytes) -> Outcome:
    match step:
        case Established(leftover, send):
            return Outcome(Established(), leftover + unfed, sent + send)
        case Answered(answer):
            whole = Answered(type(answer)(answer.status, answer.headers, answer.body))
            return Outcome(whole, answer.leftover + unfed, sent)
        case Refused():
            return Outcome(step, b"", b"")
        case _:
            raise AssertionError(f"{step} after the end")


def in_single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut_at(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data in pieces; a cut that occurs twice gives an empty piece, as a driver may."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(places)]


def cuts(length: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, length), max_size=6)


def mutated(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Valid bytes with a few changes: chance alone rarely gets past the first byte."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(valid))
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(data)))
            match draw(st.sampled_from(("change", "insert", "delete", "truncate"))):
                case "change" if at < len(data):
                    data[at] = draw(st.integers(0, 255))
                case "insert":
                    data[at:at] = draw(st.binary(min_size=1, max_size=3))
                case "delete":
                    del data[at : at + draw(st.integers(1, 3))]
                case _:
                    del data[at:]
        return bytes(data)

    return build()


def assert_cuts_do_not_matter(make: Maker, data: bytes, places: Sequence[int]) -> None:
    """Whole, cut here and there, byte by byte, with and without the end: all the same."""
    for end in (False, True):
        whole = feed(make, [data], end=end)
        assert feed(make, cut_at(data, places), end=end) == whole
        assert feed(make, in_single_bytes(data), end=end) == whole


def kept_bytes(machine: object) -> int:
    """All bytes that a machine holds on to, wherever it keeps them."""
    if isinstance(machine, (bytes, bytearray)):
        return len(machine)
    if isinstance(machine, (list, tuple)):
        return sum(kept_bytes(part) for part in machine)
    if not type(machine).__module__.startswith(("proxywell.protocols", "tests.")):
        return 0
    slots = [name for kind in type(machine).__mro__ for name in getattr(kind, "__slots__", ())]
    return sum(kept_bytes(getattr(machine, name)) for name in slots)


def most_kept_bytes(make: Maker, blocks: Iterable[bytes]) -> int:
    """The most that the machine held while it was fed, beyond what it was born with."""
    machine: Feeding = make()
    born_with = most = kept_bytes(machine)
    for block in blocks:
        done = not isinstance(machine.receive(block), NeedMore)
        most = max(most, kept_bytes(machine))
        if done:
            return most - born_with
    raise AssertionError("fed to the last block without a no: nothing bounds it")
