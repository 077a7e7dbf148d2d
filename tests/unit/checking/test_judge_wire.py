"""The judge's signed answer: what is believed and what is not."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from proxywell.checking.wire import Seen, Verifier, key_in, nonce_in, path_of, seal
from proxywell.model.failure import FailureKind

NOW_S, SKEW_S = 1_700_000_000.0, 30.0
NONCE = "00112233445566778899aabbccddeeff"
PRIVATE, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def public(key: Ed25519PrivateKey) -> str:
    return b64encode(key.public_key().public_bytes_raw()).decode()


def seen(**changes: Any) -> Seen:
    facts: dict[str, Any] = {
        "nonce": NONCE,
        "peer_ip": "192.0.2.7",
        "peer_port": 40_000,
        "http_version": "1.1",
        "target_form": "origin",
        "method": "GET",
        "raw_headers": (("Host", "judge.test"), ("x-ODD", "\xff\x80 %s {x}")),
        "ts": NOW_S,
        "judge": "one",
    }
    return Seen(**{**facts, **changes})


def body(key: Ed25519PrivateKey = PRIVATE, **changes: Any) -> bytes:
    return seal(seen(**changes), sign=key.sign, key=public(key))


def opened(
    answer: bytes,
    *,
    keys: tuple[str, ...] = (public(PRIVATE),),
    nonce: str = NONCE,
    now_s: float = NOW_S,
) -> Seen | FailureKind:
    return Verifier(keys).open(answer, nonce=nonce, now_s=now_s, clock_skew_s=SKEW_S)


def test_a_genuine_answer_says_what_the_judge_saw_to_the_letter() -> None:
    assert opened(body()) == seen()


def test_the_next_key_is_believed_as_well_as_the_current_one() -> None:
    keys = (public(PRIVATE), public(OTHER))
    assert opened(body(OTHER), keys=keys) == seen()


def test_an_answer_that_names_a_wrong_key_of_ours_is_still_tried_against_that_key_only() -> None:
    answer = seal(seen(), sign=OTHER.sign, key=public(PRIVATE))
    assert opened(answer, keys=(public(PRIVATE),)) is FailureKind.JUDGE_BAD_SIGNATURE


def test_a_strangers_signature_is_a_forgery_whatever_key_it_names() -> None:
    for named in (public(OTHER), public(PRIVATE), "", "x"):
        answer = seal(seen(), sign=OTHER.sign, key=named)
        assert opened(answer) is FailureKind.JUDGE_BAD_SIGNATURE


def test_another_checks_answer_is_a_replay() -> None:
    assert opened(body(), nonce="f" * 32) is FailureKind.JUDGE_REPLAY


@pytest.mark.parametrize("late_s", [SKEW_S + 0.001, -SKEW_S - 0.001, 86_400.0, float("inf")])
def test_an_answer_from_another_time_is_a_replay(late_s: float) -> None:
    assert opened(body(), now_s=NOW_S + late_s) is FailureKind.JUDGE_REPLAY


@pytest.mark.parametrize("late_s", [SKEW_S, -SKEW_S])
def test_clocks_may_differ_by_the_whole_skew(late_s: float) -> None:
    assert opened(body(), now_s=NOW_S + late_s) == seen()


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_changes_what_is_believed(position: int, bit: int) -> None:
    answer = bytearray(body())
    answer[position % len(answer)] ^= 1 << bit
    verdict = opened(bytes(answer))
    assert verdict == seen() or isinstance(verdict, FailureKind)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_signed_bytes_is_a_forgery(position: int, bit: int) -> None:
    envelope = msgspec.json.decode(body())
    payload = bytearray(b64decode(envelope["seen"]))
    payload[position % len(payload)] ^= 1 << bit
    envelope["seen"] = b64encode(payload).decode()
    assert opened(msgspec.json.encode(envelope)) is FailureKind.JUDGE_BAD_SIGNATURE


@given(st.one_of(st.binary(), st.from_type(dict).map(lambda value: repr(value).encode())))
def test_any_other_page_is_a_wrong_answer(page: bytes) -> None:
    assert opened(page) is FailureKind.WRONG_ANSWER
    assert key_in(page) is None


def test_an_answer_names_its_key() -> None:
    assert key_in(body()) == public(PRIVATE)


@pytest.mark.parametrize("text", ["", "xyz", "AAAA", "é", b64encode(b"x" * 31).decode()])
def test_what_is_no_public_key_is_said_when_it_is_configured(text: str) -> None:
    with pytest.raises(ValueError, match="not an Ed25519 public key"):
        Verifier([text])


@given(st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}"))
def test_the_path_gives_the_nonce_back_behind_any_prefix(nonce: str) -> None:
    assert nonce_in(path_of(nonce)) == nonce
    assert nonce_in("/some/prefix" + path_of(nonce)) == nonce


@pytest.mark.parametrize(
    "path",
    ["", "/", "/healthz", "/data/.json", f"/data/{'0' * 31}.json", f"/data/{'0' * 33}.json",
     f"/data/{'0' * 32}", f"/data/{'A' * 32}.json", f"/{'0' * 32}.json/x"],
)  # fmt: skip
def test_other_paths_carry_no_nonce(path: str) -> None:
    assert nonce_in(path) is None
