"""Reading an HTTP answer of bounded size, and saying in one line why there was none."""

from __future__ import annotations

import os
import socket

import aiohttp

MAX_BODY_BYTES = 10 * 1024 * 1024
"""No exporter or query of ours comes near it; it bounds memory when an address serves something else."""

HTTP_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)
"""What a request can raise; ``why`` puts each into words."""


async def read_body(response: aiohttp.ClientResponse, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The decompressed body; ValueError when it is larger than ``max_bytes``."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise ValueError(f"the answer is larger than {max_bytes / 2**20:g} MiB")
    return bytes(body)


def why(error: BaseException, *, timeout_s: float) -> str:
    """One line for a person: ``no answer within 3 s``, ``Connection refused``."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed the connection without an answer"
    if isinstance(error, aiohttp.InvalidURL):
        return "not a usable address"
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def one_line(text: str, limit: int = 200) -> str:
    """Text from outside, fit for a status line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"
