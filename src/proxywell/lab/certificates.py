"""The lab's certificate authority, and the false certificates that interceptors show."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


class Authority:
    """Vouches for the lab's https servers; lives for as long as the lab.

    Args:
        directory: Where certificates are written; the caller's to create and to remove.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("proxywell lab authority")
        self._certificate = self._sign(
            self._name, self._key.public_key(), self._key, authority=True
        )
        self._false_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[tuple[str, str], ssl.SSLContext] = {}
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(_pem(self._certificate))
        self._key_file = directory / "leaf.key"
        self._key_file.touch(mode=0o600)
        self._key_file.write_bytes(
            self._leaf_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    @property
    def key_file(self) -> Path:
        """The private key of every certificate that is written."""
        return self._key_file

    def certificate_file(self, names: list[str], *, fault: str = "none") -> Path:
        """Write a certificate for these names and addresses.

        Args:
            names: Host names and addresses; the first is the common name.
            fault: ``none``; ``self_signed``; ``wrong_ca``: right name, an authority that nobody
                trusts; ``wrong_name``: vouched for, but for another name; ``expired``.

        Returns:
            A PEM file with the certificate.
        """
        subject = ["elsewhere.lab.test"] if fault == "wrong_name" else names
        signer = {"self_signed": self._leaf_key, "wrong_ca": self._false_key}.get(fault, self._key)
        issuer = {
            "self_signed": _named(subject[0]),
            "wrong_ca": _named("Some Secure Gateway CA"),
        }.get(fault, self._name)
        certificate = self._sign(
            _named(subject[0]),
            self._leaf_key.public_key(),
            signer,
            issuer=issuer,
            names=subject,
            expired=fault == "expired",
        )
        safe = "".join(char if char.isalnum() else "-" for char in names[0])
        path = self._directory / f"{fault}-{safe}.pem"
        path.write_bytes(_pem(certificate))
        return path

    def server_context(self, names: list[str], *, fault: str = "none") -> ssl.SSLContext:
        """A server's context with such a certificate; kept for the next time."""
        key = (names[0], fault)
        if key not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate_file(names, fault=fault), self._key_file)
            self._contexts[key] = context
        return self._contexts[key]

    def client_context(self) -> ssl.SSLContext:
        """A client's context that trusts this authority alone."""
        key = ("", "client")
        if key not in self._contexts:
            self._contexts[key] = ssl.create_default_context(cafile=str(self.ca_file))
        return self._contexts[key]

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        signer: ec.EllipticCurvePrivateKey,
        *,
        issuer: x509.Name | None = None,
        names: list[str] | None = None,
        authority: bool = False,
        expired: bool = False,
    ) -> x509.Certificate:
        today = dt.datetime.now(dt.UTC)
        until = today - _DAY if expired else today + 30 * _DAY
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - 10 * _DAY)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )
        if authority:
            usage = x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        if names:
            alternative = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(signer, hashes.SHA256())


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
