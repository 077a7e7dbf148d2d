"""When proxies are on: the fitted model, and replays of presence files."""

from __future__ import annotations

import io
import math
import random
import struct
import zipfile
from array import array
from pathlib import Path

import pytest

from proxywell.errors import InputMissingError, UsageError
from proxywell.lab.churn import HABITS, ModelTimeline, Trace, TraceTimeline
from proxywell.model.endpoint import Protocol

HOUR_S = 3600.0


def survival(protocol: Protocol, after_h: float, fleet: int = 40_000) -> float:
    """Simulated P(on at t + after | on at t)."""
    on = still = 0
    for number in range(fleet):
        timeline = ModelTimeline(HABITS[protocol], random.Random(f"{number}"))
        if timeline.on_at(HOUR_S):
            on += 1
            still += timeline.on_at(HOUR_S * (1 + after_h))
    return still / on


def fitted(protocol: Protocol, after_h: float) -> float:
    """The formula that the classes were fitted with."""
    habit = HABITS[protocol]
    whole = sum(population.presence for population in habit.populations)
    return sum(
        population.presence
        / whole
        * (population.duty + (1 - population.duty) * math.exp(-after_h / habit.relax_h))
        * math.exp(-after_h / population.life_h)
        for population in habit.populations
    )


@pytest.mark.parametrize("protocol", HABITS)
@pytest.mark.parametrize("after_h", [0.2, 1.0, 24.0])
def test_the_model_survives_as_the_histories_of_lists_do(
    protocol: Protocol, after_h: float
) -> None:
    assert survival(protocol, after_h) == pytest.approx(fitted(protocol, after_h), abs=0.06)


def test_asking_often_or_seldom_gives_the_same_answer() -> None:
    seldom = ModelTimeline(HABITS[Protocol.HTTP], random.Random(3))
    often = ModelTimeline(HABITS[Protocol.HTTP], random.Random(3))
    for minute in range(3000):
        answer = often.on_at(minute * 60.0)
        if minute % 100 == 0:
            assert seldom.on_at(minute * 60.0) == answer


def test_a_replay_follows_its_runs_and_starts_again_at_the_end() -> None:
    timeline = TraceTimeline([10.0, 20.0, 50.0, 60.0], 100.0)
    on = [second for second in range(0, 200, 5) if timeline.on_at(float(second))]
    assert on == [10, 15, 50, 55, 110, 115, 150, 155]


def npy(descr: str, code: str, numbers: list[int], shape: str) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    raw = array(code, numbers).tobytes()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + raw


def write_trace(path: Path, **arrays: bytes) -> Path:
    content = {
        "runs": npy("<i4", "i", [0, 1, 3, 0, 4, 5, 1, 0, 5, 2, 2, 3], "(4, 3)"),
        "proto": npy("|i1", "b", [0, 2, 3], "(3,)"),
        "tick_time": npy("<i4", "i", [0, 100, 250, 300, 400], "(5,)"),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, raw in {**content, **arrays}.items():
            file.writestr(f"{name}.npy", raw)
    path.write_bytes(buffer.getvalue())
    return path


def test_a_presence_file_gives_each_protocol_its_own_proxies(tmp_path: Path) -> None:
    trace = Trace(write_trace(tmp_path / "trace.npz"))
    draw = random.Random(1)
    http = trace.timeline(Protocol.HTTP, draw)
    assert [http.on_at(s) for s in (50.0, 100.0, 299.0, 300.0, 399.0, 400.0)] == [
        False, True, True, False, False, True,
    ]  # fmt: skip
    assert all(trace.timeline(Protocol.SOCKS5, draw).on_at(s) for s in (0.0, 399.0, 1400.0))
    connect = trace.timeline(Protocol.CONNECT, draw)
    assert [connect.on_at(s) for s in (249.0, 250.0, 300.0)] == [False, True, False]


def test_what_is_no_presence_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="cannot be read"):
        Trace(tmp_path / "nothing.npz")
    junk = tmp_path / "junk.npz"
    junk.write_bytes(b"no zip at all")
    with pytest.raises(UsageError, match="no presence file"):
        Trace(junk)
    with pytest.raises(UsageError, match="whole numbers"):
        Trace(write_trace(tmp_path / "floats.npz", runs=npy("<f8", "d", [1], "(1,)")))
    with pytest.raises(UsageError, match="NPY form"):
        Trace(write_trace(tmp_path / "text.npz", runs=b"a,b,c\n"))
