"""Fetch one list over http(s) within limits on address, bytes, expansion, redirects and time.

Redirects are followed by hand, so that each is vetted like the first address; and the address
that is really dialled is vetted when its socket is made, so that a name that changes its address
between two look-ups gains nothing.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from msgspec import Struct
from yarl import URL

from proxywell.net.guard import Guard, canonical_address
from proxywell.sources.coding import Decoder
from proxywell.sources.errors import (
    SourceError,
    SourceLimitError,
    SourceRefusedError,
    SourceStatusError,
)

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_NOT_MODIFIED = 304
_CONNECT_S = 10.0
_URL_MAX_CHARS = 2_000
_SHOWN_CHARS = 200
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "its name does not resolve"),
    (aiohttp.ClientResponseError, "what it says is no sound HTTP"),
    (aiohttp.ServerDisconnectedError, "it closed the connection"),
    (TimeoutError, f"no connection within {_CONNECT_S:.0f} s"),
)


class FetchLimits(Struct, frozen=True):
    """What one fetch may cost.

    Attributes:
        wire_max_bytes: Of the body as sent.
        body_max_bytes: Of the body after its content coding.
        ratio_max: Most bytes that one byte as sent may become.
        redirects_max: Redirects that are followed.
    """

    wire_max_bytes: int
    body_max_bytes: int
    ratio_max: int
    redirects_max: int


class Validators(Struct, frozen=True):
    """What makes the next request conditional (RFC 9110, section 13.1); None where not sent."""

    etag: str | None = None
    last_modified: str | None = None


class Fetched:
    """An answer whose body has not been read yet.

    Attributes:
        not_modified: The copy that the validators belong to is still right; there is no body.
        validators: For the next request.
    """

    def __init__(self, response: aiohttp.ClientResponse, limits: FetchLimits) -> None:
        self.not_modified = response.status == _NOT_MODIFIED
        self.validators = Validators(
            response.headers.get("ETag"), response.headers.get("Last-Modified")
        )
        self._response = response
        self._limits = limits

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Give the body, its coding undone.

        Raises:
            SourceLimitError: It passes a limit.
            BrokenListError: Its coding is not known, damaged, or breaks off.
            SourceError: The connection breaks.
        """
        limits = self._limits
        if (self._response.content_length or 0) > limits.wire_max_bytes:
            raise SourceLimitError(f"it is longer than {limits.wire_max_bytes} bytes as sent")
        decoder = Decoder(
            ",".join(self._response.headers.getall("Content-Encoding", [])),
            body_max_bytes=limits.body_max_bytes,
            ratio_max=limits.ratio_max,
        )
        wire_bytes = 0
        try:
            async for data in self._response.content.iter_any():
                wire_bytes += len(data)
                if wire_bytes > limits.wire_max_bytes:
                    raise SourceLimitError(
                        f"it is longer than {limits.wire_max_bytes} bytes as sent"
                    )
                for block in decoder.feed(data):
                    yield block
        except (aiohttp.ClientError, OSError) as error:
            raise SourceError(f"the answer breaks off: {_why(error)}") from error
        decoder.finish()


class Fetcher:
    """Asks for lists. Sends no cookies, uses no proxy of the environment, keeps no connection.

    Args:
        guard: Vets addresses; with ``allow_private``, plain http is allowed too.
        limits: What one fetch may cost.
        user_agent: How proxywell names itself, with a contact where one is set.
        tls: Verifies https; None: the system's certificates.
    """

    def __init__(
        self,
        guard: Guard,
        limits: FetchLimits,
        *,
        user_agent: str,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._limits = limits
        self._headers = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "gzip"}
        self._tls = tls

    @asynccontextmanager
    async def fetch(self, url: str, validators: Validators) -> AsyncIterator[Fetched]:
        """Ask for a list, following redirects; the caller bounds the time.

        Args:
            url: http or https.
            validators: From the last good fetch, or empty.

        Raises:
            SourceRefusedError: The address, scheme or a redirect is not allowed.
            SourceLimitError: Too many redirects.
            SourceStatusError: An answer that is neither 200 nor 304.
            SourceError: No answer.
        """
        refused: list[str] = []
        connector = aiohttp.TCPConnector(
            ssl=self._tls or True,
            socket_factory=lambda address: self._socket(address, refused),
            force_close=True,
            use_dns_cache=False,
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        ) as session:
            response = await self._follow(session, url, validators, refused)
            async with response:
                yield Fetched(response, self._limits)

    async def _follow(
        self,
        session: aiohttp.ClientSession,
        url: str,
        validators: Validators,
        refused: list[str],
    ) -> aiohttp.ClientResponse:
        headers = {}
        if validators.etag:
            headers["If-None-Match"] = validators.etag
        if validators.last_modified:
            headers["If-Modified-Since"] = validators.last_modified
        for _ in range(self._limits.redirects_max + 1):
            self._vet(url)
            try:
                response = await session.get(
                    URL(url, encoded=True), allow_redirects=False, headers=headers
                )
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if refused:
                    raise SourceRefusedError(
                        f"{_host_of(url)} is at {refused[0]}, which must not be dialled"
                    ) from error
                raise SourceError(f"{_host_of(url)} gives no answer: {_why(error)}") from error
            if response.status == 200 or (response.status == _NOT_MODIFIED and headers):
                return response
            response.close()
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                raise SourceStatusError(_host_of(url), response.status)
            url = _joined(url, location)
        raise SourceLimitError(f"it redirects more than {self._limits.redirects_max} times")

    def _vet(self, url: str) -> None:
        """Refuse a URL by what it says; what its name stands for is vetted when dialled."""
        shown = ascii(url[:_SHOWN_CHARS])[1:-1]
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise SourceRefusedError(f"{shown} is no URL: {error}") from error
        clean = url.isascii() and url.isprintable() and " " not in url
        if parts.scheme not in ("https", "http") or not host or not clean:
            raise SourceRefusedError(f"it leads to {shown}, which is no https URL")
        if len(url) > _URL_MAX_CHARS:
            raise SourceRefusedError(f"it leads to a URL of more than {_URL_MAX_CHARS} characters")
        if parts.scheme == "http" and not self._guard.allow_private:
            raise SourceRefusedError(
                "it is plain http, which anyone on the way can change; use https, or "
                "--allow-private in a network of your own"
            )
        if parts.username is not None:
            raise SourceRefusedError("its URL holds a user name, which is not sent")
        port = port or (443 if parts.scheme == "https" else 80)
        is_address = canonical_address(host) is not None
        reason = self._guard.refusal(host, port) if is_address else None
        if reason is not None or self._guard.refuses_port(port):
            raise SourceRefusedError(f"it leads to {host} port {port}, which must not be dialled")

    def _socket(self, address: Any, refused: list[str]) -> socket.socket:
        """Make the socket for an address about to be dialled, if it may be."""
        family, kind, protocol, _, target = address
        host = canonical_address(str(target[0]))
        if host is None or self._guard.refusal(host, int(target[1])) is not None:
            refused.append(str(target[0]))
            raise OSError("refused by the guard")
        return socket.socket(family, kind, protocol)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        shown = ascii(location[:_SHOWN_CHARS])[1:-1]
        raise SourceRefusedError(f"it redirects to {shown}, which is no URL") from error


def _host_of(url: str) -> str:
    return ascii(urlsplit(url).hostname or "")[1:-1]


def _why(error: BaseException) -> str:
    """A cause in a few words that fit on a line."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        certificate_error = error.certificate_error
        reason = getattr(certificate_error, "verify_message", "") or str(certificate_error)
        return f"its certificate is not trusted ({reason})"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(
        error, aiohttp.ClientConnectorDNSError
    ):
        number = error.os_error.errno
        return os.strerror(number) if number else type(error.os_error).__name__
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    return ascii(str(error) or type(error).__name__)[1:-1][:_SHOWN_CHARS]
