"""A direct request to a judge, without any proxy: is it well, and what does it see of us?"""

from __future__ import annotations

import asyncio
import ssl

from msgspec import Struct

from proxywell.checking.judge import Request
from proxywell.checking.pages import Page
from proxywell.checking.ports import Stream
from proxywell.model.clock import Clock
from proxywell.model.failure import FailureKind
from proxywell.net.dial import open_direct
from proxywell.net.resolve import GuardRefusal, resolve
from proxywell.net.translate import Stage, failure_of
from proxywell.protocols.head import HttpLimits
from proxywell.protocols.http import Answered, AnswerReader
from proxywell.protocols.machine import Refused

_READ_BYTES = 16_384
_OVERLOADED = frozenset({429, 500, 502, 503, 504, 520, 521, 522, 523, 524})


class Control(Struct, frozen=True):
    """What came of one direct request.

    Attributes:
        page: What the judge saw; None on failure.
        said: What it said or did instead, in a few words; empty on success.
        took_s: The whole request, connect included.
        overloaded: It asked to be left alone.
        body: The answer's body where one came.
    """

    page: Page | None
    said: str
    took_s: float
    overloaded: bool = False
    body: bytes = b""


class ControlLine(Struct, frozen=True):
    """How direct requests leave.

    Attributes:
        refusal: ``Guard.refusal``.
        source_address: Local address to connect from; None: the system's choice.
        context: Verifies https judges.
        answer_max_bytes: Longest body that is read.
        timeout_s: To resolve a name, to connect, and for the answer: each.
    """

    refusal: GuardRefusal
    source_address: str | None
    context: ssl.SSLContext | None
    answer_max_bytes: int
    timeout_s: float


async def ask_directly(
    request: Request, address: str, *, secure: bool, line: ControlLine, clock: Clock
) -> Control:
    """Send one request to one address of a judge; never raises on what happens to it.

    Args:
        request: A fresh one.
        address: A vetted address of its host.
        secure: Inside TLS, verified against the request's host.
        line: How to get there, and how long it may take.
        clock: For what it took and for signed times.
    """
    begin_s = clock.monotonic_s()
    try:
        read = await _exchange(request, address, secure=secure, line=line)
    except ssl.SSLCertVerificationError as error:
        said = f"a certificate that is not trusted ({error.verify_message})"
        return Control(None, said, clock.monotonic_s() - begin_s)
    except OSError as error:
        read = failure_of(error, Stage.ANSWER)
    took_s = clock.monotonic_s() - begin_s
    if isinstance(read, FailureKind):
        return Control(None, _in_words(read), took_s)
    answer = read.answer
    page = request.look(answer, now_s=clock.now_s())
    if not isinstance(page, FailureKind):
        return Control(page, "", took_s, body=answer.body)
    said = f"status {answer.status}" if answer.status != 200 else _in_words(page)
    return Control(None, said, took_s, answer.status in _OVERLOADED, answer.body)


async def whole_answer(stream: Stream, limits: HttpLimits) -> Answered | FailureKind:
    """Read one answer to its end.

    Raises:
        OSError: The stream failed; TimeoutError at its deadline.
    """
    reader = AnswerReader(limits)
    while True:  # ends with the answer, the stream, a limit or the stream's deadline
        data = await stream.receive(_READ_BYTES)
        step = reader.receive(data) if data else reader.ended()
        if isinstance(step, Answered):
            return step
        if isinstance(step, Refused):
            return step.kind


async def addresses_of(host: str, port: int, *, line: ControlLine) -> tuple[str, ...] | FailureKind:
    """Resolve a judge's host to vetted addresses, IPv4 first; or say why there are none."""
    deadline_s = asyncio.get_running_loop().time() + line.timeout_s
    found = await resolve(host, port, guard_refusal=line.refusal, deadline_s=deadline_s)
    if isinstance(found, FailureKind):
        return found
    return tuple(sorted(found, key=lambda ip: ":" in ip))


async def _exchange(
    request: Request, address: str, *, secure: bool, line: ControlLine
) -> Answered | FailureKind:
    stream = await open_direct(
        address,
        request.port,
        refusal=line.refusal,
        source_address=line.source_address,
        connect_s=line.timeout_s,
        answer_s=line.timeout_s,
    )
    if isinstance(stream, FailureKind):
        return stream
    try:
        if secure:
            assert line.context is not None, "https judges come with a context"
            await stream.start_tls(line.context, request.host)
        await stream.send(request.origin())
        return await whole_answer(stream, HttpLimits(body_max_bytes=line.answer_max_bytes))
    finally:
        stream.close()


def _in_words(kind: FailureKind) -> str:
    return kind.value.replace("_", " ")
