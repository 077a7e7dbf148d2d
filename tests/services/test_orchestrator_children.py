from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxywell.errors import ProxywellError
from proxywell.orchestrator import shim
from proxywell.orchestrator.children import LOG_MAX_BYTES, Child, Order, in_words
from proxywell.orchestrator.supervise import Death, Supervisor, told
from proxywell.orchestrator.tending import Pace

SOON_S = 15.0
ROOT = Path(__file__).parents[2]


def until(is_so: Callable[[], object], within_s: float = SOON_S) -> None:
    end_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end_s, "it did not come to be in time"
        time.sleep(0.02)


def exists(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        state = (
            Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
        )
    except OSError:
        return False
    return state not in "ZX"


def runs_its_program(child: Child) -> bool:
    """Whether the script before it has made room."""
    return shim.__file__.encode() not in Path(f"/proc/{child.pid}/cmdline").read_bytes()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", textwrap.dedent(code))


SLEEPS = python("import time\ntime.sleep(600)")
STUBBORN = python("""
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    other = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    print(other.pid, flush=True)
    time.sleep(600)
""")


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        child.kill()
        child.wait(5.0)


def order(tmp_path: Path, command: tuple[str, ...], lock: Path | None = None) -> Order:
    return Order(command=command, log=tmp_path / "child.log", lock=lock)


def test_a_child_leads_a_group_of_its_own_and_ends_when_asked(
    tmp_path: Path, children: list[Child]
) -> None:
    child = Child(order(tmp_path, SLEEPS))
    children.append(child)
    assert os.getpgid(child.pid) == os.getsid(child.pid) == child.pid
    assert child.status() is None
    until(lambda: runs_its_program(child))
    child.stop()
    until(lambda: child.status() is not None)
    assert child.status() == -signal.SIGTERM
    child.stop()
    child.kill()  # both work after the end


def test_killing_ends_the_whole_group(tmp_path: Path, children: list[Child]) -> None:
    child = Child(order(tmp_path, STUBBORN))
    children.append(child)
    until(child.last_words)
    grandchild = int(child.last_words()[0])
    child.stop()
    time.sleep(0.2)
    assert child.status() is None
    child.kill()
    until(lambda: child.status() is not None)
    until(lambda: not exists(grandchild))


def test_what_a_main_leaves_behind_is_ended_with_it(tmp_path: Path, children: list[Child]) -> None:
    child = Child(order(tmp_path, STUBBORN))
    children.append(child)
    until(child.last_words)
    grandchild = int(child.last_words()[0])
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: child.status() is not None)
    assert child.status() == -signal.SIGKILL
    until(lambda: not exists(grandchild))


def test_two_children_never_hold_one_lock(tmp_path: Path, children: list[Child]) -> None:
    lock = tmp_path / "lock"
    first = Child(order(tmp_path, SLEEPS, lock))
    children.append(first)
    until(lambda: runs_its_program(first))
    second = Child(Order(command=SLEEPS, log=tmp_path / "second.log", lock=lock))
    children.append(second)
    until(lambda: second.status() is not None, shim.LOCK_S + SOON_S)
    assert second.status() == shim.LOCKED
    assert "is locked by another process" in second.last_words()[-1]
    first.kill()
    third = Child(Order(command=python("print('mine')"), log=tmp_path / "third.log", lock=lock))
    children.append(third)
    until(lambda: third.status() is not None)
    assert (third.status(), third.last_words()) == (0, ["mine"])


def test_a_program_that_is_not_there_is_named(tmp_path: Path, children: list[Child]) -> None:
    child = Child(order(tmp_path, (str(tmp_path / "nothing"),)))
    children.append(child)
    until(lambda: child.status() is not None)
    assert child.status() == shim.NOT_RUN
    assert child.last_words() == [
        f"proxywell: {tmp_path / 'nothing'} cannot be run: No such file or directory"
    ]


def test_a_log_that_has_grown_large_is_put_aside(tmp_path: Path, children: list[Child]) -> None:
    log = tmp_path / "child.log"
    log.write_bytes(b"x" * (LOG_MAX_BYTES + 1))
    child = Child(order(tmp_path, python("print('new')")))
    children.append(child)
    until(lambda: child.status() is not None)
    assert log.read_text() == "new\n"
    assert (tmp_path / "child.log.1").stat().st_size == LOG_MAX_BYTES + 1


def test_last_words_are_those_of_this_child_alone(tmp_path: Path, children: list[Child]) -> None:
    (tmp_path / "child.log").write_text("of an earlier one\n")
    child = Child(order(tmp_path, python("pass")))
    children.append(child)
    until(lambda: child.status() is not None)
    assert child.last_words() == []


def test_an_end_is_told_as_a_person_says_it() -> None:
    assert in_words(3) == "status 3"
    assert in_words(-9) == "SIGKILL"
    assert told(1, ["first", "last"]) == "status 1: last"


PARENT = """
    import os, sys, time
    from pathlib import Path
    from proxywell.orchestrator import shim
    from proxywell.orchestrator.children import Child, Order
    if len(sys.argv) > 2:  # as where the kernel tells nothing of a parent's death
        words = Path(shim.__file__).read_text().replace('!= "linux"', '!= "none"')
        shim.__file__ = sys.argv[2]
        Path(sys.argv[2]).write_text(words)
    child = Child(Order(command=tuple(%r), log=Path(sys.argv[1]) / "child.log"))
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("watched", [False, True], ids=["by the kernel", "by looking"])
def test_a_child_ends_with_its_parent(tmp_path: Path, watched: bool) -> None:
    more = [str(tmp_path / "shim.py")] if watched else []
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT % (STUBBORN,)), str(tmp_path), *more],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    log = tmp_path / "child.log"
    until(lambda: log.read_text().strip())
    group = [int(line) for line in log.read_text().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not exists(pid))
    for grandchild in group:  # not ours to tie; the group is ended only by a supervisor
        os.kill(grandchild, signal.SIGKILL)


def test_a_child_whose_parent_was_gone_before_it_began_runs_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-I", "-S", shim.__file__, "1", "-", *python("print('ran')")],
        capture_output=True, text=True, check=False, timeout=SOON_S,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (shim.ORPHANED, "")


# --- the supervisor


class Scripted:
    """A charge whose children do what a list says, and are well while they run."""

    def __init__(self, home: Path, name: str, *commands: tuple[str, ...], pace: Pace) -> None:
        self.name, self.pace = name, pace
        self.wanted = True
        self.is_well: bool | None = True
        self.pids: list[int] = []
        self.ordered = 0
        self.hopeless = False
        self._home, self._commands = home, commands

    def may_start(self) -> bool:
        return self.wanted

    def order(self) -> Order:
        command = self._commands[min(self.ordered, len(self._commands) - 1)]
        self.ordered += 1
        return Order(command=command, log=self._home / f"{self.name}.log")

    def well(self, pid: int) -> bool | None:
        if pid not in self.pids:
            self.pids.append(pid)
        return self.is_well

    def death(self, status: int, words: list[str] | tuple[str, ...] | object) -> Death:
        assert isinstance(words, list)
        return Death(told(status, words), self.hopeless)


QUICK = Pace(
    pause_first_s=0.05, pause_most_s=0.2, steady_s=0.3, barren_max=3, rise_s=2.0, silent_s=0.5,
    stop_s=0.5,
)  # fmt: skip


@pytest.fixture
def supervise() -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def start(*charges: Scripted) -> Supervisor:
        supervisor = Supervisor(charges)
        made.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in made:
        supervisor.hurry()


Supervise = Callable[..., Supervisor]


def test_a_child_that_is_killed_is_replaced(tmp_path: Path, supervise: Supervise) -> None:
    charge = Scripted(tmp_path, "worker", SLEEPS, pace=QUICK)
    supervisor = supervise(charge)
    until(lambda: charge.pids)
    time.sleep(0.6)  # it has proven itself
    os.kill(charge.pids[0], signal.SIGKILL)
    until(lambda: len(charge.pids) == 2)
    supervisor.stop()
    assert not any(exists(pid) for pid in charge.pids)
    assert supervisor.failure("worker") is None


def test_one_that_cannot_live_is_given_up_with_its_last_words(
    tmp_path: Path, supervise: Supervise
) -> None:
    words = python("import sys\nsys.exit('no room here')")
    charge = Scripted(tmp_path, "worker", words, pace=QUICK)
    supervisor = supervise(charge)
    until(lambda: supervisor.failure("worker"))
    assert str(supervisor.failure("worker")) == (
        "worker ended 3 times in a row, at last with status 1: no room here "
        f"(its log: {tmp_path / 'worker.log'})"
    )
    assert charge.ordered == QUICK.barren_max


def test_one_that_is_hopeless_is_tried_once(tmp_path: Path, supervise: Supervise) -> None:
    charge = Scripted(tmp_path, "worker", python("raise SystemExit(2)"), pace=QUICK)
    charge.hopeless = True
    supervisor = supervise(charge)
    until(lambda: supervisor.failure("worker"))
    assert charge.ordered == 1
    assert "ended with status 2" in str(supervisor.failure("worker"))


def test_one_that_falls_silent_is_killed_if_it_must_be_and_replaced(
    tmp_path: Path, supervise: Supervise
) -> None:
    charge = Scripted(tmp_path, "worker", STUBBORN, SLEEPS, pace=QUICK)
    supervise(charge)
    until(lambda: charge.pids)
    charge.is_well = False
    until(lambda: not exists(charge.pids[0]))
    charge.is_well = True
    until(lambda: len(charge.pids) == 2)


def test_what_others_stand_on_is_stopped_after_them(tmp_path: Path, supervise: Supervise) -> None:
    notes = tmp_path / "notes"
    leaves = """
        import signal, sys, time
        def leave(*_):
            time.sleep(%f)
            with open(%r, "a") as notes: notes.write("%s\\n")
            sys.exit()
        signal.signal(signal.SIGTERM, leave)
        print("ready", flush=True)
        time.sleep(600)
    """
    server = Scripted(tmp_path, "server", python(leaves % (0.0, str(notes), "server")), pace=QUICK)
    worker = Scripted(tmp_path, "worker", python(leaves % (0.3, str(notes), "worker")), pace=QUICK)
    supervisor = supervise(server, worker)
    for name in ("server", "worker"):
        until((tmp_path / f"{name}.log").exists)
        until((tmp_path / f"{name}.log").read_text)
    supervisor.stop()
    assert notes.read_text().split() == ["worker", "server"]
    supervisor.stop()  # twice does no harm


def test_stopping_before_starting_starts_nothing(tmp_path: Path) -> None:
    charge = Scripted(tmp_path, "worker", SLEEPS, pace=QUICK)
    supervisor = Supervisor([charge])
    supervisor.stop()
    supervisor.start()
    assert charge.ordered == 0


def test_what_may_not_start_waits_until_it_may(tmp_path: Path, supervise: Supervise) -> None:
    charge = Scripted(tmp_path, "worker", SLEEPS, pace=QUICK)
    charge.wanted = False
    supervise(charge)
    time.sleep(0.4)
    assert charge.ordered == 0
    charge.wanted = True
    until(lambda: charge.pids)


def test_a_charge_that_cannot_be_run_at_all_fails_with_its_own_sentence(
    tmp_path: Path, supervise: Supervise
) -> None:
    class Broken(Scripted):
        def order(self) -> Order:
            raise ProxywellError("there is no such thing")

    supervisor = supervise(Broken(tmp_path, "worker", SLEEPS, pace=QUICK))
    until(lambda: supervisor.failure("worker"))
    assert str(supervisor.failure("worker")) == "there is no such thing"


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path, supervise: Supervise) -> None:
    gone = tmp_path / "gone"
    supervisor = supervise(Scripted(gone, "worker", SLEEPS, pace=QUICK))
    until(lambda: supervisor.failure("worker"))
    assert str(supervisor.failure("worker")) == (
        f"worker cannot be started: No such file or directory: {gone / 'worker.log'}"
    )


def test_a_bug_in_a_charge_is_told_and_leaves_no_child(
    tmp_path: Path, supervise: Supervise
) -> None:
    class Buggy(Scripted):
        def well(self, pid: int) -> bool | None:
            super().well(pid)
            raise ZeroDivisionError("one of ours")

    charge = Buggy(tmp_path, "worker", SLEEPS, pace=QUICK)
    supervisor = supervise(charge)
    until(lambda: supervisor.failure("worker"))
    assert "a bug of ours in the supervisor, ZeroDivisionError" in str(supervisor.failure("worker"))
    until(lambda: not exists(charge.pids[0]))
