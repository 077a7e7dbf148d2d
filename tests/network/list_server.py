"""A server of lists on loopback that can be as nasty as the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

Page: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Request:
    """One request as it arrived."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.path = first.split(" ")[1]
        self.headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)


class ListServer:
    """Answers each path with what was put there; keeps what it was asked.

    Attributes:
        pages: By path: a whole answer, or a coroutine that writes one.
        requests: Everything that was asked.
        connections: How often somebody connected.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.pages: dict[str, bytes | Page] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self._serving: set[asyncio.Task[None]] = set()

    def put(self, path: str, body: bytes, *headers: str, status: str = "200 OK") -> str:
        """Answer a path with a body; give the URL."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
        self.pages[path] = "\r\n".join([*lines, *headers, "", ""]).encode() + body
        return self.base + path

    def put_page(self, path: str, page: Page) -> str:
        """Answer a path by a coroutine; give the URL."""
        self.pages[path] = page
        return self.base + path

    def asked(self, path: str) -> list[Request]:
        """What was asked of one path."""
        return [request for request in self.requests if request.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answering = asyncio.current_task()
        assert answering is not None
        self._serving.add(answering)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._serving.discard(answering)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = Request(await reader.readuntil(b"\r\n\r\n"))
        self.requests.append(request)
        page = self.pages.get(request.path, b"HTTP/1.1 404 Not Found\r\n\r\n")
        if isinstance(page, bytes):
            writer.write(page)
            await writer.drain()
        else:
            await page(writer)

    async def stop(self) -> None:
        """End what is still being answered."""
        serving = list(self._serving)
        for answering in serving:
            answering.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@asynccontextmanager
async def list_server(
    host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[ListServer]:
    """Serve on a free port until the block ends."""
    server = ListServer("")
    listening = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    server.base = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield server
    finally:
        listening.close()
        await server.stop()
