"""Pixie's API: scripts in, tables out, over gRPC-web."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from urllib.parse import unquote

import aiohttp

from pipeline.adapters.telemetry.guard import Guard
from pipeline.adapters.telemetry.http import HTTP_FAILURES, one_line, read_body, why
from pipeline.adapters.telemetry.pixie_wire import Table, Value, WireError, execute_script, read_result
from pipeline.adapters.telemetry.upstream import retry_after_s, said
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError

_PATH = "/px.api.vizierpb.VizierService/ExecuteScript"
_CONTENT = "application/grpc-web+proto"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TEMPORARY = {
    1: "cancelled",
    2: "unknown",
    4: "deadline exceeded",
    8: "resource exhausted",
    10: "aborted",
    13: "internal",
    14: "unavailable",
}
"""gRPC's codes for what may be otherwise the next time (google.rpc.Code)."""


class Pixie:
    """One cluster. ``url`` is where Pixie Cloud serves gRPC-web, as its own page uses it: ``https://work.DOMAIN``, with
    the passthrough port (4444) where the installation has one. ``key`` is an API key, ``cluster_id`` the cluster's
    UUID.

    ``timeout_s`` bounds a script as a whole, ``concurrency`` how many run at once: they run on the cluster's own nodes.
    Results pass through Pixie Cloud under TLS; end-to-end encryption is not asked for. Raises ConfigurationError.
    """

    def __init__(self, url: str, key: str, cluster_id: str, *, timeout_s: float = 15.0, concurrency: int = 2) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("the address of Pixie must start with http:// or https://")
        if not key or any(char in key for char in "\r\n\0"):
            raise ConfigurationError("Pixie needs an API key, in one line")
        if not _UUID.fullmatch(cluster_id):
            raise ConfigurationError("the Pixie cluster id is a UUID: px get viziers shows it")
        self._url = f"{url.rstrip('/')}{_PATH}"
        self._headers = {
            "pixie-api-key": key,
            "pixie-api-client": "sre-bot",
            "Content-Type": _CONTENT,
            "Accept": _CONTENT,
            "X-Grpc-Web": "1",
        }
        self._cluster_id = cluster_id
        self._timeout_s = timeout_s
        self._guard = Guard("Pixie", timeout_s=timeout_s, concurrency=concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def run(self, script: str) -> Mapping[str, Sequence[Mapping[str, Value]]]:
        """The rows of each table that the script displays. Raises TemporaryError or PermanentError."""
        async with self._guard.call():
            body = await self._post(execute_script(script, self._cluster_id))
            try:
                # In a thread: the largest bodies take seconds, and the loop also serves Slack.
                result = await asyncio.to_thread(read_result, body)
            except WireError as error:
                raise PermanentError(f"not an answer of Pixie's API: {error}") from error
            if result is None:
                raise TemporaryError("the answer ended before its end")
            if result.code:
                raise _refusal(result.code, result.message)
        return {name: _rows(table) for name, table in result.tables.items()}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, message: bytes) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s), headers=self._headers
            )
        try:
            # No redirects: they may carry the key elsewhere.
            async with self._session.post(self._url, data=message, allow_redirects=False) as response:
                status, headers, body = response.status, response.headers, await read_body(response)
        except aiohttp.InvalidURL as error:
            raise PermanentError(why(error, timeout_s=self._timeout_s)) from error
        except HTTP_FAILURES as error:
            raise TemporaryError(why(error, timeout_s=self._timeout_s)) from error
        except ValueError as error:
            raise PermanentError(str(error)) from error
        if status != HTTPStatus.OK:
            words = f"HTTP {status}: {said(body) or 'no explanation'}"
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
                raise TemporaryError(words, retry_after_s=retry_after_s(headers.get("Retry-After", "")))
            raise PermanentError(words)
        if not headers.get("Content-Type", "").startswith("application/grpc-web"):
            raise PermanentError(f"not an answer of Pixie's API: {said(body) or 'nothing'}")
        code = headers.get("grpc-status", "0")
        if code != "0":  # refused before anything was sent: the trailers stand in the headers
            raise _refusal(int(code) if code.isdigit() else 2, unquote(headers.get("grpc-message", "")))
        return body


def _rows(table: Table) -> Sequence[Mapping[str, Value]]:
    return table.rows


def _refusal(code: int, message: str) -> TemporaryError | PermanentError:
    words = one_line(unquote(message)) or f"gRPC status {code}"
    if code in _TEMPORARY:
        return TemporaryError(f"{_TEMPORARY[code]}: {words}")
    return PermanentError(words)


def nanoseconds(at: datetime) -> int:
    """A moment as PxL takes it."""
    return int(at.timestamp() * 1_000_000) * 1000


def service_names(value: Value | None, namespace: str) -> Sequence[str]:
    """``shop`` from ``prod/shop``, and both from ``["prod/shop","prod/shop-canary"]``, where two select one pod.

    Without those of another namespace than ``namespace`` (empty: any); the order is the alphabet's.
    """
    if not isinstance(value, str):
        return ()
    names: list[str] = re.findall(r'"([^"]+)"', value) if value.startswith("[") else [value]
    parts = (name.rpartition("/") for name in sorted(names))
    return [own for space, slash, own in parts if own and (not namespace or not slash or space == namespace)]


def service_name(value: Value | None, namespace: str) -> str:
    """The first of them, or nothing."""
    return next(iter(service_names(value, namespace)), "")


def figure(value: Value | None) -> float | None:
    """A number; None for text, and for nothing."""
    return None if value is None or isinstance(value, bool | str) else float(value)
