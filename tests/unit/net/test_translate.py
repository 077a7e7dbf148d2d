"""Who is to blame for what the system says; a wrong line here blames the innocent."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

from proxywell.model.failure import Blame, FailureKind
from proxywell.net.translate import Stage, failure_of, failure_of_errno

OURS = (
    "EMFILE",
    "ENFILE",
    "ENOBUFS",
    "ENOMEM",
    "EADDRNOTAVAIL",
    "EADDRINUSE",
    "EAGAIN",
    "EACCES",
    "EPERM",
    "ENETUNREACH",
    "ENETDOWN",
    "EAFNOSUPPORT",
)


def of_number(number: int) -> OSError:
    """As the system calls raise it: the subclass that belongs to the number."""
    return OSError(number, os.strerror(number))


def certificate_error(verify_code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = verify_code
    return error


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("name", OURS)
def test_what_this_host_causes_is_never_held_against_a_proxy(name: str, stage: Stage) -> None:
    number = getattr(errno, name)
    assert failure_of_errno(number, stage) is FailureKind.LOCAL_FAULT
    kind = failure_of(of_number(number), stage)
    assert kind is FailureKind.LOCAL_FAULT
    assert kind.blame is Blame.OURSELVES


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNREFUSED, FailureKind.CONNECT_REFUSED),
        (errno.ECONNRESET, FailureKind.RESET),
        (errno.EPIPE, FailureKind.RESET),
        (errno.ECONNABORTED, FailureKind.RESET),
        (errno.EHOSTUNREACH, FailureKind.UNREACHABLE),
    ],
)
def test_what_the_other_side_causes_is_its_own(
    number: int, kind: FailureKind, stage: Stage
) -> None:
    assert failure_of(of_number(number), stage) is kind
    assert failure_of_errno(number, stage) is kind
    assert kind.blame is Blame.PROXY


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EISCONN, 9999])
def test_what_only_a_bug_can_cause_is_a_bug(number: int, stage: Stage) -> None:
    if number == errno.EINVAL and stage is Stage.CONNECT:
        return  # see below
    assert failure_of(OSError(number, "x"), stage) is FailureKind.INTERNAL
    assert FailureKind.INTERNAL.blame is Blame.OURSELVES


def test_a_source_address_that_cannot_reach_a_network_is_a_local_fault() -> None:
    """Linux answers EINVAL to a connect from 127.0.0.2 to an address that is not on loopback."""
    assert failure_of_errno(errno.EINVAL, Stage.CONNECT) is FailureKind.LOCAL_FAULT


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        (Stage.CONNECT, FailureKind.CONNECT_TIMEOUT),
        (Stage.HANDSHAKE, FailureKind.HANDSHAKE_TIMEOUT),
        (Stage.ANSWER, FailureKind.ANSWER_TIMEOUT),
    ],
)
def test_a_time_limit_means_what_was_waited_for(stage: Stage, kind: FailureKind) -> None:
    assert failure_of(TimeoutError(), stage) is kind
    assert failure_of(of_number(errno.ETIMEDOUT), stage) is kind
    assert failure_of_errno(errno.ETIMEDOUT, stage) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (9, FailureKind.TLS_EXPIRED),
        (10, FailureKind.TLS_EXPIRED),
        (62, FailureKind.TLS_NAME),
        (64, FailureKind.TLS_NAME),
        (18, FailureKind.TLS_UNTRUSTED),
        (19, FailureKind.TLS_UNTRUSTED),
        (20, FailureKind.TLS_UNTRUSTED),
        (23, FailureKind.TLS_UNTRUSTED),
        (9999, FailureKind.TLS_UNTRUSTED),
    ],
)
def test_a_certificate_fails_for_its_own_reason(code: int, kind: FailureKind) -> None:
    assert failure_of(certificate_error(code), Stage.HANDSHAKE) is kind


def test_a_tls_handshake_that_breaks_off_is_an_alert_and_a_cut_answer_is_an_early_end() -> None:
    assert failure_of(ssl.SSLError(1, "alert"), Stage.HANDSHAKE) is FailureKind.TLS_ALERT
    assert failure_of(ssl.SSLEOFError(8, "eof"), Stage.HANDSHAKE) is FailureKind.TLS_ALERT
    assert failure_of(ssl.SSLEOFError(8, "eof"), Stage.ANSWER) is FailureKind.EOF_EARLY


def test_a_name_without_an_address_is_told_from_a_resolver_without_an_answer() -> None:
    missing = socket.gaierror(socket.EAI_NONAME, "not known")
    silent = socket.gaierror(socket.EAI_AGAIN, "try again")
    assert failure_of(missing, Stage.CONNECT) is FailureKind.DNS
    assert failure_of(silent, Stage.CONNECT) is FailureKind.LOCAL_FAULT


def test_errors_without_a_number_have_a_meaning_too() -> None:
    assert failure_of(ConnectionResetError("lost"), Stage.ANSWER) is FailureKind.RESET
    assert failure_of(OSError("strange"), Stage.ANSWER) is FailureKind.INTERNAL
