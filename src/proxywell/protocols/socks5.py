"""SOCKS5 seen from the client: RFC 1928, and user and password by RFC 1929."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address

from proxywell.model.failure import FailureKind
from proxywell.protocols.machine import Established, NeedMore, Refused, Step

REPLY_MAX_BYTES = 262  # with a bound name of 255 bytes

_VERSION = 0x05
_NO_AUTHENTICATION, _GSSAPI, _USER_PASSWORD, _NO_ACCEPTABLE_METHOD = 0x00, 0x01, 0x02, 0xFF
_METHODS_THAT_ASK_FOR_MORE = frozenset({_GSSAPI, _USER_PASSWORD, _NO_ACCEPTABLE_METHOD})
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04
_SUCCEEDED, _LAST_REFUSAL = 0x00, 0x08
_PASSWORD_VERSIONS = frozenset({0x01, _VERSION})  # RFC 1929 says 1; some servers repeat the 5
_BYTES_BY_TYPE = {_IPV4: 10, _IPV6: 22}  # of the whole reply
_TYPE_AT = 3
_NAME_HEAD_BYTES = 5  # up to and with the length of the bound name
_PORT_BYTES = 2
_FIELD_MAX_BYTES = 255
_GREETING = bytes((_VERSION, 1, _NO_AUTHENTICATION))
_GREETING_WITH_PASSWORD = bytes((_VERSION, 2, _NO_AUTHENTICATION, _USER_PASSWORD))
_METHOD, _PASSWORD, _REPLY = range(3)
_MORE = NeedMore()


class Socks5Connect:
    """One SOCKS5 CONNECT seen from the client: bytes in, one Step out, no I/O.

    The host goes as an address if it is one (ATYP 1 or 4), else as a name for the proxy to
    resolve (ATYP 3). The bound address of the reply is skipped by its own type. The reserved
    byte is not looked at.

    Args:
        host: An IPv4 or IPv6 address without brackets, or a name in ASCII of 1 to 255 bytes.
        port: 1 to 65535.
        user, password: Both or neither. Credentials that RFC 1929 cannot carry (more than 255
            bytes in one of them) are not offered; a proxy that insists answers AUTH_REQUIRED.

    Raises:
        ValueError: ``host`` or ``port`` is not of that form.
    """

    __slots__ = ("_credentials", "_finished", "_got", "_request", "_stage", "opening")

    opening: bytes

    def __init__(
        self, host: str, port: int, user: str | None = None, password: str | None = None
    ) -> None:
        self._request = _request(host, port)
        self._credentials = None if user is None else _credentials(user, password or "")
        self.opening = _GREETING if self._credentials is None else _GREETING_WITH_PASSWORD
        self._got = b""
        self._stage = _METHOD
        self._finished = False

    def receive(self, data: bytes) -> Step:
        """Take bytes of the replies; see ``protocols.machine.Handshake``."""
        assert not self._finished, "a finished handshake was fed again"
        self._got += data
        send = b""
        while True:  # at most once per stage: each ends the loop or moves to the next one
            answer = self._read_stage()
            if answer is None:
                return NeedMore(send) if send else _MORE
            if isinstance(answer, bytes):
                send += answer
                continue
            self._finished = True
            self._got = b""
            if send and isinstance(answer, Established):
                return Established(answer.leftover, send)
            return answer

    def ended(self) -> Step:
        """Say what the end of the stream means: a reply was cut off."""
        assert not self._finished, "a finished handshake was told of the end"
        self._finished = True
        return Refused(FailureKind.EOF_EARLY)

    def _read_stage(self) -> bytes | Established | Refused | None:
        """What to send before the next stage, how it ends, or None if bytes are missing."""
        if not self._got:
            return None
        if self._stage == _REPLY:
            return self._read_reply()
        return self._read_method() if self._stage == _METHOD else self._read_password()

    def _read_method(self) -> bytes | Refused | None:
        got = self._got
        if got[0] != _VERSION:
            return Refused(FailureKind.NOT_THIS_PROTOCOL, got[0])
        if len(got) < 2:
            return None
        method = got[1]
        if method == _NO_AUTHENTICATION:
            self._got, self._stage = got[2:], _REPLY
            return self._request
        if method == _USER_PASSWORD and self._credentials is not None:
            self._got, self._stage = got[2:], _PASSWORD
            return self._credentials
        if method in _METHODS_THAT_ASK_FOR_MORE:
            return Refused(FailureKind.AUTH_REQUIRED, method)
        return Refused(FailureKind.SOCKS_BAD_REPLY, method)

    def _read_password(self) -> bytes | Refused | None:
        got = self._got
        if got[0] not in _PASSWORD_VERSIONS:
            return Refused(FailureKind.SOCKS_BAD_REPLY, got[0])
        if len(got) < 2:
            return None
        if got[1] != _SUCCEEDED:
            return Refused(FailureKind.AUTH_REQUIRED, got[1])
        self._got, self._stage = got[2:], _REPLY
        return self._request

    def _read_reply(self) -> Established | Refused | None:
        got = self._got
        if got[0] != _VERSION:
            return Refused(FailureKind.SOCKS_BAD_REPLY, got[0])
        if len(got) >= 2 and got[1] != _SUCCEEDED:  # many servers send no more than this
            named = got[1] <= _LAST_REFUSAL
            return Refused(
                FailureKind.SOCKS_REFUSED if named else FailureKind.SOCKS_BAD_REPLY, got[1]
            )
        if len(got) < _TYPE_AT + 1:
            return None
        size = _BYTES_BY_TYPE.get(got[_TYPE_AT])
        if size is None:
            if got[_TYPE_AT] != _NAME:
                return Refused(FailureKind.SOCKS_BAD_REPLY, got[_TYPE_AT])
            if len(got) < _NAME_HEAD_BYTES:
                return None
            size = _NAME_HEAD_BYTES + got[_NAME_HEAD_BYTES - 1] + _PORT_BYTES
        return Established(got[size:]) if len(got) >= size else None


@lru_cache(maxsize=1024)  # nearly every request of a check goes to the same judge
def _request(host: str, port: int) -> bytes:
    if not 0 < port < 65_536:
        raise ValueError(f"port {port} is not in 1 to 65535")
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")  # UnicodeEncodeError is a ValueError
        if not 0 < len(name) <= _FIELD_MAX_BYTES:
            raise ValueError(f"SOCKS5 cannot carry the host {host!r}") from None
        destination = bytes((_NAME, len(name))) + name
    else:
        if address.version == 6 and address.scope_id is not None:
            raise ValueError(f"SOCKS5 cannot carry the zone of {host!r}")
        destination = bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed
    return bytes((_VERSION, 1, 0)) + destination + port.to_bytes(2, "big")


def _credentials(user: str, password: str) -> bytes | None:
    name, secret = user.encode("utf-8", "surrogatepass"), password.encode("utf-8", "surrogatepass")
    if max(len(name), len(secret)) > _FIELD_MAX_BYTES:
        return None
    return bytes((1, len(name))) + name + bytes((len(secret),)) + secret
