"""The few calls to a Kubernetes API server that the adapter makes, each sent once, with their failures told apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import urllib3.exceptions
from kubernetes.client import (
    ApiClient,
    ApiException,
    AppsV1Api,
    Configuration,
    CoreV1Api,
    V1DeleteOptions,
    V1Deployment,
    V1LabelSelector,
    V1ObjectMeta,
    V1Pod,
    V1PodTemplateSpec,
    V1Preconditions,
    V1StatefulSet,
)

from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, SreBotError, TemporaryError

Kind = Literal["Deployment", "StatefulSet"]
KINDS: tuple[Kind, ...] = ("Deployment", "StatefulSet")
_RESOURCES: dict[Kind, str] = {"Deployment": "deployments.apps", "StatefulSet": "statefulsets.apps"}
_REVISION = "deployment.kubernetes.io/revision"
_UNANSWERED = (0, HTTPStatus.REQUEST_TIMEOUT)
"""Statuses below 500 that leave open what became of a write; the client makes 0 of a TLS failure."""

_T = TypeVar("_T")


class _Missing(PreconditionFailed):
    """404: there is no such object."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment or StatefulSet. ``generation`` is raised by the server with every change of its spec, and
    ``resource_version`` with every change at all, of its status too."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    observed_generation: int
    replicas: int
    annotations: Mapping[str, str]
    selector: str
    images: tuple[str, ...]
    rollout: str
    """The number or name of what is rolled out; empty until the controller has written it."""


@dataclass(frozen=True, slots=True)
class Pod:
    """``finished``: phase Succeeded or Failed, replaced by its controller and never running again."""

    name: str
    uid: str
    owner_uid: str | None
    ready: bool
    terminating: bool
    finished: bool


@dataclass(frozen=True, slots=True)
class _Right:
    """What an account must be allowed for a call."""

    verb: Literal["get", "list", "patch", "delete"]
    resource: str
    namespace: str

    @property
    def is_write(self) -> bool:
        return self.verb in ("patch", "delete")

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} in namespace {self.namespace}"


class KubernetesApi:
    """The official client in worker threads. Reads raise TemporaryError or PermanentError; writes as Target.apply says.

    ``timeout_s`` bounds connecting and each wait for bytes; twice that bounds a call as a whole, since a reply that
    drips restarts the client's own clock with every byte.
    """

    def __init__(self, configuration: Configuration, *, timeout_s: float) -> None:
        # Left as it is, urllib3 repeats a DELETE (and a PUT) after a reset, and after a 429 or 503 with Retry-After.
        configuration.retries = False
        self._client = ApiClient(configuration)
        self._apps = AppsV1Api(self._client)
        self._core = CoreV1Api(self._client)
        self._timeout_s = timeout_s

    async def workload(self, kind: Kind, namespace: str, name: str) -> Workload | None:
        """None when there is none."""
        right = _Right("get", _RESOURCES[kind], namespace)
        try:
            if kind == "Deployment":
                return _workload(kind, await self._call(right, self._apps.read_namespaced_deployment, name, namespace))
            return _workload(kind, await self._call(right, self._apps.read_namespaced_stateful_set, name, namespace))
        except _Missing:
            return None

    async def patch_workload(self, workload: Workload, patch: dict[str, Any], *, rehearsed: bool = False) -> None:
        """A JSON merge patch (RFC 7386) with the uid and resourceVersion as preconditions.

        ``rehearsed``: the server goes through all of it, admission too, and stores nothing (dryRun=All).
        """
        write = (
            self._apps.patch_namespaced_deployment
            if workload.kind == "Deployment"
            else self._apps.patch_namespaced_stateful_set
        )
        right = _Right("patch", _RESOURCES[workload.kind], workload.namespace)
        await self._call(
            right,
            write,
            workload.name,
            workload.namespace,
            _bound(workload, patch),
            _content_type="application/merge-patch+json",
            **_dry(rehearsed),
        )

    def shown_patch(self, workload: Workload, patch: dict[str, Any]) -> str:
        """``patch_workload`` as it goes over the wire."""
        resource = _RESOURCES[workload.kind].partition(".")[0]
        path = f"/apis/apps/v1/namespaces/{workload.namespace}/{resource}/{workload.name}"
        body = json.dumps(_bound(workload, patch))
        return f"PATCH {self._client.configuration.host}{path} (application/merge-patch+json) {body}"

    def shown_delete(self, namespace: str, name: str, uid: str) -> str:
        """``delete_pod`` as it goes over the wire."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        return f"DELETE {self._client.configuration.host}{path} {json.dumps({'preconditions': {'uid': uid}})}"

    async def pods(self, workload: Workload) -> tuple[Pod, ...]:
        """Those that belong to it, by way of its ReplicaSets for a Deployment."""
        owners = {workload.uid}
        if workload.kind == "Deployment":
            sets = await self._call(
                _Right("list", "replicasets.apps", workload.namespace),
                self._apps.list_namespaced_replica_set,
                workload.namespace,
                label_selector=workload.selector,
            )
            owners = {_meta(one.metadata).uid or "" for one in sets.items if _owner_uid(one.metadata) == workload.uid}
        pods = await self._call(
            _Right("list", "pods", workload.namespace),
            self._core.list_namespaced_pod,
            workload.namespace,
            label_selector=workload.selector,
        )
        return tuple(pod for pod in map(_pod, pods.items) if pod.owner_uid in owners)

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """None when there is none."""
        try:
            return _pod(
                await self._call(_Right("get", "pods", namespace), self._core.read_namespaced_pod, name, namespace)
            )
        except _Missing:
            return None

    async def delete_pod(self, namespace: str, name: str, uid: str, *, rehearsed: bool = False) -> None:
        """Deletes this very pod, with its own grace period; refused when another bears its name by now."""
        await self._call(
            _Right("delete", "pods", namespace),
            self._core.delete_namespaced_pod,
            name,
            namespace,
            body=V1DeleteOptions(preconditions=V1Preconditions(uid=uid)),
            **_dry(rehearsed),
        )

    def close(self) -> None:
        self._client.rest_client.close()

    async def _call(self, right: _Right, function: Callable[..., _T], *args: object, **kwargs: object) -> _T:
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                return await asyncio.to_thread(function, *args, _request_timeout=self._timeout_s, **kwargs)
        except ApiException as error:
            raise _refusal(right, error) from error
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise TemporaryError(f"the Kubernetes API server cannot be reached, nothing was sent: {error}") from error
        except (
            urllib3.exceptions.HTTPError,
            TimeoutError,
            ValueError,
        ) as error:  # ValueError: no JSON, or another shape
            raise _no_answer(right, f"{type(error).__name__}: {error}") from error


def _bound(workload: Workload, patch: dict[str, Any]) -> dict[str, Any]:
    """The patch with what makes the server refuse it once the object has changed."""
    seen = {"uid": workload.uid, "resourceVersion": workload.resource_version}
    return {**patch, "metadata": {**patch.get("metadata", {}), **seen}}


def _dry(rehearsed: bool) -> dict[str, str]:
    return {"dry_run": "All"} if rehearsed else {}


def _no_answer(right: _Right, why: str) -> SreBotError:
    if right.is_write:
        return OutcomeUnknown(f"{right} was sent to Kubernetes and not answered: {why}")
    return TemporaryError(f"{right} failed: {why}")


def _refusal(right: _Right, error: ApiException) -> SreBotError:
    status, message = error.status or 0, _message(error)
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return PermanentError(f"Kubernetes does not accept the bot's credentials (to {right}): {message}")
        case HTTPStatus.FORBIDDEN:
            return PermanentError(
                f"the bot's account may not {right}; executors/targets/kubernetes-rbac.yaml grants it: {message}"
            )
        case HTTPStatus.NOT_FOUND:
            return _Missing(f"Kubernetes finds nothing to {right}: {message}")
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
    try:
        status = json.loads(error.body or "")
    except ValueError:
        return str(error.body or error.reason)[:300]
    return str(status.get("message", error.reason)) if isinstance(status, dict) else str(error.reason)


def _retry_after_s(error: ApiException) -> float | None:
    seconds = (error.headers or {}).get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else None


def _workload(kind: Kind, found: V1Deployment | V1StatefulSet) -> Workload:
    meta, spec, status = _meta(found.metadata), found.spec, found.status
    if spec is None or meta.uid is None or meta.generation is None or meta.resource_version is None:
        raise TemporaryError(f"Kubernetes described the {kind} {meta.name} without uid, version or spec")
    return Workload(
        kind=kind,
        namespace=meta.namespace or "",
        name=meta.name or "",
        uid=meta.uid,
        generation=meta.generation,
        resource_version=meta.resource_version,
        observed_generation=(status.observed_generation if status else None) or 0,
        replicas=1 if spec.replicas is None else spec.replicas,
        annotations=meta.annotations or {},
        selector=_selector(spec.selector),
        images=_images(spec.template),
        rollout=_rollout(found),
    )


def _rollout(found: V1Deployment | V1StatefulSet) -> str:
    if isinstance(found, V1StatefulSet):
        return str(found.status.current_revision or "") if found.status else ""
    return str((_meta(found.metadata).annotations or {}).get(_REVISION, ""))


def _images(template: V1PodTemplateSpec | None) -> tuple[str, ...]:
    """What the pods are made to run, in the order of their containers."""
    spec = template.spec if template is not None else None
    return tuple(str(container.image or "") for container in (spec.containers if spec else None) or [])


def _pod(found: V1Pod) -> Pod:
    meta, status = _meta(found.metadata), found.status
    conditions = (status.conditions if status else None) or []
    return Pod(
        name=meta.name or "",
        uid=meta.uid or "",
        owner_uid=_owner_uid(found.metadata),
        ready=any(one.type == "Ready" and one.status == "True" for one in conditions),
        terminating=meta.deletion_timestamp is not None,
        finished=bool(status and status.phase in ("Succeeded", "Failed")),
    )


def _meta(meta: V1ObjectMeta | None) -> V1ObjectMeta:
    return meta or V1ObjectMeta()


def _owner_uid(meta: V1ObjectMeta | None) -> str | None:
    return next((owner.uid for owner in _meta(meta).owner_references or [] if owner.controller), None)


def _selector(selector: V1LabelSelector) -> str:
    """A label selector as the list calls take it."""
    terms = [f"{key}={value}" for key, value in sorted((selector.match_labels or {}).items())]
    for one in selector.match_expressions or []:
        values = ",".join(one.values or [])
        terms.append(
            {
                "In": f"{one.key} in ({values})",
                "NotIn": f"{one.key} notin ({values})",
                "Exists": one.key,
                "DoesNotExist": f"!{one.key}",
            }[one.operator]
        )
    return ",".join(terms)
