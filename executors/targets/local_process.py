"""The demo world's services: real processes on this machine, kept by a supervisor with an HTTP API."""

from __future__ import annotations

import json
import shlex
from http import HTTPStatus
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import Action, ManualAction, Operation, RestartAction, RestartInstance, ScaleAction, ScaleTo
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.ports.targets import Target

_T = TypeVar("_T")


class _Answer(BaseModel):
    # Only what is used is read, so that a supervisor which says more is no fault.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Instance(_Answer):
    name: str
    uid: str
    ready: bool


class _Service(_Answer):
    name: str
    namespace: str
    uid: str
    generation: int
    replicas: int
    instances: tuple[_Instance, ...]
    replicas_1h_ago: int


class _Change(_Answer):
    service: str
    kind: str
    step: int
    detail: dict[str, JsonValue]


class _Refusal(_Answer):
    reason: str


_SERVICE = TypeAdapter(_Service)
_CHANGES = TypeAdapter(tuple[_Change, ...])


class LocalProcessTarget(Target):
    """Services under the demo world's supervisor at ``base_url``; each call has ``timeout_s``.

    A write is sent once; aiohttp repeats a GET whose connection was lost, but never a POST.
    """

    def __init__(self, base_url: str, *, timeout_s: float = 5.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    @property
    def platform(self) -> str:
        return "local_process"

    def declares(self) -> Declaration:
        return Declaration(
            offers=(
                Offer("restart", False, ("POST /v1/services/NAME/restart",), "the uid of the process, the fence"),
                Offer("scale", True, ("POST /v1/services/NAME/scale",), "the service's generation, the fence"),
            ),
            observes=(
                "processes and which are ready",
                "replicas wanted, now and one hour ago",
                "the journal of changes",
            ),
            reads=("GET /v1/services/NAME", "GET /v1/journal"),
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        await self._service(ref)
        declared = self.declares()
        said = "the supervisor listens on this machine alone and asks nobody who they are"
        rights = [*declared.reads, *(right for offer in declared.offers for right in offer.rights)]
        return tuple(RightCheck(right, True, said) for right in rights)

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        service = await self._read_service(address.name)
        if service is None or service.namespace != address.namespace:
            raise PermanentError(f"the demo world has no service {address.namespace}/{address.name}")
        return TargetRef(platform="local_process", namespace=service.namespace, name=service.name, uid=service.uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        service = await self._service(ref)
        return TargetState(
            ref=ref,
            generation=str(service.generation),
            replicas=service.replicas,
            instances=tuple(InstanceState(one.name, one.uid, one.ready) for one in service.instances),
            replicas_1h_ago=service.replicas_1h_ago,
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        service = await self._service(ref)
        if str(service.generation) != intent.generation:
            raise PreconditionFailed(
                f"{ref.describe()} has changed: it is at generation {service.generation}, not {intent.generation}"
            )
        origin: dict[str, str | int] = {
            "execution_id": str(intent.execution_id),
            "step": intent.step,
            "fence": intent.fence,
        }
        verb, wish = _wish(operation, service.generation)
        await self._write(ref, verb, wish | origin)
        match operation:
            case RestartInstance(instance=instance):
                return f"restarted {instance.name} ({instance.uid})"
            case ScaleTo(replicas=replicas):
                return f"scaled {ref.describe()} from {service.replicas} to {replicas}"
            case _:
                raise not_offered("local_process", operation)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        service = await self._service(ref)
        verb, wish = _wish(operation, service.generation)
        body = json.dumps(wish | {"execution_id": "<execution>", "step": "<step>", "fence": "<fence>"})
        url = f"{self._base_url}/v1/services/{ref.name}/{verb}"
        return (f"POST {url} {body} only while {ref.describe()} is at generation {generation}",)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        service = await self._service(ref)
        complete = len(service.instances) == service.replicas and all(one.ready for one in service.instances)
        match operation:
            case RestartInstance(instance=instance):
                return complete and instance.uid not in {one.uid for one in service.instances}
            case ScaleTo(replicas=replicas):
                return complete and service.replicas == replicas
            case _:
                raise not_offered("local_process", operation)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by the supervisor's journal; takes up to ``timeout_s``.

        The journal is written, and forced to the disk, before a change takes effect, so an entry of this execution's
        step is the proof that it was applied. That there is none proves nothing by itself, for the request may still be
        on its way. It is NOT_APPLIED when the supervisor would refuse the request by now (the generation has moved on,
        the instance's uid is gone; neither comes back), or when nothing has arrived within ``timeout_s``, after which
        every sender has given up and closed its connection. A sender stopped in mid-call for longer than that meets the
        same two preconditions, so that a step done over cannot take effect twice.

        UNKNOWN when the service is another one (its uid is gone) and the journal with it.
        """
        return await wait_out(lambda: self._look(ref, operation, intent), flight_s=self._timeout_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        """A shell line with curl, and jq for the generation and fence that stand when it is typed."""
        match action:
            case RestartAction(instances=instances):
                return " && ".join(
                    self._curl(
                        ref,
                        "restart",
                        f"instance: {json.dumps(one.name)}, if_instance_uid: {json.dumps(one.uid)}",
                    )
                    for one in instances
                )
            case ScaleAction(to_replicas=replicas):
                return self._curl(ref, "scale", f"replicas: {replicas}, if_generation: .generation")
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("local_process", action)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _curl(self, ref: TargetRef, verb: str, wish: str) -> str:
        url = f"{self._base_url}/v1/services/{ref.name}"
        body = f'{{{wish}, execution_id: "by-hand", step: 0, fence: (.last_change.fence // 0)}}'
        return (
            f"curl -sS {shlex.quote(url)} | jq {shlex.quote(body)}"
            f" | curl -sS --fail-with-body -H 'Content-Type: application/json' -d @- {shlex.quote(f'{url}/{verb}')}"
        )

    async def _look(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding | None:
        # The service is read first: what it refuses by then cannot be entered in the journal read after it.
        try:
            service = await self._service(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        changes = await self._read("/v1/journal", _CHANGES, {"execution_id": str(intent.execution_id)})
        if any(_is_trace(change, ref, operation, intent) for change in changes or ()):
            return Finding.APPLIED
        return Finding.NOT_APPLIED if _would_be_refused(service, operation, intent) else None

    async def _service(self, ref: TargetRef) -> _Service:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        service = await self._read_service(ref.name)
        if service is None or service.uid != ref.uid:
            raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone")
        return service

    async def _read_service(self, name: str) -> _Service | None:
        return await self._read(f"/v1/services/{name}", _SERVICE)

    async def _read(self, path: str, answer: TypeAdapter[_T], query: dict[str, str] | None = None) -> _T | None:
        """None for 404. Raises TemporaryError, PermanentError."""
        try:
            async with self._connected().get(self._base_url + path, params=query, allow_redirects=False) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TemporaryError(f"{self._it} cannot be read: {_why(error)}") from error
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status >= 500 or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise TemporaryError(f"{self._it} answered {status}: {_reason(body)}")
        if status != HTTPStatus.OK:
            raise PermanentError(f"{self._it} answered {status}: {_reason(body)}")
        try:
            return answer.validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise TemporaryError(f"{self._it} gave an answer that makes no sense: {where}: {first['msg']}") from error

    async def _write(self, ref: TargetRef, verb: str, body: dict[str, str | int]) -> None:
        """One POST, never repeated. Raises as ``Target.apply`` says."""
        try:
            async with self._connected().post(
                f"{self._base_url}/v1/services/{ref.name}/{verb}", json=body, allow_redirects=False
            ) as response:
                status = response.status
                if status == HTTPStatus.ACCEPTED:
                    return  # what the body says is read back anyway
                reason = _reason(await response.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TemporaryError(f"{self._it} cannot be reached, nothing was sent: {_why(error)}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OutcomeUnknown(f"{verb} of {ref.describe()} was sent and not answered: {_why(error)}") from error
        match status:
            case HTTPStatus.CONFLICT:
                raise PreconditionFailed(f"{self._it} refused to {verb} {ref.describe()}: {reason}")
            case HTTPStatus.TOO_MANY_REQUESTS:
                raise TemporaryError(f"{self._it} refused to {verb} {ref.describe()} for now: {reason}")
            case _ if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise PermanentError(f"{self._it} refused to {verb} {ref.describe()} ({status}): {reason}")
            case _:
                raise OutcomeUnknown(f"{self._it} answered {status} to {verb} {ref.describe()}: {reason}")

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A connection of its own for each call: one that the supervisor closed while it was idle would make a
            # refused connection look like a lost answer.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            )
        return self._session

    @property
    def _it(self) -> str:
        return f"the demo world's supervisor at {self._base_url}"


def _wish(operation: Operation, generation: int) -> tuple[str, dict[str, str | int]]:
    """The verb of the supervisor, and the body but for its origin."""
    match operation:
        case RestartInstance(instance=instance):
            return "restart", {"instance": instance.name, "if_instance_uid": instance.uid}
        case ScaleTo(replicas=replicas):
            return "scale", {"replicas": replicas, "if_generation": generation}
        case _:
            raise not_offered("local_process", operation)


def _is_trace(change: _Change, ref: TargetRef, operation: Operation, intent: Intent) -> bool:
    if (change.service, change.step) != (ref.name, intent.step):
        return False
    match operation:
        case RestartInstance(instance=instance):
            return change.kind == "restart" and change.detail.get("old_uid") == instance.uid
        case ScaleTo(replicas=replicas):
            return change.kind == "scale" and change.detail.get("to") == replicas
        case _:
            raise not_offered("local_process", operation)


def _would_be_refused(service: _Service, operation: Operation, intent: Intent) -> bool:
    match operation:
        case RestartInstance(instance=instance):
            return instance.uid not in {one.uid for one in service.instances}
        case ScaleTo():
            return str(service.generation) != intent.generation
        case _:
            raise not_offered("local_process", operation)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _reason(body: bytes) -> str:
    try:
        return _Refusal.model_validate_json(body).reason
    except ValidationError:
        return body[:200].decode(errors="replace")
