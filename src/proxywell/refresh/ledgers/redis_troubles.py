"""What goes wrong with a Redis server, as sentences: what, where, what to do.

What waiting can mend (no answer, connection lost, loading, full, read-only, disk trouble) is a
StoreAwayError: the step may be repeated, as every step of the ledger may. What waiting cannot
mend (wrong password, no permission, TLS only, no Redis at all) is another StateError.
"""

from __future__ import annotations

import re
import socket
import ssl

import redis

from proxywell.errors import StateError, StoreAwayError, StoreDamagedError
from proxywell.refresh.ledgers.redis_address import PLAIN, TLS, RedisAddress

# What a user of the server needs, beside its keys; ``doctor`` and the sentence below say so.
PERMISSIONS = "+@read +@write +@connection +@transaction -@dangerous +evalsha +script|load +time"

_CODE = re.compile(r"(?:^|-)([A-Z]{3,})(?=[ :])")  # older servers wrap what a script met
_TLS_ALERT = re.compile(r"\\x15\\x03|\x15\x03")
_AWAY = {
    "LOADING": "is still loading its data; wait a moment",
    "BUSY": "is busy with another program's script; wait, or end that",
    "OOM": "is full: raise its maxmemory, or make room in it",
    "READONLY": "is a replica that takes no writes; name the primary in redis.url",
    "MASTERDOWN": "is a replica that has lost its primary; wait, or name another in redis.url",
    "NOREPLICAS": "waits for its replicas before it takes writes; see its log",
    "MISCONF": "takes no writes because it cannot save to its disk; free space there, see its log",
    "UNBLOCKED": "has just changed its role; wait a moment",
}
_REFUSED = {
    "NOAUTH": "wants a password and redis.url has none; put it before the host, between : and @",
    "MOVED": "is a cluster, and proxywell needs a single server",
    "CROSSSLOT": "is a cluster, and proxywell needs a single server",
    "CLUSTERDOWN": "is a cluster, and proxywell needs a single server",
    "DENIED": "is in protected mode and refuses other machines; give it a password",
}


def code_of(error: Exception) -> tuple[str, str]:
    """The first word of a server's error and what follows it; the word is empty if none."""
    if isinstance(error, redis.exceptions.NoPermissionError):
        return "NOPERM", str(error)  # the parser has taken it off
    found = _CODE.search(str(error))
    return (found[1], str(error)[found.end() :]) if found else ("", str(error))


def as_state_error(error: Exception, address: RedisAddress) -> StateError:
    """The sentence for what redis-py or the system said about this server."""
    code, _ = code_of(error)
    if code in _AWAY or isinstance(error, _AWAY_TYPES):
        said = _AWAY.get(code) or _AWAY[_code_of_type(error)]
        return StoreAwayError(f"Redis at {address.shown} {said}")
    if code in _REFUSED:
        return StateError(f"Redis at {address.shown} {_REFUSED[code]}")
    if isinstance(error, redis.exceptions.InvalidResponse):
        return _no_redis(address, str(error))
    if "user_script" in str(error):  # our script could not read what it found
        return damaged(address, address.prefix)
    if isinstance(error, redis.ResponseError | redis.AuthenticationError):
        return _refused(address, error, code)
    return _unreachable(address, error)


def damaged(address: RedisAddress, keys: str) -> StoreDamagedError:
    """The sentence for books that cannot be read; ``keys``: what their names begin with."""
    return StoreDamagedError(
        f"what Redis at {address.shown} keeps under {keys}:… cannot be read; another program has"
        " written there: delete those keys, or set another redis.prefix"
    )


_TYPES: dict[type[Exception], str] = {
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.MasterDownError: "MASTERDOWN",
}
_AWAY_TYPES = tuple(_TYPES)


def _code_of_type(error: Exception) -> str:
    return next(code for kind, code in _TYPES.items() if isinstance(error, kind))


def _refused(address: RedisAddress, error: Exception, code: str) -> StateError:
    where, text = f"Redis at {address.shown}", str(error)
    if code == "NOPERM":
        user = address.username or "default"
        return StateError(
            f"{where} does not let user {user} do this ({text.strip()}); allow it there:"
            f" ACL SETUSER {user} ~{address.prefix}* {PERMISSIONS}"
        )
    if "without any password configured" in text or "no password is set" in text:
        return StateError(f"{where} has no password, but redis.url names one; leave it out")
    if "required" in text or "unauthenticated" in text:  # a long command is not even read
        return StateError(f"{where} {_REFUSED['NOAUTH']}")
    if isinstance(error, redis.AuthenticationError) or "WRONGPASS" in text:
        return StateError(
            f"{where} does not take this user and password; correct redis.url, or the file that"
            " PROXYWELL_REDIS__URL_FILE names"
        )
    if "DB index is out of range" in text:
        return StateError(f"{where} has no database {address.database}; name another in redis.url")
    return StateError(f"{where} answered {text.strip()!r}; see `proxywell doctor`")


def _no_redis(address: RedisAddress, text: str) -> StateError:
    if _TLS_ALERT.search(text):
        return _tls_only(address)
    return StateError(
        f"what answers at {address.shown} is not Redis; correct host and port in redis.url"
    )


def _unreachable(address: RedisAddress, error: Exception) -> StateError:
    where, cause = f"Redis at {address.shown}", _root(error)
    if isinstance(error, redis.TimeoutError) or isinstance(cause, TimeoutError):
        if address.scheme == TLS and _speaks_plainly(address):
            return _no_tls(address)
        return StoreAwayError(
            f"{where} did not answer within {address.answer_s:g} s; see that it runs and is not"
            " overloaded, or raise redis.answer_s"
        )
    if isinstance(cause, ssl.SSLError) or (address.scheme == TLS and _is_file(cause)):
        return _tls_trouble(address, cause)
    if isinstance(cause, PermissionError):
        return StateError(f"{where} cannot be opened ({cause.strerror}); see its permissions")
    lost = address.scheme == PLAIN and not isinstance(cause, ConnectionRefusedError)
    if lost and not isinstance(cause, socket.gaierror) and _speaks_tls(address):
        return _tls_only(address)
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else "connection lost"
    return StoreAwayError(f"{where} cannot be reached ({reason.lower()}); see that it runs")


def _tls_trouble(address: RedisAddress, cause: BaseException) -> StateError:
    where = f"Redis at {address.shown}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StateError(
            f"{where} shows a certificate that is not trusted ({cause.verify_message}); name its"
            " authority in redis.url: ?ssl_ca_certs=FILE"
        )
    if isinstance(cause, FileNotFoundError | PermissionError):
        names = ", ".join(name for _, name in address.tls)
        return StateError(
            f"a file that redis.url names for TLS cannot be read: {names} ({cause.strerror})"
        )
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return StoreAwayError(f"{where} cannot be reached (connection lost); see that it runs")
    return _no_tls(address)


def _is_file(cause: BaseException) -> bool:
    return isinstance(cause, FileNotFoundError | PermissionError)


def _tls_only(address: RedisAddress) -> StateError:
    return StateError(
        f"Redis at {address.shown} speaks TLS only; write rediss:// in redis.url, with"
        " ?ssl_ca_certs=FILE if its authority is your own"
    )


def _no_tls(address: RedisAddress) -> StateError:
    return StateError(
        f"Redis at {address.shown} does not speak TLS; write redis:// in redis.url, or switch it on"
        " there"
    )


def _root(error: BaseException) -> BaseException:
    """What lies under redis-py's own error."""
    seen = error
    while (under := seen.__cause__ or seen.__context__) is not None:
        seen = under
    return seen


def _speaks_tls(address: RedisAddress) -> bool:
    """Whether a TLS handshake gets a TLS answer; asked when a plain connection was dropped."""
    context = ssl.create_default_context()
    try:
        with (
            socket.create_connection((address.host, address.port), address.answer_s) as plain,
            context.wrap_socket(plain, server_hostname=address.host),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return True
    except OSError:
        return False


def _speaks_plainly(address: RedisAddress) -> bool:
    """Whether a plain PING is answered; asked when a TLS handshake was not."""
    try:
        with socket.create_connection((address.host, address.port), address.answer_s) as plain:
            plain.settimeout(address.answer_s)
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in (b"+", b"-")
    except OSError:
        return False
