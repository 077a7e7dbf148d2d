"""The reactor's rules in simulated time, on a simulated network."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.failure import FailureKind
from proxywell.net import reactor as under_test
from proxywell.net.faults import FAULT_PATIENCE_S
from proxywell.net.reactor import Reactor
from tests.unit.net.wire import Peer, Talk, World

BLACK_HOLE = Peer(connect_after_s=None)
SILENT = Peer()
REFUSES = Peer(error=errno.ECONNREFUSED)
STEP = 0.051  # the simulation's own coarseness


def close_to(instant_s: float) -> object:
    return pytest.approx(instant_s, abs=4 * STEP)


def answers(after_s: float, data: bytes = b"yes") -> Peer:
    return Peer(says=[(after_s, data), (after_s, b"")])


# --- time


def test_a_connect_past_its_soft_time_goes_on_while_nobody_waits() -> None:
    world = World()
    talk = world.talk("1", BLACK_HOLE)
    world.run_out()
    assert talk.end == ("connect_timeout", close_to(4.0))


def test_a_connect_past_its_soft_time_gives_way_to_whoever_waits() -> None:
    world = World(sockets=1)
    first = world.talk("1", BLACK_HOLE)
    second = world.talk("2", answers(0.1))
    world.run_out()
    assert first.end == ("deferred", close_to(1.0))
    assert second.end[0] == "ended"


def test_demand_that_comes_later_is_served_at_once_by_the_late() -> None:
    world = World(sockets=1)
    first = world.talk("1", BLACK_HOLE)
    world.run(2.0)
    second = world.talk("2", answers(0.1))
    world.run_out()
    assert first.end == ("deferred", close_to(2.0))
    assert second.end == ("ended", close_to(0.2))


def test_the_patient_are_never_deferred() -> None:
    world = World(sockets=1)
    first = world.talk("1", BLACK_HOLE, patient=True)
    second = world.talk("2", SILENT, patient=True)
    third = world.talk("3", answers(0.1))
    world.run_out()
    assert first.end == ("connect_timeout", close_to(4.0))
    assert second.end == ("timed_out", close_to(4.0 + 0.1 + 10.0))
    assert third.end[0] == "ended"


def test_a_slow_answer_may_be_deferred_but_is_read_when_nobody_waits() -> None:
    alone, crowded = World(sockets=1), World(sockets=1)
    read = alone.talk("1", answers(6.0))
    given_up = crowded.talk("1", answers(6.0))
    crowded.talk("2", REFUSES)
    alone.run_out()
    crowded.run_out()
    assert read.end == ("ended", close_to(6.1))
    assert given_up.end == ("deferred", close_to(2.1))


def test_a_byte_now_and_then_does_not_put_off_the_end() -> None:
    world = World()
    drip = Peer(says=[(n * 0.5, b"x") for n in range(100)])
    talk = world.talk("1", drip)
    world.run_out()
    assert talk.end == ("timed_out", close_to(10.1))


def test_a_silent_guess_ends_at_the_soft_time_and_one_that_speaks_does_not() -> None:
    world = World()
    silent = world.talk("1", SILENT, guess=True, patient=True)
    speaks = world.talk("2", Peer(says=[(1.0, b"x"), (7.0, b"y"), (7.0, b"")]), guess=True)
    world.run_out()
    assert silent.end == ("timed_out", close_to(2.1))
    assert speaks.end == ("ended", close_to(7.1))


def test_the_silent_are_told_once_that_they_are_late() -> None:
    world = World()
    silent = world.talk("1", SILENT, patient=True)
    speaks = world.talk("2", Peer(says=[(1.0, b"x")]))
    guess = world.talk("3", SILENT, guess=True)
    world.run_out()
    assert silent.late_s == close_to(2.1)
    assert speaks.late_s is None
    assert guess.late_s is None


def test_nobody_is_late_because_we_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """We were stopped for a minute; the answers had come in time, and lie there unread."""
    monkeypatch.setattr(under_test, "EVENTS_AT_ONCE", 2)
    world = World()
    talks = [world.talk(str(n), answers(0.2), patient=True) for n in range(9)]
    late = world.talk("10", BLACK_HOLE, patient=True)
    world.turn()
    world.wire.now_s += 60.0
    world.run_out()
    assert {talk.end[0] for talk in talks} == {"ended"}
    assert late.end[0] == "connect_timeout"


# --- sockets


def test_data_and_the_end_in_one_event_are_both_read() -> None:
    world = World()
    talk = world.talk("1", Peer(says=[(0.0, b"all"), (0.0, b" of it"), (0.0, b"")]))
    world.run_out()
    assert talk.got == b"all of it"
    assert talk.end[0] == "ended"


def test_what_came_before_a_reset_is_read() -> None:
    world = World()
    talk = world.talk("1", Peer(says=[(0.2, b"all"), (0.2, None)]))
    world.run_out()
    assert talk.got == b"all"
    assert talk.end[0] == "reset"


def test_what_does_not_fit_is_sent_when_there_is_room() -> None:
    world = World()
    talk = world.talk("1", Peer(says=[(0.5, b"x"), (1.0, b"")]))
    talk.opening = b"h" * 100
    world.turn()
    (sock,) = world.wire.open.values()
    sock.room = 30
    world.run(0.3)
    assert len(sock.sent) == 30
    sock.room = 1 << 30
    world.run(0.5)
    assert sock.sent == b"h" * 100


def test_a_refused_socket_serves_the_next_connect() -> None:
    world = World(sockets=1)
    talks = [world.talk(str(n), REFUSES) for n in range(20)]
    world.run_out()
    assert {talk.end[0] for talk in talks} == {"connect_refused"}
    assert world.reactor.figures.reused == 19
    assert not world.wire.open, "spare sockets are closed when nothing is left to do"


def test_a_socket_that_timed_out_serves_the_next_connect() -> None:
    world = World(sockets=2)
    for n in range(10):
        world.talk(str(n), BLACK_HOLE, patient=True)
    world.run_out()
    assert world.reactor.figures.reused == 8
    assert world.wire.most_open == 2


def test_a_socket_whose_connect_stood_at_the_last_moment_is_not_used_again() -> None:
    """The shutdown comes a moment too late, and nothing tells so but the next connect."""
    world = World(sockets=1)
    first = world.talk("1", Peer(connect_after_s=4.0), patient=True)
    second = world.talk("2", answers(0.1, b"second"), patient=True)
    world.turn()
    (sock,) = world.wire.open.values()
    world.run(3.99, step_s=3.99)
    sock.events = lambda: 0  # type: ignore[method-assign]  # the event is not told in time
    world.run_out()
    assert first.end[0] == "connect_timeout"
    assert second.got == b"second"
    assert world.reactor.figures.reused == 0


def test_an_event_never_reaches_the_next_owner_of_a_descriptor() -> None:
    world = World(sockets=1)
    talks = [
        world.talk(str(n), answers(0.1, f"answer {n};".encode()) if n % 2 else REFUSES)
        for n in range(40)
    ]
    world.run_out()
    for n, talk in enumerate(talks):
        assert talk.got == (f"answer {n};".encode() if n % 2 else b"")


def test_the_guard_is_asked_before_each_connect() -> None:
    world = World()
    world.refused_hosts.add("1")
    talk = world.talk("1", SILENT)
    world.run_out()
    assert talk.kind is FailureKind.ADDRESS_REFUSED
    assert world.reactor.figures.connections == 0


def test_a_bug_in_one_conversation_stops_no_other() -> None:
    world = World()
    broken, whole = world.talk("1", SILENT), world.talk("2", answers(0.5))
    broken.raises = ZeroDivisionError
    world.run_out()
    assert broken.end[0] == "ZeroDivisionError"
    assert whole.end[0] == "ended"
    assert not world.wire.open


def test_the_cancelled_hear_nothing_wherever_they_are() -> None:
    world = World(sockets=2)
    connecting, answering = world.talk("1", BLACK_HOLE), world.talk("2", SILENT)
    queued = world.talk("3", answers(0.1))
    faulty = world.talk("4", SILENT)
    world.wire.no_route.add("4")
    world.run(0.5)
    for talk in (connecting, answering, queued, faulty):
        world.reactor.cancel(talk)
        world.reactor.cancel(talk)
    world.run_out()
    assert [talk.ends for talk in (connecting, answering, queued, faulty)] == [[]] * 4
    assert not world.wire.open


def test_nobody_is_deferred_for_the_sake_of_the_cancelled() -> None:
    world = World(sockets=1)
    first = world.talk("1", BLACK_HOLE)
    world.run(0.5)
    gone = world.talk("2", answers(0.1))
    world.reactor.cancel(gone)
    world.run_out()
    assert first.end[0] == "connect_timeout"


# --- our own faults


def test_running_out_of_descriptors_blames_nobody_and_finds_everybody() -> None:
    world = World(sockets=50)
    world.wire.descriptors_max = 10
    talks = [world.talk(str(n), answers(0.3)) for n in range(200)]
    world.run_out()
    assert {talk.end[0] for talk in talks} == {"ended"}
    assert world.reactor.figures.local_faults > 0
    assert world.limit.now <= 10


def test_the_number_of_sockets_grows_back_when_the_shortage_is_over() -> None:
    world = World(sockets=40)
    world.wire.descriptors_max = 8
    for n in range(60):
        world.talk(str(n), answers(0.3))
    world.run(3.0)
    assert world.limit.now <= 8
    world.wire.descriptors_max = 1 << 30
    world.run(60.0, step_s=0.5)
    assert world.limit.now == 40


def test_a_network_that_is_down_for_a_while_costs_nobody_a_verdict() -> None:
    world = World()
    world.talk("0", answers(0.1))
    world.run(1.0)
    world.wire.network_down = True
    talks = [world.talk(str(n), answers(0.1)) for n in range(1, 20)]
    world.run(10.0)
    world.wire.network_down = False
    world.run_out()
    assert {talk.end[0] for talk in talks} == {"ended"}


def test_a_network_that_stays_down_is_our_own_fault() -> None:
    world = World()
    world.talk("0", answers(0.1))
    world.run(1.0)
    world.wire.network_down = True
    talks = [world.talk(str(n), answers(0.1)) for n in range(1, 20)]
    world.run_out()
    assert {talk.kind for talk in talks} == {FailureKind.LOCAL_FAULT}
    patience_s = FAULT_PATIENCE_S
    assert all(patience_s <= talk.end[1] <= patience_s + 1.0 for talk in talks)


def test_a_family_without_any_route_is_told_soon() -> None:
    world = World()
    world.wire.no_route.add("::1")
    talks = [world.talk("::1", SILENT) for _ in range(5)]
    other = world.talk("1", answers(0.1))
    world.run_out()
    assert {talk.kind for talk in talks} == {FailureKind.LOCAL_FAULT}
    assert all(talk.end[1] <= 2.0 for talk in talks)
    assert other.end[0] == "ended"


def test_the_networks_own_word_that_an_address_is_unreachable_is_about_that_address() -> None:
    world = World()
    talk = world.talk("1", Peer(error=errno.ENETUNREACH))
    world.run_out()
    assert talk.kind is FailureKind.UNREACHABLE


# --- room


def test_room_counts_the_free_the_late_and_a_short_queue() -> None:
    world = World(sockets=8)
    empty = world.reactor.room()
    assert 8 < empty <= 16
    for n in range(8):
        world.talk(str(n), BLACK_HOLE)
    assert world.reactor.room() == empty - 8
    world.run(1.2)
    assert world.reactor.room() == empty


def test_nothing_is_opened_while_paused_but_what_is_urgent() -> None:
    world = World()
    world.reactor.paused = True
    waits = world.talk("1", answers(0.1))
    world.wire.peers["2"] = answers(0.1)
    urgent = Talk(world.wire, "2")
    world.reactor.submit(urgent, urgent=True)
    world.run(3.0)
    assert urgent.end[0] == "ended"
    assert waits.ends == []
    world.reactor.paused = False
    world.run_out()
    assert waits.end[0] == "ended"


# --- everything at once

peers = st.one_of(
    st.just(BLACK_HOLE),
    st.just(SILENT),
    st.just(REFUSES),
    st.floats(0.0, 12.0).map(answers),
    st.builds(
        lambda at, data: Peer(says=[(at, data), (at + 0.5, None)]),
        st.floats(0.0, 3.0),
        st.binary(min_size=1, max_size=20),
    ),
)


def mixed_world(
    kind: type[Reactor], fleet: list[tuple[Peer, bool, bool]], sockets: int
) -> tuple[World, list[Talk]]:
    """Run a fleet to its end; whoever is deferred comes back patiently."""
    world = World(sockets=sockets)
    world.reactor.__class__ = kind  # a planted bug, or the real one
    everybody = []

    def again(host: str, first: Talk) -> None:
        if first.ends[-1][0] == "deferred":
            everybody.append(world.talk(host, patient=True))

    for n, (peer, patient, guess) in enumerate(fleet):
        talk = world.talk(str(n), peer, patient=patient, guess=guess)
        talk.next = lambda host=str(n), talk=talk: again(host, talk)  # type: ignore[misc]  # now
        everybody.append(talk)
    world.run_out(at_most_s=16.0 * (len(fleet) + 2))
    return world, everybody


fleets = st.lists(st.tuples(peers, st.booleans(), st.booleans()), max_size=25)


@given(fleet=fleets, sockets=st.integers(1, 12))
def test_everybody_ends_once_and_no_socket_is_lost(
    fleet: list[tuple[Peer, bool, bool]], sockets: int
) -> None:
    world, everybody = mixed_world(Reactor, fleet, sockets)
    assert all(len(talk.ends) == 1 for talk in everybody)
    assert not world.wire.open
    assert world.wire.most_open <= sockets
    assert not any(talk.patient and talk.end[0] == "deferred" for talk in everybody)


class NeverDefers(Reactor):
    """Planted: whoever is late keeps its socket."""

    def _defer_one(self, now_s: float) -> bool:
        return False


class LosesSockets(Reactor):
    """Planted: a socket is not given back when its owner is deferred."""

    def _hang_up(self, conversation: object, *, clean: bool = False) -> None:
        self._talking = {n: one for n, one in self._talking.items() if one is not conversation}
        conversation.socket = None  # type: ignore[attr-defined]  # a conversation
        conversation.leave_line()  # type: ignore[attr-defined]  # a conversation


def test_a_reactor_that_loses_sockets_would_be_noticed() -> None:
    world, _ = mixed_world(LosesSockets, [(answers(0.1), False, False)] * 3, 3)
    assert world.wire.open


def test_a_reactor_that_never_defers_would_be_noticed() -> None:
    world = World(sockets=1)
    world.reactor.__class__ = NeverDefers
    first = world.talk("1", BLACK_HOLE)
    world.talk("2", answers(0.1))
    world.run_out()
    assert first.end[0] != "deferred"
