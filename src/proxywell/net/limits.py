"""How many sockets this process may have open, and how that number follows events."""

from __future__ import annotations

from pathlib import Path

try:
    import resource
except ImportError:  # pragma: no cover - only where the system has no such limits
    resource = None  # type: ignore[assignment]  # the module is absent there

RESERVE_DESCRIPTORS = 96  # the loop, stores, lists, tunnels of stage 2, logs
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
CALM_S = 5.0  # so long without a fault before the number grows again
GROWTH_S = 1.0
SLOW_S, SLOW_FACTOR = 1.0, 4.0


def socket_ceiling(wanted: int) -> int:
    """Say how many sockets may be open, raising the soft file limit as far as it goes.

    Args:
        wanted: The user's setting, from 1.

    Returns:
        At least 1: the least of the setting, the file limit without a reserve, and nine tenths
        of the system's local ports.
    """
    ceiling = wanted
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = resource.RLIM_INFINITY
        need = wanted + RESERVE_DESCRIPTORS
        if soft != unlimited and soft < need:
            soft = need if hard == unlimited else min(need, hard)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            except (OSError, ValueError):  # the system has a lower limit of its own
                soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft != unlimited:
            ceiling = min(ceiling, max(soft - RESERVE_DESCRIPTORS, soft // 2))
    try:
        first, last = map(int, _PORTS.read_text().split())
        ceiling = min(ceiling, (last - first + 1) * 9 // 10)
    except (OSError, ValueError):
        pass  # not Linux: the file limit decides
    return max(1, ceiling)


class SocketLimit:
    """A number of sockets that falls at once when the system says no, and grows back slowly.

    Attributes:
        now: Sockets allowed at this moment, from 1 to ``ceiling``.
        ceiling: What it grows back to.
    """

    __slots__ = ("_best_s", "_fall_from_s", "_grow_from_s", "ceiling", "now")

    def __init__(self, ceiling: int) -> None:
        assert ceiling >= 1, "a reactor needs a socket"
        self.now = self.ceiling = ceiling
        self._fall_from_s = self._grow_from_s = float("-inf")
        self._best_s = float("inf")

    def shrink(self, in_use: int, now_s: float) -> None:
        """Fall to four fifths of what is in use, at most once a second.

        Once a second, because one shortage is told by every socket that is opened meanwhile.
        """
        if now_s >= self._fall_from_s:
            self.now = max(1, min(self.now, in_use) * 4 // 5)
            self._fall_from_s = now_s + GROWTH_S
            self._grow_from_s = now_s + CALM_S

    def follow(self, control_s: float, in_use: int, now_s: float) -> None:
        """Fall too when direct requests take much longer than at their best: our line is full.

        Much longer is four times and a second; it falls to an eighth of the ceiling at least.

        Args:
            control_s: How long the latest direct request took.
            in_use: Sockets in use.
            now_s: Monotonic.
        """
        self._best_s = min(self._best_s, control_s)
        if control_s > max(SLOW_S, SLOW_FACTOR * self._best_s) and self.now > self.ceiling // 8:
            self.shrink(in_use, now_s)

    def grow(self, now_s: float) -> None:
        """Grow by a twentieth, at most once a second, after five quiet seconds."""
        if self.now < self.ceiling and now_s >= self._grow_from_s:
            self.now = min(self.ceiling, self.now + max(1, self.now // 20))
            self._grow_from_s = now_s + GROWTH_S
