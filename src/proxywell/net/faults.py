"""What is our own fault when a connect fails, how long it is borne, and what is counted."""

from __future__ import annotations

import errno

from proxywell.model.failure import FailureKind
from proxywell.net.translate import Stage, failure_of_errno

FAULT_PATIENCE_S = 30.0  # a connect that our own system refuses is tried again for so long
NO_ROUTE_PATIENCE_S = 1.0  # the same, for a family that never reached anything
SHORTAGES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


class Figures:
    """Counters of one reactor since it was made; sockets, not candidates."""

    __slots__ = ("connections", "deferred", "local_faults", "peak", "reused")

    def __init__(self) -> None:
        self.connections = 0  # connects that began
        self.deferred = 0
        self.local_faults = 0  # connects that failed through our own system
        self.peak = 0  # most sockets in use at one time
        self.reused = 0  # connects on a socket that had none before


def failure_of_connect(error_number: int, *, late: bool) -> FailureKind:
    """Say what an error of a connect means.

    Args:
        error_number: From ``connect`` or ``SO_ERROR``; not 0.
        late: It did not come at once. Then "network unreachable" is the word of a router far
            away and about the other side; at once it means that we have no route.
    """
    if late and error_number == errno.ENETUNREACH:
        return FailureKind.UNREACHABLE
    return failure_of_errno(error_number, Stage.CONNECT)


def patience_s(error_number: int, *, family_reached: bool) -> float:
    """Say for how many seconds a connect is tried again that our own system refuses.

    Args:
        error_number: What the system said.
        family_reached: An address of the same family was reached before. If none ever was,
            this host has no route for that family, and waiting does not make one.
    """
    if family_reached or error_number in SHORTAGES:
        return FAULT_PATIENCE_S
    return NO_ROUTE_PATIENCE_S
