"""Building of requests: nothing that could start a second request gets in."""

from __future__ import annotations

from base64 import b64decode

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.protocols.request import (
    absolute_target,
    authority,
    basic_credentials,
    build_request,
    host_header,
    with_proxy_credentials,
)
from tests.unit.protocols.planted import finds_a_counterexample

HEADERS = (("Host", "judge.example"), ("accept", "*/*"), ("X-Empty", ""))

texts = st.text(
    st.sampled_from("GEThost/judge .:@%\"'\x00\x01\t\r\n\x1b\x7f\x85\xa0\xe9\u2028\u0130"),
    max_size=12,
)
requests = st.tuples(texts, texts, st.lists(st.tuples(texts, texts), max_size=3), st.binary())


def test_a_request_goes_out_in_order_and_case() -> None:
    assert build_request("GET", "/page?nonce=1", HEADERS) == (
        b"GET /page?nonce=1 HTTP/1.1\r\nHost: judge.example\r\naccept: */*\r\nX-Empty: \r\n\r\n"
    )


def test_a_forward_proxy_gets_the_absolute_form() -> None:
    target = absolute_target("http", "judge.example", 8080, "/page")
    assert build_request("GET", target, ()).startswith(b"GET http://judge.example:8080/page HTTP")


@pytest.mark.parametrize(
    ("scheme", "host", "port", "expected"),
    [
        ("http", "judge.example", 80, "judge.example"),
        ("http", "judge.example", 443, "judge.example:443"),
        ("https", "judge.example", 443, "judge.example"),
        ("http", "2001:db8::1", 80, "[2001:db8::1]"),
        ("http", "2001:db8::1", 81, "[2001:db8::1]:81"),
        ("http", "192.0.2.7", 80, "192.0.2.7"),
    ],
)
def test_host_leaves_out_the_port_that_the_scheme_implies(
    scheme: str, host: str, port: int, expected: str
) -> None:
    assert host_header(scheme, host, port) == expected


def assert_one_request_or_our_mistake(
    built: bytes, method: str, target: str, headers: list[tuple[str, str]]
) -> None:
    head, end, _ = built.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert end
    assert len(lines) == len(headers) + 1
    assert lines[0].split(b" ") == [method.encode(), target.encode(), b"HTTP/1.1"]
    for line in lines:
        assert not any(byte < 0x20 and byte != 0x09 for byte in line)
    for line, (name, value) in zip(lines[1:], headers, strict=True):
        assert line.split(b":", 1)[0] == name.encode()
        assert line.split(b":", 1)[1].strip() == value.encode("latin-1")


@given(drawn=requests)
def test_whatever_the_parts_hold_it_is_one_request_or_none(
    drawn: tuple[str, str, list[tuple[str, str]], bytes],
) -> None:
    method, target, headers, body = drawn
    try:
        built = build_request(method, target, headers, body)
    except ValueError:
        return
    assert_one_request_or_our_mistake(built, method, target, headers)


def test_pasting_parts_together_is_caught() -> None:
    def claim(drawn: tuple[str, str, list[tuple[str, str]], bytes]) -> None:
        method, target, headers, body = drawn
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
        pasted = f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1", "replace") + body
        assert_one_request_or_our_mistake(pasted, method, target, headers)

    assert finds_a_counterexample(requests, claim)


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET\r\n", "/", ()),
        ("", "/", ()),
        ("GET", "", ()),
        ("GET", "/a b", ()),
        ("GET", "/\r\nX: y", ()),
        ("GET", "/\x00", ()),
        ("GET", "/ü", ()),
        ("GET", "/", (("X y", "z"),)),
        ("GET", "/", (("X:", "z"),)),
        ("GET", "/", (("", "z"),)),
        ("GET", "/", (("X", "a\r\nB: c"),)),
        ("GET", "/", (("X", "a\n"),)),
        ("GET", "/", (("X", " a"),)),
        ("GET", "/", (("X", "a "),)),
        ("GET", "/", (("X", "\x7f"),)),
        ("GET", "/", (("X", "\u2028"),)),
    ],
)
def test_a_part_that_could_smuggle_is_our_own_mistake(
    method: str, target: str, headers: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(ValueError, match=r"."):
        build_request(method, target, headers)


def test_a_refused_value_is_not_shown() -> None:
    with pytest.raises(ValueError, match="Authorization") as caught:
        build_request("GET", "/", [("Authorization", "secret\n")])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("host", "port"), [("a b", 80), ("a", 0), ("a", 65_536), ("a:b@c", 1)])
def test_an_authority_that_is_none_is_our_own_mistake(host: str, port: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        authority(host, port)


def test_a_path_must_begin_with_a_slash() -> None:
    with pytest.raises(ValueError, match="slash"):
        absolute_target("http", "judge.example", 80, "page")


@given(user=st.text(), password=st.text())
def test_any_credentials_fit_into_one_header(user: str, password: str) -> None:
    built = build_request("GET", "http://judge.example/", HEADERS, b"body")
    extended = with_proxy_credentials(built, user, password)
    head, _, body = extended.partition(b"\r\n\r\n")
    assert body == b"body"
    assert head.count(b"\r\n") == len(HEADERS) + 1
    coded = head.rpartition(b"Proxy-Authorization: Basic ")[2]
    assert b64decode(coded, validate=True).decode("utf-8", "surrogatepass") == f"{user}:{password}"
    assert basic_credentials(user, password) == f"Basic {coded.decode()}"


def test_credentials_need_a_head_to_go_into() -> None:
    with pytest.raises(ValueError, match="end of its head"):
        with_proxy_credentials(b"GET / HTTP/1.1\r\n", "ann", "secret")


def test_an_origin_reads_what_was_built() -> None:
    server = h11.Connection(our_role=h11.SERVER)
    server.receive_data(build_request("GET", "/page", HEADERS))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert [bytes(name) for name, _ in request.headers.raw_items()] == [
        b"Host",
        b"accept",
        b"X-Empty",
    ]
