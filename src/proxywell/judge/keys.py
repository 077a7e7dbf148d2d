"""The key pair with which a judge signs what it saw."""

from __future__ import annotations

import contextlib
import os
import secrets
from base64 import b64encode
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxywell.errors import StateError

KEY_FILE = "judge.key"


class JudgeKey:
    """An Ed25519 key pair (RFC 8032) that signs what a judge saw."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """Take a private key."""
        self._private = private
        raw = private.public_key().public_bytes_raw()
        self.public = b64encode(raw).decode()

    @classmethod
    def fresh(cls) -> JudgeKey:
        """A new pair that is kept nowhere: for the lab and for tests."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, payload: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self._private.sign(payload)

    def __repr__(self) -> str:
        """Show the public half only."""
        return f"JudgeKey(public={self.public!r})"


def load_or_make_key(state_dir: Path) -> JudgeKey:
    """Read the key of this state directory; make it on the first start, for its owner only.

    Two judges that start at once end with the same key.

    Raises:
        StateError: The file cannot be read or written, or is not such a key.
    """
    path = state_dir / KEY_FILE
    with contextlib.suppress(FileNotFoundError):
        return _read_key(path)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    publish_once(path, pem)
    return _read_key(path)


def _read_key(path: Path) -> JudgeKey:
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateError(
            f"the judge's key {path} cannot be read ({error.strerror}); "
            "make it readable for this user, or name another --state"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateError(
            f"{path} is not a private key in PEM; move it away and a new one is made"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise StateError(f"{path} is not an Ed25519 key; move it away and a new one is made")
    return JudgeKey(private)


def publish_once(path: Path, content: bytes) -> None:
    """Write a secret file whole, mode 0600, unless another process was first.

    Raises:
        StateError: The directory cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written ({error.strerror}); "
            "free some space, mend the permissions, or name another --state"
        ) from error
