"""What a refusal shows about the other side, shown with what real servers send."""

from __future__ import annotations

import pytest

from proxywell.model.failure import FailureKind
from proxywell.protocols.http import AnswerReader, HttpConnect
from proxywell.protocols.machine import Family, Refused, family_heard
from proxywell.protocols.socks4 import Socks4Connect
from proxywell.protocols.socks5 import Socks5Connect
from tests.unit.protocols.driving import Maker, feed

MACHINES: dict[Family, tuple[Maker, ...]] = {
    Family.SOCKS4: (lambda: Socks4Connect("192.0.2.7", 80),),
    Family.SOCKS5: (lambda: Socks5Connect("192.0.2.7", 80),),
    Family.HTTP: (lambda: HttpConnect("192.0.2.7", 80), AnswerReader),
}


@pytest.mark.parametrize("tried", MACHINES)
@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99999999\r\n\r\n", Family.HTTP),
        (b"\x05\xff", Family.SOCKS5),
        (b"\x00\x5b\x00\x00\x00\x00\x00\x00", Family.SOCKS4),
        (b"\x04\x5a", Family.SOCKS4),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Family.STRANGE),
        (b"\x15\x03\x01\x00\x02\x02\x16", Family.STRANGE),
        (b"", None),
    ],
)
def test_who_answers_is_known_from_the_first_byte(
    tried: Family, sent: bytes, heard: Family | None
) -> None:
    for make in MACHINES[tried]:
        step = feed(make, [sent] if sent else [], end=True).step
        assert isinstance(step, Refused)
        assert family_heard(step, tried=tried) is heard


@pytest.mark.parametrize("tried", Family)
@pytest.mark.parametrize("kind", [FailureKind.RESET, FailureKind.HANDSHAKE_TIMEOUT])
def test_nothing_is_heard_where_nothing_was_said(tried: Family, kind: FailureKind) -> None:
    assert family_heard(Refused(kind), tried=tried) is None


def test_an_answer_that_breaks_off_behind_its_status_is_still_http() -> None:
    step = feed(AnswerReader, [b"HTTP/1.1 200 OK\r\n"], end=True).step
    assert step == Refused(FailureKind.EOF_EARLY, 200)
    assert family_heard(step, tried=Family.HTTP) is Family.HTTP


@pytest.mark.parametrize(
    ("tried", "sent"), [(Family.HTTP, b"HTTP/1.1 407 x\r\n"), (Family.SOCKS5, b"\x05\xff")]
)
def test_whoever_asks_for_a_password_speaks_the_protocol(tried: Family, sent: bytes) -> None:
    step = feed(MACHINES[tried][0], [sent]).step
    assert isinstance(step, Refused)
    assert step.kind is FailureKind.AUTH_REQUIRED
    assert family_heard(step, tried=tried) is tried


def test_a_first_byte_that_nobody_saw_is_strange() -> None:
    refused = Refused(FailureKind.NOT_THIS_PROTOCOL)
    assert family_heard(refused, tried=Family.HTTP) is Family.STRANGE
