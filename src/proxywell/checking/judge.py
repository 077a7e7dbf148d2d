"""One judge: how it is named, how it is asked, and when its answer is believed."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Callable
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from proxywell.checking.pages import Page, azenv_page, httpbin_page, ip_page, repeats
from proxywell.checking.ports import Answer, Baseline, Sighting
from proxywell.checking.wire import Seen, Verifier, path_of
from proxywell.errors import UsageError
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import JudgeTrust
from proxywell.protocols.request import absolute_target, build_request, host_header

# What a common browser sends, in its order; neither a name of ours nor anything of the user's.
_BROWSER_HEADERS = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "identity"),  # what is not coded cannot be a bomb
    ("Connection", "close"),
)
_PORTS = {"http": 80, "https": 443}
_PROXY_AUTHENTICATION_REQUIRED = 407
_SHOW_ENV = "show_env=1"  # else httpbin hides the very headers that proxies add


class JudgeKind(StrEnum):
    """What a judge answers."""

    PROXYWELL = "proxywell"  # ours: signed
    AZENV = "azenv"  # NAME = value lines of a CGI environment
    HTTPBIN = "httpbin"  # the JSON of /get
    IP = "ip"  # the address and nothing else


class JudgeSpec(Struct, frozen=True):
    """A judge as the user named it.

    Attributes:
        name: ``KIND:URL`` as it was written.
        kind: What it answers.
        scheme: ``http`` or ``https``.
        host: Name or address, without brackets.
        port: 1 to 65535.
        path: With its leading slash, query included; of ours, what stands before the nonce.
    """

    name: str
    kind: JudgeKind
    scheme: str
    host: str
    port: int
    path: str

    @property
    def secure(self) -> bool:
        """Whether it is asked inside TLS."""
        return self.scheme == "https"


def parse_judge(text: str) -> JudgeSpec:
    """Read ``KIND:URL``.

    Raises:
        UsageError: The kind is unknown or the URL is not a plain http or https one; the
            sentence names the nearest kind.
    """
    name = text.strip()
    kind_text, colon, url = name.partition(":")
    if not colon or url.startswith("//"):
        raise UsageError(
            f"judge {name!r} does not say its kind; write KIND:URL, "
            f"such as azenv:{name if colon else 'http://example.org/azenv.php'} "
            f"(kinds: {', '.join(JudgeKind)})"
        )
    if kind_text not in set(JudgeKind):
        near = difflib.get_close_matches(kind_text.lower(), list(JudgeKind), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}:{url}?" if near else f"kinds are {', '.join(JudgeKind)}"
        raise UsageError(f"judge {name!r} is of no known kind; {hint}")
    kind = JudgeKind(kind_text)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"judge {name!r} has no proper URL ({error}); {_URL_FORM}") from error
    spec = _spec(name, kind, parts, port)
    try:
        Judge(spec).sample()
    except ValueError as error:
        raise UsageError(f"judge {name!r} has no proper URL ({error}); {_URL_FORM}") from error
    return spec


_URL_FORM = "write KIND:http://HOST[:PORT]/PATH or KIND:https://…"


def _spec(name: str, kind: JudgeKind, parts: SplitResult, port: int | None) -> JudgeSpec:
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise UsageError(f"judge {name!r} needs an http or https URL; {_URL_FORM}")
    if parts.username is not None or parts.fragment:
        raise UsageError(f"judge {name!r}: credentials and fragments have no place in its URL")
    if not parts.hostname:
        raise UsageError(f"judge {name!r} names no host; {_URL_FORM}")
    path = parts.path or "/"
    query = parts.query
    if kind is JudgeKind.HTTPBIN:
        path = "/get" if path == "/" else path
        if _SHOW_ENV not in query.split("&"):
            query = f"{query}&{_SHOW_ENV}" if query else _SHOW_ENV
    if kind is JudgeKind.PROXYWELL:
        path, query = path.rstrip("/"), ""
    whole = f"{path}?{query}" if query else path
    return JudgeSpec(name, kind, scheme, parts.hostname, port or _PORTS[scheme], whole)


class Judge:
    """One judge with what was learnt about it; makes requests, cheaply.

    Attributes:
        spec: As the user named it.
        verifier: Believes its signatures; None for kinds that do not sign.
        addresses: Vetted addresses of its host, IPv4 first.
        baseline: What its direct path adds; None before the first direct answer.
        carries_nonce: Whether the nonce is put into the target (a page of others may not
            like it).
        repeats_nonce: Whether its page repeats the target, so that the nonce can be asked for.
    """

    def __init__(
        self,
        spec: JudgeSpec,
        *,
        verifier: Verifier | None = None,
        clock_skew_s: float = 30.0,
        own_addresses: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """Take a judge; nothing is asked yet.

        Args:
            spec: As the user named it.
            verifier: For ``proxywell`` judges.
            clock_skew_s: How far its signed time may be from ours.
            own_addresses: Says which addresses are ours.

        Raises:
            ValueError: The host or the path cannot stand in a request.
        """
        self.spec = spec
        self.verifier = verifier
        self.addresses: tuple[str, ...] = ()
        self.baseline: Baseline | None = None
        self.carries_nonce = True
        self.repeats_nonce = False
        self.own_addresses = own_addresses
        self.clock_skew_s = clock_skew_s
        host = host_header(spec.scheme, spec.host, spec.port)
        self.sent_headers = (("Host", host), *_BROWSER_HEADERS)
        origin = build_request("GET", "/", self.sent_headers)
        self._tail = origin[origin.index(b" HTTP/1.1") :]
        self._root = absolute_target(spec.scheme, spec.host, spec.port, "/")[:-1]

    @property
    def trust(self) -> JudgeTrust:
        """What its answers are worth."""
        return JudgeTrust.UNSIGNED if self.verifier is None else JudgeTrust.SIGNED

    @property
    def address(self) -> str:
        """An IPv4 address of its host, else the host again."""
        return next((ip for ip in self.addresses if ":" not in ip), self.spec.host)

    def request(self) -> Request:
        """A request with a fresh nonce of 128 bits, good for one use."""
        return Request(self, secrets.token_hex(16))

    def sample(self) -> bytes:
        """A whole request, every part of it checked.

        Raises:
            ValueError: The path holds what no request may hold.
        """
        return build_request("GET", self.target("0" * 32), self.sent_headers)

    def target(self, nonce: str) -> str:
        """The path and query that are asked for."""
        path = self.spec.path
        if self.spec.kind is JudgeKind.PROXYWELL:
            return path + path_of(nonce)
        if not self.carries_nonce:
            return path
        return f"{path}{'&' if '?' in path else '?'}v={nonce}"

    def origin(self, nonce: str) -> bytes:
        """The request in origin form."""
        return b"GET " + self.target(nonce).encode("latin-1") + self._tail

    def absolute(self, nonce: str) -> bytes:
        """The request in absolute form."""
        return f"GET {self._root}{self.target(nonce)}".encode("latin-1") + self._tail

    def page(self, body: bytes, nonce: str, *, now_s: float) -> Page | FailureKind:
        """Read the body of an answer with status 200 to the request with this nonce."""
        if self.spec.kind is JudgeKind.PROXYWELL:
            return self._signed_page(body, nonce, now_s=now_s)
        page = _READERS[self.spec.kind](body)
        if page is None:
            return FailureKind.WRONG_ANSWER
        if self.repeats_nonce and not repeats(page.targets, nonce):
            return FailureKind.JUDGE_REPLAY if page.targets else FailureKind.WRONG_ANSWER
        if self.spec.kind is JudgeKind.HTTPBIN and self._claimed(page):
            return Page("", page.headers, page.http_version, page.targets)
        return page

    def _signed_page(self, body: bytes, nonce: str, *, now_s: float) -> Page | FailureKind:
        if self.verifier is None:
            return FailureKind.WRONG_ANSWER
        seen = self.verifier.open(body, nonce=nonce, now_s=now_s, clock_skew_s=self.clock_skew_s)
        if not isinstance(seen, Seen):
            return seen
        return Page(seen.peer_ip, seen.raw_headers, seen.http_version)

    def _claimed(self, page: Page) -> bool:
        """Httpbin puts X-Forwarded-For in the peer's place, whoever wrote it.

        A balancer in front of it appends the peer, and then the direct path shows the header.
        """
        direct = self.baseline or Baseline()
        by_balancer = "x-forwarded-for" in {name for name, _ in direct.fixed} | direct.volatile
        return not by_balancer and any(
            name.lower() == "x-forwarded-for" for name, _ in page.headers or ()
        )


_READERS: dict[JudgeKind, Callable[[bytes], Page | None]] = {
    JudgeKind.AZENV: azenv_page,
    JudgeKind.HTTPBIN: httpbin_page,
    JudgeKind.IP: ip_page,
}


class Request:
    """One request to one judge; implements ``ports.JudgeRequest``."""

    __slots__ = ("_judge", "_nonce", "_read")

    def __init__(self, judge: Judge, nonce: str) -> None:
        """Take the judge and a nonce that nobody else has."""
        self._judge = judge
        self._nonce = nonce
        self._read = False

    @property
    def judge(self) -> str:
        """The judge as the user wrote it."""
        return self._judge.spec.name

    @property
    def host(self) -> str:
        """Host name or address to connect to through a tunnel."""
        return self._judge.spec.host

    @property
    def address(self) -> str:
        """An IPv4 address of the host, else the host again."""
        return self._judge.address

    @property
    def port(self) -> int:
        """1 to 65535."""
        return self._judge.spec.port

    @property
    def nonce(self) -> str:
        """32 hexadecimal digits that no other request carries."""
        return self._nonce

    @property
    def sent_headers(self) -> tuple[tuple[str, str], ...]:
        """What is sent, in order."""
        return self._judge.sent_headers

    def absolute(self) -> bytes:
        """The whole request for a forward proxy."""
        return self._judge.absolute(self._nonce)

    def origin(self) -> bytes:
        """The whole request for inside a tunnel."""
        return self._judge.origin(self._nonce)

    def look(self, answer: Answer, *, now_s: float) -> Page | FailureKind:
        """Believe the answer to a request without a proxy; never raises on its bytes."""
        if self._read:
            return FailureKind.JUDGE_REPLAY
        self._read = True
        if answer.status == _PROXY_AUTHENTICATION_REQUIRED:
            return FailureKind.AUTH_REQUIRED
        if answer.status != 200:
            return FailureKind.HTTP_STATUS
        if answer.leftover:
            return FailureKind.BAD_HTTP
        return self._judge.page(answer.body, self._nonce, now_s=now_s)

    def read(self, answer: Answer, *, now_s: float) -> Sighting | FailureKind:
        """Believe the answer or say what is wrong with it; never raises on its bytes."""
        page = self.look(answer, now_s=now_s)
        if not isinstance(page, Page):
            return page
        judge = self._judge
        if page.peer_ip in judge.own_addresses():
            return FailureKind.NOT_A_PROXY
        return Sighting(
            exit_ip=page.peer_ip,
            headers=page.headers,
            http_version=page.http_version,
            trust=judge.trust,
            inside_tls=judge.spec.secure,
            sent=judge.sent_headers,
            baseline=judge.baseline or Baseline(),
        )
