"""A small AWS: what moto leaves out of Amazon ECS (its services make no tasks), and IAM's policy simulator.

boto3 talks to it over HTTP as it would to AWS: ECS and Application Auto Scaling in the JSON 1.1 protocol, STS and IAM
in the query protocol, with AWS' own error codes and words.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from functools import cache
from types import TracebackType
from typing import Any, Self
from xml.sax.saxutils import escape

import pytest
from aiohttp import web
from botocore.loaders import create_loader
from botocore.session import Session

from tests.ecs_world import ACCOUNT, EcsWorld, TaskRecord, arn

WRITES = frozenset({"UpdateService", "StopTask"})
WHO = f"arn:aws:sts::{ACCOUNT}:assumed-role/sre-bot/session"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/sre-bot"
_TICK_S = 0.01
_LOADER = create_loader()
"""botocore's descriptions of the APIs, read once and not for each client: they are most of a test's time."""


@cache
def _session() -> Session:
    """Made once and not for each adapter, for it takes long too; its credentials are those of ``aws_credentials``."""
    return Session()


_TARGETS = {
    "AmazonEC2ContainerServiceV20141113": "ecs",
    "AnyScaleFrontendService": "application-autoscaling",
}


@contextmanager
def aws_credentials() -> Iterator[None]:
    """boto3's chain finds these and nothing of the machine's own.

    All adapters share one session of botocore; a test of what a session finds puts ``botocore.session.Session`` back.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setattr("botocore.session.create_loader", lambda _path: _LOADER)
        patch.setattr("botocore.session.Session", lambda *_, **__: _session())
        yield


class Spoilt(Enum):
    """What becomes of one write."""

    THROTTLED = auto()
    """Refused for now."""
    CUT = auto()
    """Carried out; the connection is reset instead of answering."""
    LOST = auto()
    """Not carried out; the connection is reset."""
    BROKEN = auto()
    """Answered with ServerException (HTTP 500), not carried out."""


class Refused(Exception):
    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class AwsServer:
    """``async with AwsServer(world) as server``: talk to ``server.url``. ``actions`` are the IAM actions asked for.

    ``granted`` holds IAM actions, None: everything. While ``paused`` no scheduler works.
    """

    def __init__(self, world: EcsWorld) -> None:
        self.world = world
        self.actions: list[str] = []
        self.granted: set[str] | None = None
        self.bounds: dict[str, tuple[int, int]] = {}
        """Least and most tasks by resource id, such as ``service/CLUSTER/NAME``."""
        self.tasks_a_page = 100
        self.paused = False
        self.identity = WHO
        self.missing_context: tuple[str, ...] = ()
        self.url = ""
        self._spoilt: list[Spoilt] = []
        self._runner: web.AppRunner | None = None
        self._scheduler: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert self._runner.addresses
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._scheduler = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._scheduler is not None
        assert self._runner is not None
        self._scheduler.cancel()
        with suppress(asyncio.CancelledError):
            await self._scheduler
        await self._runner.cleanup()

    @property
    def writes(self) -> list[str]:
        return [action for action in self.actions if action.partition(":")[2] in WRITES]

    def spoil(self, spoilt: Spoilt) -> None:
        """Strikes the next write and is used up by it."""
        self._spoilt.append(spoilt)

    async def _run(self) -> None:
        while True:
            if not self.paused:
                self.world.tick()
            await asyncio.sleep(_TICK_S)

    async def _answer(self, request: web.Request) -> web.Response:
        if "AWS4-HMAC-SHA256" not in request.headers.get("Authorization", ""):
            return _error(Refused("MissingAuthenticationTokenException", "Missing Authentication Token", 403))
        if request.content_type == "application/x-www-form-urlencoded":
            return self._query({name: str(value) for name, value in (await request.post()).items()})
        prefix, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
        service, body = _TARGETS.get(prefix, ""), json.loads(await request.read() or b"{}")
        self.actions.append(f"{service}:{operation}")
        spoilt = self._spoilt.pop(0) if operation in WRITES and self._spoilt else None
        try:
            self._permit(f"{service}:{operation}")
            if spoilt is Spoilt.THROTTLED:
                raise Refused("ThrottlingException", "Rate exceeded")
            if spoilt is Spoilt.BROKEN:
                raise Refused("ServerException", "Service Unavailable. Please try again later.", 500)
            if spoilt is Spoilt.LOST:
                return _reset(request)
            answer = self._handlers()[operation](body)
        except Refused as refused:
            return _error(refused)
        return _reset(request) if spoilt is Spoilt.CUT else _json(answer)

    def _permit(self, action: str) -> None:
        if self.granted is not None and action not in self.granted:
            because = f"because no identity-based policy allows the {action} action"
            raise Refused("AccessDeniedException", f"User: {WHO} is not authorized to perform: {action} {because}")

    def _handlers(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {
            "DescribeServices": self._describe_services,
            "UpdateService": self._update_service,
            "ListTasks": self._list_tasks,
            "DescribeTasks": self._describe_tasks,
            "StopTask": self._stop_task,
            "DescribeScalableTargets": self._describe_scalable_targets,
        }

    def _cluster(self, body: dict[str, Any]) -> str:
        if (cluster := str(body["cluster"])) not in self.world.clusters:
            raise Refused("ClusterNotFoundException", "Cluster not found.")
        return cluster

    def _describe_services(self, body: dict[str, Any]) -> dict[str, Any]:
        cluster = self._cluster(body)
        found = {name: self.world.services.get((cluster, name)) for name in body["services"]}
        return {
            "services": [self.world.shown(one) for one in found.values() if one],
            "failures": [
                {"arn": arn("service", cluster, name), "reason": "MISSING"} for name, one in found.items() if not one
            ],
        }

    def _update_service(self, body: dict[str, Any]) -> dict[str, Any]:
        service = self.world.services.get((self._cluster(body), body["service"]))
        if service is None:
            raise Refused("ServiceNotFoundException", "Service not found.")
        if service.status != "ACTIVE":
            raise Refused("ServiceNotActiveException", "Service was not ACTIVE.")
        if body.get("forceNewDeployment") and service.controller != "ECS":
            raise Refused(
                "InvalidParameterException",
                f"Cannot force a new deployment on services with a {service.controller} deployment controller.",
            )
        if "desiredCount" in body and service.scheduling == "DAEMON":
            raise Refused(
                "InvalidParameterException",
                "The daemon scheduling strategy does not support a desired count for services. Remove the desired "
                "count value and try again",
            )
        service.desired = body.get("desiredCount", service.desired)
        if body.get("forceNewDeployment"):
            service.deploy(body.get("taskDefinition", service.definition))
        return {"service": self.world.shown(service)}

    def _list_tasks(self, body: dict[str, Any]) -> dict[str, Any]:
        service = self.world.services.get((self._cluster(body), body["serviceName"]))
        if service is None:
            raise Refused("ServiceNotFoundException", "Service not found.")
        wanted = body.get("desiredStatus", "RUNNING")
        arns = [one.arn for one in self.world.tasks_of(service) if one.desired_status == wanted]
        at = int(body.get("nextToken", "0"))
        end = at + self.tasks_a_page
        return {"taskArns": arns[at:end], **({"nextToken": str(end)} if end < len(arns) else {})}

    def _describe_tasks(self, body: dict[str, Any]) -> dict[str, Any]:
        cluster, asked = self._cluster(body), body["tasks"]
        if not asked:
            raise Refused("InvalidParameterException", "Tasks cannot be empty.")
        if len(asked) > 100:
            raise Refused("InvalidParameterException", "Tasks cannot have more than 100 elements.")
        found = {name: self._task(cluster, name) for name in asked}
        return {
            "tasks": [one.shown() for one in found.values() if one],
            "failures": [{"arn": name, "reason": "MISSING"} for name, one in found.items() if not one],
        }

    def _stop_task(self, body: dict[str, Any]) -> dict[str, Any]:
        task = self._task(self._cluster(body), body["task"])
        if task is None:
            raise Refused("InvalidParameterException", "The referenced task was not found.")
        if len(body.get("reason", "")) > 255:
            raise Refused("InvalidParameterException", "Reason cannot be longer than 255 characters.")
        task.stop("UserInitiated", body.get("reason", "Task stopped by user"))
        return {"task": task.shown()}

    def _task(self, cluster: str, name: str) -> TaskRecord | None:
        mine = (one for one in self.world.tasks if one.cluster == cluster)
        return next((one for one in mine if name in (one.arn, one.id)), None)

    def _describe_scalable_targets(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "ScalableTargets": [
                {
                    "ServiceNamespace": "ecs",
                    "ResourceId": name,
                    "ScalableDimension": "ecs:service:DesiredCount",
                    "MinCapacity": self.bounds[name][0],
                    "MaxCapacity": self.bounds[name][1],
                    "RoleARN": f"arn:aws:iam::{ACCOUNT}:role/autoscaling",
                    "CreationTime": 1.7e9,
                }
                for name in body["ResourceIds"]
                if name in self.bounds
            ]
        }

    def _query(self, form: dict[str, str]) -> web.Response:
        action = form["Action"]
        if action == "GetCallerIdentity":  # needs no right
            self.actions.append(f"sts:{action}")
            said = f"<Arn>{self.identity}</Arn><UserId>AROA:session</UserId><Account>{ACCOUNT}</Account>"
            return _xml(action, "https://sts.amazonaws.com/doc/2011-06-15/", said)
        self.actions.append(f"iam:{action}")
        if self.granted is not None and f"iam:{action}" not in self.granted:
            return _xml_error("AccessDenied", f"User: {WHO} is not authorized to perform: iam:{action}", 403)
        if form["PolicySourceArn"] != ROLE:
            return _xml_error("NoSuchEntity", f"Policy source {form['PolicySourceArn']} does not exist.", 404)
        results = ""
        for name, asked in form.items():
            if name.startswith("ActionNames.member."):
                allowed = self.granted is None or asked in self.granted
                missing = "" if allowed else "".join(f"<member>{escape(key)}</member>" for key in self.missing_context)
                results += (
                    f"<member><EvalActionName>{asked}</EvalActionName>"
                    f"<EvalResourceName>{escape(form['ResourceArns.member.1'])}</EvalResourceName>"
                    f"<EvalDecision>{'allowed' if allowed else 'implicitDeny'}</EvalDecision>"
                    f"<MissingContextValues>{missing}</MissingContextValues></member>"
                )
        said = f"<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>"
        return _xml(action, "https://iam.amazonaws.com/doc/2010-05-08/", said)


def _reset(request: web.Request) -> web.Response:
    """A TCP RST, not an orderly end."""
    assert request.transport is not None
    sock: socket.socket = request.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


def _json(answer: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(answer), status=status, content_type="application/x-amz-json-1.1")


def _error(refused: Refused) -> web.Response:
    return _json({"__type": refused.code, "message": str(refused)}, refused.status)


def _xml(action: str, namespace: str, said: str) -> web.Response:
    meta = "<ResponseMetadata><RequestId>0</RequestId></ResponseMetadata>"
    body = f'<{action}Response xmlns="{namespace}"><{action}Result>{said}</{action}Result>{meta}</{action}Response>'
    return web.Response(text=body, content_type="text/xml")


def _xml_error(code: str, message: str, status: int) -> web.Response:
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return web.Response(text=f"<ErrorResponse>{error}</ErrorResponse>", status=status, content_type="text/xml")
