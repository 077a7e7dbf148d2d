"""Why a probe or a check failed, and who is to blame: values, not exceptions."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Blame(StrEnum):
    """Who caused a failure."""

    PROXY = "proxy"  # lowers this proxy's score
    JUDGE = "judge"  # says nothing about the proxy
    OURSELVES = "ourselves"  # ours to mend; never held against a proxy


class FailureKind(StrEnum):
    """What went wrong; the texts are a contract (verdicts, reports, files)."""

    DNS = "dns"  # the candidate's host name does not resolve
    ADDRESS_REFUSED = "address_refused"  # the guard refused the address really dialled
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_REFUSED = "connect_refused"
    UNREACHABLE = "unreachable"  # ICMP for this address, while others are reachable
    RESET = "reset"
    EOF_EARLY = "eof_early"  # closed before the answer was whole
    HANDSHAKE_TIMEOUT = "handshake_timeout"  # connected, then silent before the tunnel stood
    ANSWER_TIMEOUT = "answer_timeout"  # the tunnel or request stood, no whole answer came
    NOT_THIS_PROTOCOL = "not_this_protocol"  # bytes that are no answer in this protocol
    SOCKS_BAD_REPLY = "socks_bad_reply"  # malformed, but SOCKS
    SOCKS_REFUSED = "socks_refused"  # a well-formed no (RFC 1928 REP 1-8, SOCKS4 0x5B-0x5D)
    AUTH_REQUIRED = "auth_required"  # 407, or no acceptable SOCKS method
    HTTP_STATUS = "http_status"  # a well-formed answer with an unexpected status
    BAD_HTTP = "bad_http"
    HEADER_TOO_LARGE = "header_too_large"
    BODY_TOO_LARGE = "body_too_large"
    DECODE_BOMB = "decode_bomb"  # a coding that was not asked for
    BODY_STALLED = "body_stalled"
    WRONG_ANSWER = "wrong_answer"  # an answer, but not the judge's: login page, portal
    TLS_UNTRUSTED = "tls_untrusted"
    TLS_NAME = "tls_name"
    TLS_EXPIRED = "tls_expired"
    TLS_ALERT = "tls_alert"  # the TLS handshake broke off
    JUDGE_BAD_SIGNATURE = "judge_bad_signature"  # a forged judge answer
    JUDGE_REPLAY = "judge_replay"  # an old or another check's judge answer
    TAMPERED = "tampered"
    NOT_A_PROXY = "not_a_proxy"  # the exit is our own address
    FIRST_REQUEST_ONLY = "first_request_only"  # the second independent request failed
    JUDGE_UNWELL = "judge_unwell"  # the judge fails a direct request too
    LOCAL_FAULT = "local_fault"  # EMFILE, EADDRNOTAVAIL, ENETUNREACH, ENOBUFS
    INTERNAL = "internal"  # a bug of ours, caught and counted

    @property
    def blame(self) -> Blame:
        """Who is to blame; only ``proxy`` may touch a score."""
        return _NOT_THE_PROXY.get(self, Blame.PROXY)


# False answers: whoever gives one is no longer asked for anything.
LIES: Final = frozenset(
    {
        FailureKind.JUDGE_BAD_SIGNATURE,
        FailureKind.JUDGE_REPLAY,
        FailureKind.NOT_A_PROXY,
        FailureKind.TAMPERED,
    }
)

_NOT_THE_PROXY = {
    FailureKind.ADDRESS_REFUSED: Blame.OURSELVES,
    FailureKind.JUDGE_UNWELL: Blame.JUDGE,
    FailureKind.LOCAL_FAULT: Blame.OURSELVES,
    FailureKind.INTERNAL: Blame.OURSELVES,
}
