"""Proxies that change what passes: pages, scripts, cookies, files. In plain HTTP only."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from proxywell.lab.answers import Page, read_answer, write_answer
from proxywell.lab.forward import ProxyVisit
from proxywell.lab.fronts import Malformed, read_request
from proxywell.lab.proxy import Proxy
from proxywell.lab.visit import Surroundings
from proxywell.model.endpoint import Protocol

AD = b'<script src="http://127.0.0.1:1/ad.js"></script>'
FRAME = b'<iframe src="http://127.0.0.1:1/ad.html" width="1" height="1"></iframe>'
PORTAL = b"<!DOCTYPE html><html><body><h1>You have won</h1></body></html>"
ONE_IN = 20  # of the one that tampers now and then


def _is_html(page: Page) -> bool:
    return page.header(b"content-type").startswith(b"text/html")


def _before_end(page: Page, what: bytes) -> Page:
    if not _is_html(page):
        return page
    body, found, rest = page.body.rpartition(b"</body>")
    return page.with_body(body + what + found + rest if found else page.body + what)


def _script(page: Page) -> Page:
    return _before_end(page, AD)


def _iframe(page: Page) -> Page:
    return _before_end(page, FRAME)


def _cookie(page: Page) -> Page:
    return replace(page, headers=(*page.headers, (b"Set-Cookie", b"track=1; Path=/")))


def _link(page: Page) -> Page:
    if not _is_html(page):
        return page
    changed = re.sub(rb'href="[^"#]+"', b'href="http://127.0.0.1:1/shop?ref=us"', page.body)
    return page.with_body(changed)


def _binary(page: Page) -> Page:
    kind = page.header(b"content-type")
    if kind.startswith(b"text/") or b"json" in kind or len(page.body) < 16:
        return page
    return page.with_body(page.body[:-8] + b"\x90" * 8)


def _replaced(page: Page) -> Page:
    return page.with_body(PORTAL) if _is_html(page) and page.status == 200 else page


def _redirect(page: Page) -> Page:
    if not _is_html(page) or page.status != 200:
        return page
    headers = (*page.headers, (b"Location", b"http://127.0.0.1:1/portal"))
    return replace(page, status=302, reason=b"Found", headers=headers, body=b"")


def _truncate(page: Page) -> Page:
    return page.with_body(page.body[:4096]) if len(page.body) > 4096 else page


def _status(page: Page) -> Page:
    return replace(page, status=200, reason=b"OK", body=PORTAL) if page.status == 404 else page


CHANGES: dict[str, Callable[[Page], Page]] = {
    "script_inserted": _script,
    "iframe": _iframe,
    "cookie_added": _cookie,
    "link_rewritten": _link,
    "binary_patched": _binary,
    "replaced_page": _replaced,
    "redirected": _redirect,
    "truncated": _truncate,
    "status_changed": _status,
}


class TamperingVisit(ProxyVisit):
    """Changes answers to forwarded requests and to plain HTTP inside tunnels.

    What it does is its behaviour's class of tampering; option: it does so once in this many
    answers, by chance.
    """

    def __init__(self, around: Surroundings, proxy: Proxy, peer: str) -> None:
        super().__init__(around, proxy, peer)
        self._http_inside: bool | None = None  # of a tunnel; None until its first bytes

    def from_client(self, data: bytes) -> None:
        """See ProxyVisit."""
        wanted = self.wanted
        if self._http_inside is None and wanted is not None:
            self._http_inside = wanted.protocol is not Protocol.HTTP and _is_request(data)
        super().from_client(data)

    def waits_for_whole(self) -> bool:
        """See ProxyVisit."""
        return self.request is not None or bool(self._http_inside)

    def change(self, answer: bytes) -> bytes:
        """See ProxyVisit."""
        one_in = self.proxy.behaviour.option or 1
        if one_in > 1 and self.around.draw.randrange(one_in):
            return super().change(answer)
        try:
            page = read_answer(answer, ended=True)
        except Malformed:
            return answer
        assert page is not None
        self.around.count("tampered")
        return write_answer(CHANGES[self.proxy.behaviour.tampering or ""](page))


def _is_request(data: bytes) -> bool:
    try:
        return read_request(data) is not None
    except Malformed:
        return False
