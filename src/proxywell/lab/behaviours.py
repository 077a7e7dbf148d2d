"""Every kind of simulated proxy by name, with what is true of it."""

from __future__ import annotations

from typing import Any

from proxywell.lab.forward import ProxyVisit
from proxywell.lab.intercept import InterceptingVisit
from proxywell.lab.junk import (
    DripVisit,
    EmptyTunnelVisit,
    EndlessVisit,
    GarbageVisit,
    GzipBombVisit,
    HangUpVisit,
    HeaderBombVisit,
    OddSocksVisit,
    PageVisit,
    ResetVisit,
    SilentVisit,
)
from proxywell.lab.liars import (
    CutOffVisit,
    FirstRequestVisit,
    ForgingVisit,
    JudgeOnlyVisit,
    OwnAddressVisit,
    ReplayingVisit,
)
from proxywell.lab.oddities import DataWithFinVisit, EarlyBytesVisit, LongNameVisit, SplitVisit
from proxywell.lab.proxy import Behaviour, Need
from proxywell.lab.tamper import ONE_IN, TamperingVisit
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind

HTTP, CONNECT = Protocol.HTTP, Protocol.CONNECT
SOCKS4, SOCKS4A, SOCKS5 = Protocol.SOCKS4, Protocol.SOCKS4A, Protocol.SOCKS5
K = FailureKind

_SILENCE = (K.HANDSHAKE_TIMEOUT, K.ANSWER_TIMEOUT, K.BODY_STALLED)
_HUNG_UP = (K.EOF_EARLY, K.RESET)
# What does not speak a protocol is tried with others, and any of the refusals may be told.
_NO_PROXY = (K.NOT_THIS_PROTOCOL, K.BAD_HTTP, *_HUNG_UP)
_SOCKS_NO = (K.SOCKS_BAD_REPLY, K.SOCKS_REFUSED, K.AUTH_REQUIRED, *_NO_PROXY)


def _works(name: str, *protocols: Protocol, visit: Any = ProxyVisit, **more: Any) -> Behaviour:
    return Behaviour(name=name, group="working", visit=visit, protocols=protocols or None, **more)


def _lies(name: str, visit: Any, *failures: FailureKind, **more: Any) -> Behaviour:
    more.setdefault("protocols", None)
    return Behaviour(name=name, group="liars", visit=visit, failures=failures, **more)


def _junk(name: str, visit: Any, *failures: FailureKind, option: Any = None) -> Behaviour:
    return Behaviour(name=name, group="junk", visit=visit, failures=failures, option=option)


def _tampers(name: str, tampering: str, **more: Any) -> Behaviour:
    more.setdefault("needs", (Need.BAIT,))
    # Those that change every page also change what an unsigned judge writes as HTML.
    seen = (K.TAMPERED, K.WRONG_ANSWER, K.HTTP_STATUS, K.FIRST_REQUEST_ONLY)
    return _lies(name, TamperingVisit, *seen, tampering=tampering, **more)


def _intercepts(name: str, fault: str, failure: FailureKind) -> Behaviour:
    return _lies(
        name,
        InterceptingVisit,
        failure,
        K.TLS_ALERT,
        option=fault,
        protocols=(HTTP, CONNECT),
        intercepts_tls=True,
        needs=(Need.HTTPS_JUDGE,),
    )


def _forges(kind: str) -> Behaviour:
    return _lies(
        f"forged_{kind}",
        ForgingVisit,
        K.JUDGE_BAD_SIGNATURE,
        K.WRONG_ANSWER,
        K.JUDGE_REPLAY,
        K.BAD_HTTP,
        option=kind,
        needs=(Need.SIGNED_JUDGE,),
    )


_WORKING = [
    _works("http", HTTP),
    _works("connect", CONNECT),
    _works("http_connect", HTTP, CONNECT),
    _works("socks4", SOCKS4),
    _works("socks4a", SOCKS4A, SOCKS4),
    _works("socks5", SOCKS5),
    _works("socks5_login", SOCKS5, login=True),
    _works("http_login", HTTP, CONNECT, login=True),
    _works("dual_socks", SOCKS5, SOCKS4A, SOCKS4),
    _works("mixed", HTTP, CONNECT, SOCKS5, SOCKS4A, SOCKS4),
    _works("slow", option=6.0),  # times the profile's latency
    _works("split_bytes", visit=SplitVisit),
    _works("data_with_fin", visit=DataWithFinVisit),
    _works("early_tunnel_bytes", CONNECT, SOCKS5, visit=EarlyBytesVisit),
    _works("long_bound_name", SOCKS5, visit=LongNameVisit),
    _works("changing_exit", option="many_exits"),
]

_LIARS = [
    _forges("azenv"),
    _forges("httpbin"),
    _forges("ip"),
    _forges("signed"),
    _lies(
        "replayed",
        ReplayingVisit,
        K.JUDGE_REPLAY,
        K.FIRST_REQUEST_ONLY,
        K.WRONG_ANSWER,
        K.JUDGE_BAD_SIGNATURE,
        protocols=(HTTP,),
        needs=(Need.SECOND_REQUEST, Need.SIGNED_JUDGE),
    ),
    _lies("own_address", OwnAddressVisit, K.NOT_A_PROXY, option="no_exit"),
    _lies(
        "judges_only",
        JudgeOnlyVisit,
        K.HTTP_STATUS,
        K.FIRST_REQUEST_ONLY,
        K.TAMPERED,
        option="all",
        needs=(Need.OTHER_HOST,),
    ),
    _lies(
        "one_judge_only",
        JudgeOnlyVisit,
        K.FIRST_REQUEST_ONLY,
        K.HTTP_STATUS,
        K.SOCKS_REFUSED,
        option="one",
        needs=(Need.SECOND_JUDGE,),
    ),
    _lies(
        "first_request_only",
        FirstRequestVisit,
        K.FIRST_REQUEST_ONLY,
        K.HTTP_STATUS,
        K.SOCKS_REFUSED,
        needs=(Need.SECOND_REQUEST,),
    ),
    _tampers("inserts_script", "script_inserted"),
    _tampers("inserts_iframe", "iframe"),
    _tampers("adds_cookie", "cookie_added"),
    _tampers("rewrites_links", "link_rewritten"),
    _tampers("patches_files", "binary_patched"),
    _tampers("replaces_page", "replaced_page"),
    _tampers("redirects", "redirected"),
    _tampers("truncates", "truncated"),
    _tampers("hides_missing", "status_changed"),
    _tampers("sometimes", "script_inserted", option=ONE_IN, needs=(Need.BAIT, Need.MANY_BAITS)),
    _intercepts("tls_self_signed", "self_signed", K.TLS_UNTRUSTED),
    _intercepts("tls_wrong_ca", "wrong_ca", K.TLS_UNTRUSTED),
    _intercepts("tls_wrong_name", "wrong_name", K.TLS_NAME),
    _intercepts("tls_expired", "expired", K.TLS_EXPIRED),
]

_JUNK = [
    _junk("black_hole", None, K.CONNECT_TIMEOUT),
    _junk("refuse", None, K.CONNECT_REFUSED),
    _junk("reset", ResetVisit, *_HUNG_UP, option="at_once"),
    _junk("reset_after_request", ResetVisit, *_HUNG_UP, option="after_request"),
    _junk("hang_up", HangUpVisit, *_HUNG_UP, option="at_once"),
    _junk("half_close", HangUpVisit, *_HUNG_UP, option="half"),
    _junk("silent", SilentVisit, *_SILENCE),
    _junk("drip", DripVisit, *_SILENCE, *_NO_PROXY, K.WRONG_ANSWER, K.BODY_TOO_LARGE),
    _junk("garbage", GarbageVisit, *_NO_PROXY, K.SOCKS_BAD_REPLY),
    _junk("banner", GarbageVisit, *_NO_PROXY, K.SOCKS_BAD_REPLY, option="banner"),
    _junk("login_page", PageVisit, K.WRONG_ANSWER, K.HTTP_STATUS, *_NO_PROXY, option="login_page"),
    _junk("wrong_200", PageVisit, K.WRONG_ANSWER, K.HTTP_STATUS, *_NO_PROXY, option="wrong_200"),
    *(
        _junk(name, PageVisit, K.HTTP_STATUS, K.WRONG_ANSWER, *_NO_PROXY, option=name)
        for name in (
            "forbidden_403",
            "bad_gateway_502",
            "redirect_302",
            "not_found_404",
            "bad_request_400",
            "status_403_ok_200",
        )
    ),
    _junk(
        "need_login_407",
        PageVisit,
        K.AUTH_REQUIRED,
        K.HTTP_STATUS,
        *_NO_PROXY,
        option="need_login_407",
    ),
    *(
        _junk(
            f"endless_{option}",
            EndlessVisit,
            K.BODY_TOO_LARGE,
            K.WRONG_ANSWER,
            *_SILENCE,
            *_NO_PROXY,
            option=option,
        )
        for option in ("chunked", "length")
    ),
    *(
        _junk(
            f"header_bomb_{option}", HeaderBombVisit, K.HEADER_TOO_LARGE, *_NO_PROXY, option=option
        )
        for option in ("long_line", "many_headers", "interim_flood", "folded")
    ),
    _junk("gzip_bomb", GzipBombVisit, K.DECODE_BOMB, K.BODY_TOO_LARGE, K.WRONG_ANSWER, *_NO_PROXY),
    *(
        _junk(
            f"empty_tunnel_{option}",
            EmptyTunnelVisit,
            K.WRONG_ANSWER,
            K.HTTP_STATUS,
            K.TLS_ALERT,
            *_SILENCE,
            *_NO_PROXY,
            option=option,
        )
        for option in ("silent", "close", "body", "no_blank_line")
    ),
    Behaviour(
        name="closes_mid_body",
        group="junk",
        visit=CutOffVisit,
        protocols=None,
        failures=(
            K.EOF_EARLY,
            K.BODY_STALLED,
            K.RESET,
            K.BAD_HTTP,
            K.WRONG_ANSWER,
            K.HTTP_STATUS,  # of the protocols that it does not speak
            K.NOT_THIS_PROTOCOL,
        ),
    ),
    *(
        _junk(f"socks_{option}", OddSocksVisit, *_SOCKS_NO, *_SILENCE, option=option)
        for option in (
            "wrong_version",
            "method_ff",
            "method_not_offered",
            "address_type_0",
            "name_cut_short",
            "short_reply",
            "extra_bytes",
            "never_ends",
            *(f"refuses_{code}" for code in (*range(1, 9), 91, 92, 93)),
        )
    ),
]

BEHAVIOURS: dict[str, Behaviour] = {
    behaviour.name: behaviour for behaviour in (*_WORKING, *_LIARS, *_JUNK)
}

# What a proxy speaks whose behaviour leaves that open, by the names of ``[fleet] front``.
FRONTS: dict[str, tuple[Protocol, ...]] = {
    "http": (HTTP,),
    "connect": (CONNECT,),
    "http_connect": (HTTP, CONNECT),
    "socks4": (SOCKS4,),
    "socks4a": (SOCKS4A, SOCKS4),
    "socks5": (SOCKS5,),
}
