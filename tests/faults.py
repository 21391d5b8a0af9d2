"""A TCP proxy that understands just enough HTTP/1.1 to lose, cut, hold or answer one request."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Fault(Enum):
    """What happens to one request."""

    LOST = auto()
    """Read, never forwarded; the connection is reset."""
    CUT = auto()
    """Forwarded; when the server has answered, the connection is reset instead of passing the answer on."""
    SILENT = auto()
    """Forwarded; the answer never comes and the connection stays."""
    HELD = auto()
    """Forwarded when ``release`` is called, even if the client has gone by then."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Not forwarded; answered by the proxy."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: bytes


class Proxy:
    """``async with Proxy(url) as proxy``: talk to ``proxy.url``. ``requests`` are all that clients sent, in order.

    A fault strikes the next request with one of ``methods`` and is used up by it.
    """

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        self._faults: deque[tuple[Fault | Answer, frozenset[str]]] = deque()
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_request = -1
        self.requests: list[Request] = []
        self.held = asyncio.Event()
        """Set when a request is being held."""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.method in WRITES]

    def strike(self, fault: Fault | Answer, methods: frozenset[str] = WRITES) -> None:
        self._faults.append((fault, methods))

    def release(self) -> None:
        self._released.set()

    def refuse_after(self, requests: int) -> None:
        """Answers so many more, and refuses every connection after them."""
        self._last_request = len(self.requests) + requests

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio reports the cancellation of one that it started as a failure.
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError, asyncio.IncompleteReadError):  # either side hung up: so does the other
                answers, upstream = await asyncio.open_connection(*self._upstream)
                while (request := await _read_request(reader)) is not None:
                    await self._pass_on(request, upstream, answers, writer)
        finally:
            for side in (writer, upstream):
                if side is not None:
                    side.close()

    async def _pass_on(
        self,
        raw: bytes,
        upstream: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        client: asyncio.StreamWriter,
    ) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        method, path = head.split(b" ", 2)[:2]
        request = Request(method.decode(), path.decode(), body)
        self.requests.append(request)
        if len(self.requests) == self._last_request:
            self._stop_listening()
        match self._fault_for(request):
            case Answer() as answer:
                client.write(_render(answer))
            case Fault.LOST:
                _reset(client)
            case Fault.CUT:
                upstream.write(raw)
                await _read_response(answers)
                _reset(client)
            case Fault.SILENT:
                upstream.write(raw)
                await asyncio.Event().wait()
            case Fault.HELD:
                self.held.set()
                await self._released.wait()
                upstream.write(raw)
                answered = await _read_response(answers)
                with suppress(OSError):
                    client.write(answered)
            case None:
                upstream.write(raw)
                client.write(await _read_response(answers))
        if not client.is_closing():
            await client.drain()

    def _fault_for(self, request: Request) -> Fault | Answer | None:
        if self._faults and request.method in self._faults[0][1]:
            return self._faults.popleft()[0]
        return None


async def _read_request(reader: asyncio.StreamReader) -> bytes | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    return head + await reader.readexactly(_content_length(head))


async def _read_response(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower(), "the servers under test send Content-Length"
    return head + await reader.readexactly(_content_length(head))


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _render(answer: Answer) -> bytes:
    headers = {"Content-Type": "application/json", **answer.headers, "Content-Length": str(len(answer.body))}
    lines = [f"HTTP/1.1 {answer.status} Injected", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body


def _reset(client: asyncio.StreamWriter) -> None:
    """A TCP RST, not an orderly end."""
    sock: socket.socket = client.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()
