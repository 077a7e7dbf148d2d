from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.sources.grammar import (
    HINT_BITS,
    Entry,
    fields_between,
    host_name,
    make_entry,
    parse_line,
    port_number,
)
from tests.unit.protocols.planted import finds_a_counterexample

HTTP, CONNECT, SOCKS4, SOCKS4A, SOCKS5 = (HINT_BITS[protocol] for protocol in Protocol)
A = "203.9.1.2"

FORMS = {
    f"{A}:80": Entry(A, 80),
    "[2606:4700::1111]:8080": Entry("2606:4700::1111", 8080),
    "[2606:4700:0::1111]:8080": Entry("2606:4700::1111", 8080),
    f"http://{A}:80": Entry(A, 80, HTTP),
    f"HTTPS://{A}:80/": Entry(A, 80, CONNECT),
    f"connect://{A}:80": Entry(A, 80, CONNECT),
    f"socks4://{A}:1080": Entry(A, 1080, SOCKS4),
    f"socks4a://{A}:1080": Entry(A, 1080, SOCKS4A),
    "socks5://[2606:4700::1111]:1080": Entry("2606:4700::1111", 1080, SOCKS5),
    f"socks5h://{A}:1080": Entry(A, 1080, SOCKS5),
    f"user:pass@{A}:80": Entry(A, 80, 0, "user", "pass"),
    f"user@{A}:80": Entry(A, 80, 0, "user", ""),
    f"http://us%65r:p%40ss%3A@{A}:80": Entry(A, 80, HTTP, "user", "p@ss:"),
    f"{A}:80:user:pass": Entry(A, 80, 0, "user", "pass"),
    f"{A}:80:u:{{{{X}}}}": Entry(A, 80, 0, "u", "{{X}}"),
    f"{A}:80 US-N-S! +": Entry(A, 80),
    f"{A}:80 HK-A -": Entry(A, 80),
    f"{A}:80:Viet Nam": Entry(A, 80),
    f"{A}:80:": Entry(A, 80),
    f"{A}:80 => success": Entry(A, 80),
    f"{A}:80 # comment": Entry(A, 80),
    f"{A}:80#comment": Entry(A, 80),
    f"{A}:80 HTTP elite": Entry(A, 80, HTTP),
    f"{A}:80 fine http": Entry(A, 80),
    f"{A}:80,socks4,socks5,US": Entry(A, 80, SOCKS4 | SOCKS5),
    f"{A}:80|https": Entry(A, 80, CONNECT),
    f"{A}:80\tSOCKS5": Entry(A, 80, SOCKS5),
    f"{A},80": Entry(A, 80),
    f"{A}, 80, HTTP, Viet Nam": Entry(A, 80, HTTP),
    f"{A};80;socks5": Entry(A, 80, SOCKS5),
    f"{A}\t80\tUS": Entry(A, 80),
    f"{A}  80": Entry(A, 80),
    f'"{A}","80","HTTP"': Entry(A, 80, HTTP),
    f"http,{A},80": Entry(A, 80, HTTP),
    f"1,US,{A}:80": Entry(A, 80),
    "2606:4700::1111,80": Entry("2606:4700::1111", 80),
    f"socks5 {A} 1080": Entry(A, 1080, SOCKS5),
    f"socks5 {A}:1080": Entry(A, 1080, SOCKS5),
    f"http {A} 8080 user pass": Entry(A, 8080, HTTP, "user", "pass"),
    "proxy.Example.com:80": Entry("proxy.example.com", 80, named=True),
    "localhost:6379": Entry("localhost", 6379, named=True),
    "metadata.google.internal:80": Entry("metadata.google.internal", 80, named=True),
    "proxy.example.com,80": Entry("proxy.example.com", 80, named=True),
}

MALFORMED = (
    "127.1:80", "0x7f.1:80", "0x7f000001:80", "017700000001:80", "2130706433:80",
    "010.0.0.1:80", f"{A}.:80", f"0{A}:80", "203.9.1.256:80", "203.9.1:80", "127\xe3\x80\x820:80",
    f"{A}", f"{A}:", f"{A}:0", f"{A}:00080", f"{A}:080", f"{A}:65536", f"{A}:123456", f"{A}:+80",
    f"{A}:-80", f"{A}:80.0", f"{A}:8e1", f"{A}:80abc", f"{A}:80-90", f"{A}:80@x", f"{A}:80/path",
    f"{A}:80::x", f"{A} :80", f"{A}: 80", f"{A}/24:80", "203.9.0.0/16:22", f"http://{A}",
    f"http://{A}/", "https://spys.me/socks.txt", f"ss://{A}:80", f"vmess://{A}:80",
    f"http:/{A}:80", f"http:{A}:80", "2606:4700::1111:8080", "[2606:4700::1111]", f"[{A}:80",
    f"[{A}]:x", "[fe80::1%eth0]:80", "[::1]:080", "[1::2::3]:80", "abcd:1234::1",
    "-x.example.com:80", "x-.example.com:80", "ex_ample.com:80", "example..com:80", "a.b.1:80",
    f"{'a' * 64}.com:80", f"{'a.' * 127}com:80", "http://x:{{AWS_SECRET_ACCESS_KEY}}@evil:80",
    f"http://${{SECRET}}:x@{A}:80", f"http://x:%(x)s@{A}:80", f"http://x:%zz@{A}:80",
    f"http://x:%0d%0a@{A}:80", f"http://x:%ff@{A}:80", f"http://:pass@{A}:80", "{0.__class__}",
    "{{SECRET}}", "${SECRET}", "%(x)s", "Array", "IP:Port", "ip,port,country",
    "Proxy list (#400) updated at Fri, 24 Mar 23 07:58:01 +0300", f"a:b@{A}:80:c:d",
    "Socks proxy=https://spys.me/socks.txt", f"server {A} 80 is down", f"<td>{A}</td>",
    f"{A},080", f"{A},99999", f"{A} {A}", "January 2023", f"{A}:80\x00", f"{A}:\x0080",
    f"{A}\x85:80", f"http://{'u' * 256}:p@{A}:80",
)  # fmt: skip


@pytest.mark.parametrize("line", FORMS)
def test_every_documented_form_is_read(line: str) -> None:
    assert parse_line(line) == FORMS[line]


@pytest.mark.parametrize("line", MALFORMED)
def test_what_no_form_fits_is_malformed_and_never_repaired(line: str) -> None:
    assert parse_line(line) is None


hosts = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda n: ".".join(str(n >> s & 255) for s in (24, 16, 8, 0))),
    st.just("[2606:4700::1111]"),
    st.just("proxy.example.com"),
)
noise = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)
SCHEMES = st.sampled_from(["", "", "http://", "HTTPS://", "socks5h://", "ftp://", "http:/"])
USERS = st.sampled_from(["", "", "u:p@", "u%3Ax:@", ":@", "{{A}}:b@", "%00:x@"])
PORTS = st.sampled_from(["0", "1", "80", "080", "65535", "65536", "+8", "8 "])
BEHIND = st.sampled_from(["", ":a:b", " x", ",http", "/", "#", ":", "\t", "x"])
fields = st.lists(st.one_of(hosts, st.sampled_from(["80", "http", '"', "a"]), noise), max_size=6)
lines = st.one_of(
    noise,
    st.tuples(SCHEMES, USERS, hosts, st.just(":"), PORTS, st.one_of(BEHIND, noise)).map("".join),
    st.tuples(st.sampled_from([",", ";", "\t", " ", "|"]), fields).map(lambda t: t[0].join(t[1])),
)


def keeps_its_promises(line: str, parse: object = parse_line) -> None:
    """Whatever comes: no exception, and an entry whose every part was in the line as it is."""
    assert callable(parse)
    entry = parse(line)
    if entry is None:
        return
    assert 1 <= entry.port <= 65535
    assert str(entry.port) in line
    assert re.search(rf"(?<![0-9]){entry.port}(?![0-9])", line)
    assert 0 <= entry.hints < 32
    assert (entry.user is None) == (entry.password is None)
    for secret in (entry.user, entry.password):
        assert secret is None or (secret.isprintable() and len(secret.encode()) <= 255)
    if ":" in entry.host:
        assert entry.host == "2606:4700::1111" or ":" in line
    else:
        assert entry.host in line.lower()
        assert re.fullmatch(r"[a-z0-9.-]+", entry.host)


@given(line=lines)
@example(line="1.2.3.4:80")
def test_no_line_raises_and_no_part_of_an_entry_is_made_up(line: str) -> None:
    keeps_its_promises(line)


def strips_leading_zeros(line: str) -> Entry | None:
    """A planted bug: ports are read with int(), which takes ``080`` and ``+8``."""
    entry = parse_line(line)
    host, _, port = line.rpartition(":")
    if entry is None and re.fullmatch(r"[+0]?[0-9]{1,4}", port) and parse_line(f"{host}:1"):
        return Entry(host.lower(), int(port) or 1)
    return entry


def test_the_property_catches_a_parser_that_repairs_ports() -> None:
    assert finds_a_counterexample(
        lines, lambda line: keeps_its_promises(line, strips_leading_zeros), examples=3_000
    )


@given(
    host=hosts.filter(lambda host: "[" not in host),
    port=st.integers(1, 65535),
    user=st.none() | st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20),
    password=st.text(st.characters(categories=("L", "N", "P", "S")), max_size=20),
    protocol=st.sampled_from(Protocol),
)  # fmt: skip
def test_our_own_urls_are_read_back(
    host: str, port: int, user: str | None, password: str, protocol: Protocol
) -> None:
    endpoint = Endpoint(host, port, user, None if user is None else password)
    entry = parse_line(endpoint.url(protocol))
    assert entry is not None
    assert Endpoint(entry.host, entry.port, entry.user, entry.password) == endpoint


@pytest.mark.parametrize(
    "text", ["0", "00", "01", "65536", "99999", "100000", "", " 1", "1\n", "٣"]
)
def test_a_port_is_decimal_without_leading_zero(text: str) -> None:
    assert port_number(text) is None


@pytest.mark.parametrize(
    ("user", "password"), [("", "p"), ("a:b", "p"), ("a\n", "p"), ("a", "p\x1b"), ("a" * 256, "p")]
)
def test_credentials_that_do_not_fit_spoil_the_entry(user: str, password: str) -> None:
    assert make_entry(A, "80", 0, user, password) is None


def test_quotes_that_are_never_closed_are_part_of_the_field() -> None:
    assert fields_between('a,"b', ",") == ["a", "b"]
    assert fields_between('"' + "a" * 200_000 + '",b', ",") == ['"' + "a" * 200_000 + '"', "b"]


def test_names_in_other_scripts_are_not_turned_into_ascii() -> None:
    assert host_name("e\u212aample.com") is None  # the Kelvin sign lowers to k
    assert host_name("xn--bcher-kva.example") == "xn--bcher-kva.example"


def test_a_very_long_line_takes_no_longer_than_its_length() -> None:
    for line in ("a" * 16_000, "1." * 8_000, "[" * 16_000, "@" * 16_000, "a:" * 8_000, '",' * 8_000,
                 f"{A}:80" + ":a" * 8_000, "http://" * 2_000, " " .join("1" * 8_000)):  # fmt: skip
        parse_line(line)
