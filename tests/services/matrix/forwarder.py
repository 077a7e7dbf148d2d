"""A TCP forwarder on loopback between a server and its clients, which can be made unwell."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from typing import Any

_CALL_S = 5.0
_READ_BYTES = 65_536


class Forwarder:
    """Passes bytes on in both directions, on a thread of its own, until it is closed.

    A hole swallows nothing and refuses nothing: bytes stay where they are, as on a network that
    lost its way, and arrive when it has healed. A new connection is taken by the kernel
    meanwhile, and its client hears nothing.

    Args:
        port: Of the server, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._delay_s = 0.0
        self._ending = False
        self._open = asyncio.Event()
        self._open.set()
        self._ways: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="forwarder")
        self._thread.start()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def make_hole(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._call(self._shut())

    def heal(self) -> None:
        """Everything passes again, also what was held back."""
        self._call(self._let_through())

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        self._call(self._reset())

    def slow_down(self, delay_s: float) -> None:
        """Let what a client sends arrive so much later."""
        self._delay_s = delay_s

    def point_to(self, port: int) -> None:
        """Lead new connections to another server; those that there are stay."""
        self._target = port

    def close(self) -> None:
        """Cut everything and end; works twice."""
        if self._thread.is_alive():
            self._call(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CALL_S)
            self._loop.close()

    # --- on the loop's thread

    def _call(self, step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(_CALL_S)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._take, "127.0.0.1", 0)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._open.wait()
            if self._ending:
                raise ConnectionAbortedError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            self._writers.discard(writer)
            return
        self._writers.add(far_writer)
        ways = [
            self._loop.create_task(self._pass(reader, far_writer, slowly=True)),
            self._loop.create_task(self._pass(far_reader, writer, slowly=False)),
        ]
        self._ways.update(ways)
        try:
            await asyncio.wait(ways)
        finally:
            self._ways.difference_update(ways)
            for one in (writer, far_writer):
                one.close()
                self._writers.discard(one)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_READ_BYTES):  # ends when one side has closed
                if slowly and self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        await self._open.wait()
        with contextlib.suppress(OSError):
            writer.close()

    async def _shut(self) -> None:
        self._open.clear()

    async def _let_through(self) -> None:
        self._open.set()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _end(self) -> None:
        self._ending = True
        self._server.close()
        self._open.set()
        for way in self._ways:
            way.cancel()
        await self._reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_CALL_S / 2)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once: what was not sent is dropped, and the other side gets an RST."""
    at = writer.get_extra_info("socket")
    if at is not None:
        with contextlib.suppress(OSError):
            at.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
