"""What Amazon ECS keeps of a cluster, and what its scheduler does to it, one small step a tick.

After ECS' own documentation: rolling updates between minimumHealthyPercent and maximumPercent, the tasks' life cycle,
stop codes and reasons, and the words of service events.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, field
from typing import Any

ACCOUNT = "111122223333"
REGION = "eu-central-1"
A_DAY_S = 86_400.0
_UP = {"PROVISIONING": "PENDING", "PENDING": "RUNNING"}
_DOWN = {"PROVISIONING": "STOPPED", "PENDING": "STOPPED", "RUNNING": "STOPPING", "STOPPING": "STOPPED"}
_ids = itertools.count(1)


def arn(kind: str, *names: str) -> str:
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:{'/'.join((kind, *names))}"


@dataclass
class TaskRecord:
    cluster: str
    service: str
    definition: str
    started_by: str
    id: str = field(default_factory=lambda: f"{next(_ids):032x}")
    last_status: str = "PROVISIONING"
    desired_status: str = "RUNNING"
    health: str = "UNKNOWN"
    stop_code: str = ""
    stopped_reason: str = ""

    @property
    def arn(self) -> str:
        return arn("task", self.cluster, self.id)

    def stop(self, code: str, reason: str) -> None:
        """The first to stop it is who stopped it."""
        if self.desired_status != "STOPPED":
            self.desired_status, self.stop_code, self.stopped_reason = "STOPPED", code, reason

    def shown(self) -> dict[str, Any]:
        said = {
            "taskArn": self.arn,
            "clusterArn": arn("cluster", self.cluster),
            "taskDefinitionArn": arn("task-definition", self.definition),
            "containerInstanceArn": arn("container-instance", self.cluster, "i" * 32),
            "group": f"service:{self.service}",
            "startedBy": self.started_by,
            "lastStatus": self.last_status,
            "desiredStatus": self.desired_status,
            "healthStatus": self.health,
            "version": 1,
        }
        if self.stop_code:
            said |= {"stopCode": self.stop_code, "stoppedReason": self.stopped_reason}
        return said


@dataclass
class DeploymentRecord:
    definition: str
    created_at: float
    id: str = field(default_factory=lambda: f"ecs-svc/{next(_ids):019d}")
    status: str = "PRIMARY"
    rollout: str = "IN_PROGRESS"
    reason: str = ""


@dataclass
class ServiceRecord:
    cluster: str
    name: str
    desired: int
    definition: str = "web:7"
    created_at: float = field(default_factory=lambda: time.time() - A_DAY_S)
    status: str = "ACTIVE"
    minimum_healthy_percent: int = 100
    maximum_percent: int = 200
    scheduling: str = "REPLICA"
    controller: str = "ECS"
    unplaceable: str = ""
    """Why no further task can be placed, as ECS words it; empty: they can."""
    deployments: list[DeploymentRecord] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deployments.append(DeploymentRecord(self.definition, self.created_at))

    @property
    def primary(self) -> DeploymentRecord:
        return self.deployments[0]

    def deploy(self, definition: str) -> None:
        """A new deployment takes the place of the primary one."""
        for one in self.deployments:
            one.status = "ACTIVE"
        self.definition = definition
        self.deployments.insert(0, DeploymentRecord(definition, time.time()))

    def says(self, words: str) -> None:
        """Latest first; what was just said is not said again."""
        message = f"(service {self.name}) {words}"
        if self.events[:1] != [message]:
            self.events.insert(0, message)
            del self.events[100:]


class EcsWorld:
    """Clusters by name, services by cluster and name; ``tick`` is one step of every scheduler and task."""

    def __init__(self, *clusters: str) -> None:
        self.clusters = set(clusters)
        self.services: dict[tuple[str, str], ServiceRecord] = {}
        self.tasks: list[TaskRecord] = []

    def create(self, service: ServiceRecord) -> ServiceRecord:
        """In the place of one of the same name, whose tasks end."""
        for task in self.tasks_of(service):
            task.stop("ServiceSchedulerInitiated", "Service was deleted")
        self.services[service.cluster, service.name] = service
        self.settle()
        return service

    def tasks_of(self, service: ServiceRecord) -> list[TaskRecord]:
        return [one for one in self.tasks if (one.cluster, one.service) == (service.cluster, service.name)]

    def settle(self) -> None:
        """Ticks until nothing changes any more."""
        while self.tick():
            pass

    def tick(self) -> bool:
        """Whether anything changed."""
        before = self._facts()
        for task in self.tasks:
            steps = _UP if task.desired_status == "RUNNING" else _DOWN
            task.last_status = steps.get(task.last_status, task.last_status)
        for service in self.services.values():
            if service.status == "ACTIVE":
                self._schedule(service)
        return self._facts() != before

    def _facts(self) -> object:
        tasks = [(one.id, one.last_status, one.desired_status) for one in self.tasks]
        return tasks, [(len(one.events), len(one.deployments)) for one in self.services.values()]

    def _schedule(self, service: ServiceRecord) -> None:
        primary = service.primary
        live = [one for one in self.tasks_of(service) if one.desired_status == "RUNNING"]
        new = [one for one in live if one.started_by == primary.id]
        old = [one for one in live if one.started_by != primary.id]
        room = math.floor(service.desired * service.maximum_percent / 100) - len(live)
        wanting = min(service.desired - len(new), room)
        if wanting > 0 and service.unplaceable:
            service.says(service.unplaceable)
        elif wanting > 0 and primary.rollout != "FAILED":
            started = [
                TaskRecord(service.cluster, service.name, primary.definition, primary.id) for _ in range(wanting)
            ]
            self.tasks += started
            service.says(f"has started {wanting} tasks: {' '.join(f'(task {one.id})' for one in started)}.")
        running = sum(one.last_status == "RUNNING" for one in live)
        spare = running - math.ceil(service.desired * service.minimum_healthy_percent / 100)
        surplus = old[: max(spare, 0)] or new[service.desired :]
        for task in surplus:
            task.stop("ServiceSchedulerInitiated", f"Scaling activity initiated by (deployment {primary.id})")
        if surplus:
            service.says(f"has stopped {len(surplus)} running tasks: {' '.join(f'(task {x.id})' for x in surplus)}.")
        if not old and len(new) == service.desired and all(one.last_status == "RUNNING" for one in new):
            self._is_steady(service)

    @staticmethod
    def _is_steady(service: ServiceRecord) -> None:
        primary = service.primary
        if primary.rollout == "IN_PROGRESS":
            primary.rollout, primary.reason = "COMPLETED", f"ECS deployment {primary.id} completed."
            service.says(f"(deployment {primary.id}) deployment completed.")
        del service.deployments[1:]
        if not any("steady state" in words for words in service.events[:2]):
            service.says("has reached a steady state.")

    def shown(self, service: ServiceRecord) -> dict[str, Any]:
        tasks = self.tasks_of(service)

        def counts(started_by: str | None = None) -> dict[str, int]:
            mine = [one for one in tasks if started_by in (None, one.started_by)]
            return {
                "runningCount": sum(one.last_status == "RUNNING" for one in mine),
                "pendingCount": sum(one.last_status in ("PROVISIONING", "PENDING") for one in mine),
                "desiredCount": service.desired if started_by in (None, service.primary.id) else 0,
            }

        deployments = [
            {
                "id": one.id,
                "status": one.status,
                "taskDefinition": arn("task-definition", one.definition),
                "createdAt": one.created_at,
                "updatedAt": one.created_at,
                "rolloutState": one.rollout,
                "rolloutStateReason": one.reason or f"ECS deployment {one.id} in progress.",
                "failedTasks": 0,
                **counts(one.id),
            }
            for one in service.deployments
        ]
        by_ecs = service.controller == "ECS"
        return {
            "serviceArn": arn("service", service.cluster, service.name),
            "serviceName": service.name,
            "clusterArn": arn("cluster", service.cluster),
            "status": service.status,
            "createdAt": service.created_at,
            "taskDefinition": arn("task-definition", service.definition),
            "schedulingStrategy": service.scheduling,
            "deploymentController": {"type": service.controller},
            "deploymentConfiguration": {
                "minimumHealthyPercent": service.minimum_healthy_percent,
                "maximumPercent": service.maximum_percent,
            },
            "deployments": deployments if by_ecs else [],
            "taskSets": [] if by_ecs else deployments,
            "events": [
                {"id": f"event-{len(service.events) - at}", "createdAt": time.time(), "message": words}
                for at, words in enumerate(service.events)
            ],
            **counts(),
        }
