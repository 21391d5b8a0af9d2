"""What ECS answers, as far as the target reads it, and what follows from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from pydantic import Field

from executors.targets.aws_api import Answer

_GOING = frozenset({"DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED", "DELETED"})
"""Of a task's life cycle, the states after RUNNING."""
_WANTED = re.compile(r"desired=(\S+) definition=(\S+) deployment=(\S*)")
_TROUBLE = re.compile(r"\b(unable|throttled|failed)\b")
"""Words of the service's events that say why it does not get on."""
_FIRST = timedelta(seconds=1)
"""Between the creation of a service and that of the deployment that comes with it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a service. As text it is the generation."""

    desired: str
    """Tasks; ``-`` of a DAEMON service, whose number follows the container instances by itself."""
    definition: str
    deployment: str

    def __str__(self) -> str:
        return f"desired={self.desired} definition={self.definition} deployment={self.deployment}"

    @classmethod
    def read(cls, generation: str) -> Self | None:
        """None for what is no generation of ours."""
        found = _WANTED.fullmatch(generation)
        return cls(*found.groups()) if found else None


class _Deployment(Answer):
    """Also a task set, where CodeDeploy or another party makes the deployments."""

    id: str
    status: str
    created_at: datetime = Field(alias="createdAt")
    rollout: str = Field(default="", alias="rolloutState")
    rollout_reason: str = Field(default="", alias="rolloutStateReason")


class _Event(Answer):
    message: str


class _Controller(Answer):
    type: str = "ECS"


class _Rules(Answer):
    minimum_healthy_percent: int | None = Field(default=None, alias="minimumHealthyPercent")


class Service(Answer):
    arn: str = Field(alias="serviceArn")
    name: str = Field(alias="serviceName")
    cluster_arn: str = Field(alias="clusterArn")
    status: str
    created_at: datetime = Field(alias="createdAt")
    desired: int = Field(alias="desiredCount")
    running: int = Field(alias="runningCount")
    pending: int = Field(alias="pendingCount")
    task_definition: str = Field(default="", alias="taskDefinition")
    deployments: tuple[_Deployment, ...] = ()
    task_sets: tuple[_Deployment, ...] = Field(default=(), alias="taskSets")
    events: tuple[_Event, ...] = ()
    rules: _Rules = Field(default=_Rules(), alias="deploymentConfiguration")
    made_by: _Controller = Field(default=_Controller(), alias="deploymentController")
    scheduling: str = Field(default="REPLICA", alias="schedulingStrategy")

    @property
    def uid(self) -> str:
        """By account, region and moment of creation; its cluster and name are those of the TargetRef."""
        where, moment = self.arn.rpartition(":")[0], self.created_at.astimezone(UTC).isoformat(timespec="milliseconds")
        return f"{where}:{moment}"

    @property
    def wanted(self) -> Wanted:
        primary = self._primary
        return Wanted(
            desired="-" if self.is_daemon else str(self.desired),
            definition=self.task_definition.rpartition("/")[2] or "-",
            deployment=primary.id if primary else "",
        )

    @property
    def is_daemon(self) -> bool:
        return self.scheduling == "DAEMON"

    @property
    def controller(self) -> str:
        return self.made_by.type

    @property
    def minimum_healthy_percent(self) -> int | None:
        return self.rules.minimum_healthy_percent

    @property
    def is_rolling_out(self) -> bool:
        return len(self.deployments) > 1 or any(one.rollout == "IN_PROGRESS" for one in self.deployments)

    @property
    def was_rolled_out(self) -> bool:
        """Whether its deployment is over, and is another than the one that it was created with."""
        primary = self._primary
        return (
            primary is not None
            and primary.rollout in ("COMPLETED", "")  # empty: behind a Classic Load Balancer, ECS does not say
            and primary.created_at - self.created_at > _FIRST
        )

    @property
    def failed_deployment(self) -> str | None:
        """What ECS says of a deployment that failed; None without one."""
        failed = next((one for one in self.deployments if one.rollout == "FAILED"), None)
        return None if failed is None else failed.rollout_reason or f"{failed.id} is FAILED"

    @property
    def was_rolled_back(self) -> bool:
        """Whether a deployment failed, and another one is the primary by now."""
        return any(one.rollout == "FAILED" and one.status != "PRIMARY" for one in self.deployments)

    @property
    def trouble(self) -> str | None:
        """The latest event, if it says that ECS does not get on; ECS lists the latest first."""
        message = self.events[0].message if self.events else ""
        return message if _TROUBLE.search(message) else None

    @property
    def _primary(self) -> _Deployment | None:
        return next((one for one in (*self.deployments, *self.task_sets) if one.status == "PRIMARY"), None)


class Services(Answer):
    services: tuple[Service, ...]


class Task(Answer):
    arn: str = Field(alias="taskArn")
    group: str = ""
    last_status: str = Field(alias="lastStatus")
    desired_status: str = Field(alias="desiredStatus")
    health: str = Field(default="UNKNOWN", alias="healthStatus")
    container_instance: str = Field(default="", alias="containerInstanceArn")
    stop_code: str = Field(default="", alias="stopCode")
    stopped_reason: str = Field(default="", alias="stoppedReason")

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    @property
    def node(self) -> str:
        """The container instance; empty on Fargate."""
        return self.container_instance.rpartition("/")[2]

    @property
    def is_ready(self) -> bool:
        """UNKNOWN is the health of a task without a health check too; what a load balancer thinks of it is not read."""
        return self.last_status == "RUNNING" and self.health != "UNHEALTHY"

    @property
    def is_going(self) -> bool:
        return self.desired_status == "STOPPED" or self.last_status in _GOING

    @property
    def is_stopped(self) -> bool:
        return self.last_status in ("STOPPED", "DELETED")


class Tasks(Answer):
    tasks: tuple[Task, ...]


class TaskArns(Answer):
    arns: tuple[str, ...] = Field(default=(), alias="taskArns")


class _ScalableTarget(Answer):
    minimum: int = Field(alias="MinCapacity")
    maximum: int = Field(alias="MaxCapacity")


class ScalableTargets(Answer):
    """Of Application Auto Scaling."""

    targets: tuple[_ScalableTarget, ...] = Field(default=(), alias="ScalableTargets")
