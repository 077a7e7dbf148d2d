from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import Anonymity, CheckState, CheckStep, Verdict
from proxywell.refresh.packing import (
    pack_candidates,
    pack_verdicts,
    unpack_candidates,
    unpack_verdicts,
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)

hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
words = st.text(min_size=1, max_size=6)
endpoints = st.one_of(
    st.builds(Endpoint, hosts, st.integers(1, 65535)),
    st.builds(Endpoint, hosts, st.integers(1, 65535), words, words),
)
protocols = st.sampled_from(list(Protocol))
candidates = st.builds(
    Candidate,
    endpoints,
    st.lists(protocols, max_size=2).map(tuple),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=2).map(tuple),
)
checks = st.builds(
    CheckStep,
    st.sampled_from(["reach", "judge"]),
    st.sampled_from(list(CheckState)),
    st.sampled_from([None, "reset"]),
    st.sampled_from([None, "azenv:http://judge"]),
    st.none(),
)


@st.composite
def verdicts(draw: st.DrawFn, candidate: Candidate) -> Verdict:
    protocol = draw(protocols)
    working = draw(st.booleans())
    failure = None if working else draw(st.sampled_from(list(FailureKind)))
    seen = working or draw(st.integers(0, 9)) == 0
    return Verdict(
        proxy=candidate.endpoint.url(protocol),
        host=candidate.endpoint.host,
        port=candidate.endpoint.port,
        protocol=draw(st.sampled_from([None, protocol])),
        working=working,
        failure=failure,
        blame=None if failure is None else failure.blame,
        protocols=(protocol,) if working else (),
        anonymity=draw(st.sampled_from(list(Anonymity))) if seen else Anonymity.UNKNOWN,
        exit_ip="9.9.9.9" if seen else None,
        latency_ms=draw(st.floats(0, 1e4)) if seen else None,
        connect_ms=draw(st.one_of(st.none(), st.integers(0, 80_000).map(lambda n: n / 10))),
        checked_at=NOON + timedelta(milliseconds=draw(st.integers(0, 10_000_000))),
        checks=tuple(draw(st.lists(checks, max_size=2))),
    )


@st.composite
def told(draw: st.DrawFn) -> list[tuple[int, Candidate, Verdict]]:
    items = draw(st.lists(st.integers(0, 2**31), unique=True, max_size=12))
    whom = [draw(candidates) for _ in items]
    return [(item, one, draw(verdicts(one))) for item, one in zip(items, whom, strict=True)]


@given(st.lists(candidates, max_size=10))
def test_candidates_come_back_as_they_were(some: list[Candidate]) -> None:
    assert unpack_candidates(pack_candidates(some)) == some


@given(told())
def test_verdicts_come_back_as_they_were(rows: list[tuple[int, Candidate, Verdict]]) -> None:
    whom = {item: candidate for item, candidate, _ in rows}
    back = {item: (one, said) for item, one, said in unpack_verdicts(pack_verdicts(rows), whom)}
    assert back == {item: (one, said) for item, one, said in rows}


@given(told(), st.integers(0, 2**12))
def test_only_items_that_are_asked_for_come_back(
    rows: list[tuple[int, Candidate, Verdict]], bits: int
) -> None:
    whom = {item: one for at, (item, one, _) in enumerate(rows) if bits >> at & 1}
    back = [item for item, _, _ in unpack_verdicts(pack_verdicts(rows), whom)]
    assert sorted(back) == sorted(whom)


def silent(number: int) -> tuple[int, Candidate, Verdict]:
    one = Candidate(Endpoint(f"9.0.{number // 200}.{number % 200}", 1080))
    said = Verdict(
        proxy=one.endpoint.url(Protocol.SOCKS5),
        host=one.endpoint.host,
        port=1080,
        protocol=Protocol.SOCKS5,
        working=False,
        failure=FailureKind.CONNECT_TIMEOUT,
        blame=FailureKind.CONNECT_TIMEOUT.blame,
        checked_at=NOON + timedelta(milliseconds=number * 7),
        connect_ms=None,
        checks=(CheckStep("reach", CheckState.FAILED, "connect_timeout", took_ms=1500.25),),
    )
    return number, one, said


def test_a_candidate_that_never_answered_costs_a_few_bytes() -> None:
    assert len(pack_verdicts([silent(number) for number in range(1_000)])) < 10_000


def test_what_a_check_took_is_dropped_for_those_that_do_not_work() -> None:
    row = silent(3)
    (_, _, back), *_ = unpack_verdicts(pack_verdicts([row]), {3: row[1]})
    assert back.checks == (replace(row[2].checks[0], took_ms=None),)


def test_junk_is_not_taken_for_verdicts_or_candidates() -> None:
    with pytest.raises(msgspec.MsgspecError):
        list(unpack_verdicts(b"junk", {}))
    with pytest.raises(msgspec.MsgspecError):
        unpack_candidates(b"\xc1")
