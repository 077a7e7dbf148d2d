"""The name of a main process, its pulse in the ledger, and whether it still exists."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

from proxywell.errors import StateError
from proxywell.refresh.outage import Outage
from proxywell.refresh.ports import Ledger


def node_name(version: str = "") -> str:
    """A name for a main of this process that no other one has or had.

    Host, process, its start, and a draw. On Linux it tells later whether the process still
    exists, which spares a resumed job the wait for leases to run out.

    Args:
        version: Of the program, for those on other machines who look; empty: not said.
    """
    pid = os.getpid()
    draw = f"{version}-{token_hex(3)}" if version else token_hex(3)
    return f"{_place()}:{pid}:{_started(pid) or '-'}:{draw}"


def version_of(node: str) -> str | None:
    """The version that a named main said it is; None if it did not."""
    return node.rpartition(":")[2].rpartition("-")[0] or None


def is_gone(node: str) -> bool:
    """Say whether a named process certainly exists no more; False where that cannot be known."""
    place, pid, started, _ = ("", "", "", *node.rsplit(":", 3))[-4:]
    if place != _place() or not pid.isdigit() or started == "-":
        return False
    return _started(int(pid)) != started


def process_of(node: str) -> int | None:
    """The process id of a named main that is on this machine; None where it is elsewhere."""
    place, pid, _, _ = ("", "", "", *node.rsplit(":", 3))[-4:]
    return int(pid) if place == _place() and pid.isdigit() else None


def _place() -> str:
    """Where process numbers mean the same: the host, and its name space of processes."""
    try:
        space = f"{Path('/proc/self/ns/pid').stat().st_ino:x}"
    except OSError:
        space = "-"
    return f"{socket.gethostname()}/{space}"


def _started(pid: int) -> str | None:
    """Clock ticks at which the process started (proc(5), field 22); None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


class Pulse:
    """Tells the ledger that this main lives, on a thread of its own.

    The term is one beat shorter than a lease: when a whole process group dies, its node is
    known to be gone before its leases run out, and no chunk is blamed.

    Args:
        node: This main.
        job_id: The job that it works on.
        open_ledger: Opens a connection of its own, called on the thread.
        lease_s: Of the job's chunks.
        beat_s: How often to tell.
    """

    def __init__(
        self,
        node: str,
        job_id: str,
        *,
        open_ledger: Callable[[], Ledger],
        lease_s: float,
        beat_s: float,
    ) -> None:
        self._node, self._job_id = node, job_id
        self._outage = Outage(job_id)
        self._open_ledger = open_ledger
        self._term_s, self._beat_s = lease_s - beat_s, beat_s
        self._over = threading.Event()
        self._wake = threading.Event()
        self._draining = False
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def drain(self) -> None:
        """Tell, soon and from now on, that this main is leaving."""
        self._draining = True
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """Sign off and end; works twice."""
        self._over.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            ledger = self._open_ledger()
        except StateError as error:
            self._outage.met(error)
            return
        try:
            while not self._over.is_set():
                self._wake.clear()
                self._tell(
                    lambda: ledger.node_beat(
                        self._node,
                        self._job_id,
                        term_s=self._term_s,
                        draining=self._draining,
                    )
                )
                if not self._over.is_set():
                    self._wake.wait(self._beat_s)
            self._tell(lambda: ledger.node_gone(self._node))
        finally:
            ledger.close()

    def _tell(self, step: Callable[[], None]) -> None:
        try:
            step()
            self._outage.over()
        except StateError as error:
            self._outage.met(error)


def bury(ledger: Ledger, job_id: str) -> int:
    """Take back at once what processes held that exist no more; how many leases that were."""
    leases = ledger.leases(job_id)
    mains = ledger.nodes(job_id) | {lease.node for lease in leases}
    gone = {node for node in mains if is_gone(node)}
    for node in gone:
        ledger.node_gone(node)
    lost = [(lease.chunk_id, lease.token) for lease in leases if lease.node in gone]
    return ledger.expire(job_id, lost) if lost else 0
