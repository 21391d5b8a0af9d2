"""The few calls to Azure Resource Manager that the adapters make, each sent once, with their failures told apart."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import aiohttp
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.core.pipeline import policies
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import HttpRequest
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy
from azure.mgmt.web import models as models
from azure.mgmt.web.aio import WebSiteManagementClient
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, SreBotError, TemporaryError

PUBLIC_CLOUD = "https://management.azure.com"
_PAGES = 20
"""Pages of one answer that are read; more of them are a mistake somewhere."""
_LATER = ("another operation is in progress", "exclusive lock", "retry the request later")
"""Words of a 409 that has done nothing and stands for "not now" (Azure has no code of its own for it)."""

_T = TypeVar("_T", bound=BaseModel)


class Missing(PreconditionFailed):
    """404: there is no such resource."""


class GaveUp(PermanentError):
    """Azure itself says of an operation that it failed."""


class Foreign(BaseModel):
    """Base of what is read of Azure's own JSON, of which only what is used is named."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class _Error(Foreign):
    code: str = ""
    message: str = ""


class _Envelope(Foreign):
    """Resource Manager's own errors stand in ``error``; those of App Service itself at the top, in capitals."""

    error: _Error | None = None
    code: str = Field(default="", alias="Code")
    message: str = Field(default="", alias="Message")


class _Operation(Foreign):
    """What Azure-AsyncOperation answers; a Location answers with the resource itself and has no such status."""

    status: str = ""
    error: _Error | None = None


class _Permission(Foreign):
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = Field(default=(), alias="notActions")


class Arm:
    """The official client, made at the first call. Reads raise TemporaryError, PermanentError or Missing; writes as
    ``Target.apply`` says.

    ``timeout_s`` bounds connecting and each wait for bytes; twice that bounds a call as a whole, the token included.
    Nothing is ever sent again: the SDK's retries, its redirects and its registering of resource providers are left out
    of the pipeline. ``authentication`` takes the place of the bearer token over plain HTTP, which the SDK refuses.
    ``pause_s`` lies between two looks at what is under way: Azure allows an account 25 reads a second, and each look
    takes two for every instance.
    """

    def __init__(
        self,
        subscription_id: str,
        *,
        timeout_s: float,
        base_url: str = PUBLIC_CLOUD,
        credential: AsyncTokenCredential | None = None,
        authentication: policies.SansIOHTTPPolicy[Any, Any] | None = None,
        pause_s: float = 5.0,
    ) -> None:
        self.subscription_id = subscription_id
        self.base_url = base_url.rstrip("/")
        self.flight_s = 2 * timeout_s
        self.pause_s = pause_s
        self._timeout_s = timeout_s
        self._credential = credential
        self._authentication = authentication
        self._client: WebSiteManagementClient | None = None

    @property
    def client(self) -> WebSiteManagementClient:
        """Its operations are called inside of ``reading`` or ``writing``."""
        if self._client is None:
            self._credential = self._credential or DefaultAzureCredential()
            session = aiohttp.ClientSession(
                # A connection of its own for each call: one that was closed while it was idle looks like a lost answer.
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=True,
                middlewares=(_send_once,),
            )
            self._client = WebSiteManagementClient(
                self._credential,
                self.subscription_id,
                self.base_url,
                transport=AioHttpTransport(
                    session=session, connection_timeout=self._timeout_s, read_timeout=self._timeout_s
                ),
                policies=[
                    policies.RequestIdPolicy(),
                    policies.UserAgentPolicy(user_agent="sre-bot"),
                    policies.ContentDecodePolicy(),
                    self._authentication
                    or AsyncARMChallengeAuthenticationPolicy(self._credential, f"{self.base_url}/.default"),
                    policies.CustomHookPolicy(),
                ],
            )
        return self._client

    @asynccontextmanager
    async def reading(self, what: str, *, within_s: float = math.inf) -> AsyncIterator[None]:
        """``what``: the right that the calls inside need. All of them together have ``within_s``."""
        async with self._told_apart(what, "read", within_s):
            yield

    @asynccontextmanager
    async def writing(self, what: str) -> AsyncIterator[None]:
        async with self._told_apart(what, "write"):
            yield

    async def get(self, what: str, path: str, **query: str) -> Mapping[str, Any]:
        """A read that the client of App Service has no method for. ``path`` from the root or a whole URL."""
        async with self.reading(what):
            answer = await self.client.send_request(HttpRequest("GET", path, params=query))
            answer.raise_for_status()
            return _object(answer.json())

    async def listed(self, what: str, path: str, **query: str) -> list[Any]:
        """As ``get``, of all pages."""
        page = await self.get(what, path, **query)
        found = list(page.get("value", []))
        for _ in range(_PAGES):
            if not (following := page.get("nextLink")):
                return found
            page = await self.get(what, str(following))
            found += page.get("value", [])
        raise TemporaryError(f"{what}: Azure gave more than {_PAGES} pages")

    async def write(self, what: str, call: Callable[..., Awaitable[object]], *args: object, request_id: str) -> str:
        """One write, named ``request_id`` in Azure's activity log. Returns where its operation can be asked for, which
        is empty when it is over already."""
        under_way: list[str] = []

        def note(answer: Any) -> None:
            headers, status = answer.http_response.headers, answer.http_response.status_code
            if status == HTTPStatus.ACCEPTED:
                under_way.append(headers.get("Azure-AsyncOperation") or headers.get("Location") or "")

        async with self.writing(what):
            await call(*args, request_id=request_id, raw_response_hook=note)
        return "".join(under_way)

    async def is_over(self, url: str) -> bool:
        """Whether a long-running operation is. Raises GaveUp with Azure's words when it failed; any other error leaves
        open what became of it."""
        async with self.reading("the state of an operation"):
            answer = await self.client.send_request(HttpRequest("GET", url))
            if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
                return True  # its record is kept for a while only, or not for us; the resource says what became of it
            if answer.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
                raise GaveUp(f"Azure gave the operation up: {_words(answer.text())}")
            answer.raise_for_status()
            if answer.status_code == HTTPStatus.ACCEPTED:
                return False
            said = _Operation.model_validate_json(answer.text()) if answer.text().startswith("{") else _Operation()
        if said.status.casefold() in ("failed", "canceled"):
            words = f"{said.error.code}: {said.error.message}" if said.error else said.status
            raise GaveUp(f"Azure gave the operation up: {words}")
        return said.status.casefold() in ("", "succeeded")

    async def allows(self, resource_id: str) -> Callable[[str], bool]:
        """Whether the account's roles allow an action on a resource. Deny assignments and locks are not looked at."""
        path = f"{resource_id}/providers/Microsoft.Authorization/permissions"
        found = await self.listed("Microsoft.Authorization/permissions/read", path, **{"api-version": "2022-04-01"})
        permissions = [validated(_Permission, one) for one in found]
        return lambda action: any(_allows(one, action) for one in permissions)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._credential is not None:
            await self._credential.close()

    @asynccontextmanager
    async def _told_apart(
        self, what: str, mode: Literal["read", "write"], within_s: float = math.inf
    ) -> AsyncIterator[None]:
        """The SDK's exceptions as ours."""
        try:
            async with asyncio.timeout(min(2 * self._timeout_s, within_s)):
                yield
        except HttpResponseError as error:
            raise _refusal(what, mode, error) from error
        except ServiceRequestError as error:
            if isinstance(error.inner_exception, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                raise TemporaryError(f"Azure cannot be reached, nothing was sent: {error}") from error
            raise _no_answer(what, mode, str(error)) from error
        except (AzureError, TimeoutError) as error:
            raise _no_answer(what, mode, str(error) or type(error).__name__) from error
        except ValueError as error:  # no JSON, or another shape
            raise _no_answer(what, mode, f"an answer that makes no sense: {error}") from error


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp repeats a PUT and a DELETE whose connection was lost, but only after these two exceptions."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error) or type(error).__name__) from error


def validated(shape: type[_T], found: object) -> _T:
    """A part of an answer. Raises TemporaryError when it is not what Azure documents."""
    try:
        return shape.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TemporaryError(f"Azure gave an answer that makes no sense: {where}: {first['msg']}") from error


def _allows(permission: _Permission, action: str) -> bool:
    """https://learn.microsoft.com/azure/role-based-access-control/role-definitions: NotActions are taken from Actions
    within one role, and what another role grants still holds."""
    return any(_matches(one, action) for one in permission.actions) and not any(
        _matches(one, action) for one in permission.not_actions
    )


def _matches(pattern: str, action: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), action, re.IGNORECASE) is not None


def _object(answer: object) -> Mapping[str, Any]:
    if not isinstance(answer, dict):
        raise ValueError(f"a {type(answer).__name__} in place of an object")
    return answer


def _no_answer(what: str, mode: Literal["read", "write"], why: str) -> SreBotError:
    if mode == "write":
        return OutcomeUnknown(f"{what} was sent to Azure and not answered: {why}")
    return TemporaryError(f"{what} failed: {why}")


def _refusal(what: str, mode: Literal["read", "write"], error: HttpResponseError) -> SreBotError:
    if error.response is None:
        if isinstance(error, ClientAuthenticationError):
            why = " ".join(error.message.split())[:300]
            return PermanentError(f"the bot gets no token for Azure, nothing was sent: {why}")
        return _no_answer(what, mode, error.message)
    status, words = error.status_code or 0, _words(_text(error))
    match status:
        case HTTPStatus.UNAUTHORIZED:  # App Service answers so to a quota that is used up, too
            return PermanentError(f"Azure refused {what}: {words}")
        case HTTPStatus.FORBIDDEN:
            return PermanentError(
                f"the bot's account may not {what}; executors/targets/azure-role.json grants it: {words}"
            )
        case HTTPStatus.NOT_FOUND:
            return Missing(f"Azure finds nothing for {what}: {words}")
        case HTTPStatus.PRECONDITION_FAILED:
            return PreconditionFailed(f"Azure refused {what}: {words}")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return TemporaryError(f"Azure refused {what} for now: {words}", retry_after_s=_retry_after_s(error))
        case HTTPStatus.CONFLICT if any(one in words.casefold() for one in _LATER):
            return TemporaryError(f"Azure refused {what} for now: {words}", retry_after_s=_retry_after_s(error))
        case HTTPStatus.REQUEST_TIMEOUT:
            return _no_answer(what, mode, f"{status} {words}")
        case _ if status < HTTPStatus.BAD_REQUEST or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _no_answer(what, mode, f"{status} {words}")
        case _:
            return PermanentError(f"Azure refused {what} ({status}): {words}")


def _text(error: HttpResponseError) -> str:
    """The body of a refusal; the SDK's own words where it has read none."""
    try:
        return str(getattr(error.response, "text", str)())
    except (AzureError, RuntimeError):
        return str(error.message)


def _words(text: str) -> str:
    """Azure's code and message, in one line; the bare text where it is another shape."""
    try:
        said = _Envelope.model_validate_json(text)
    except ValidationError:
        return text[:300]
    inner = said.error or _Error(code=said.code, message=said.message)
    return " ".join(f"{inner.code}: {inner.message}".split()) if inner.code else text[:300]


def _retry_after_s(error: HttpResponseError) -> float | None:
    seconds = str(getattr(error.response, "headers", {}).get("Retry-After", ""))
    return float(seconds) if seconds.isdecimal() else None
