"""The few calls about cert-manager's Certificates, each sent once, with their failures told apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import urllib3.exceptions
from kubernetes.client import (
    ApiClient,
    ApiException,
    AuthorizationV1Api,
    Configuration,
    CustomObjectsApi,
    V1ResourceAttributes,
    V1SelfSubjectAccessReview,
    V1SelfSubjectAccessReviewSpec,
)
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.domain.capability import RightCheck
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, SreBotError, TemporaryError

GROUP, VERSION = "cert-manager.io", "v1"
PRIVILEGES = "cert-manager-rbac.yaml"
_REVISION = "cert-manager.io/certificate-revision"
_UNANSWERED = (0, HTTPStatus.REQUEST_TIMEOUT)
"""Statuses below 500 that leave open what became of a write; the client makes 0 of a TLS failure."""

_T = TypeVar("_T")


class MissingObject(PreconditionFailed):
    """404: there is no such object, or no such kind of object."""


@dataclass(frozen=True, slots=True)
class Right:
    """What an account must be allowed for a call."""

    verb: Literal["get", "list", "patch"]
    resource: Literal["certificates", "certificaterequests", "certificates/status"]

    def __str__(self) -> str:
        name, _, part = self.resource.partition("/")
        return f"{self.verb} {name}.{GROUP}" + (f"/{part}" if part else "")


READS = (Right("get", "certificates"), Right("list", "certificaterequests"))
RENEWS = Right("patch", "certificates/status")


class _Foreign(BaseModel):
    # Only what is used is read: later versions of cert-manager say more.
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Condition(_Foreign):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: AwareDatetime | None = Field(None, alias="lastTransitionTime")

    @property
    def words(self) -> str:
        return ": ".join(part for part in (self.reason, self.message) if part)


class _Owner(_Foreign):
    uid: str


class _Meta(_Foreign):
    uid: str
    generation: int = 0
    resource_version: str = Field(alias="resourceVersion")
    deleted_at: str = Field("", alias="deletionTimestamp")
    annotations: dict[str, str] = {}
    owners: tuple[_Owner, ...] = Field((), alias="ownerReferences")


class _Status(_Foreign):
    conditions: tuple[Condition, ...] = ()
    revision: int = 0
    not_after: AwareDatetime | None = Field(None, alias="notAfter")
    failed_at: AwareDatetime | None = Field(None, alias="lastFailureTime")


class _Object(_Foreign):
    metadata: _Meta
    status: _Status = _Status()


class _Objects(_Foreign):
    items: tuple[_Object, ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A Certificate as it was read at ``read_at`` by the server's clock.

    ``revision``: of what was issued last, 0 for nothing yet. ``stored``: its conditions word for word.
    """

    uid: str
    generation: int
    resource_version: str
    deleting: bool
    conditions: Mapping[str, Condition]
    stored: tuple[Mapping[str, Any], ...]
    revision: int
    not_after: datetime | None
    failed_at: datetime | None
    read_at: datetime


class CertManagerApi:
    """The official client in worker threads. Reads raise TemporaryError or PermanentError; writes as Target.apply says.

    ``timeout_s`` bounds connecting and each wait for bytes; twice that bounds a call as a whole, since a reply that
    drips restarts the client's own clock with every byte.
    """

    def __init__(self, configuration: Configuration, *, timeout_s: float) -> None:
        # Left as it is, urllib3 repeats requests after a reset, and after a 429 or 503 with Retry-After.
        configuration.retries = False
        self._client = ApiClient(configuration)
        self._objects = CustomObjectsApi(self._client)
        self._reviews = AuthorizationV1Api(self._client)
        self._timeout_s = timeout_s

    async def certificate(self, namespace: str, name: str) -> Certificate:
        """Raises MissingObject when there is none."""
        body, _, headers = await self._call(
            f"{READS[0]} in namespace {namespace}",
            False,
            self._objects.get_namespaced_custom_object_with_http_info,
            GROUP,
            VERSION,
            namespace,
            "certificates",
            name,
        )
        found = _checked(_Object, body, f"the Certificate {namespace}/{name}")
        stored = body.get("status", {}).get("conditions", []) if isinstance(body, dict) else []
        return Certificate(
            uid=found.metadata.uid,
            generation=found.metadata.generation,
            resource_version=found.metadata.resource_version,
            deleting=bool(found.metadata.deleted_at),
            conditions={one.type: one for one in found.status.conditions},
            stored=tuple(stored),
            revision=found.status.revision,
            not_after=found.status.not_after,
            failed_at=found.status.failed_at,
            read_at=_clock(headers),
        )

    async def request_of(self, namespace: str, certificate: Certificate) -> str:
        """What the request for its next revision says of itself; empty when it says nothing, or there is none yet."""
        body = await self._call(
            f"{READS[1]} in namespace {namespace}",
            False,
            self._objects.list_namespaced_custom_object,
            GROUP,
            VERSION,
            namespace,
            "certificaterequests",
        )
        for one in _checked(_Objects, body, f"the CertificateRequests of {namespace}").items:
            owned = certificate.uid in {owner.uid for owner in one.metadata.owners}
            if owned and one.metadata.annotations.get(_REVISION) == str(certificate.revision + 1):
                return "; ".join(condition.words for condition in one.status.conditions if condition.type != "Approved")
        return ""

    async def patch_status(self, namespace: str, name: str, body: dict[str, Any], *, rehearsed: bool = False) -> None:
        """A JSON merge patch of the status; ``rehearsed``: checked by the server and not stored (dryRun=All)."""
        await self._call(
            f"{RENEWS} in namespace {namespace}",
            True,
            self._objects.patch_namespaced_custom_object_status,
            GROUP,
            VERSION,
            namespace,
            "certificates",
            name,
            body,
            _content_type="application/merge-patch+json",
            **({"dry_run": "All"} if rehearsed else {}),
        )

    def shown_patch(self, namespace: str, name: str, body: dict[str, Any]) -> str:
        """``patch_status`` as it goes over the wire."""
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/certificates/{name}/status"
        return f"PATCH {self._client.configuration.host}{path} (application/merge-patch+json) {json.dumps(body)}"

    async def check(self, namespace: str, name: str, right: Right) -> RightCheck:
        """Asks the server itself: a SelfSubjectAccessReview, which is stored nowhere."""
        resource, _, part = right.resource.partition("/")
        asked = V1ResourceAttributes(
            group=GROUP,
            namespace=namespace,
            resource=resource,
            subresource=part or None,
            verb=right.verb,
            name=None if right.verb == "list" else name,
        )
        review = V1SelfSubjectAccessReview(spec=V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
        shown = f"{right} in namespace {namespace}"
        try:
            answer = await self._call(
                "create selfsubjectaccessreviews", False, self._reviews.create_self_subject_access_review, review
            )
        except PermanentError as error:
            return RightCheck(shown, None, str(error))
        if answer.status is None:
            return RightCheck(shown, None, "the API server gave no verdict")
        return RightCheck(shown, bool(answer.status.allowed), answer.status.reason or "")

    def close(self) -> None:
        self._client.rest_client.close()

    async def _call(self, right: str, writes: bool, function: Callable[..., _T], *args: object, **kwargs: object) -> _T:
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                return await asyncio.to_thread(function, *args, _request_timeout=self._timeout_s, **kwargs)
        except ApiException as error:
            raise _refusal(right, writes, error) from error
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise TemporaryError(f"the Kubernetes API server cannot be reached, nothing was sent: {error}") from error
        except (urllib3.exceptions.HTTPError, TimeoutError, ValueError) as error:  # ValueError: no JSON
            raise _no_answer(right, writes, f"{type(error).__name__}: {error}") from error


_Model = TypeVar("_Model", bound=_Foreign)


def _checked(model: type[_Model], body: object, what: str) -> _Model:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TemporaryError(
            f"Kubernetes described {what} in a way that makes no sense: {where}: {first['msg']}"
        ) from error


def _clock(headers: Any) -> datetime:
    """The server's time: cert-manager compares what we write with what it writes itself."""
    try:
        return parsedate_to_datetime((headers or {}).get("Date") or "").astimezone(UTC)
    except ValueError:
        return datetime.now(UTC).replace(microsecond=0)


def _no_answer(right: str, writes: bool, why: str) -> SreBotError:
    if writes:
        return OutcomeUnknown(f"{right} was sent to Kubernetes and not answered: {why}")
    return TemporaryError(f"{right} failed: {why}")


def _refusal(right: str, writes: bool, error: ApiException) -> SreBotError:
    status, said = error.status or 0, _message(error)
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return PermanentError(f"Kubernetes does not accept the bot's credentials (to {right}): {said}")
        case HTTPStatus.FORBIDDEN:
            return PermanentError(
                f"the bot's account may not {right}; executors/targets/{PRIVILEGES} grants it: {said}"
            )
        case HTTPStatus.NOT_FOUND:
            return MissingObject(f"Kubernetes finds nothing to {right}: {said}")
        case HTTPStatus.CONFLICT:
            return PreconditionFailed(f"Kubernetes refused to {right}: {said}")
        case HTTPStatus.TOO_MANY_REQUESTS:
            seconds = (error.headers or {}).get("Retry-After", "")
            return TemporaryError(
                f"Kubernetes refused to {right} for now: {said}",
                retry_after_s=float(seconds) if seconds.isdecimal() else None,
            )
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _UNANSWERED:
            return _no_answer(right, writes, f"{status} {said}")
        case _:
            return PermanentError(f"Kubernetes refused to {right} ({status}): {said}")


def _message(error: ApiException) -> str:
    """The server's own words: the ``message`` of its Status object when it sent one."""
    try:
        status = json.loads(error.body or "")
    except ValueError:
        return str(error.body or error.reason)[:300]
    return str(status.get("message", error.reason)) if isinstance(status, dict) else str(error.reason)
