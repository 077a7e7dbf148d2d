"""What simulated proxies read from clients and change in answers; no sockets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.lab.answers import Page, is_whole, read_answer, restyled, write_answer
from proxywell.lab.fronts import (
    Malformed,
    read_request,
    read_socks4,
    read_socks5_greeting,
    read_socks5_login,
    read_socks5_request,
    split_absolute,
    split_authority,
)
from proxywell.lab.tamper import CHANGES
from proxywell.model.endpoint import Protocol

READERS: list[Callable[[bytes], object]] = [
    read_request,
    read_socks4,
    read_socks5_greeting,
    read_socks5_login,
    read_socks5_request,
]
WHOLE = [
    (read_request, b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (read_socks4, b"\x04\x01\x00\x50\x7f\x00\x00\x01user\x00"),
    (read_socks4, b"\x04\x01\x00\x50\x00\x00\x00\x01\x00site.lab.test\x00"),
    (read_socks5_greeting, b"\x05\x02\x00\x02"),
    (read_socks5_login, b"\x01\x04user\x02pw"),
    (read_socks5_request, b"\x05\x01\x00\x03\x04site\x00\x50"),
    (read_socks5_request, b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"),
    (read_socks5_request, b"\x05\x01\x00\x04" + bytes(16) + b"\x00\x50"),
]


@given(st.binary(max_size=700))
def test_readers_never_raise_anything_but_malformed(data: bytes) -> None:
    for reader in READERS:
        try:
            reader(data)
        except Malformed:
            continue


@pytest.mark.parametrize(("reader", "message"), WHOLE)
def test_a_message_is_read_when_it_is_whole_and_not_before(
    reader: Callable[[bytes], object], message: bytes
) -> None:
    for cut in range(len(message)):
        assert reader(message[:cut]) is None
    assert reader(message) is not None
    assert reader(message) == reader(message + b"what follows belongs to the tunnel")


def test_socks4_and_its_extension_are_told_apart() -> None:
    plain = read_socks4(WHOLE[1][1])
    named = read_socks4(WHOLE[2][1])
    assert plain is not None
    assert named is not None
    assert (plain.protocol, plain.host, plain.port) == (Protocol.SOCKS4, "127.0.0.1", 80)
    assert (named.protocol, named.host, named.port) == (Protocol.SOCKS4A, "site.lab.test", 80)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        (b"http://a.test/x?y", ("a.test", 80, b"/x?y")),
        (b"http://a.test:81", ("a.test", 81, b"/")),
        (b"HTTP://u:p@a.test:81/", ("a.test", 81, b"/")),
        (b"http://[::1]:81/z", ("::1", 81, b"/z")),
    ],
)
def test_absolute_targets_are_split(text: bytes, split: tuple[str, int, bytes]) -> None:
    assert split_absolute(text) == split


@pytest.mark.parametrize("text", [b"", b":80", b"a:0", b"a:65536", b"a:x", b"[::1", b"[::1]x"])
def test_faulty_authorities_are_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        split_authority(text, 80)


names = st.sampled_from([b"Content-Type", b"X-One", b"Set-Cookie"])
pages = st.builds(
    Page,
    version=st.just(b"HTTP/1.1"),
    status=st.sampled_from([200, 302, 404, 500]),
    reason=st.sampled_from([b"OK", b"Not Found", b""]),
    headers=st.lists(st.tuples(names, st.sampled_from([b"", b"a", b"b; c"])), max_size=4).map(
        tuple
    ),
    body=st.binary(max_size=300),
)


@given(pages, st.booleans())
def test_what_is_written_is_read_again(page: Page, chunked: bool) -> None:
    raw = write_answer(page, chunked=chunked)
    assert read_answer(raw, ended=False) == page
    for cut in range(0, len(raw), 7):
        assert not is_whole(raw[:cut])


@given(pages, st.sampled_from(["kept", "via", "http10", "rechunked", "lower"]))
def test_honest_habits_change_neither_status_nor_body_nor_any_value(page: Page, style: str) -> None:
    seen = read_answer(restyled(write_answer(page), style), ended=True)
    assert seen is not None
    assert (seen.status, seen.reason, seen.body) == (page.status, page.reason, page.body)
    lowered = [(name.lower(), value) for name, value in seen.headers]
    assert lowered[: len(page.headers)] == [(name.lower(), v) for name, v in page.headers]


@given(st.binary(max_size=400))
def test_answers_that_are_none_are_passed_on_unchanged(junk: bytes) -> None:
    for style in ("via", "http10", "rechunked", "lower"):
        if not junk.startswith(b"HTTP/1."):
            assert restyled(junk, style) == junk


LONG_PAGE = Page(
    b"HTTP/1.1",
    200,
    b"OK",
    ((b"Content-Type", b"text/html"),),
    b'<html><body><a href="/x">x</a>' + b"long " * 1200 + b"</body></html>",
)


@pytest.mark.parametrize("change", set(CHANGES) - {"binary_patched", "status_changed"})
def test_every_change_shows_on_a_long_page(change: str) -> None:
    assert CHANGES[change](LONG_PAGE) != LONG_PAGE


def test_a_binary_is_patched_without_a_change_of_length() -> None:
    file = Page(b"HTTP/1.1", 200, b"OK", ((b"Content-Type", b"image/png"),), bytes(100))
    patched = CHANGES["binary_patched"](file)
    assert len(patched.body) == len(file.body)
    assert patched.body != file.body


def test_a_missing_page_is_hidden() -> None:
    missing = Page(b"HTTP/1.1", 404, b"Not Found", (), b"")
    assert CHANGES["status_changed"](missing).status == 200
