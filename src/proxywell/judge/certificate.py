"""A certificate for a judge that has none: its own small authority, used once and forgotten."""

from __future__ import annotations

import hashlib
import ssl
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proxywell.errors import StateError, UsageError
from proxywell.judge.keys import publish_once

CHAIN_FILE = "judge-cert.pem"
ANCHOR_FILE = "judge-ca.pem"
VALID_DAYS = 1825


class Certificate:
    """A chain with its key, as PEM, and what clients need to trust it.

    Attributes:
        chain_pem: Leaf first, then what vouches for it.
        key_pem: The leaf's private key.
        anchor_pem: What a client puts into ``judge.ca_file``.
    """

    def __init__(self, *, chain_pem: bytes, key_pem: bytes, anchor_pem: bytes) -> None:
        """Take the three parts."""
        self.chain_pem, self.key_pem, self.anchor_pem = chain_pem, key_pem, anchor_pem

    @property
    def spki_pin(self) -> str:
        """The leaf's pin (RFC 7469, section 2.4), see ``spki_pin``."""
        return spki_pin(self.chain_pem)

    def server_context(self) -> ssl.SSLContext:
        """A context that serves this certificate."""
        context = _server_context()
        with tempfile.TemporaryDirectory() as place:  # OpenSSL reads chains from files only
            chain, key = Path(place) / "chain.pem", Path(place) / "key.pem"
            chain.write_bytes(self.chain_pem)
            key.touch(mode=0o600)
            key.write_bytes(self.key_pem)
            context.load_cert_chain(chain, key)
        return context


def spki_pin(chain_pem: bytes) -> str:
    """SHA-256 of the leaf's SubjectPublicKeyInfo in base64: what ``judge.spki_pins`` takes."""
    leaf = x509.load_pem_x509_certificate(chain_pem)
    spki = leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return b64encode(hashlib.sha256(spki).digest()).decode()


def context_from_files(chain: Path, key: Path) -> ssl.SSLContext:
    """A context that serves a certificate which the user has.

    Raises:
        UsageError: A file cannot be read, or the two do not belong together.
    """
    for path in (chain, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read ({error.strerror}); name readable files in PEM "
                "with --cert and --key"
            ) from error
    context = _server_context()
    try:
        context.load_cert_chain(chain, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UsageError(
            f"{chain} and {key} are not a certificate in PEM with its own unencrypted key ({error})"
        ) from error
    return context


def make_certificate(names: Sequence[str], *, now: datetime | None = None) -> Certificate:
    """Make a certificate for names and addresses, vouched for by an authority of its own.

    The authority's key is forgotten at once, so its certificate can be trusted for nothing but
    this leaf. Both are valid for five years.

    Args:
        names: Host names and addresses, at least one.
        now: Start of validity, less an hour for clocks that lag; None: now.
    """
    assert names, "a certificate without a name fits nobody"
    start = (now or datetime.now(UTC)) - timedelta(hours=1)
    end = start + timedelta(days=VALID_DAYS)
    authority_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost root")])
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    leaf_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    leaf = (
        _builder(leaf_name, authority_name, leaf_key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    anchor_pem = authority.public_bytes(pem)
    return Certificate(
        chain_pem=leaf.public_bytes(pem) + anchor_pem,
        key_pem=leaf_key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        anchor_pem=anchor_pem,
    )


def load_or_make_certificate(state_dir: Path, names: Sequence[str]) -> tuple[Certificate, Path]:
    """Read the certificate of this state directory; make it where there is none for the names.

    Returns:
        The certificate, and the file that clients name in ``judge.ca_file``.

    Raises:
        StateError: The files cannot be read or written.
    """
    chain, anchor = state_dir / CHAIN_FILE, state_dir / ANCHOR_FILE
    for _attempt in range(2):
        kept = _kept(chain)
        if kept is not None and _fits(kept, names):
            _refresh_copy(anchor, kept.anchor_pem)
            return kept, anchor
        if kept is not None:
            chain.unlink(missing_ok=True)
        made = make_certificate(names)
        publish_once(chain, made.key_pem + made.chain_pem)
    raise StateError(f"{chain} is changed by another process all the time; name another --state")


def _kept(chain: Path) -> Certificate | None:
    try:
        content = chain.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(
            f"the judge's certificate {chain} cannot be read ({error.strerror})"
        ) from error
    try:
        _leaf, authority = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise StateError(
            f"{chain} does not hold the judge's certificate; move it away and a new one is made"
        ) from error
    begin = content.index(b"-----BEGIN CERTIFICATE")
    return Certificate(
        chain_pem=content[begin:],
        key_pem=content[:begin],
        anchor_pem=authority.public_bytes(serialization.Encoding.PEM),
    )


def _fits(certificate: Certificate, names: Sequence[str]) -> bool:
    leaf = x509.load_pem_x509_certificate(certificate.chain_pem)
    names_in_it = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if not {_general(name) for name in names} <= set(names_in_it):
        return False
    return leaf.not_valid_after_utc - datetime.now(UTC) > timedelta(days=30)


def _refresh_copy(path: Path, content: bytes) -> None:
    try:
        if path.exists() and path.read_bytes() == content:
            return
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"{path} cannot be replaced ({error.strerror})") from error
    publish_once(path, content)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
