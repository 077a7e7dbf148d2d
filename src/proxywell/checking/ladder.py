"""Which protocol to try next on a candidate, from the lists' hints and from what came back.

Trying every protocol on everybody costs four connections a candidate. One first try, and a
decision on what came back, finds the same proxies with fewer than one and a half: most
candidates never accept a connection at all, and what answers shows what it speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from functools import lru_cache

from proxywell.model.endpoint import Protocol
from proxywell.model.failure import LIES, FailureKind
from proxywell.protocols.machine import Family, Refused, family_heard

_HTTP, _CONNECT = Protocol.HTTP, Protocol.CONNECT
_SOCKS4, _SOCKS4A, _SOCKS5 = Protocol.SOCKS4, Protocol.SOCKS4A, Protocol.SOCKS5
_HTTP_PAIR = frozenset({_HTTP, _CONNECT})

# Ports by which operators tell their software apart. Everything else is HTTP more often.
_SOCKS5_PORTS = frozenset({1080, 1081, 1085, 1086, 1088, 1090, 7497, 9050, 9150, 10800, 10808})
_SOCKS4_PORTS = frozenset({4145, 4153, 4216, 5678})

# Connections a candidate up to which unlikely protocols are tried as well, and how many
# connections more a short list may take: there is no mean to speak of yet.
SPARE_MEAN = 1.35
SPARE_START = 40


class Heard(Enum):
    """What one probe showed of the other side."""

    NO_CONNECTION = auto()  # refused, timed out, unreachable, or never tried
    SILENCE = auto()  # connected, and not a byte within the answer's time
    CLOSED = auto()  # connected, then closed or reset without a byte
    STRANGE = auto()  # bytes of no protocol that we know
    HTTP = auto()
    SOCKS4 = auto()
    SOCKS5 = auto()
    STALLED = auto()  # it spoke, and came to no end in time: another protocol would take as long
    LIAR = auto()  # a false answer: its other protocols are not wanted either

    @property
    def final(self) -> bool:
        """Whether nothing more is to be tried."""
        return self is Heard.NO_CONNECTION or self is Heard.STALLED or self is Heard.LIAR

    @property
    def vague(self) -> bool:
        """Whether it leaves open which protocols the other side knows."""
        return self is Heard.SILENCE or self is Heard.CLOSED or self is Heard.STRANGE


_NO_CONNECTION = frozenset(
    {
        FailureKind.DNS,
        FailureKind.ADDRESS_REFUSED,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.CONNECT_REFUSED,
        FailureKind.UNREACHABLE,
        FailureKind.LOCAL_FAULT,
        FailureKind.INTERNAL,
    }
)
_TIME_OUTS = frozenset(
    {FailureKind.HANDSHAKE_TIMEOUT, FailureKind.ANSWER_TIMEOUT, FailureKind.BODY_STALLED}
)
_HEARD_OF_FAMILY = {
    Family.HTTP: Heard.HTTP,
    Family.SOCKS4: Heard.SOCKS4,
    Family.SOCKS5: Heard.SOCKS5,
    Family.STRANGE: Heard.STRANGE,
}
_FAMILY = {
    _HTTP: Family.HTTP,
    _CONNECT: Family.HTTP,
    _SOCKS4: Family.SOCKS4,
    _SOCKS4A: Family.SOCKS4,
    _SOCKS5: Family.SOCKS5,
}


def heard(
    protocol: Protocol, kind: FailureKind, detail: int | None, *, spoke: bool, tunnel: bool
) -> Heard:
    """Say what a failed probe showed.

    Args:
        protocol: What was tried.
        kind: How it failed.
        detail: Status, reply code or first byte behind the failure.
        spoke: At least one byte came.
        tunnel: The handshake was completed, so the protocol is right whatever came after.
    """
    if kind in _NO_CONNECTION:
        return Heard.NO_CONNECTION
    if kind in LIES:
        return Heard.LIAR
    if (spoke or tunnel) and kind in _TIME_OUTS:
        return Heard.STALLED
    tried = _FAMILY[protocol]
    if tunnel:
        return _HEARD_OF_FAMILY[tried]
    if not spoke:
        return Heard.SILENCE if kind in _TIME_OUTS else Heard.CLOSED
    # What was cut off in the middle was an answer so far, or it would have been refused.
    family = family_heard(Refused(kind, detail), tried=tried) or tried
    return _HEARD_OF_FAMILY[family]


def first_protocol(hints: Sequence[Protocol], port: int) -> Protocol:
    """Say what to try first: what most lists say, else what the port suggests."""
    if hints:
        return hints[0]
    if port in _SOCKS5_PORTS:
        return _SOCKS5
    return _SOCKS4 if port in _SOCKS4_PORTS else _HTTP


def spare_connections(connections: int, candidates: int) -> bool:
    """Say whether unlikely protocols may be tried as well, so far into a list.

    Args:
        connections: Opened for first answers so far.
        candidates: Begun so far.
    """
    return connections < candidates * SPARE_MEAN + SPARE_START


class Ladder:
    """The rungs of one candidate that has answered, or at least accepted a connection.

    Args:
        first: What was tried first.
        hints: What lists say, most frequent first; tried before others that are as likely.
    """

    __slots__ = ("_hints", "_rungs", "_tried", "_unlikely")

    def __init__(self, first: Protocol, hints: Sequence[Protocol] = ()) -> None:
        self._tried = [first]
        self._hints = tuple(hints)
        self._rungs: tuple[Protocol, ...] = ()
        self._unlikely: tuple[Protocol, ...] = ()

    def after(self, protocol: Protocol, what: Heard, *, spare: bool) -> Protocol | None:
        """Say what to try next.

        Args:
            protocol: What was just tried, and failed.
            what: What that showed.
            spare: Unlikely protocols may be tried too.

        Returns:
            A protocol that was not tried yet; None when there is nothing more to learn.
        """
        if what.final:
            return None
        if len(self._tried) == 1 or not what.vague:
            self._rungs, self._unlikely = _plan(protocol, what, self._hints)
        for rung in self._rungs + self._unlikely if spare else self._rungs:
            if rung not in self._tried:
                self._tried.append(rung)
                return rung
        return None


@lru_cache(maxsize=4096)  # a few dozen cases, met by every candidate that answers
def _plan(
    protocol: Protocol, what: Heard, hints: tuple[Protocol, ...]
) -> tuple[tuple[Protocol, ...], tuple[Protocol, ...]]:
    """Likely protocols in order, and then unlikely ones, after what one probe showed."""
    four = _SOCKS4A if _SOCKS4A in hints and _SOCKS4 not in hints else _SOCKS4
    unlikely: list[Protocol] = []
    match what:
        case Heard.HTTP:
            likely = [_HTTP, _CONNECT]
        case Heard.SOCKS5:
            likely = [_SOCKS5, four]
        case Heard.SOCKS4:
            likely, unlikely = [four, _SOCKS4, _SOCKS5], [_SOCKS4A]
        case Heard.SILENCE if protocol not in _HTTP_PAIR:
            likely, unlikely = [_HTTP, _CONNECT], [_SOCKS5, four]
        case _ if protocol not in _HTTP_PAIR:
            # a list that is wrong about SOCKS names an HTTP proxy, which may close on it
            likely, unlikely = [_SOCKS5, four, _HTTP], [_CONNECT]
        case _:
            likely, unlikely = [_SOCKS5, four], [_HTTP, _CONNECT]
    likely += [hint for hint in hints if hint in unlikely]
    likely.sort(key=lambda rung: hints.index(rung) if rung in hints else len(hints))
    return tuple(likely), tuple(unlikely)
