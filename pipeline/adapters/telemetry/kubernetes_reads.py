"""The few reads of a Kubernetes API server that its telemetry needs: the official client in threads, under a guard.

The client carries the credentials and the TLS; its answers are read with a bound in size and time, which it has none
of, and only the fields that are needed are looked at: its own models refuse whole lists for one odd object.
API: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Annotated, Generic, TypeVar

import urllib3.exceptions
from kubernetes.client import ApiClient, ApiException, AppsV1Api, Configuration, CoreV1Api
from kubernetes.config.config_exception import ConfigException
from pydantic import AwareDatetime, BeforeValidator, Field

from pipeline.adapters.telemetry.guard import Guard
from pipeline.adapters.telemetry.http import MAX_BODY_BYTES, one_line
from pipeline.adapters.telemetry.upstream import Lenient, NotFound, parse_answer, retry_after_s, said
from pipeline.domain.errors import PermanentError, TemporaryError

LOG_BYTES = 4 * 1024 * 1024
"""The server ends a container's log after so many bytes."""
_PAGE_OBJECTS = 100
"""A pod may be described in 20 kB: so many stay far below the bound of an answer."""
_MAX_PAGES = 50
_FOR_NOW = (0, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS)
"""0: TLS failed. 410: a list changed while its pages were read."""
_CHUNK_BYTES = 65_536
_NO_LOG = ("waiting to start", "not found", "not available", "is terminated", "has not created")
"""How the words of a 400 tell that a container has no log (any more), which is no failure."""

_T = TypeVar("_T")


def _empty_if_null(value: object) -> object:
    return {} if value is None else value


Texts = Annotated[dict[str, str], BeforeValidator(_empty_if_null)]


class Owner(Lenient):
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class Meta(Lenient):
    name: str
    uid: str = ""
    creationTimestamp: AwareDatetime | None = None
    labels: Texts = Field(default_factory=dict)
    annotations: Texts = Field(default_factory=dict)
    ownerReferences: tuple[Owner, ...] | None = None

    @property
    def owner(self) -> Owner | None:
        """The controller that made it."""
        return next((owner for owner in self.ownerReferences or () if owner.controller), None)


class Terminated(Lenient):
    exitCode: int = 0
    reason: str | None = None
    message: str | None = None
    finishedAt: AwareDatetime | None = None


class State(Lenient):
    running: dict[str, object] | None = None
    terminated: Terminated | None = None


class Container(Lenient):
    name: str
    state: State = State()
    lastState: State = State()


class PodStatus(Lenient):
    containerStatuses: tuple[Container, ...] | None = None
    initContainerStatuses: tuple[Container, ...] | None = None

    @property
    def containers(self) -> tuple[Container, ...]:
        return (*(self.initContainerStatuses or ()), *(self.containerStatuses or ()))


class Pod(Lenient):
    metadata: Meta
    status: PodStatus = PodStatus()


class Involved(Lenient):
    kind: str | None = None
    name: str | None = None


class EventSeries(Lenient):
    count: int | None = None
    lastObservedTime: AwareDatetime | None = None


class Event(Lenient):
    metadata: Meta
    involvedObject: Involved
    reason: str | None = None
    message: str | None = None
    count: int | None = None
    firstTimestamp: AwareDatetime | None = None
    lastTimestamp: AwareDatetime | None = None
    eventTime: AwareDatetime | None = None
    series: EventSeries | None = None


class Image(Lenient):
    name: str
    image: str = ""


class PodSpec(Lenient):
    containers: tuple[Image, ...] = ()


class Template(Lenient):
    spec: PodSpec = PodSpec()


class WorkloadSpec(Lenient):
    template: Template = Template()


class ReplicaSet(Lenient):
    metadata: Meta
    spec: WorkloadSpec = WorkloadSpec()


class Condition(Lenient):
    type: str
    lastUpdateTime: AwareDatetime | None = None


class DeploymentStatus(Lenient):
    conditions: tuple[Condition, ...] | None = None


class Deployment(Lenient):
    metadata: Meta
    status: DeploymentStatus = DeploymentStatus()


_Object = TypeVar("_Object", Pod, Event, ReplicaSet, Deployment)


class _ListMeta(Lenient):
    more: str | None = Field(None, validation_alias="continue")


class _Page(Lenient, Generic[_Object]):
    metadata: _ListMeta = _ListMeta()
    items: tuple[_Object, ...] | None


class ClusterReader:
    """``timeout_s`` bounds each request as a whole, ``concurrency`` how many are under way. Raises TemporaryError and
    PermanentError."""

    def __init__(self, configuration: Configuration, *, timeout_s: float, concurrency: int = 8) -> None:
        configuration.retries = False
        self._client = ApiClient(configuration)
        self._core = CoreV1Api(self._client)
        self._apps = AppsV1Api(self._client)
        self._timeout_s = timeout_s
        self._guard = Guard("Kubernetes", timeout_s=timeout_s, concurrency=concurrency)
        # Threads of its own: a log that drips holds one to the end of its time, and the common ones look up addresses.
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="kubernetes-reads")

    async def pods(self, namespace: str) -> tuple[Pod, ...]:
        return await self._list(_Page[Pod], "pods", self._core.list_namespaced_pod, namespace)

    async def warnings(self, namespace: str) -> tuple[Event, ...]:
        """Events of type Warning. Of CoreV1: the newer API's model refuses the null times that are common."""
        function = partial(self._core.list_namespaced_event, field_selector="type=Warning")
        return await self._list(_Page[Event], "events", function, namespace)

    async def replica_sets(self, namespace: str) -> tuple[ReplicaSet, ...]:
        function = self._apps.list_namespaced_replica_set
        return await self._list(_Page[ReplicaSet], "replicasets.apps", function, namespace)

    async def deployments(self, namespace: str) -> tuple[Deployment, ...]:
        return await self._list(_Page[Deployment], "deployments.apps", self._apps.list_namespaced_deployment, namespace)

    async def log(
        self, namespace: str, pod: str, container: str, *, previous: bool, since_s: int, tail_lines: int
    ) -> str:
        """Lines with their time before them, of the last ``since_s`` seconds; empty where there is no log."""
        function = partial(
            self._core.read_namespaced_pod_log,
            pod,
            namespace,
            container=container,
            previous=previous,
            since_seconds=since_s,
            tail_lines=tail_lines,
            limit_bytes=LOG_BYTES,
            timestamps=True,
        )
        try:
            body = await self._call(f"get pods/log in namespace {namespace}", function)
        except NotFound:
            return ""
        except _NodeTrouble as error:
            raise TemporaryError(str(error)) from error
        except PermanentError as error:
            if any(words in str(error) for words in _NO_LOG):
                return ""
            raise
        return body.decode(errors="replace")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.rest_client.close()

    async def _list(
        self, model: type[_Page[_Object]], resource: str, function: Callable[..., object], namespace: str
    ) -> tuple[_Object, ...]:
        found: list[_Object] = []
        more: str | None = None
        for _ in range(_MAX_PAGES):
            of_page = {"_continue": more} if more else {}
            right = f"list {resource} in namespace {namespace}"
            body = await self._call(right, partial(function, namespace, limit=_PAGE_OBJECTS, **of_page))
            page = parse_answer(model, body, f"the Kubernetes API ({resource})")
            found += page.items or ()
            more = page.metadata.more
            if not more:
                return tuple(found)
        raise PermanentError(f"there are more than {_MAX_PAGES * _PAGE_OBJECTS} {resource} in namespace {namespace}")

    async def _call(self, right: str, function: Callable[..., object]) -> bytes:
        async with self._guard.call():
            try:
                reading = partial(_read, function, self._timeout_s)
                return await asyncio.get_running_loop().run_in_executor(self._threads, reading)
            except ApiException as error:
                raise _refusal(right, error) from error
            except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
                raise TemporaryError("the Kubernetes API server cannot be reached") from error
            except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:
                raise TemporaryError(one_line(f"to {right} failed: {type(error).__name__}: {error}")) from error
            except ValueError as error:
                raise PermanentError(f"to {right} failed: {one_line(str(error))}") from error


class _NodeTrouble(PermanentError):
    """A log that a node would not give: nothing is known of the API server by it, and the breaker is not for it."""


def _read(function: Callable[..., object], timeout_s: float) -> bytes:
    deadline_s = monotonic() + timeout_s
    response = function(_preload_content=False, _request_timeout=timeout_s)
    assert isinstance(response, urllib3.HTTPResponse)
    body = bytearray()
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise ValueError(f"the answer is larger than {MAX_BODY_BYTES / 2**20:g} MiB")
            if monotonic() > deadline_s:
                raise TimeoutError(f"no whole answer within {timeout_s:g} s")
    except BaseException:
        response.close()  # the rest of it would be the next call's answer
        raise
    response.release_conn()
    return bytes(body)


def _refusal(right: str, error: ApiException) -> TemporaryError | PermanentError:
    status = error.status or 0
    words = said((error.body or "").encode()) or error.reason or "no explanation"
    if status == HTTPStatus.UNAUTHORIZED:
        return PermanentError(f"Kubernetes does not accept the bot's credentials: {words}")
    if status == HTTPStatus.FORBIDDEN:
        return PermanentError(
            one_line(f"the bot's account may not {right}: {words}", 250) + "; kubernetes-rbac.yaml grants it"
        )
    text = one_line(f"Kubernetes refused to {right} ({status}): {words}")
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(text)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and "pods/log" in right:
        return _NodeTrouble(text)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _FOR_NOW:
        after = (error.headers or {}).get("Retry-After", "")
        return TemporaryError(text, retry_after_s=retry_after_s(after))
    return PermanentError(text)
