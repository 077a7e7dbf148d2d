"""Explore every state of the model, and say what cannot end.

An edge without a fault is a step that will be made if nothing else breaks. From every state there
must be a way of such steps to the waiter's return, and no way of them may go on for ever.
"""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import dataclass, field

from tests.simulation.model import State, System


@dataclass
class Graph:
    """What was found: states by number, and their edges without faults."""

    system: System
    states: list[State] = field(default_factory=list)
    calm: list[list[int]] = field(default_factory=list)
    edges: int = 0


def explore(system: System) -> Graph:
    """All states that can be reached.

    Raises:
        Violation: An invariant does not hold in one of them.
    """
    graph = Graph(system)
    numbers: dict[State, int] = {}

    def number(state: State) -> int:
        state = canonical(system, state)
        found = numbers.get(state)
        if found is None:
            found = numbers[state] = len(graph.states)
            graph.states.append(state)
        return found

    number(system.first())
    gc.disable()  # nothing here refers to itself, and looking for it takes a fifth of the time
    try:
        for at, state in enumerate(graph.states):  # grows while there are new ones
            calm = []
            for following, by_fault in system.steps(state):
                to = number(following)
                if to != at:
                    graph.edges += 1
                    if not by_fault:
                        calm.append(to)
            graph.calm.append(calm)
    finally:
        gc.enable()
    return graph


def canonical(system: System, state: State) -> State:
    """The workers are alike: of a state and its mirror image one stands for both."""
    if state.w0 < state.w1:
        return state
    mirrored = state.book
    if mirrored >= 0:
        mirrored, _ = system.home.step(mirrored, ("swap",))
    if state.w0 == state.w1 and state.book <= mirrored:
        return state
    return state._replace(book=mirrored, w0=state.w1, w1=state.w0)


def cannot_return(graph: Graph) -> list[int]:
    """States from which no way without a fault leads to the waiter's return."""
    before: list[list[int]] = [[] for _ in graph.states]
    for at, following in enumerate(graph.calm):
        for to in following:
            before[to].append(at)
    reached = bytearray(len(graph.states))
    queue = deque(at for at, state in enumerate(graph.states) if state.returned)
    for at in queue:
        reached[at] = 1
    while queue:
        for at in before[queue.popleft()]:
            if not reached[at]:
                reached[at] = 1
                queue.append(at)
    return [at for at, done in enumerate(reached) if not done]


def in_cycles(graph: Graph) -> list[int]:
    """States that some run without faults comes back to, or passes on its way round."""
    incoming = [0] * len(graph.states)
    for following in graph.calm:
        for to in following:
            incoming[to] += 1
    queue = deque(at for at, many in enumerate(incoming) if not many)
    gone = 0
    while queue:
        gone += 1
        for to in graph.calm[queue.popleft()]:
            incoming[to] -= 1
            if not incoming[to]:
                queue.append(to)
    return [at for at, many in enumerate(incoming) if many]
