"""What the system says about a connection, in words that name who is to blame: one table.

The rule behind the table: an error is held against a proxy only if the proxy, or the network
behind our first router, can cause it. What our own host, its limits or its firewall cause is
LOCAL_FAULT; what only a bug can cause, or what is not in the table, is INTERNAL.
"""

from __future__ import annotations

import errno
import socket
import ssl
from enum import StrEnum

from proxywell.model.failure import FailureKind


class Stage(StrEnum):
    """How far a connection had got; the same error means another thing at another stage."""

    CONNECT = "connect"  # no connection yet
    HANDSHAKE = "handshake"  # connected; tunnel or TLS not yet standing
    ANSWER = "answer"  # what was asked for is under way


_TIMED_OUT = {
    Stage.CONNECT: FailureKind.CONNECT_TIMEOUT,
    Stage.HANDSHAKE: FailureKind.HANDSHAKE_TIMEOUT,
    Stage.ANSWER: FailureKind.ANSWER_TIMEOUT,
}

_BY_NAME = {
    # The other side
    "ECONNREFUSED": FailureKind.CONNECT_REFUSED,
    "ECONNRESET": FailureKind.RESET,
    "ECONNABORTED": FailureKind.RESET,
    "ENETRESET": FailureKind.RESET,
    "EPIPE": FailureKind.RESET,  # written to after it had closed
    "ENOTCONN": FailureKind.RESET,  # reset between two calls of ours
    "ESHUTDOWN": FailureKind.RESET,
    # A router on the way, about this address; without a route of our own it is ENETUNREACH
    "EHOSTUNREACH": FailureKind.UNREACHABLE,
    "EHOSTDOWN": FailureKind.UNREACHABLE,
    "ENONET": FailureKind.UNREACHABLE,  # ICMP: host isolated
    "ENOPROTOOPT": FailureKind.UNREACHABLE,  # ICMP: protocol unreachable
    "EPROTO": FailureKind.UNREACHABLE,
    # Limits of this host
    "EMFILE": FailureKind.LOCAL_FAULT,  # descriptors of this process
    "ENFILE": FailureKind.LOCAL_FAULT,  # descriptors of this system
    "ENOBUFS": FailureKind.LOCAL_FAULT,
    "ENOMEM": FailureKind.LOCAL_FAULT,
    "EADDRNOTAVAIL": FailureKind.LOCAL_FAULT,  # no local port left, or no such source address
    "EADDRINUSE": FailureKind.LOCAL_FAULT,  # the local port is taken for this target
    "EAGAIN": FailureKind.LOCAL_FAULT,  # on connect: no local port, or a full routing cache
    # Rules of this host
    "EACCES": FailureKind.LOCAL_FAULT,  # a local firewall said no
    "EPERM": FailureKind.LOCAL_FAULT,  # the same, by another kind of rule
    # The network of this host
    "ENETUNREACH": FailureKind.LOCAL_FAULT,  # no route: our line is down, or no IPv6 here
    "ENETDOWN": FailureKind.LOCAL_FAULT,
    "ENODEV": FailureKind.LOCAL_FAULT,  # the interface is gone
    "EAFNOSUPPORT": FailureKind.LOCAL_FAULT,  # this system has no IPv6 at all
}
_BY_ERRNO = {
    number: kind
    for name, kind in _BY_NAME.items()
    if (number := getattr(errno, name, None)) is not None  # not every system has every name
}

# X509_V_ERR_* of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME, _WRONG_ADDRESS = 62, 64
_BY_VERIFY_CODE = {
    _NOT_YET_VALID: FailureKind.TLS_EXPIRED,  # outside of its time, like an expired one
    _EXPIRED: FailureKind.TLS_EXPIRED,
    _WRONG_NAME: FailureKind.TLS_NAME,
    _WRONG_ADDRESS: FailureKind.TLS_NAME,
}

_RESOLVER_UNWELL = frozenset({socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY})


def failure_of_errno(number: int, stage: Stage) -> FailureKind:
    """Say what an error number of ``connect``, ``send`` or ``recv`` means.

    Args:
        number: From ``OSError.errno``, ``connect_ex`` or ``SO_ERROR``; not 0.
        stage: How far the connection had got.

    Returns:
        LOCAL_FAULT for what this host causes, INTERNAL for a number that is not in the table.
    """
    if number == errno.ETIMEDOUT:  # the kernel's own patience ended before ours
        return _TIMED_OUT[stage]
    if number == errno.EINVAL and stage is Stage.CONNECT:
        # a source address of ours from which that network cannot be reached, such as 127.0.0.2
        return FailureKind.LOCAL_FAULT
    return _BY_ERRNO.get(number, FailureKind.INTERNAL)


def failure_of(error: OSError, stage: Stage) -> FailureKind:
    """Say what an exception of a socket, of TLS, of a resolver or of a time limit means.

    Args:
        error: TimeoutError, ssl.SSLError and socket.gaierror are OSErrors too.
        stage: How far the connection had got.

    Returns:
        For certificates: TLS_EXPIRED outside of their time, TLS_NAME for another name or
        address, TLS_UNTRUSTED for anything else that does not verify. TLS_ALERT for a TLS
        handshake that broke off in another way, EOF_EARLY for a TLS stream without its end.
        DNS if a name has no address; LOCAL_FAULT if the resolver did not answer.
    """
    match error:
        case ssl.SSLError():
            return _failure_of_tls(error, stage)
        case socket.gaierror():
            unwell = error.errno in _RESOLVER_UNWELL
            return FailureKind.LOCAL_FAULT if unwell else FailureKind.DNS
        case TimeoutError():
            return _TIMED_OUT[stage]
        case OSError(errno=int(number)):
            return failure_of_errno(number, stage)
        case ConnectionError():  # event loops raise it without a number
            return FailureKind.RESET
        case _:
            return FailureKind.INTERNAL


def _failure_of_tls(error: ssl.SSLError, stage: Stage) -> FailureKind:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _BY_VERIFY_CODE.get(error.verify_code, FailureKind.TLS_UNTRUSTED)
    if isinstance(error, ssl.SSLEOFError) and stage is Stage.ANSWER:
        return FailureKind.EOF_EARLY
    return FailureKind.TLS_ALERT
