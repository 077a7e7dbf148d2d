from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxywell.sources.coding import Decoder
from proxywell.sources.errors import BrokenListError, SourceLimitError

STEP = 64 * 1024


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "two members": ("gzip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
}


def decoded(sent: bytes, coding: str, cuts: list[int], *, body_max_bytes: int = 2**30) -> bytes:
    decoder = Decoder(coding, body_max_bytes=body_max_bytes, ratio_max=2_000)
    edges = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    parts = [sent[lo:hi] for lo, hi in pairwise(edges)]
    got = b"".join(block for part in parts for block in decoder.feed(part))
    decoder.finish()
    return got


@pytest.mark.parametrize("name", CODINGS)
@given(
    body=st.one_of(
        st.binary(max_size=300),
        st.tuples(st.binary(min_size=1, max_size=4), st.integers(0, 50_000)).map(
            lambda drawn: drawn[0] * drawn[1]
        ),
    ),
    cuts=st.lists(st.integers(0, 10**6), max_size=6),
)  # fmt: skip
@example(body=b"1.2.3.4:80\n", cuts=[1])
@example(body=b"a" * STEP, cuts=[])
@example(body=b"a" * (STEP + 1), cuts=[3])
@example(body=b"a" * (STEP + 100), cuts=[])
def test_what_was_sent_comes_out_however_tcp_cuts_it(
    name: str, body: bytes, cuts: list[int]
) -> None:
    coding, encode = CODINGS[name]
    assert decoded(encode(body), coding, cuts) == body


@pytest.mark.parametrize("name", [name for name in CODINGS if name != "identity"])
def test_a_body_that_breaks_off_anywhere_is_told(name: str) -> None:
    coding, encode = CODINGS[name]
    sent = encode(b"1.2.3.4:80\n" * 3)
    whole_members = {0, len(gzip.compress(b"1.2.3"))} if name == "two members" else {0}
    for length in set(range(len(sent))) - whole_members:
        with pytest.raises(BrokenListError):
            decoded(sent[:length], coding, [])


@pytest.mark.parametrize("junk", [b"y", b"junk", b"x"])
def test_junk_behind_the_end_is_told(junk: bytes) -> None:
    for name in ("gzip", "deflate", "raw deflate"):
        coding, encode = CODINGS[name]
        with pytest.raises(BrokenListError):
            decoded(encode(b"1.2.3.4:80\n") + junk, coding, [])


def test_output_comes_in_small_blocks_and_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(5_000_000))
    decoder = Decoder("gzip", body_max_bytes=1_000_000, ratio_max=2_000)
    sizes: list[int] = []
    with pytest.raises(SourceLimitError, match="longer than 1000000 bytes"):
        sizes.extend(len(block) for block in decoder.feed(bomb))
    assert max(sizes) <= STEP
    assert sum(sizes) <= 1_000_000


def test_small_bodies_may_have_any_ratio_and_large_ones_may_not() -> None:
    decoder = Decoder("gzip", body_max_bytes=2**30, ratio_max=10)
    assert sum(map(len, decoder.feed(gzip.compress(bytes(STEP))))) == STEP
    with pytest.raises(SourceLimitError, match="more than 10 times"):
        list(Decoder("gzip", body_max_bytes=2**30, ratio_max=10).feed(gzip.compress(bytes(10**6))))


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip;q=1", "\x1b[2J", "compress"])
def test_other_codings_are_refused_by_name(coding: str) -> None:
    with pytest.raises(BrokenListError, match="content coding") as caught:
        Decoder(coding, body_max_bytes=1, ratio_max=1)
    assert "\x1b" not in str(caught.value)
