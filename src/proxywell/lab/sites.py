"""What the lab's own servers say: unsigned judges, an ordinary site, a greeting."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import Callable
from typing import cast

from proxywell.lab.fronts import Request
from proxywell.lab.web import Reply, Site

PAGE = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>The village library</title>
<link rel="stylesheet" href="/style.css"><script src="/lib.js"></script></head>
<body><h1>The village library</h1><p>Open on weekdays from nine to five.</p>
<div id="ad-slot" class="banner"></div>
<p>See <a href="/books.html">our books</a> and <a href="/contact.html">how to find us</a>.</p>
<form action="/login" method="post"><label>Card <input name="card"></label>
<label>Word <input name="word" type="password"></label><button>Enter</button></form>
%b
</body></html>
""" % (b"<p>Reading is to the mind what walking is to the body.</p>\n" * 60)
SCRIPT = b"(function () { window.library = { open: true }; })();\n" * 800
STYLE = b"body { font-family: serif; margin: 2em; }\n.banner { height: 90px; }\n"
BIG = b"".join(b"line %06d of the long text\n" % number for number in range(4000))


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(range(0, 256, 32))) * 8)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def _zip() -> bytes:
    """An archive with one stored file."""
    name, data = b"readme.txt", b"A tiny archive.\n"
    check = zlib.crc32(data)
    local = struct.pack(
        "<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 33, check, len(data), len(data), len(name), 0
    )
    central = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        b"PK\1\2", 20, 20, 0, 0, 0, 33, check, len(data), len(data), len(name), 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    start = len(local) + len(name) + len(data)
    size = len(central) + len(name)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, size, start, 0)
    return local + name + data + central + name + end


_PAGES: dict[bytes, Reply] = {
    b"/": Reply(PAGE, "text/html; charset=utf-8"),
    b"/page.html": Reply(PAGE, "text/html; charset=utf-8"),
    b"/lib.js": Reply(SCRIPT, "text/javascript"),
    b"/style.css": Reply(STYLE, "text/css"),
    b"/a.png": Reply(_png(), "image/png"),
    b"/tool.exe": Reply(b"MZ" + bytes(range(256)) * 4, "application/octet-stream"),
    b"/pkg.zip": Reply(_zip(), "application/zip"),
    b"/data.json": Reply(b'{"books": 4211, "open": true}\n', "application/json"),
    b"/big.txt": Reply(BIG),
    b"/empty": Reply(status="204 No Content"),
    b"/redir": Reply(status="302 Found", headers=("Location: /page.html",)),
    b"/cookie": Reply(b"set\n", headers=("Set-Cookie: visit=1; Path=/",)),
}
_MISSING = Reply(b"<h1>Not found</h1>", "text/html; charset=utf-8", "404 Not Found")


def library(request: Request, peer: str) -> Reply:
    """The ordinary site, the same for everybody."""
    del peer
    return _PAGES.get(request.target.partition(b"?")[0], _MISSING)


def azenv(request: Request, peer: str) -> Reply:
    """A judge in the form of the azenv scripts: environment variables, one a line."""
    path, _, query = request.target.decode("latin-1").partition("?")
    lines = [
        f"REMOTE_ADDR = {peer}",
        f"REQUEST_METHOD = {request.method.decode('latin-1')}",
        f"REQUEST_URI = {request.target.decode('latin-1')}",
        f"QUERY_STRING = {query}",
        f"SCRIPT_NAME = {path}",
    ]
    for name, value in request.headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        lines.append(f"HTTP_{key} = {value.decode('latin-1')}")
    body = "<html><body><pre>\n" + "\n".join(lines) + "\n</pre></body></html>\n"
    return Reply(body.encode("latin-1"), "text/html")


_HIDDEN = {"via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-real-ip"}


def httpbin(request: Request, peer: str) -> Reply:
    """A judge in the form of httpbin's ``/get``; like it, hides ``Via`` unless asked for all."""
    path, _, query = request.target.decode("latin-1").partition("?")
    if path != "/get":
        return _MISSING
    pairs = [part.partition("=") for part in query.split("&") if part]
    arguments = {name: value for name, _, value in pairs}
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("latin-1").title(), raw_value.decode("latin-1")
        if "show_env" in arguments or name.lower() not in _HIDDEN:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    lower = {name.lower(): value.decode("latin-1") for name, value in _lowered(request)}
    origin = lower.get("x-forwarded-for")
    arguments.pop("show_env", None)
    host = lower.get("host", "")
    content = {
        "args": arguments,
        "headers": headers,
        "origin": f"{origin}, {peer}" if origin else peer,
        "url": f"http://{host}{request.target.decode('latin-1')}",
    }
    return Reply(json.dumps(content, indent=2).encode() + b"\n", "application/json")


def _lowered(request: Request) -> list[tuple[str, bytes]]:
    return [(name.decode("latin-1").lower(), value) for name, value in request.headers]


def address(request: Request, peer: str) -> Reply:
    """A judge that says nothing but the client's address."""
    del request
    return Reply(f"{peer}\n".encode())


def documents(pages: dict[bytes, Callable[[], Reply]]) -> Site:
    """A site of pages made when they are asked for; ``/healthz`` comes with it."""

    def answer(request: Request, peer: str) -> Reply:
        del peer
        page = pages.get(request.target.partition(b"?")[0])
        if page is not None:
            return page()
        return Reply(b"ok\n") if request.target == b"/healthz" else _MISSING

    return answer


class Greeter(asyncio.Protocol):
    """A TCP server that speaks first, like one of mail; says what it hears once more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"220 greeter.lab.test at your service\r\n")

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._transport.write(data)
