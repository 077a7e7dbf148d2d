"""Building of HTTP requests, in the forms that proxies and origins expect.

What goes in here is ours: a control character in it is a bug (or an attempt to smuggle a
second request) and raises ValueError; nothing is quoted or repaired.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache

_METHOD_OR_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"[\x21-\x7e]+")
_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_HOST_NAME = re.compile(r"[0-9A-Za-z._-]{1,255}")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_END_OF_HEAD = b"\r\n\r\n"


def build_request(
    method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b""
) -> bytes:
    """Put together one HTTP/1.1 request (RFC 9112, section 3).

    Args:
        method: A token such as ``GET``.
        target: The request target: a path for an origin, an absolute URL for a forward proxy.
        headers: Names and values; sent in this order and case, nothing is added.
        body: Sent as it is; the caller's headers must say how long it is.

    Returns:
        The bytes to send.

    Raises:
        ValueError: A part holds a character that it must not: control characters, line ends,
            spaces in the target, spaces around a value, anything beyond Latin-1.
    """
    lines = [f"{_checked(_METHOD_OR_NAME, method, 'method')} "]
    lines.append(f"{_checked(_TARGET, target, 'target')} HTTP/1.1\r\n")
    for name, value in headers:
        _checked(_METHOD_OR_NAME, name, "header name")
        if _VALUE.fullmatch(value) is None:  # the value is not shown: it may be a password
            raise ValueError(f"the value of header {name} holds what no header may hold")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1") + body


def absolute_target(scheme: str, host: str, port: int, path: str) -> str:
    """The absolute form of a target (RFC 9112, section 3.2.2), for forward proxies.

    Args:
        scheme: ``http`` or ``https``; its own port is left out of the authority.
        host: Name or address; IPv6 without brackets.
        port: 1 to 65535.
        path: With its leading slash, query included.

    Raises:
        ValueError: ``host``, ``port`` or ``path`` is not of that form.
    """
    if not path.startswith("/"):
        raise ValueError(f"path {path!r} does not begin with a slash")
    return f"{scheme}://{host_header(scheme, host, port)}{path}"


def host_header(scheme: str, host: str, port: int) -> str:
    """The value of ``Host`` (RFC 9110, section 7.2): without a port that the scheme implies.

    Raises:
        ValueError: ``host`` or ``port`` is not of the form that ``authority`` takes.
    """
    whole = authority(host, port)
    return whole.rpartition(":")[0] if _DEFAULT_PORTS.get(scheme) == port else whole


@lru_cache(maxsize=1024)  # a check speaks to few judges, thousands of times
def authority(host: str, port: int) -> str:
    """``host:port`` as CONNECT wants it (RFC 9110, section 9.3.6), IPv6 in brackets.

    Raises:
        ValueError: ``host`` is neither a name in ASCII of 1 to 255 characters nor an address,
            or ``port`` is not in 1 to 65535.
    """
    if not 0 < port < 65_536:
        raise ValueError(f"port {port} is not in 1 to 65535")
    if _HOST_NAME.fullmatch(host):
        return f"{host}:{port}"
    if _IPV6.fullmatch(host):
        return f"[{host}]:{port}"
    raise ValueError(f"{host!r} is not a host")


def basic_credentials(user: str, password: str) -> str:
    """The value of ``Proxy-Authorization`` for the Basic scheme (RFC 7617), in UTF-8.

    Anything can be carried; a colon in ``user`` will be taken for the end of it.
    """
    pair = f"{user}:{password}".encode("utf-8", "surrogatepass")
    return "Basic " + b64encode(pair).decode("ascii")


def with_proxy_credentials(request: bytes, user: str, password: str) -> bytes:
    """The same request with credentials for a forward proxy, as its last header.

    Args:
        request: What ``build_request`` gave, in absolute form.
        user: The proxy's, not the origin's.
        password: The proxy's too.

    Raises:
        ValueError: ``request`` has no end of its head.
    """
    head, end, body = request.partition(_END_OF_HEAD)
    if not end:
        raise ValueError("the request has no end of its head")
    field = f"\r\nProxy-Authorization: {basic_credentials(user, password)}".encode("ascii")
    return head + field + end + body


def _checked(form: re.Pattern[str], text: str, what: str) -> str:
    if form.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a {what}")
    return text
