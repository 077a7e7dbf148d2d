"""What one handshake and one answer cost in CPU, made and fed as the reactor does it.

The common case: each reply comes whole. The best of many rounds is kept, since the rest of the
machine can only add to it.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from time import process_time

from benchmarks.record import Figures
from proxywell.protocols.http import Answered, AnswerReader, HttpConnect
from proxywell.protocols.machine import Established, Handshake, NeedMore
from proxywell.protocols.socks4 import Socks4Connect
from proxywell.protocols.socks5 import Socks5Connect

BUDGETS = {"socks4_us": 5.0, "socks5_us": 5.0, "connect_us": 5.0, "answer_us": 20.0}
TIMES, ROUNDS = 500, 400  # many short rounds: some of them are left alone

GRANT_4 = b"\x00\x5a" + b"\x00" * 6
METHOD_5, GRANT_5 = b"\x05\x00", b"\x05\x00\x00\x01" + b"\x00" * 6
OPENED = b"HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Mon, 24 Nov 2025 06:07:20 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 600\r\nCache-Control: no-store\r\n"
    b"Via: 1.1 x\r\nX-Cache: MISS\r\nConnection: close\r\n\r\n" + b"x" * 600
)


def run() -> Figures:
    """Microseconds for make, opening and receive, until the tunnel or the answer is there."""
    return {
        "socks4_us": _least_us(lambda: _shake(Socks4Connect("192.0.2.7", 80), GRANT_4)),
        "socks5_us": _least_us(lambda: _shake(Socks5Connect("192.0.2.7", 80), METHOD_5, GRANT_5)),
        "connect_us": _least_us(lambda: _shake(HttpConnect("judge.example", 80), OPENED)),
        "answer_us": _least_us(_answer),
    }


def _shake(machine: Handshake, *replies: bytes) -> None:
    sent = machine.opening
    for reply in replies:
        step = machine.receive(reply)
        if isinstance(step, NeedMore):
            sent = step.send
    if not (sent and isinstance(step, Established)):
        raise RuntimeError(f"no tunnel: {step}")


def _answer() -> None:
    reading = AnswerReader().receive(ANSWER)
    if not isinstance(reading, Answered):
        raise RuntimeError(f"no answer: {reading}")  # noqa: TRY004 - not about a wrong type


def _least_us(act: Callable[[], None]) -> float:
    return min(timeit.repeat(act, timer=process_time, number=TIMES, repeat=ROUNDS)) / TIMES * 1e6
