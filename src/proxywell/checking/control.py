"""A direct request to a judge, without any proxy: is it well, and what does it see of us?"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

from msgspec import Struct

from proxywell.checking.judge import Request
from proxywell.checking.pages import Page
from proxywell.model.clock import Clock
from proxywell.model.failure import FailureKind
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
        source_address: Local address to connect from; None: the system's choice.
        context: Verifies https judges.
        answer_max_bytes: Longest body that is read.
        timeout_s: For one whole request.
    """

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
    body, overloaded = b"", False
    page: Page | None = None
    try:
        async with asyncio.timeout(line.timeout_s):
            read = await _exchange(request, address, secure=secure, line=line)
    except TimeoutError:
        said = f"nothing within {line.timeout_s:g} s"
    except ssl.SSLCertVerificationError as error:
        said = f"a certificate that is not trusted ({error.verify_message})"
    except ssl.SSLError as error:
        said = f"no proper TLS ({error.reason or error})"
    except OSError as error:
        said = (os.strerror(error.errno) if error.errno else str(error)).lower()
    else:
        if isinstance(read, Refused):
            said = read.kind.value
        else:
            answer = read.answer
            body, overloaded = answer.body, answer.status in _OVERLOADED
            looked = request.look(answer, now_s=clock.now_s())
            if isinstance(looked, FailureKind):
                status = looked is FailureKind.HTTP_STATUS
                said = f"status {answer.status}" if status else looked.value
            else:
                page, said = looked, ""
    return Control(page, said, clock.monotonic_s() - begin_s, overloaded, body)


async def _exchange(
    request: Request, address: str, *, secure: bool, line: ControlLine
) -> Answered | Refused:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    source = line.source_address
    fits = source is not None and (":" in source) == (":" in address)
    reader, writer = await asyncio.open_connection(
        address,
        request.port,
        family=family,
        local_addr=(source, 0) if fits else None,
        ssl=line.context if secure else None,
        server_hostname=request.host if secure else None,
    )
    try:
        writer.write(request.origin())
        answer = AnswerReader(HttpLimits(body_max_bytes=line.answer_max_bytes))
        while True:  # ends with the answer, the stream, a limit or the caller's time-out
            data = await reader.read(_READ_BYTES)
            step = answer.receive(data) if data else answer.ended()
            if isinstance(step, (Answered, Refused)):
                return step
    finally:
        writer.close()


async def addresses_of(host: str, port: int, *, timeout_s: float) -> tuple[str, ...]:
    """Resolve a judge's host, IPv4 first.

    Raises:
        OSError: It does not resolve, or not within ``timeout_s``.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(entry[4][0] for entry in found)
    return tuple(sorted((str(ip) for ip in addresses), key=lambda ip: ":" in ip))
