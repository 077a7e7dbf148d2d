"""Proxies that pass for working at first sight: forgers, replayers, pickers, quitters."""

from __future__ import annotations

import json
import time

from proxywell.checking.wire import Seen, nonce_in, seal
from proxywell.judge.keys import JudgeKey
from proxywell.lab.answers import is_whole
from proxywell.lab.forward import ANSWERED, ProxyVisit
from proxywell.lab.fronts import HOP_BY_HOP, Request, Wanted, read_request
from proxywell.lab.junk import page
from proxywell.model.endpoint import Protocol

_OWN_KEY = JudgeKey.fresh()  # nobody believes it
FORGET_S = 60.0  # a first-request-only proxy takes a client for a new one after this


def forged(kind: str, request: Request, *, host: str, exit_ip: str) -> bytes:
    """An answer that a judge of this kind might give, made up without asking it.

    Args:
        kind: ``azenv``, ``httpbin``, ``ip``, or ``signed``: our judge's form, without its key.
        request: What the client asked.
        host: The judge's ``host:port`` as the client named it.
        exit_ip: The address to be claimed.
    """
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in request.headers
        if name.lower() not in HOP_BY_HOP
    ]
    target = request.target.decode("latin-1")
    path = target if target[:1] == "/" else "/" + target.partition("://")[2].partition("/")[2]
    if kind == "azenv":
        lines = [f"REMOTE_ADDR = {exit_ip}", f"REQUEST_URI = {path}", "REQUEST_METHOD = GET"]
        lines += [f"HTTP_{name.upper().replace('-', '_')} = {value}" for name, value in headers]
        return page("200 OK", "<pre>\n" + "\n".join(lines) + "\n</pre>\n")
    if kind == "httpbin":
        text = {
            "args": {},
            "headers": dict(headers),
            "origin": exit_ip,
            "url": f"http://{host}{path}",
        }
        return page("200 OK", json.dumps(text), kind="application/json")
    if kind == "ip":
        return page("200 OK", exit_ip + "\n", kind="text/plain")
    seen = Seen(
        nonce=nonce_in(path.partition("?")[0]) or "0" * 32,
        peer_ip=exit_ip,
        peer_port=40_404,
        http_version="1.1",
        target_form="origin",
        method="GET",
        raw_headers=tuple(headers),
        ts=time.time(),
    )
    return page("200 OK", seal(seen, sign=_OWN_KEY.sign, key=_OWN_KEY.public).decode())


class ForgingVisit(ProxyVisit):
    """Never asks the judge: makes up its answer; option: which kind of judge."""

    def reach(self, wanted: Wanted) -> None:
        """See ProxyVisit: there is no way, only the appearance of one."""
        self.granted()

    def granted(self) -> None:
        """See ProxyVisit."""
        self._step = self._make_up
        wanted = self.wanted
        assert wanted is not None
        if wanted.protocol is Protocol.HTTP:
            self._make_up()
        else:
            self.say_granted(wanted.protocol)

    def _pass_on(self) -> None:
        self._make_up()

    def _make_up(self) -> None:
        request = self.request or read_request(self._got)
        wanted = self.wanted
        if request is None or wanted is None:
            if not self._got[:1].isalpha():
                self.close()  # TLS cannot be made up
            return
        self._step = self._wait
        answer = forged(
            self.proxy.behaviour.option,
            request,
            host=f"{wanted.host}:{wanted.port}",
            exit_ip=self.exit(),
        )
        self.at(ANSWERED, self._last_words, answer)


class ReplayingVisit(ProxyVisit):
    """A cache gone wrong: gives the first judge's first answer to whoever asks any judge.

    Pages of other hosts it keeps by their whole address, as a cache may.
    """

    def waits_for_whole(self) -> bool:
        """See ProxyVisit."""
        return self.request is not None

    def change(self, answer: bytes) -> bytes:
        """See ProxyVisit."""
        wanted, request = self.wanted, self.request
        assert wanted is not None
        assert request is not None
        asks_judge = self.around.place_of(wanted.host, wanted.port) in self.around.judges
        key = "judge" if asks_judge else request.target.decode("latin-1")
        kept: bytes = self.proxy.memory.setdefault(key, answer)
        return kept


class OwnAddressVisit(ProxyVisit):
    """Connects on from the client's own address, as an interception on our side would."""

    def exit(self) -> str:
        """See ProxyVisit."""
        return self.peer


class JudgeOnlyVisit(ProxyVisit):
    """Lets judges through and nothing else; option ``one``: only the first judge asked for."""

    def allows(self, wanted: Wanted) -> bool:
        """See ProxyVisit."""
        place = self.around.place_of(wanted.host, wanted.port)
        if self.proxy.behaviour.option == "one":
            known: object = self.proxy.memory.setdefault("judge", place)
            return known == place
        return place in self.around.judges


class FirstRequestVisit(ProxyVisit):
    """Serves each client once and refuses it from then on, for a minute."""

    def allows(self, wanted: Wanted) -> bool:
        """See ProxyVisit."""
        now_s = self.around.loop.time()
        served_s: float | None = self.proxy.memory.get(self.peer)
        if served_s is not None and now_s - served_s < FORGET_S:
            return False
        self.proxy.memory[self.peer] = now_s
        return True


class CutOffVisit(ProxyVisit):
    """Closes in the middle of every answer's body."""

    def waits_for_whole(self) -> bool:
        """See ProxyVisit."""
        return self.request is not None or bytes(self._held or b"")[:5] == b"HTTP/"

    def change(self, answer: bytes) -> bytes:
        """See ProxyVisit."""
        head, blank, body = answer.partition(b"\r\n\r\n")
        if not is_whole(answer) or not head.startswith(b"HTTP/"):
            return answer[: len(answer) // 2]
        return head + blank + body[: len(body) // 2]
