"""TLS through tunnels: what is believed, what is refused and why, and the evidence."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from proxywell.model.endpoint import Protocol
from proxywell.model.failure import FailureKind
from proxywell.net.stream import ProxyStream
from proxywell.net.translate import Stage, failure_of
from tests.network.conftest import Run
from tests.network.scripted import Script, expect, expect_end, scripted, serve_tls
from tests.network.tunnels import (
    JUDGE,
    LIMIT_S,
    SLACK_S,
    connect_script,
    dial,
    takes_between,
)

TRUSTED = trustme.CA()
STRANGER = trustme.CA()
LONG_AGO = datetime.now(tz=UTC) - timedelta(days=30)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    TRUSTED.configure_trust(context)
    return context


def der_of(certificate: trustme.LeafCert) -> bytes:
    pem = certificate.cert_chain_pems[0].bytes()
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def tunnel_to(context: ssl.SSLContext, inside: Script) -> Script:
    def script(connection: socket.socket) -> None:
        connect_script(socket.socket.sendall, b"")(connection)
        serve_tls(connection, context, inside)

    return script


async def tls_failure(port: int) -> tuple[FailureKind, bytes | None]:
    stream = await dial(port, Protocol.CONNECT)
    assert isinstance(stream, ProxyStream)
    assert stream.peer_certificate() is None
    try:
        await stream.start_tls(client_context(), JUDGE)
    except OSError as error:
        return failure_of(error, Stage.HANDSHAKE), stream.peer_certificate()
    finally:
        stream.close()
    raise AssertionError("the certificate was believed")


def test_tls_through_a_tunnel_carries_bytes_and_shows_the_leaf(run: Run) -> None:
    certificate = TRUSTED.issue_cert(JUDGE)

    def inside(connection: socket.socket) -> None:
        expect(connection, b"question" * 10_000)
        connection.sendall(b"answer" * 10_000)
        assert isinstance(connection, ssl.SSLSocket)
        with suppress(OSError):  # the client closes without waiting for the goodbye
            connection.unwrap()

    async def scene(port: int) -> bytes:
        stream = await dial(port, Protocol.CONNECT)
        assert isinstance(stream, ProxyStream)
        try:
            await stream.start_tls(client_context(), JUDGE)
            assert stream.peer_certificate() == der_of(certificate)
            await stream.send(b"")
            await stream.send(b"question" * 10_000)
            got = b""
            while part := await stream.receive(1_000):
                assert len(part) <= 1_000
                got += part
            return got
        finally:
            stream.close()

    with scripted(tunnel_to(server_context(certificate), inside)) as server:
        assert run(scene(server.port)) == b"answer" * 10_000


BAD_CERTIFICATES = {
    "of another name": (TRUSTED.issue_cert("other.example"), FailureKind.TLS_NAME),
    "of an address": (TRUSTED.issue_cert("192.0.2.7"), FailureKind.TLS_NAME),
    "expired": (TRUSTED.issue_cert(JUDGE, not_after=LONG_AGO), FailureKind.TLS_EXPIRED),
    "of a stranger": (STRANGER.issue_cert(JUDGE), FailureKind.TLS_UNTRUSTED),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("bad", BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES)
def test_a_bad_certificate_is_refused_for_its_reason_and_kept_as_evidence(
    run: Run, bad: tuple[trustme.LeafCert, FailureKind], version: ssl.TLSVersion
) -> None:
    certificate, kind = bad
    context = server_context(certificate)
    context.maximum_version = version

    def never(_connection: socket.socket) -> None:
        raise AssertionError("the client went on")

    def inside(connection: socket.socket) -> None:
        if version is ssl.TLSVersion.TLSv1_3:  # the server is done before the client's no
            with pytest.raises(ssl.SSLError):
                connection.recv(1)
        else:
            never(connection)

    with scripted(tunnel_to(context, inside)) as server:
        assert run(tls_failure(server.port)) == (kind, der_of(certificate))


def test_a_self_signed_certificate_is_refused_and_kept_as_evidence(run: Run) -> None:
    alone = self_signed()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with alone.private_key_and_cert_chain_pem.tempfile() as path:
        context.load_cert_chain(path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with scripted(tunnel_to(context, expect_end)) as server:
        kind, shown = run(tls_failure(server.port))
    assert kind is FailureKind.TLS_UNTRUSTED
    assert shown == der_of(alone)


def self_signed() -> trustme.LeafCert:
    """A certificate that vouches for itself: what an interceptor makes on the fly."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, JUDGE)])
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(JUDGE)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return trustme.LeafCert(pem, certificate.public_bytes(Encoding.PEM), [])


def test_tls_against_a_server_without_it_breaks_off(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        connect_script(socket.socket.sendall, b"HTTP/1.1 400 Bad Request\r\n\r\n")(connection)
        expect_end(connection)

    with scripted(script) as server:
        assert run(tls_failure(server.port)) == (FailureKind.TLS_ALERT, None)


def test_a_tls_handshake_that_is_cut_off_breaks_off(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        connect_script(socket.socket.sendall, b"")(connection)
        connection.recv(4_096)

    with scripted(script) as server:
        kind, shown = run(tls_failure(server.port))
    assert kind in {FailureKind.TLS_ALERT, FailureKind.RESET}
    assert shown is None


def test_a_cut_tls_stream_does_not_look_like_a_whole_one(run: Run) -> None:
    def inside(connection: socket.socket) -> None:
        connection.sendall(b"half an ans")
        expect(connection, b"?")

    async def scene(port: int) -> None:
        stream = await dial(port, Protocol.CONNECT)
        assert isinstance(stream, ProxyStream)
        try:
            await stream.start_tls(client_context(), JUDGE)
            assert await stream.receive(100) == b"half an ans"
            await stream.send(b"?")
            with pytest.raises(OSError, match=r".") as caught:
                await stream.receive(100)
            assert failure_of(caught.value, Stage.ANSWER) is FailureKind.EOF_EARLY
        finally:
            stream.close()

    with scripted(tunnel_to(server_context(TRUSTED.issue_cert(JUDGE)), inside)) as server:
        run(scene(server.port))


def test_a_silent_tls_server_costs_the_time_limit(run: Run) -> None:
    def script(connection: socket.socket) -> None:
        connect_script(socket.socket.sendall, b"")(connection)
        expect_end(connection)

    async def scene(port: int) -> None:
        stream = await dial(port, Protocol.CONNECT, answer_s=LIMIT_S)
        assert isinstance(stream, ProxyStream)
        try:
            with pytest.raises(TimeoutError):
                await stream.start_tls(client_context(), JUDGE)
        finally:
            stream.close()

    with scripted(script) as server, takes_between(LIMIT_S * 0.9, 2 * LIMIT_S + SLACK_S):
        run(scene(server.port))
