"""Requests to a Kubernetes API server through the official client, each sent once, with their failures told apart."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import urllib3.exceptions
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config.config_exception import ConfigException
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from pipeline.domain.capability import RightCheck
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, SreBotError, TemporaryError

Verb = Literal["get", "list", "patch", "create"]
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_THREADS = 8
_UNANSWERED = (0, HTTPStatus.REQUEST_TIMEOUT)
"""Statuses below 500 that leave open what became of a write; the client makes 0 of a TLS failure."""


class Foreign(BaseModel):
    """What a cluster says, in its own camel case: only what is used is read, and the rest is let be."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, found: object) -> object:
        return {key: value for key, value in found.items() if value is not None} if isinstance(found, dict) else found


_M = TypeVar("_M", bound=Foreign)


@dataclass(frozen=True, slots=True)
class Right:
    """What an account must be allowed for a request. ``resource`` as RBAC names it: ``deployments.apps``,
    ``pods/eviction``. ``namespace`` is empty for what is of the whole cluster."""

    verb: Verb
    resource: str
    namespace: str = ""

    @property
    def is_write(self) -> bool:
        return self.verb in ("patch", "create")

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} " + (
            f"in namespace {self.namespace}" if self.namespace else "of a cluster"
        )


@dataclass(frozen=True, slots=True)
class Write:
    """One changing request. What makes the server refuse it is in its ``body``: uid, resourceVersion, preconditions."""

    right: Right
    method: Literal["PATCH", "POST"]
    path: str
    content_type: str
    body: Mapping[str, Any]


class Missing(PreconditionFailed):
    """404: there is no such object."""


class _Cause(Foreign):
    message: str = ""


class _Details(Foreign):
    causes: tuple[_Cause, ...] = ()
    retry_after_seconds: int = 0


class _Status(Foreign):
    """How the server says that something went wrong, or that it went well where there is nothing else to say."""

    kind: str = ""
    status: str = ""
    message: str = ""
    details: _Details = _Details()

    def said(self) -> str:
        return " ".join([self.message, *(f"({cause.message})" for cause in self.details.causes if cause.message)])


class _Verdict(Foreign):
    allowed: bool
    reason: str = ""
    evaluation_error: str = ""


class _Review(Foreign):
    status: _Verdict


class KubernetesApi:
    """The official client in threads of its own. Reads raise TemporaryError or PermanentError; writes as Target.apply
    says.

    ``timeout_s`` bounds connecting and each wait for bytes; twice that bounds a call as a whole, waiting for a thread
    included, since a reply that drips restarts the client's own clock with every byte. What was given up before it was
    sent is never sent. ``privileges``: the file that grants what is asked here.
    """

    def __init__(self, configuration: Configuration, *, timeout_s: float, privileges: str) -> None:
        # Left as it is, urllib3 repeats a DELETE (and a PUT) after a reset, and after a 429 or 503 with Retry-After.
        configuration.retries = False
        self._client = ApiClient(configuration)
        self._timeout_s = timeout_s
        self._privileges = privileges
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kubernetes")

    async def read(self, right: Right, path: str, answer: type[_M]) -> _M | None:
        """None when there is no such object."""
        try:
            return _understood(right, answer, await self._call(right, "GET", path))
        except Missing:
            return None

    async def read_all(self, right: Right, path: str, answer: type[_M], *, selector: str = "") -> _M:
        """``answer``: what holds the items of a list."""
        query = {"labelSelector": selector} if selector else {}
        return _understood(right, answer, await self._call(right, "GET", path, query=query))

    async def write(self, write: Write, *, rehearsed: bool = False) -> None:
        """``rehearsed``: the server goes through all of it, admission too, and stores nothing (dryRun=All)."""
        query = {"dryRun": "All"} if rehearsed else {}
        data = await self._call(
            write.right, write.method, write.path, query=query, content_type=write.content_type, body=write.body
        )
        # An eviction that meets two budgets is refused in the body of a 201.
        if (status := _status(data)) is not None and (status.kind, status.status) == ("Status", "Failure"):
            raise PermanentError(f"Kubernetes refused to {write.right}: {status.said()}")

    def shown(self, write: Write) -> str:
        """``write`` as it goes over the wire."""
        kind = "" if write.content_type == "application/json" else f" ({write.content_type})"
        return f"{write.method} {self._client.configuration.host}{write.path}{kind} {json.dumps(write.body)}"

    async def may(self, right: Right) -> RightCheck:
        """Whether the account holds it, by the server's own rules (SelfSubjectAccessReview); nothing is carried out."""
        named, _, subresource = right.resource.partition("/")
        resource, _, group = named.partition(".")
        asked = {"verb": right.verb, "group": group, "resource": resource, "subresource": subresource}
        if right.namespace:
            asked["namespace"] = right.namespace
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        asking = Right("get", "selfsubjectaccessreviews.authorization.k8s.io")  # sent by POST, yet it changes nothing
        try:
            data = await self._call(asking, "POST", _REVIEWS, content_type="application/json", body=body)
        except PermanentError as error:
            return RightCheck(str(right), None, str(error))
        verdict = _understood(asking, _Review, data).status
        return RightCheck(str(right), verdict.allowed, verdict.reason or verdict.evaluation_error)

    def close(self) -> None:
        """Lets go of threads and connections; calls under way end by themselves. Can be called more than once."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.rest_client.close()

    async def _call(
        self,
        right: Right,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "",
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if content_type else {})
        call = _Call()
        request = partial(self._request, call, method, path, dict(query or {}), headers, body)
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, request)
        except ApiException as error:
            raise _refusal(right, error, self._privileges) from error
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise TemporaryError(f"the Kubernetes API server cannot be reached, nothing was sent: {error}") from error
        except (urllib3.exceptions.HTTPError, ConfigException, OSError) as error:  # a time-out is an OSError
            why = f"{type(error).__name__}: {error}"
            if not call.give_up():  # no thread was free in time, or the bot's token could not be read
                raise TemporaryError(f"nothing was sent to {right}: {why}") from error
            raise _no_answer(right, why) from error
        finally:
            call.give_up()

    def _request(
        self,
        call: _Call,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        body: Mapping[str, Any] | None,
    ) -> bytes:
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        call.send()
        response = self._client.call_api(*request, _request_timeout=self._timeout_s)
        data: bytes = response.read()  # type: ignore[no-untyped-call]
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            raise ApiException.from_response(http_resp=response, body=None, data=None)
        return data


class _Call:
    """One call on its way. Whether it was sent decides what is known when no answer comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = False
        self._given_up = False

    def send(self) -> None:
        """Raises TemporaryError when nobody waits for it any more."""
        with self._lock:
            if self._given_up:
                raise TemporaryError("given up before it was sent")
            self._sent = True

    def give_up(self) -> bool:
        """From now on it may not be sent. Whether it was already."""
        with self._lock:
            self._given_up = True
            return self._sent


def _understood(right: Right, answer: type[_M], data: bytes) -> _M:
    try:
        return answer.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TemporaryError(
            f"{right}: Kubernetes gave an answer that makes no sense: {where} {first['msg']}"
        ) from error


def _no_answer(right: Right, why: str) -> SreBotError:
    if right.is_write:
        return OutcomeUnknown(f"{right} was sent to Kubernetes and not answered: {why}")
    return TemporaryError(f"{right} failed: {why}")


def _refusal(right: Right, error: ApiException, privileges: str) -> SreBotError:
    status, message = error.status or 0, _message(error)
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return PermanentError(f"Kubernetes does not accept the bot's credentials (to {right}): {message}")
        case HTTPStatus.FORBIDDEN:
            return PermanentError(
                f"the bot's account may not {right}; executors/targets/{privileges} grants it: {message}"
            )
        case HTTPStatus.NOT_FOUND:
            return Missing(f"Kubernetes finds nothing to {right}: {message}")
        case HTTPStatus.CONFLICT:
            return PreconditionFailed(f"Kubernetes refused to {right}: {message}")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return TemporaryError(
                f"Kubernetes refused to {right} for now: {message}", retry_after_s=_retry_after_s(error)
            )
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _UNANSWERED:
            return _no_answer(right, f"{status} {message}")
        case _:
            return PermanentError(f"Kubernetes refused to {right} ({status}): {message}")


def _message(error: ApiException) -> str:
    """The server's own words: the ``message`` of its Status object when it sent one."""
    status = _status(error.body or "")
    return status.said() or str(error.reason) if status else str(error.body or error.reason)[:300]


def _status(body: str | bytes) -> _Status | None:
    try:
        return _Status.model_validate_json(body)
    except ValidationError:
        return None


def _retry_after_s(error: ApiException) -> float | None:
    seconds = (error.headers or {}).get("Retry-After", "")
    if seconds.isdecimal():
        return float(seconds)
    status = _status(error.body or "")
    return float(status.details.retry_after_seconds) or None if status else None
