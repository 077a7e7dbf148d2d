"""Judges by kind: how they are named, asked and read."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.checking.judge import Judge, JudgeKind, Request, parse_judge
from proxywell.checking.pages import azenv_page, httpbin_page, ip_page
from proxywell.checking.ports import Answer, Baseline, Sighting
from proxywell.checking.wire import Seen, Verifier, seal
from proxywell.errors import UsageError
from proxywell.judge.keys import JudgeKey
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import JudgeTrust

NOW_S = 1_700_000_000.0
KEY = JudgeKey.fresh()
PEER, OWN = "203.0.113.9", "198.51.100.7"


def ask(spec: str, *, own: frozenset[str] = frozenset(), repeats: bool = False) -> Request:
    return asked(judge(spec, own=own, repeats=repeats))


def judge(spec: str, *, own: frozenset[str] = frozenset(), repeats: bool = False) -> Judge:
    parsed = parse_judge(spec)
    signs = parsed.kind is JudgeKind.PROXYWELL
    made = Judge(
        parsed, verifier=Verifier([KEY.public]) if signs else None, own_addresses=lambda: own
    )
    made.repeats_nonce = repeats
    return made


def asked(made: Judge) -> Request:
    return made.request()


def answer(body: bytes, *, status: int = 200, leftover: bytes = b"") -> Answer:
    return Answer(status=status, headers=(), body=body, leftover=leftover)


def read(request: Request, body: bytes, *, status: int = 200) -> Sighting | FailureKind:
    return request.read(answer(body, status=status), now_s=NOW_S)


def target_of(request: Request) -> str:
    return request.origin().split(b" ")[1].decode()


def signed(request: Request, *, peer_ip: str = PEER, ts: float = NOW_S, nonce: str = "") -> bytes:
    seen = Seen(
        nonce=nonce or request.nonce,
        peer_ip=peer_ip,
        peer_port=1,
        http_version="1.1",
        target_form="origin",
        method="GET",
        raw_headers=request.sent_headers,
        ts=ts,
    )
    return seal(seen, sign=KEY.sign, key=KEY.public)


# --- names


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("proxywell:http://judge.test/", "judge.test", 80, ""),
        ("proxywell:https://judge.test:8443/deep/er/", "judge.test", 8443, "/deep/er"),
        ("azenv:http://a.test/azenv.php", "a.test", 80, "/azenv.php"),
        ("azenv:http://127.0.0.1:8080", "127.0.0.1", 8080, "/"),
        ("azenv:http://[::1]:8080/?a=b", "::1", 8080, "/?a=b"),
        ("httpbin:http://h.test", "h.test", 80, "/get?show_env=1"),
        ("httpbin:http://h.test/get", "h.test", 80, "/get?show_env=1"),
        ("httpbin:http://h.test/get?show_env=1", "h.test", 80, "/get?show_env=1"),
        ("httpbin:http://h.test/x/get?b=1", "h.test", 80, "/x/get?b=1&show_env=1"),
        ("ip:http://i.test/", "i.test", 80, "/"),
    ],
)
def test_names_of_judges_are_read(text: str, host: str, port: int, path: str) -> None:
    spec = parse_judge(text)
    assert (spec.host, spec.port, spec.path, spec.name) == (host, port, path, text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("http://judge.test/", "KIND:URL"),
        ("judge.test", "KIND:URL"),
        ("", "KIND:URL"),
        ("azenf:http://judge.test/", "did you mean azenv:http://judge.test/"),
        ("AZENV:http://judge.test/", "did you mean azenv"),
        ("proxywel:http://judge.test/", "did you mean proxywell"),
        ("zzz:http://judge.test/", "kinds are proxywell"),
        ("azenv:ftp://judge.test/", "http or https"),
        ("azenv:judge.test", "http or https"),
        ("azenv:http:///x", "names no host"),
        ("azenv:http://judge.test:99999/", "proper URL"),
        ("azenv:http://judge.test:x/", "proper URL"),
        ("azenv:http://u:p@judge.test/", "credentials"),
        ("azenv:http://judge.test/#x", "fragments"),
        ("azenv:http://judge.test/a b", "proper URL"),
        ("azenv:http://judge.test/\x7f", "proper URL"),
        ("azenv:http://[::1/", "proper URL"),
        ("azenv:http://jüdge.test/", "proper URL"),
    ],
)
def test_a_misspelt_judge_is_said_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(hint)):
        parse_judge(text)


# --- requests


def test_requests_have_both_forms_and_a_nonce_of_their_own() -> None:
    made = judge("proxywell:http://judge.test:8085/p/")
    one, two = made.request(), made.request()
    assert one.nonce != two.nonce
    assert len(one.nonce) == 32
    path = f"/p/{one.nonce}.json".encode()
    assert re.fullmatch(rb"GET /p/[a-z]+/[0-9a-f]{32}\.json HTTP/1\.1", first_line(one.origin()))
    assert first_line(one.absolute()).startswith(b"GET http://judge.test:8085/p/")
    assert path.rpartition(b"/")[2] in one.absolute()
    assert one.origin().endswith(b"\r\n\r\n")
    assert (one.host, one.port, one.judge) == (
        "judge.test", 8085, "proxywell:http://judge.test:8085/p/",
    )  # fmt: skip


def first_line(request: bytes) -> bytes:
    return request.partition(b"\r\n")[0]


def test_what_is_sent_is_what_is_compared_later() -> None:
    request = ask("azenv:http://judge.test/")
    lines = request.origin().decode().removesuffix("\r\n\r\n").split("\r\n")[1:]
    assert [tuple(line.split(": ", 1)) for line in lines] == list(request.sent_headers)
    assert request.sent_headers[0] == ("Host", "judge.test")
    assert ("Accept-Encoding", "identity") in request.sent_headers
    assert "proxywell" not in request.origin().decode().lower()


def test_an_ipv6_judge_is_written_in_brackets() -> None:
    request = ask("azenv:http://[::1]:8080/")
    assert request.absolute().startswith(b"GET http://[::1]:8080/?v=")
    assert ("Host", "[::1]:8080") in request.sent_headers
    assert request.host == "::1"


def test_socks4_gets_an_ipv4_address_where_there_is_one() -> None:
    made = judge("azenv:http://judge.test/")
    assert made.request().address == "judge.test"
    made.addresses = ("2001:db8::1", "203.0.113.1")
    assert made.request().address == "203.0.113.1"


def test_a_page_that_does_not_bear_a_nonce_is_asked_bare() -> None:
    made = judge("azenv:http://judge.test/env")
    made.carries_nonce = False
    assert target_of(made.request()) == "/env"
    made.carries_nonce = True
    request = made.request()
    assert target_of(request) == f"/env?v={request.nonce}"
    assert target_of(ask("azenv:http://judge.test/env?x=1")).startswith("/env?x=1&v=")


# --- what holds for every kind


@pytest.mark.parametrize("kind", ["proxywell", "azenv", "httpbin", "ip"])
def test_status_leftover_and_length_are_looked_at_first(kind: str) -> None:
    spec = f"{kind}:http://judge.test/"
    assert read(ask(spec), b"", status=503) is FailureKind.HTTP_STATUS
    assert read(ask(spec), b"", status=302) is FailureKind.HTTP_STATUS
    assert read(ask(spec), b"", status=407) is FailureKind.AUTH_REQUIRED
    second = ask(spec).read(answer(b"", leftover=b"HTTP/1.1 200 OK"), now_s=NOW_S)
    assert second is FailureKind.BAD_HTTP
    assert read(ask(spec), b"<html>please log in</html>") is FailureKind.WRONG_ANSWER


@pytest.mark.parametrize("kind", ["proxywell", "azenv", "httpbin", "ip"])
@given(body=st.binary(max_size=400))
def test_no_body_raises(kind: str, body: bytes) -> None:
    spec = f"{kind}:http://judge.test/"
    assert isinstance(read(ask(spec), body), FailureKind | Sighting)


near_pages = st.lists(
    st.sampled_from(
        ["REMOTE_ADDR", " = ", "HTTP_VIA", "\n", "\r\n", "<pre>", "</pre>", "<br>", "&#1114112;",
         "&lt;", "1.2.3.4", '{"origin": ', '"', "}", ", ", '"headers": {', "[", "::1", "\xff"]
    ),
    max_size=30,
).map(lambda parts: "".join(parts).encode("latin-1"))  # fmt: skip


@given(body=near_pages)
def test_no_page_that_is_nearly_right_raises(body: bytes) -> None:
    for kind in ("azenv", "httpbin", "ip", "proxywell"):
        assert isinstance(read(ask(f"{kind}:http://j.test/"), body), FailureKind | Sighting)


# --- ours


def test_a_signed_answer_becomes_a_signed_sighting() -> None:
    request = ask("proxywell:http://judge.test/")
    sighting = read(request, signed(request))
    assert sighting == Sighting(
        exit_ip=PEER,
        headers=request.sent_headers,
        http_version="1.1",
        trust=JudgeTrust.SIGNED,
        sent=request.sent_headers,
    )


def test_an_answer_is_believed_once() -> None:
    request = ask("proxywell:http://judge.test/")
    body = signed(request)
    assert isinstance(read(request, body), Sighting)
    assert read(request, body) is FailureKind.JUDGE_REPLAY


def test_replays_late_answers_and_forgeries_are_told_apart() -> None:
    other = ask("proxywell:http://judge.test/")
    request = ask("proxywell:http://judge.test/")
    assert read(request, signed(other)) is FailureKind.JUDGE_REPLAY
    request = ask("proxywell:http://judge.test/")
    assert read(request, signed(request, ts=NOW_S - 31)) is FailureKind.JUDGE_REPLAY
    request = ask("proxywell:http://judge.test/")
    forged = signed(request).replace(b'"seen":"', b'"seen":"AAAA')
    assert read(request, forged) is FailureKind.JUDGE_BAD_SIGNATURE


@pytest.mark.parametrize("kind", ["azenv", "httpbin", "ip"])
def test_an_exit_that_is_ours_is_no_proxy(kind: str) -> None:
    body = {
        "azenv": f"REMOTE_ADDR = {OWN}\nHTTP_HOST = j.test\n".encode(),
        "httpbin": json.dumps({"origin": OWN, "headers": {"Host": "j.test"}}).encode(),
        "ip": f"{OWN}\n".encode(),
    }[kind]
    own = frozenset({OWN})
    assert read(ask(f"{kind}:http://j.test/", own=own), body) is FailureKind.NOT_A_PROXY
    elsewhere = body.replace(OWN.encode(), OWN.encode() + b"7")
    assert read(ask(f"{kind}:http://j.test/", own=own), elsewhere) is not FailureKind.NOT_A_PROXY


def test_our_own_exit_is_told_by_a_signed_judge_too() -> None:
    request = ask("proxywell:http://j.test/", own=frozenset({OWN}))
    assert read(request, signed(request, peer_ip=OWN)) is FailureKind.NOT_A_PROXY


def test_an_https_judge_sees_inside_tls() -> None:
    request = ask("proxywell:https://judge.test/")
    sighting = read(request, signed(request))
    assert isinstance(sighting, Sighting)
    assert sighting.inside_tls


# --- azenv

PLAIN = (
    "SERVER_PROTOCOL = HTTP/1.1\nREMOTE_ADDR = 203.0.113.9\nREMOTE_PORT = 4711\n"
    "REQUEST_URI = /azenv.php?v=abc\nHTTP_HOST = judge.test\nHTTP_USER_AGENT = Mozilla/5.0 (X)\n"
    "HTTP_VIA = 1.1 squid (squid/5.7)\nHTTP_X_FORWARDED_FOR = 10.0.0.1, 8.8.8.8\nHTTP_X_EMPTY = \n"
)
HEADERS = (
    ("Host", "judge.test"),
    ("User-Agent", "Mozilla/5.0 (X)"),
    ("Via", "1.1 squid (squid/5.7)"),
    ("X-Forwarded-For", "10.0.0.1, 8.8.8.8"),
    ("X-Empty", ""),
)


@pytest.mark.parametrize(
    "page",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        f"<html><head><title>AZ Environment 1.04</title></head><body><pre>\n{PLAIN}</pre></body>",
        "<!DOCTYPE html><html><body>" + PLAIN.replace("\n", "<br />\n") + "</body></html>",
        "<PRE>" + PLAIN.replace("\n", "<BR>") + "</PRE>",
        PLAIN.replace(" = ", "="),
        PLAIN.replace(" = ", " => "),
        PLAIN.lower().replace("mozilla/5.0 (x)", "Mozilla/5.0 (X)").replace("http/1.1", "HTTP/1.1"),
        "junk\n\n= x\n" + PLAIN + "trailing words",
        PLAIN.replace("203.0.113.9", "::ffff:203.0.113.9"),
    ],
)
def test_azenv_pages_are_read_in_every_dress(page: str) -> None:
    found = azenv_page(page.encode("latin-1"))
    assert found is not None
    assert found.peer_ip == PEER
    assert found.headers == HEADERS
    assert found.http_version == "1.1"
    assert found.targets == ("/azenv.php?v=abc",)


def test_values_of_a_page_in_html_are_unescaped_and_those_of_a_plain_one_are_not() -> None:
    line = "REMOTE_ADDR = 1.2.3.4\nHTTP_X = a &lt;b&gt; &amp; c\n"
    plain, dressed = azenv_page(line.encode()), azenv_page(f"<pre>{line}</pre>".encode())
    assert plain is not None
    assert dressed is not None
    assert plain.headers == (("X", "a &lt;b&gt; &amp; c"),)
    assert dressed.headers == (("X", "a <b> & c"),)


@given(value=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60))
def test_a_value_may_hold_anything_without_being_taken_for_another_line(value: str) -> None:
    page = f"REMOTE_ADDR = 1.2.3.4\nHTTP_X = {value}\nHTTP_Y = 2\n"
    found = azenv_page(page.encode("latin-1"))
    assert found is not None
    assert found.peer_ip == "1.2.3.4"
    assert found.headers is not None
    assert dict(found.headers).get("Y") == "2"


@pytest.mark.parametrize(
    "page",
    ["", "REMOTE_ADDR =\n", "REMOTE_ADDR = unknown\n", "HTTP_REMOTE_ADDR = 1.2.3.4\n",
     "REMOTE_ADDR = 1.2.3.4\nREMOTE_ADDR = 5.6.7.8\n", "X REMOTE_ADDR = 1.2.3.4\n"],
)  # fmt: skip
def test_a_page_without_one_peer_address_is_none(page: str) -> None:
    assert azenv_page(page.encode()) is None


def test_a_page_without_header_lines_does_not_tell_headers() -> None:
    found = azenv_page(b"REMOTE_ADDR = 1.2.3.4\nREMOTE_PORT = 1\n")
    assert found is not None
    assert found.headers is None


def test_a_page_that_repeats_the_target_must_repeat_ours() -> None:
    request = ask("azenv:http://j.test/", repeats=True)
    ours = f"REMOTE_ADDR = {PEER}\nHTTP_HOST = j.test\nQUERY_STRING = v={request.nonce}\n"
    assert isinstance(read(request, ours.encode()), Sighting)
    request = ask("azenv:http://j.test/", repeats=True)
    old = f"REMOTE_ADDR = {PEER}\nHTTP_HOST = j.test\nREQUEST_URI = /?v={'0' * 32}\n"
    assert read(request, old.encode()) is FailureKind.JUDGE_REPLAY
    request = ask("azenv:http://j.test/", repeats=True)
    bare = f"REMOTE_ADDR = {PEER}\nHTTP_HOST = j.test\n"
    assert read(request, bare.encode()) is FailureKind.WRONG_ANSWER
    assert isinstance(read(ask("azenv:http://j.test/"), bare.encode()), Sighting)


def test_a_sighting_of_a_public_judge_is_unsigned() -> None:
    sighting = read(ask("azenv:http://j.test/"), PLAIN.encode())
    assert isinstance(sighting, Sighting)
    assert sighting.trust is JudgeTrust.UNSIGNED


# --- httpbin and ip


def test_httpbin_tells_headers_and_the_last_of_its_origins() -> None:
    page = {
        "args": {},
        "headers": {"Host": "h.test", "Via": "1.1 x", "X-Many": ["a", "b"]},
        "origin": f"{OWN}, {PEER}",
        "url": "http://h.test/get?show_env=1&v=abc",
    }
    found = httpbin_page(json.dumps(page).encode())
    assert found is not None
    assert found.peer_ip == PEER
    assert found.headers == (("Host", "h.test"), ("Via", "1.1 x"), ("X-Many", "a"), ("X-Many", "b"))
    assert found.targets == ("http://h.test/get?show_env=1&v=abc",)


@pytest.mark.parametrize(
    "page",
    [b"", b"[]", b"{}", b'{"origin": "x", "headers": {}}', b'{"origin": 1, "headers": {}}',
     b'{"origin": "1.2.3.4", "headers": []}', b'{"origin": "1.2.3.4", "headers": {"a": 1}}',
     b'{"origin": "1.2.3.4"}', b"\xff\xfe"],
)  # fmt: skip
def test_other_json_is_no_httpbin_page(page: bytes) -> None:
    assert httpbin_page(page) is None


def test_httpbin_without_a_balancer_shows_a_claim_in_the_peers_place() -> None:
    headers = {"Host": "h.test", "X-Forwarded-For": OWN}
    body = json.dumps({"origin": OWN, "headers": headers}).encode()
    sighting = read(ask("httpbin:http://h.test/", own=frozenset({OWN})), body)
    assert isinstance(sighting, Sighting)
    assert sighting.exit_ip == ""
    assert ("X-Forwarded-For", OWN) in (sighting.headers or ())


def test_httpbin_behind_a_balancer_is_believed_about_the_peer() -> None:
    made = judge("httpbin:http://h.test/", own=frozenset({OWN}))
    made.baseline = Baseline(fixed=(("x-forwarded-for", "{peer}"),))
    headers = {"Host": "h.test", "X-Forwarded-For": f"{OWN}, {PEER}"}
    body = json.dumps({"origin": f"{OWN}, {PEER}", "headers": headers}).encode()
    sighting = read(made.request(), body)
    assert isinstance(sighting, Sighting)
    assert sighting.exit_ip == PEER


@pytest.mark.parametrize("body", [b"1.2.3.4", b" 1.2.3.4\r\n", b"1.2.3.4\n"])
def test_a_page_that_is_an_address_is_read(body: bytes) -> None:
    found = ip_page(body)
    assert found is not None
    assert (found.peer_ip, found.headers) == ("1.2.3.4", None)


@pytest.mark.parametrize("body", [b"", b"ip: 1.2.3.4", b"1.2.3.4 1.2.3.4", b"<p>1.2.3.4</p>"])
def test_an_address_among_other_words_is_a_wrong_answer(body: bytes) -> None:
    assert ip_page(body) is None
