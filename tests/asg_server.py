"""A small EC2 Auto Scaling (query API of 2011-01-01), with what of STS and IAM says who one is and what one may.

Nothing moves by itself: each time a group is described its world goes on by one step, unless ``paused``.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self
from unittest import mock
from xml.sax.saxutils import escape

from aiohttp import web
from botocore.loaders import create_loader

REGION = "eu-west-1"
ACCOUNT = "123456789012"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "the-bot",
    "AWS_SECRET_ACCESS_KEY": "of-no-use",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "no_proxy": "127.0.0.1",
}
_loader = cache(create_loader)
_CALLER = f"arn:aws:sts::{ACCOUNT}:assumed-role/sre-bot/i-0b07"
_ACTIVE = ("Pending", "InProgress", "Cancelling")

Fault = Literal["throttle", "cut", "fail"]
"""Of the next write: refused for now; carried out and never answered; answered with a 500 after it was carried out."""


@contextmanager
def as_the_bot() -> Iterator[None]:
    """What boto3's chain finds; and botocore reads its descriptions of services once, which takes it long."""
    with mock.patch.dict(os.environ, _ENVIRONMENT), mock.patch("botocore.session.create_loader", _loader):
        yield


class Refused(Exception):
    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class AwsServer:
    """``async with``: talk to ``url``. ``denied``: writes are answered as those of an account without the right."""

    def __init__(self) -> None:
        self.url = ""
        self.writes: list[str] = []
        """Names of the changing operations that came, whatever became of them."""
        self.denied = False
        self.not_allowed: set[str] = set()
        """What IAM's simulator answers implicitDeny for."""
        self.fault: Fault | None = None
        self.before_write: Callable[[], None] | None = None
        """Called once, right before the next write takes effect: what somebody else does in that moment."""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        self.routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/", self._query)

    def answer(self, action: str, asked: Mapping[str, str]) -> dict[str, Any] | None:
        """The result of a query operation; None where it is none of this server's. Raises Refused."""
        del action, asked
        return None

    def is_write(self, action: str) -> bool:
        return not action.startswith(("Describe", "Get", "List", "Simulate"))

    def begin_write(self, action: str, resource: str) -> Fault | None:
        """Raises Refused; returns what is to become of the answer."""
        self.writes.append(action)
        if self.denied:
            raise Refused(
                "AccessDenied",
                f"User: {_CALLER} is not authorized to perform: {action} on resource: {resource} because no"
                f" identity-based policy allows the {action} action",
                403,
            )
        fault, self.fault = self.fault, None
        if fault == "throttle":
            raise Refused("Throttling", "Rate exceeded")
        meanwhile, self.before_write = self.before_write, None
        if meanwhile is not None:
            meanwhile()
        return fault

    async def _query(self, request: web.Request) -> web.Response:
        asked = {key: str(value) for key, value in (await request.post()).items()}
        action, fault = asked["Action"], None
        try:
            if self.is_write(action):
                fault = self.begin_write(f"autoscaling:{action}", asked.get("AutoScalingGroupName", ""))
            result = self.answer(action, asked)
            if result is None:
                result = self._identity(action, asked)
        except Refused as refused:
            return _refusal(refused)
        if fault == "fail":
            return _refusal(Refused("InternalFailure", "The request processing has failed.", 500))
        if fault == "cut":
            assert request.transport is not None
            request.transport.abort()
        body = f"<{action}Response><{action}Result>{_xml(result)}</{action}Result>{_META}</{action}Response>"
        return web.Response(text=body, content_type="text/xml")

    def _identity(self, action: str, asked: Mapping[str, str]) -> dict[str, Any]:
        match action:
            case "GetCallerIdentity":
                return {"Arn": _CALLER, "UserId": "AROA:i-0b07", "Account": ACCOUNT}
            case "SimulatePrincipalPolicy":
                assert asked["PolicySourceArn"] == f"arn:aws:iam::{ACCOUNT}:role/sre-bot"
                return {
                    "EvaluationResults": [
                        {
                            "EvalActionName": name,
                            "EvalResourceName": asked["ResourceArns.member.1"],
                            "EvalDecision": "implicitDeny" if name in self.not_allowed else "allowed",
                            "MissingContextValues": [],
                        }
                        for name in _members(asked, "ActionNames")
                    ]
                }
            case _:
                raise Refused("InvalidAction", f"Could not find operation {action} for version 2011-01-01")


@dataclass
class Instance:
    id: str
    lifecycle: str = "InService"
    health: str = "Healthy"
    weight: str = ""


@dataclass
class Refresh:
    """``waits_at``: checkpoints that are still to be waited at."""

    id: str
    checkpoints: list[int]
    delay_s: int
    old: list[str]
    status: str = "Pending"
    reason: str = ""
    replaced: int = 0
    total: int = 0
    waits: bool = False
    waits_at: list[int] = field(default_factory=list)

    @property
    def percent(self) -> int:
        return 100 * self.replaced // self.total if self.total else 100


@dataclass
class Group:
    name: str
    minimum: int = 1
    maximum: int = 8
    desired: int = 4
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    instances: list[Instance] = field(default_factory=list)
    refreshes: list[Refresh] = field(default_factory=list)
    """The latest first."""
    suspended: list[str] = field(default_factory=list)
    template_version: str = "7"
    status: str = ""


class AsgServer(AwsServer):
    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[str, Group] = {}
        self.paused = False
        self._numbers = itertools.count(1)

    def add_group(self, group: Group) -> Group:
        group.instances = [self._launched("InService") for _ in range(group.desired)]
        self.groups[group.name] = group
        return group

    def refresh(self, name: str, checkpoints: list[int], delay_s: int = 3600) -> Refresh:
        """Starts one, as AWS does for whoever asks."""
        group = self.groups[name]
        made = Refresh(str(uuid.uuid4()), checkpoints, delay_s, [one.id for one in group.instances])
        made.total, made.waits_at = len(made.old), [one for one in checkpoints if one < 100]
        group.refreshes.insert(0, made)
        return made

    def answer(self, action: str, asked: Mapping[str, str]) -> dict[str, Any] | None:
        match action:
            case "DescribeAutoScalingGroups":
                names = _members(asked, "AutoScalingGroupNames")
                for name in names:
                    if name in self.groups and not self.paused:
                        self._go_on(self.groups[name])
                return {"AutoScalingGroups": [_shown(self.groups[name]) for name in names if name in self.groups]}
            case "DescribeInstanceRefreshes":
                return {"InstanceRefreshes": [_shown_refresh(one) for one in self._group(asked).refreshes[:50]]}
            case "StartInstanceRefresh":
                return {"InstanceRefreshId": self._start(asked)}
            case "CancelInstanceRefresh":
                active = self._active(self._group(asked))
                if active is None:
                    raise Refused(
                        "ActiveInstanceRefreshNotFound",
                        "No in progress or pending Instance Refresh found for Auto Scaling group "
                        + asked["AutoScalingGroupName"],
                    )
                active.status, active.reason = "Cancelling", "Cancelled due to user request."
                return {"InstanceRefreshId": active.id}
            case "SetDesiredCapacity":
                group, wanted = self._group(asked), int(asked["DesiredCapacity"])
                for limit, beyond, words in (
                    (group.maximum, wanted > group.maximum, "above max"),
                    (group.minimum, wanted < group.minimum, "below min"),
                ):
                    if beyond:
                        raise Refused(
                            "ValidationError",
                            f"New SetDesiredCapacity value {wanted} is {words} value {limit} for the AutoScalingGroup.",
                        )
                group.desired = wanted
                return {}
            case _:
                return None

    def _start(self, asked: Mapping[str, str]) -> str:
        group = self._group(asked)
        if self._active(group) is not None:
            raise Refused(
                "InstanceRefreshInProgress",
                "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.",
            )
        checkpoints = [int(one) for one in _members(asked, "Preferences.CheckpointPercentages")]
        delay_s = int(asked.get("Preferences.CheckpointDelay", "3600"))
        if checkpoints != sorted(set(checkpoints)) or not 0 <= delay_s <= 172_800:
            raise Refused(
                "ValidationError", "The checkpoints have to be unique, in ascending order and within 48 hours."
            )
        return self.refresh(group.name, checkpoints, delay_s).id

    def _group(self, asked: Mapping[str, str]) -> Group:
        name = asked["AutoScalingGroupName"]
        if name not in self.groups:
            raise Refused("ValidationError", f"AutoScalingGroup name not found - AutoScalingGroup {name} not found")
        return self.groups[name]

    def _active(self, group: Group) -> Refresh | None:
        return next((one for one in group.refreshes if one.status in _ACTIVE), None)

    def _launched(self, lifecycle: str = "Pending") -> Instance:
        return Instance(f"i-{next(self._numbers):017x}", lifecycle)

    def _go_on(self, group: Group) -> None:
        group.instances = [one for one in group.instances if one.lifecycle != "Terminating"]
        for one in group.instances:
            one.lifecycle = "InService" if one.lifecycle == "Pending" else one.lifecycle
        for refresh in group.refreshes:
            self._go_on_refreshing(group, refresh)
        live = [one for one in group.instances if one.lifecycle != "Terminating"]
        if "Launch" not in group.suspended:
            group.instances += [self._launched() for _ in range(group.desired - len(live))]
        if "Terminate" not in group.suspended:
            for one in live[group.desired :]:
                one.lifecycle = "Terminating"

    def _go_on_refreshing(self, group: Group, refresh: Refresh) -> None:
        present = {one.id for one in group.instances}
        match refresh.status:
            case "Pending":
                refresh.status = "InProgress"
            case "Cancelling":
                refresh.status = "Cancelled"
            case "InProgress" if not refresh.waits and _is_whole(group):
                refresh.replaced = sum(one not in present for one in refresh.old)
                if refresh.waits_at and refresh.percent >= refresh.waits_at[0]:
                    reached = refresh.waits_at.pop(0)
                    refresh.waits, refresh.reason = True, f"Checkpoint {reached} reached, waiting {refresh.delay_s} s."
                elif refresh.replaced == refresh.total:
                    refresh.status, refresh.reason = "Successful", ""
                else:
                    following = next(one for one in group.instances if one.id in refresh.old)
                    following.lifecycle = "Terminating"


def _is_whole(group: Group) -> bool:
    return len(group.instances) == group.desired and all(one.lifecycle == "InService" for one in group.instances)


def _members(asked: Mapping[str, str], name: str) -> list[str]:
    found = (asked.get(f"{name}.member.{number}") for number in itertools.count(1))
    return list(itertools.takewhile(lambda one: one is not None, found))  # type: ignore[arg-type]


def _shown(group: Group) -> dict[str, Any]:
    template = {"LaunchTemplateId": "lt-0a1b2c3d", "LaunchTemplateName": "web", "Version": group.template_version}
    shown: dict[str, Any] = {
        "AutoScalingGroupName": group.name,
        "AutoScalingGroupARN": (
            f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:{group.uuid}:autoScalingGroupName/{group.name}"
        ),
        "LaunchTemplate": template,
        "MinSize": group.minimum,
        "MaxSize": group.maximum,
        "DesiredCapacity": group.desired,
        "DefaultCooldown": 300,
        "AvailabilityZones": [f"{REGION}a"],
        "HealthCheckType": "EC2",
        "CreatedTime": "2026-05-01T08:00:00.000Z",
        "Instances": [
            {
                "InstanceId": one.id,
                "AvailabilityZone": f"{REGION}a",
                "LifecycleState": one.lifecycle,
                "HealthStatus": one.health,
                "LaunchTemplate": template,
                "ProtectedFromScaleIn": False,
            }
            | ({"WeightedCapacity": one.weight} if one.weight else {})
            for one in group.instances
        ],
        "SuspendedProcesses": [
            {"ProcessName": one, "SuspensionReason": "User suspended at 2026-11-01T08:00:00Z"}
            for one in group.suspended
        ],
    }
    return shown | ({"Status": group.status} if group.status else {})


def _shown_refresh(refresh: Refresh) -> dict[str, Any]:
    return {
        "InstanceRefreshId": refresh.id,
        "Status": refresh.status,
        "StatusReason": refresh.reason,
        "PercentageComplete": refresh.percent,
        "InstancesToUpdate": refresh.total - refresh.replaced,
        "StartTime": "2026-11-23T15:00:00.000Z",
        "Preferences": {
            "SkipMatching": False,
            "CheckpointPercentages": refresh.checkpoints,
            "CheckpointDelay": refresh.delay_s,
        },
    }


_META = "<ResponseMetadata><RequestId>7c6e177f-f082-11e1-ac58-3714bEXAMPLE</RequestId></ResponseMetadata>"


def _refusal(refused: Refused) -> web.Response:
    said = f"<Code>{refused.code}</Code><Message>{escape(str(refused))}</Message>"
    body = f"<ErrorResponse><Error><Type>Sender</Type>{said}</Error><RequestId>1</RequestId></ErrorResponse>"
    return web.Response(text=body, status=refused.status, content_type="text/xml")


def _xml(value: object) -> str:
    if isinstance(value, dict):
        return "".join(f"<{key}>{_xml(one)}</{key}>" for key, one in value.items())
    if isinstance(value, list):
        return "".join(f"<member>{_xml(one)}</member>" for one in value)
    return str(value).lower() if isinstance(value, bool) else escape(str(value))
