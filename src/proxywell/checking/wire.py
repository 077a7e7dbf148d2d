"""What our judge and the checker say to each other: the path, the answer, the signature.

The checker puts a fresh nonce into the path. The judge answers what it saw of that request and
signs it. The signature covers exactly the bytes that travel (as base64, so that nothing on the
way has a reason to rewrite them), never a re-encoding of them.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from proxywell.model.failure import FailureKind

NONCE_SIZE_CHARS = 32  # 128 bits in hexadecimal
_SHELVES = ("data", "items", "content", "posts", "feed", "assets", "pages", "news")
_HEX = frozenset("0123456789abcdef")


class Seen(Struct, frozen=True, kw_only=True):
    """One request as it arrived at the judge.

    Attributes:
        nonce: The one from the path.
        peer_ip: Canonical text of the address that the request came from.
        peer_port: 1 to 65535.
        http_version: "1.1" or "1.0".
        target_form: ``origin`` or ``absolute`` (RFC 9112, section 3.2).
        method: ``GET`` or ``HEAD``.
        raw_headers: Names and values in wire order and case; bytes read as ISO 8859-1, so
            that none is lost.
        ts: When the request was whole, seconds since the epoch.
        judge: Name of the judge; empty if it has none.
    """

    nonce: str
    peer_ip: str
    peer_port: int
    http_version: str
    target_form: str
    method: str
    raw_headers: tuple[tuple[str, str], ...]
    ts: float
    judge: str = ""


class Envelope(Struct, frozen=True, kw_only=True):
    """The body of an answer: a signed ``Seen`` in base64, and the key that should fit."""

    seen: str
    signature: str
    key: str


_SEEN = msgspec.json.Decoder(Seen)
_ENVELOPE = msgspec.json.Decoder(Envelope)
_ENCODER = msgspec.json.Encoder()


def path_of(nonce: str) -> str:
    """The path that carries a nonce; it looks like any other page's.

    Args:
        nonce: 32 hexadecimal digits in lower case.
    """
    return f"/{_SHELVES[int(nonce[0], 16) & 7]}/{nonce}.json"


def nonce_in(path: str) -> str | None:
    """The nonce in a path, or None if it carries none; what stands before it is free."""
    name, dot, _extension = path.rpartition("/")[2].partition(".")
    if dot and len(name) == NONCE_SIZE_CHARS and _HEX.issuperset(name):
        return name
    return None


def seal(seen: Seen, *, sign: Callable[[bytes], bytes], key: str) -> bytes:
    """The body of an answer.

    Args:
        seen: What to say.
        sign: Makes the 64 bytes of an Ed25519 signature (RFC 8032).
        key: The public key in base64, so that a reader with several knows which one to try.
    """
    payload = _ENCODER.encode(seen)
    envelope = Envelope(
        seen=b64encode(payload).decode(), signature=b64encode(sign(payload)).decode(), key=key
    )
    return _ENCODER.encode(envelope)


def key_in(body: bytes) -> str | None:
    """The key that an answer names, believed or not; None if it is no answer of our judge."""
    try:
        return _ENVELOPE.decode(body).key
    except msgspec.DecodeError:
        return None


class Verifier:
    """Believes answers signed by one of some public keys, or says what is wrong with them."""

    def __init__(self, public_keys: Iterable[str]) -> None:
        """Take public keys.

        Args:
            public_keys: Ed25519 public keys, 32 bytes in base64: the current and the next.

        Raises:
            ValueError: One of them is not such a key.
        """
        self._keys = {text: _public_key(text) for text in public_keys}

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are believed, as they were given."""
        return tuple(self._keys)

    def open(
        self, body: bytes, *, nonce: str, now_s: float, clock_skew_s: float
    ) -> Seen | FailureKind:
        """Read an answer.

        Args:
            body: The answer's whole body.
            nonce: The one that was asked with.
            now_s: Seconds since the epoch.
            clock_skew_s: How far the judge's time may be from ours, either way.

        Returns:
            What the judge saw, or WRONG_ANSWER when this is nothing that our judge writes,
            JUDGE_BAD_SIGNATURE when no key of ours made the signature, JUDGE_REPLAY when it
            is genuine but belongs to another request or another time.
        """
        try:
            envelope = _ENVELOPE.decode(body)
            payload = b64decode(envelope.seen, validate=True)
            signature = b64decode(envelope.signature, validate=True)
        except (msgspec.DecodeError, binascii.Error, ValueError):
            return FailureKind.WRONG_ANSWER
        if not self._signed(payload, signature, envelope.key):
            return FailureKind.JUDGE_BAD_SIGNATURE
        try:
            seen = _SEEN.decode(payload)
        except msgspec.DecodeError:  # signed by us, so a judge of another version
            return FailureKind.WRONG_ANSWER
        if seen.nonce != nonce or not abs(seen.ts - now_s) <= clock_skew_s:
            return FailureKind.JUDGE_REPLAY
        return seen

    def _signed(self, payload: bytes, signature: bytes, named: str) -> bool:
        likely = self._keys.get(named)
        keys = self._keys.values() if likely is None else (likely,)
        for key in keys:
            try:
                key.verify(signature, payload)
            except InvalidSignature:
                continue
            return True
        return False


def _public_key(text: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{text!r} is not an Ed25519 public key (32 bytes in base64)") from error
