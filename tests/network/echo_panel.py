"""A panel whose judge is the fleet itself: it believes whoever repeats its nonce."""

from __future__ import annotations

import itertools
import re
import ssl

from proxywell.checking.ports import Answer, JudgeRequest, Sighting
from proxywell.model.failure import FailureKind
from proxywell.model.verdict import JudgeTrust

_BODY = re.compile(rb"nonce=([0-9a-f]+) exit=([0-9.:]+)")


class EchoRequest:
    """One request; the nonce is a number."""

    judge = "azenv:http://judge.test/"
    host = "judge.test"
    address = "127.0.0.1"
    port = 80
    sent_headers = (("Host", "judge.test"),)

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce

    def absolute(self) -> bytes:
        return self._request("http://judge.test")

    def origin(self) -> bytes:
        return self._request("")

    def _request(self, before: str) -> bytes:
        return f"GET {before}/?nonce={self._nonce} HTTP/1.1\r\nHost: judge.test\r\n\r\n".encode()

    def read(self, answer: Answer, *, now_s: float) -> Sighting | FailureKind:
        if answer.status != 200:
            return FailureKind.HTTP_STATUS
        found = _BODY.fullmatch(answer.body)
        if found is None:
            return FailureKind.WRONG_ANSWER
        if found[1].decode() != self._nonce:
            return FailureKind.JUDGE_REPLAY
        return Sighting(found[2].decode(), None, None, JudgeTrust.UNSIGNED)


class EchoPanel:
    """A panel in which everything can be turned on and off."""

    own_addresses: frozenset[str] = frozenset({"127.0.0.2"})
    https_context: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self._nonces = itertools.count(1)
        self.unwell_since: float | None = None
        self.well_at: float | None = None
        self.asked = 0
        self.doubts = 0
        self.allowed: int | None = None  # requests that may still be had; None: any number

    def request(
        self, *, avoid: str | None = None, https: bool = False, ipv6: bool = False
    ) -> JudgeRequest | None:
        if self.unwell_since is not None or self.allowed == 0:
            return None
        if self.allowed is not None:
            self.allowed -= 1
        self.asked += 1
        return EchoRequest(f"{next(self._nonces):x}")

    def unwell_since_s(self) -> float | None:
        return self.unwell_since

    def well_at_s(self) -> float | None:
        return self.well_at

    def control_latency_s(self) -> float | None:
        return None

    def doubt(self) -> None:
        self.doubts += 1

    async def still_well(self, judge: str) -> bool:
        return self.unwell_since is None
