"""One connection to a Redis server: it runs our script, and what goes wrong becomes a sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from proxywell.refresh.ledgers.redis_address import TLS, UNIX, RedisAddress
from proxywell.refresh.ledgers.redis_troubles import as_state_error, code_of


class Refusal(Exception):  # noqa: N818 - an answer of ours, no fault
    """The script itself said no; what its words mean is the ledger's to say.

    Attributes:
        code: The first word.
        words: The others.
    """

    def __init__(self, code: str, words: list[str]) -> None:
        super().__init__(code)
        self.code = code
        self.words = words


class Script:
    """A Lua script, and the name under which a server keeps it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Link:
    """One connection, made when it is first needed and again after it was lost.

    For one thread, and not to be carried over a fork.

    Args:
        address: The server.
        refusals: First words of the errors that our script raises.
    """

    def __init__(self, address: RedisAddress, refusals: frozenset[str] = frozenset()) -> None:
        self.address = address
        self._refusals = refusals
        self._wire = _wire(address)
        self._proven = False  # the connection that we have has answered before

    def call(self, *command: str | bytes | float, again: bool = True) -> Any:
        """Run one command.

        Args:
            command: Its words.
            again: Whether it is sent once more if the connection turns out to have been lost
                since the last answer, so that one that the server closed costs nothing.

        Returns:
            The answer, texts as bytes.

        Raises:
            StoreAwayError: No answer, or not now; the command may have been done.
            StateError: The server refuses us, or is none of ours.
        """
        try:
            return self._told(command, again=again)
        except (redis.RedisError, OSError) as error:
            raise as_state_error(error, self.address) from error

    def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | bytes],
        *,
        again: bool = True,
    ) -> Any:
        """Run a script by its name; a server that does not know it is given it.

        Args:
            script: The script.
            keys: Its keys.
            arguments: Its arguments.
            again: See ``call``.

        Raises:
            Refusal: The script said no.
            StoreAwayError: See ``call``.
            StateError: See ``call``.
        """
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            try:
                return self._told(command, again=again)
            except redis.exceptions.NoScriptError:
                self._told(("SCRIPT LOAD", script.text), again=True)
                return self._told(command, again=again)
        except (redis.RedisError, OSError) as error:
            code, words = code_of(error)
            if code in self._refusals:
                raise Refusal(code, words.split()) from None
            raise as_state_error(error, self.address) from error

    def close(self) -> None:
        """Let go of the connection; works twice."""
        self._proven = False
        self._wire.disconnect()

    def _told(self, command: tuple[str | bytes | float, ...], *, again: bool) -> Any:
        proven = self._proven
        try:
            return self._ask(command)
        except redis.ConnectionError as error:
            if not (again and proven) or type(error) is not redis.ConnectionError:
                raise
            return self._ask(command)

    def _ask(self, command: tuple[str | bytes | float, ...]) -> Any:
        try:
            self._wire.send_command(*command)
            answer = self._wire.read_response()
        except redis.ResponseError:
            self._proven = True
            raise
        except BaseException:
            self.close()  # or the next command would read this one's answer
            raise
        self._proven = True
        return answer


class _Wire(Protocol):
    def send_command(self, *command: str | bytes | float) -> None: ...
    def read_response(self) -> Any: ...
    def disconnect(self) -> None: ...


def _wire(address: RedisAddress) -> _Wire:
    common: dict[str, Any] = {
        "db": address.database,
        "username": address.username,
        "password": None if address.password is None else address.password.reveal(),
        "socket_timeout": address.answer_s,
        "socket_connect_timeout": address.answer_s,
        "protocol": 2,
        "driver_info": None,  # or it spends two round trips on telling its own name
        "retry": Retry(NoBackoff(), 0),
    }
    kind: Any = Connection
    if address.scheme == UNIX:
        kind = UnixDomainSocketConnection
        common["path"] = address.path
    else:
        common |= {"host": address.host, "port": address.port, "socket_keepalive": True}
    if address.scheme == TLS:
        kind = SSLConnection
        common |= dict(address.tls)
    made: _Wire = kind(**common)
    return made
