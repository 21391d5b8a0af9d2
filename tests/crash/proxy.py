"""A TCP proxy that loses, delays, cuts and resets: what a network does to a replica's connections."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536


class Cut(Enum):
    """What is to become of the next thing that a client says on one connection."""

    REQUEST = auto()
    """It never arrives; both sides see a reset."""
    REPLY = auto()
    """It arrives and is carried out; the answer is lost, and the client sees a reset."""


class _Link:
    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.cut: Cut | None = None
        self.said = False
        """Whether the client has said what ``cut`` waits for."""

    def reset(self) -> None:
        for writer in (self.client, self.server):
            with suppress(OSError, AttributeError):
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class TcpProxy:
    """``async with TcpProxy(host, port) as proxy``: connect to 127.0.0.1:``proxy.port``.

    ``address`` may be a function where the server's port is known only later. ``delay_s`` holds back each piece of
    data, in both directions; ``frozen`` lets nothing through while connections stay open.
    """

    def __init__(self, address: Callable[[], tuple[str, int]]) -> None:
        self._address = address
        self._server: asyncio.Server | None = None
        self._links: dict[int, _Link] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._away = False
        self._next: Cut | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.delay_s = 0.0
        self.port = 0
        self.cuts = 0
        """Connections cut by any of the faults."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset_all(self) -> None:
        """Every connection there is, at once."""
        for link in list(self._links.values()):
            self._cut(link)

    def go_away(self) -> None:
        """From now connections are reset, the present ones and every new one."""
        self._away = True
        self.reset_all()

    def come_back(self) -> None:
        self._away = False

    def freeze(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def cut(self, client_port: int, what: Cut) -> bool:
        """Cuts the connection that a client made from ``client_port``, at what it says next. False: no such one."""
        link = self._links.get(client_port)
        if link is not None:
            link.cut, link.said = what, False
        return link is not None

    def cut_next(self, what: Cut) -> None:
        """The same for the next connection that is opened."""
        self._next = what

    def _cut(self, link: _Link) -> None:
        self.cuts += 1
        link.reset()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio reports the cancellation of one that it started as a failure.
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        port = int(peer[1]) if peer else 0
        link: _Link | None = None
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if self._away:
                    _Link(writer, writer).reset()
                    return
                answers, upstream = await asyncio.open_connection(*self._address())
                link = _Link(writer, upstream)
                link.cut, self._next = self._next, None
                self._links[port] = link
                pumps = [
                    asyncio.create_task(self._pump(reader, upstream, link, of_client=True)),
                    asyncio.create_task(self._pump(answers, writer, link, of_client=False)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            if link is not None and self._links.get(port) is link:
                del self._links[port]
            for side in (writer, link.server if link is not None else writer):
                side.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: _Link, *, of_client: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                if link.cut is not None:
                    if of_client:
                        link.said = True
                        if link.cut is Cut.REQUEST:
                            self._cut(link)
                            return
                    elif link.said:
                        self._cut(link)
                        return
                sink.write(data)
                await sink.drain()
