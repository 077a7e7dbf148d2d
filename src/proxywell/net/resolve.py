"""Names to addresses, vetted: for judges, and for candidates where names are allowed.

Whoever gets the addresses dials them and never the name again, so that a name cannot change
between the vetting and the connection (rebinding). The address is vetted once more when it is
dialled.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import TypeAlias
from weakref import WeakKeyDictionary

from proxywell.model.failure import FailureKind
from proxywell.net.translate import Stage, failure_of

GuardRefusal: TypeAlias = Callable[[str, int], object | None]
"""``Guard.refusal``: None if the host and port may be dialled, else the reason."""

LookUp: TypeAlias = Callable[[str, int], Sequence[str]]
"""Addresses of a name, in order of preference; blocks; raises OSError or UnicodeError."""

ADDRESSES_MAX = 16
LOOKUPS_MAX = 16

# The system's resolver cannot be interrupted: a lookup may go on after its caller has left.
# Its place is free again when it is really over, so that no more than these ever run.
_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def system_look_up(host: str, port: int) -> tuple[str, ...]:
    """Ask the system's resolver for TCP addresses; blocks, and has no time limit of its own."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


async def resolve(
    host: str,
    port: int,
    *,
    guard_refusal: GuardRefusal,
    deadline_s: float,
    look_up: LookUp = system_look_up,
) -> tuple[str, ...] | FailureKind:
    """Find the addresses of a host, all of them vetted.

    One address that is refused spoils the name: an honest one has no reason to point at
    private addresses. An address given as a host is vetted and given back.

    Args:
        host: Name, or address without brackets.
        port: 1 to 65535; the guard looks at it too.
        guard_refusal: Says why an address must not be dialled.
        deadline_s: Instant of ``loop.time()`` by which there must be an answer.
        look_up: Asks for addresses; replaced in tests.

    Returns:
        One to ``ADDRESSES_MAX`` addresses in canonical text; or DNS if there are none,
        ADDRESS_REFUSED, or LOCAL_FAULT if our resolver did not answer in time.
    """
    try:
        addresses: Sequence[str] = (str(ip_address(host)),)
    except ValueError:
        try:
            async with asyncio.timeout_at(deadline_s):
                found = await _look_up_aside(look_up, host, port)
            addresses = [str(ip_address(address)) for address in found][:ADDRESSES_MAX]
        except TimeoutError:
            return FailureKind.LOCAL_FAULT
        except OSError as error:
            return failure_of(error, Stage.CONNECT)
        except ValueError:  # a name that cannot be asked for, or an address with a zone
            return FailureKind.DNS
    if not addresses:
        return FailureKind.DNS
    if any(guard_refusal(address, port) is not None for address in addresses):
        return FailureKind.ADDRESS_REFUSED
    return tuple(addresses)


async def _look_up_aside(look_up: LookUp, host: str, port: int) -> Sequence[str]:
    """Look up in a thread of its own, which holds up neither the loop nor the program's end."""
    loop = asyncio.get_running_loop()
    places = _places.setdefault(loop, asyncio.Semaphore(LOOKUPS_MAX))
    await places.acquire()
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(found: Sequence[str] | OSError | ValueError) -> None:
        places.release()
        if answer.done():  # the caller has left
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def work() -> None:
        found: Sequence[str] | OSError | ValueError
        try:
            found = look_up(host, port)
        except (OSError, ValueError) as error:
            found = error
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(settle, found)

    try:
        threading.Thread(target=work, name="proxywell-lookup", daemon=True).start()
    except RuntimeError as error:
        places.release()
        raise OSError(errno.EAGAIN, "this host allows no further thread") from error
    return await answer
