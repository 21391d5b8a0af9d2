"""One provider's HTTP API, called under a guard, with its answers' statuses as typed errors."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import isfinite
from pathlib import Path
from time import time

import aiohttp

from pipeline.adapters.telemetry.guard import Guard
from pipeline.adapters.telemetry.http import HTTP_FAILURES, one_line, read_body, why
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError


@dataclass(frozen=True, slots=True)
class Access:
    """How to come in: headers (tokens), a user and password, a CA of one's own, a client certificate (PEM files)."""

    headers: Mapping[str, str] = field(default_factory=dict)
    basic: tuple[str, str] | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def ssl_context(self) -> ssl.SSLContext | None:
        """None where the system's trust is enough. Raises ConfigurationError when a file cannot be used."""
        if self.ca_file is None and self.client_cert is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert, self.client_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"TLS files cannot be used: {one_line(str(error))}") from error
        return context


class Upstream:
    """JSON over HTTP. ``base_url`` stands before every path. Raises ConfigurationError when it is no address."""

    def __init__(
        self, provider: str, base_url: str, *, access: Access, timeout_s: float = 10.0, concurrency: int = 8
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigurationError(f"the address of {provider} must start with http:// or https://")
        self._base_url = base_url.rstrip("/")
        self._access = access
        self._ssl = access.ssl_context()
        self._timeout_s = timeout_s
        self._guard = Guard(provider, timeout_s=timeout_s, concurrency=concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """The body of a 200. Raises TemporaryError (429, 5xx, no answer) or PermanentError (any other status)."""
        return await self._call("GET", path, params=params)

    async def post(
        self,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        json: object = None,
        params: Mapping[str, str] | None = None,
    ) -> bytes:
        """As ``get``, with a form or a JSON body."""
        return await self._call("POST", path, params=params, form=form, json=json)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        json: object = None,
    ) -> bytes:
        async with self._guard.call():
            try:
                # No redirects: they would turn a POST into a GET and may carry the token elsewhere.
                async with self._open().request(
                    method, f"{self._base_url}{path}", params=params, data=form, json=json, allow_redirects=False
                ) as response:
                    status, headers, body = response.status, response.headers, await read_body(response)
            except HTTP_FAILURES as error:
                raise TemporaryError(why(error, timeout_s=self._timeout_s)) from error
            except ValueError as error:
                raise PermanentError(str(error)) from error
            if status != 200:
                said = f"HTTP {status}: {one_line(body[:1000].decode(errors='replace')) or 'no explanation'}"
                if status == 429 or status >= 500:
                    raise TemporaryError(said, retry_after_s=retry_after_s(headers.get("Retry-After", "")))
                raise PermanentError(said)
        return body

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            basic = aiohttp.BasicAuth(*self._access.basic) if self._access.basic else None
            connector = aiohttp.TCPConnector(ssl=self._ssl if self._ssl is not None else True)
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(
                timeout=timeout, headers=dict(self._access.headers), auth=basic, connector=connector
            )
        return self._session


def retry_after_s(value: str) -> float | None:
    """Seconds from a Retry-After header, as seconds or as an HTTP date; None when it says nothing usable."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except ValueError:
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None
