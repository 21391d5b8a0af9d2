"""One provider's HTTP API, called under a guard, with its answers' statuses as typed errors."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import isfinite
from pathlib import Path
from time import time
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.adapters.telemetry.guard import Guard
from pipeline.adapters.telemetry.http import HTTP_FAILURES, one_line, read_body, why
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError

_REDIRECTS = range(300, 400)
_SAID_LIMIT_BYTES = 10_000

M = TypeVar("M", bound=BaseModel)


class NotFound(PermanentError):
    """HTTP 404: the address is wrong, or what was asked for is gone."""


class Lenient(BaseModel):
    """Base of answers: servers add fields of their own, and leave out or say null where there is nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True, slots=True)
class Access:
    """How to come in: headers (tokens), a user and password, a CA of one's own, a client certificate (PEM files).

    Raises ConfigurationError where two of these exclude each other.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    basic: tuple[str, str] | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def __post_init__(self) -> None:
        if self.basic and any(name.lower() == "authorization" for name in self.headers):
            raise ConfigurationError("give a token or a user and password, not both")
        if self.client_key and not self.client_cert:
            raise ConfigurationError("a client key was given without its certificate: give both, or neither")
        for name, value in self.headers.items():
            if any(char in f"{name}{value}" for char in "\r\n\0"):
                raise ConfigurationError(f"the {name} header contains a line break: was it read from a file?")

    def with_header(self, name: str, value: str) -> Access:
        """With one more, such as a tenant's; as it is when ``value`` is empty."""
        return replace(self, headers={**self.headers, name: value}) if value else self

    def all_headers(self) -> dict[str, str]:
        """With the user and password among them."""
        if self.basic is None:
            return dict(self.headers)
        credentials = base64.b64encode(":".join(self.basic).encode()).decode()
        return {**self.headers, "Authorization": f"Basic {credentials}"}

    def ssl_context(self) -> ssl.SSLContext | None:
        """None where the system's trust is enough. Raises ConfigurationError when a file cannot be used."""
        if self.ca_file is None and self.client_cert is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.client_cert is not None:
                # Without a password OpenSSL would ask for an encrypted key's on the terminal, and wait.
                context.load_cert_chain(self.client_cert, self.client_key, password="")
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
        """The body of a 200. Raises TemporaryError (408, 429, 5xx, no answer), NotFound, or PermanentError (any other
        status)."""
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
            except aiohttp.InvalidURL as error:
                raise PermanentError(why(error, timeout_s=self._timeout_s)) from error
            except aiohttp.ClientConnectorCertificateError as error:
                raise PermanentError(one_line(str(error.certificate_error))) from error
            except aiohttp.ClientConnectorSSLError as error:
                raise TemporaryError(one_line(f"TLS: {error.os_error}")) from error
            except HTTP_FAILURES as error:
                raise TemporaryError(why(error, timeout_s=self._timeout_s)) from error
            except ValueError as error:
                raise PermanentError(str(error)) from error
            if status != HTTPStatus.OK:
                raise _refusal(status, headers, body)
        return body

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers=self._access.all_headers(),
                connector=aiohttp.TCPConnector(ssl=self._ssl if self._ssl is not None else True),
            )
        return self._session


def parse_answer(model: type[M], body: bytes, api: str) -> M:
    """The answer as ``model``; PermanentError that names the ``api`` when it is something else."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise PermanentError(f"not an answer of {api}: {said(body) or 'nothing'}") from error


def said(body: bytes) -> str:
    """A server's own words: the message inside of a JSON error, else the beginning of the body. One line."""
    try:
        words = _Refusal.model_validate_json(body[:_SAID_LIMIT_BYTES]).words()
    except ValidationError:
        words = ""
    return one_line(words or body[:1000].decode(errors="replace"))


def retry_after_s(value: str) -> float | None:
    """Seconds from a Retry-After header, as seconds or as an HTTP date; None when it says nothing usable."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None


class _Fault(Lenient):
    msg: str = ""
    message: str = ""


class _Refusal(Lenient):
    """Where the vendors' APIs put the reason."""

    error: str = ""
    message: str = ""
    errors: tuple[_Fault, ...] = ()

    def words(self) -> str:
        found = [self.message, self.error, *(fault.message or fault.msg for fault in self.errors)]
        return next(filter(None, found), "")


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> TemporaryError | PermanentError:
    text = f"HTTP {status}: {said(body) or 'no explanation'}"
    if status in _REDIRECTS:
        return PermanentError(f"{text} (redirects are not followed: write the address that it leads to)")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.REQUEST_TIMEOUT,
    ):
        return TemporaryError(text, retry_after_s=retry_after_s(headers.get("Retry-After", "")))
    return NotFound(text) if status == HTTPStatus.NOT_FOUND else PermanentError(text)
