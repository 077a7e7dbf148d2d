"""When a proxy is on: three classes per protocol, or the replay of a presence file. No clock."""

from __future__ import annotations

import ast
import bisect
import io
import random
import zipfile
from array import array
from pathlib import Path
from typing import Protocol as Port

from msgspec import Struct

from proxywell.errors import InputMissingError, UsageError
from proxywell.model.endpoint import Protocol

_HOUR_S = 3600.0
GONE_PER_LIFE = 4.0  # most addresses that ever worked do not work now, and few come back soon


class Timeline(Port):
    """The on and off of one proxy."""

    def on_at(self, virtual_s: float) -> bool:
        """Whether it is on; instants must be asked in order."""
        ...


class Population(Struct, frozen=True):
    """One class of proxies of one protocol.

    Attributes:
        presence: Share of what is on at a random instant that belongs to this class.
        duty: Share of its life that such a proxy is on.
        life_h: Mean life in hours; then it is gone for ``GONE_PER_LIFE`` times as long, on
            average, and comes back.
    """

    presence: float
    duty: float
    life_h: float


class Habit(Struct, frozen=True):
    """The classes of one protocol, and the hours in which on and off forget each other."""

    populations: tuple[Population, ...]
    relax_h: float


# Fitted to the histories of published lists (2026): ephemeral, flaky, stable.
HABITS: dict[Protocol, Habit] = {
    Protocol.HTTP: Habit(
        (
            Population(0.466, 0.179, 1.1),
            Population(0.409, 0.27, 78.5),
            Population(0.125, 0.958, 1418),
        ),
        0.032,
    ),
    Protocol.CONNECT: Habit(
        (
            Population(0.356, 0.269, 7.7),
            Population(0.346, 0.619, 339),
            Population(0.298, 0.622, 11_331),
        ),
        0.297,
    ),
    Protocol.SOCKS4: Habit(
        (
            Population(0.547, 0.19, 0.2),
            Population(0.097, 0.817, 30.6),
            Population(0.356, 0.996, 50_000),
        ),
        0.03,
    ),
    Protocol.SOCKS5: Habit(
        (
            Population(0.75, 0.269, 1.0),
            Population(0.155, 0.818, 24),
            Population(0.095, 0.998, 868),
        ),
        0.083,
    ),
}


class ModelTimeline:
    """A proxy that lives for a while, switches on and off meanwhile, is gone, and comes back.

    It starts in its steady state, so at any instant a fifth of a fleet is alive and less is on.
    Within a life it is a two-state Markov process: from whatever state, the chance to be on
    relaxes to ``duty`` with the habit's time constant.

    Args:
        habit: Of its protocol.
        draw: Chance of its own, so that nobody else's order of questions matters.
    """

    def __init__(self, habit: Habit, draw: random.Random) -> None:
        self._draw = draw
        # The share of proxies in a class is what they are on by duty, the other way round.
        weights = [population.presence / population.duty for population in habit.populations]
        self._population = draw.choices(habit.populations, weights)[0]
        self._relax_s = habit.relax_h * _HOUR_S
        self._living = draw.random() < 1 / (1 + GONE_PER_LIFE)
        self._on = self._living and draw.random() < self._population.duty
        self._life_ends_s = self._life_s()
        self._switches_s = self._next_switch(0.0)

    def on_at(self, virtual_s: float) -> bool:
        """See Timeline."""
        while min(self._life_ends_s, self._switches_s) <= virtual_s:
            if self._life_ends_s <= self._switches_s:
                at_s = self._life_ends_s
                self._living = not self._living
                self._on = self._living and self._draw.random() < self._population.duty
                self._life_ends_s = at_s + self._life_s()
            else:
                at_s = self._switches_s
                self._on = self._living and not self._on
            self._switches_s = self._next_switch(at_s)
        return self._on

    def _life_s(self) -> float:
        mean_s = self._population.life_h * _HOUR_S * (1.0 if self._living else GONE_PER_LIFE)
        return self._draw.expovariate(1 / mean_s)

    def _next_switch(self, at_s: float) -> float:
        duty = self._population.duty
        if not self._living:
            return float("inf")
        mean_s = self._relax_s / (1 - duty if self._on else duty)
        return at_s + self._draw.expovariate(1 / mean_s)


class TraceTimeline:
    """The runs of one proxy of a presence file, over and over.

    Args:
        edges_s: Instants of on, off, on, off, ... in order.
        length_s: Length of the whole file.
    """

    def __init__(self, edges_s: list[float], length_s: float) -> None:
        self._edges_s = edges_s
        self._length_s = length_s

    def on_at(self, virtual_s: float) -> bool:
        """See Timeline; here instants may come in any order."""
        return bisect.bisect_right(self._edges_s, virtual_s % self._length_s) % 2 == 1


class Trace:
    """A presence file: which proxies were found working, round by round.

    Args:
        path: An NPZ file with ``runs`` (n, 3): proxy, first round, first round after; ``proto``
            by proxy: 0 http, 1 socks4, 2 socks5, 3 http with CONNECT only; ``tick_time`` by
            round: seconds from the first.

    Raises:
        InputMissingError: It cannot be read.
        UsageError: It is no such file.
    """

    def __init__(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as file:
                runs = _numbers(file.read("runs.npy"))
                kinds = _numbers(file.read("proto.npy"))
                self._ticks = _numbers(file.read("tick_time.npy"))
        except OSError as error:
            raise InputMissingError(
                f"presence file {path} cannot be read ({error.strerror}); name an NPZ file"
            ) from error
        except (zipfile.BadZipFile, KeyError, ValueError, SyntaxError) as error:
            raise UsageError(f"{path} is no presence file in NPZ form: {error}") from error
        self._edges: dict[int, list[float]] = {}
        for at in range(0, len(runs), 3):
            edges = self._edges.setdefault(runs[at], [])
            edges += (self._second(runs[at + 1]), self._second(runs[at + 2]))
        self._by_kind: dict[int, list[int]] = {}
        for number in self._edges:
            self._by_kind.setdefault(kinds[number], []).append(number)
        self._edges = {number: sorted(edges) for number, edges in self._edges.items()}

    def timeline(self, protocol: Protocol, draw: random.Random) -> TraceTimeline:
        """The timeline of one of the file's proxies of this protocol, drawn at random."""
        kind = {
            Protocol.SOCKS4: 1,
            Protocol.SOCKS4A: 1,
            Protocol.SOCKS5: 2,
            Protocol.CONNECT: 3,
        }.get(protocol, 0)
        numbers = self._by_kind.get(kind) or [next(iter(self._edges))]
        return TraceTimeline(self._edges[draw.choice(numbers)], self._second(len(self._ticks)))

    def _second(self, tick: int) -> float:
        if tick < len(self._ticks):
            return float(self._ticks[tick])
        return float(self._ticks[-1]) + 1080.0  # the last round lasts as long as most


def _numbers(raw: bytes) -> array[int]:
    """The numbers of an NPY file of whole numbers, flat."""
    stream = io.BytesIO(raw)
    if stream.read(6) != b"\x93NUMPY":
        raise ValueError("an array in it is not in NPY form")
    major = stream.read(2)[0]
    size_bytes = int.from_bytes(stream.read(2 if major == 1 else 4), "little")
    header = ast.literal_eval(stream.read(size_bytes).decode("latin-1"))
    code = {"<i4": "i", "|i1": "b", "<i8": "q", "<i2": "h"}.get(header["descr"])
    if code is None or header["fortran_order"]:
        raise ValueError(f"an array of type {header['descr']} in it is not of whole numbers")
    numbers: array[int] = array(code)
    numbers.frombytes(stream.read())
    return numbers
