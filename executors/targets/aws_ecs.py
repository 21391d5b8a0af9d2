"""Services of Amazon ECS: stop a task, force a new deployment, set the number of tasks."""

from __future__ import annotations

import asyncio
import math
import shlex
from collections.abc import Collection, Mapping

from executors.targets.aws_api import AwsApi
from executors.targets.aws_ecs_reads import (
    ScalableTargets,
    Service,
    Services,
    Task,
    TaskArns,
    Tasks,
    Wanted,
)
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    MAX_REPLICAS,
    Action,
    ActionKind,
    Bounds,
    InstanceRef,
    ManualAction,
    Operation,
    RestartAction,
    RestartInstance,
    RolloutRestart,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.ports.targets import Target

_DESCRIBED_AT_ONCE = 100
"""Tasks that one DescribeTasks takes."""
_AUTOSCALING = "application-autoscaling"


class EcsTarget(Target):
    """The services of the listed clusters; everything else is refused before anything is sent.

    ``namespace`` is the cluster's name, ``name`` the service's. A service that is created anew under the same name has
    the same ARN; its uid here holds the moment of its creation too.

    ECS has no conditional update. ``generation`` (tasks wanted, task definition, primary deployment: none of them
    changes as tasks come and go) is compared right before a write; what another party changes between the two is not
    noticed. UpdateService has no place for a text either, and a tag would be a second write that proves nothing of the
    first, so that only a stopped task bears the execution. ``find`` says what follows from that.
    """

    def __init__(
        self,
        *,
        clusters: Collection[str],
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._api = AwsApi(
            "ecs",
            policy="aws-ecs-policy.json",
            region=region,
            profile=profile,
            endpoint_url=endpoint_url,
            timeout_s=timeout_s,
        )
        self._clusters = frozenset(clusters)

    @property
    def platform(self) -> str:
        return "ecs"

    def declares(self) -> Declaration:
        compared = "the generation, compared right before; ECS itself has no condition"
        return Declaration(
            offers=(
                Offer("restart", False, ("ecs:StopTask",), "the task's ARN"),
                Offer("rollout_restart", False, ("ecs:UpdateService",), compared),
                Offer("scale", True, ("ecs:UpdateService",), compared),
            ),
            observes=(
                "tasks and which are running and not unhealthy",
                "tasks wanted, and the autoscaler's bounds",
                "task definition and deployments",
                "the service's events",
            ),
            reads=(
                "ecs:DescribeServices",
                "ecs:ListTasks",
                "ecs:DescribeTasks",
                "application-autoscaling:DescribeScalableTargets",
            ),
            privileges="aws-ecs-policy.json",
            settles_s=900.0,
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        service = await self._service(ref)
        tasks = f"{service.arn.rpartition(':')[0]}:task/{ref.namespace}/*"
        inside = {"ecs:cluster": service.cluster_arn}
        simulated = [
            await self._api.check(("ecs:UpdateService", "ecs:DescribeServices"), service.arn, inside),
            await self._api.check(("ecs:StopTask", "ecs:DescribeTasks"), tasks, inside),
            await self._api.check(("ecs:ListTasks", "application-autoscaling:DescribeScalableTargets"), "*", inside),
        ]
        return tuple(right for rights in simulated for right in rights)

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        service = await self._named(address.namespace, address.name)
        if service is None:
            raise PermanentError(f"there is no ECS service {address.name} in the cluster {address.namespace}")
        return TargetRef(platform="ecs", namespace=address.namespace, name=address.name, uid=service.uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        service = await self._service(ref)
        tasks, bounds = await asyncio.gather(self._running(ref), self._bounds(ref))
        return TargetState(
            ref=ref,
            generation=str(service.wanted),
            replicas=service.desired,
            instances=tuple(InstanceState(task.id, task.arn, task.is_ready, task.node) for task in tasks),
            revision=service.wanted.definition,
            rollout=service.wanted.deployment,
            bounds=bounds,
            away_at_once=_away_at_once(service),
            refuses=_refuses(service, bounds),
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        service = await self._service(ref)
        if str(service.wanted) != intent.generation:
            raise PreconditionFailed(
                f"{ref.describe()} has changed: it is at {service.wanted}, not {intent.generation}"
            )
        await self._admitted(ref, service, operation)
        name, parameters = _sent(ref, operation, _mark(intent))
        await self._api.write(name, parameters)
        match operation:
            case RestartInstance(instance=instance):
                return f"stopped the task {instance.name} of the ECS service {ref.describe()}"
            case RolloutRestart():
                return f"forced a new deployment of the ECS service {ref.describe()}"
            case ScaleTo(replicas=replicas):
                return f"scaled the ECS service {ref.describe()} from {service.desired} to {replicas}"
            case _:
                raise not_offered("ecs", operation)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        await self._service(ref)
        shown = await self._api.shown(*_sent(ref, operation, "sre-bot execution=<execution> step=<step> fence=<fence>"))
        return (f"{shown} only while ECS service {ref.describe()} is at {generation}, as read right before",)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Whether as many tasks run as are wanted and none is on its way; of a rollout, whether it is over.

        ECS does not say whose rollout it was (``find`` does): a service that never had another deployment than the one
        it was created with has not been rolled out, one whose only deployment is a later one has.
        Raises in ECS' own words: PermanentError when a rollout failed (circuit breaker, alarm), TemporaryError when
        tasks cannot be placed or started (capacity, quota, image).
        """
        service = await self._service(ref)
        match operation:
            case RestartInstance(instance=instance):
                old = await self._task(ref, instance)
                done = old is None or old.is_stopped
            case RolloutRestart():
                done = len(service.deployments) == 1 and service.was_rolled_out
            case ScaleTo(replicas=replicas):
                done = service.desired == replicas
            case _:
                raise not_offered("ecs", operation)
        failed = service.failed_deployment
        if failed is not None and isinstance(operation, RolloutRestart):
            raise PermanentError(f"a deployment of {ref.describe()} failed: {failed}")
        tasks = await self._running(ref)
        if (
            len(tasks) == service.running == service.desired
            and service.pending == 0
            and all(task.is_ready for task in tasks)
        ):
            return done
        if (trouble := failed or service.trouble) is not None:
            raise TemporaryError(f"{ref.describe()} does not get there: {trouble}")
        return False

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by what ECS shows; takes up to twice the time-out of a call.

        Restart: ``stoppedReason`` holds the execution, so ours proves that it was applied; ECS keeps it for an hour. A
        task that ended by itself or by its scheduler (``stopCode``) is NOT_APPLIED: done over, it is refused. One that
        somebody stopped with other words, or that ECS has forgotten, is UNKNOWN.

        Rollout: another primary deployment of the same task definition is APPLIED; whether a second party forced it at
        the same time, ECS does not say, and all tasks are new in either case. With another task definition, somebody
        has deployed: UNKNOWN. A deployment that failed and was rolled back to the very one of before reads as one that
        never was, unless it is still listed.

        Scale: the number wanted is absolute. If it stands, it is APPLIED, whoever set it: a late request changes
        nothing more. With anything else than what stood before, ours may have come and gone: UNKNOWN.

        What stands as before is NOT_APPLIED once no request can be under way any more. A request that is held up for
        longer is not refused by ECS: it would set the number again, or force a second deployment, until its signature
        expires (minutes).

        UNKNOWN when the service itself was deleted or created anew.
        """
        return await wait_out(lambda: self._look(ref, operation, intent), flight_s=self._api.flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        cluster, service = ("--cluster", ref.namespace), ("--service", ref.name)
        match action:
            case RestartAction(instances=instances):
                # One after the other, as the bot would do it.
                stable = self._api.cli("ecs", "wait", "services-stable", *cluster, "--services", ref.name)
                stops = (self._api.cli("ecs", "stop-task", *cluster, "--task", one.uid) for one in instances)
                return " && ".join(f"{shlex.join(stop)} && {shlex.join(stable)}" for stop in stops)
            case RolloutRestartAction():
                return shlex.join(self._api.cli("ecs", "update-service", *cluster, *service, "--force-new-deployment"))
            case ScaleAction(to_replicas=replicas):
                wanted = ("--desired-count", str(replicas))
                return shlex.join(self._api.cli("ecs", "update-service", *cluster, *service, *wanted))
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("ecs", action)

    async def close(self) -> None:
        self._api.close()

    async def _admitted(self, ref: TargetRef, service: Service, operation: Operation) -> None:
        """Raises PermanentError for what ECS would take and should not."""
        match operation:
            case RestartInstance(instance=instance):
                task = await self._task(ref, instance)
                if task is None or task.is_going or task.id != instance.name or task.group != f"service:{ref.name}":
                    why = f": {task.stopped_reason}" if task is not None and task.stopped_reason else ""
                    raise PreconditionFailed(f"{instance.name} is no running task of {ref.describe()} any more{why}")
            case RolloutRestart():
                if (refusal := _refuses(service, None).get("rollout_restart")) is not None:
                    raise PermanentError(f"{ref.describe()}: {refusal}")
            case ScaleTo(replicas=replicas):
                if service.is_daemon:
                    raise PermanentError(f"{ref.describe()}: {_refuses(service, None)['scale']}")
                bounds = await self._bounds(ref)
                if bounds is not None and not bounds.minimum <= replicas <= bounds.maximum:
                    raise PermanentError(
                        f"{replicas} tasks of {ref.describe()} are outside of its autoscaler's {bounds}"
                    )
            case _:
                raise not_offered("ecs", operation)

    async def _look(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding | None:
        try:
            service = await self._service(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        match operation:
            case RestartInstance(instance=instance):
                return _restart_finding(await self._task(ref, instance), intent)
            case RolloutRestart():
                return _rollout_finding(service, intent)
            case ScaleTo(replicas=replicas):
                if service.desired == replicas:
                    return Finding.APPLIED
                return None if str(service.wanted) == intent.generation else Finding.UNKNOWN
            case _:
                raise not_offered("ecs", operation)

    async def _service(self, ref: TargetRef) -> Service:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        service = await self._named(ref.namespace, ref.name)
        if service is None or service.uid != ref.uid:
            raise PreconditionFailed(f"the ECS service {ref.describe()} with uid {ref.uid} is gone")
        return service

    async def _named(self, cluster: str, name: str) -> Service | None:
        """None when there is none, or one that was deleted."""
        if cluster not in self._clusters:
            allowed = ", ".join(sorted(self._clusters)) or "none"
            raise PermanentError(f"the ECS cluster {cluster} is not one that the bot may touch (allowed: {allowed})")
        found = await self._api.read("describe_services", {"cluster": cluster, "services": [name]}, Services)
        return next((one for one in found.services if one.name == name and one.status == "ACTIVE"), None)

    async def _running(self, ref: TargetRef) -> tuple[Task, ...]:
        """Those that ECS means to keep, on their way up too."""
        wish = {"cluster": ref.namespace, "serviceName": ref.name, "desiredStatus": "RUNNING"}
        arns = (await self._api.read("list_tasks", wish, TaskArns)).arns
        tasks: list[Task] = []
        for start in range(0, len(arns), _DESCRIBED_AT_ONCE):
            asked = {"cluster": ref.namespace, "tasks": list(arns[start : start + _DESCRIBED_AT_ONCE])}
            tasks += (await self._api.read("describe_tasks", asked, Tasks)).tasks
        return tuple(task for task in tasks if not task.is_going)

    async def _task(self, ref: TargetRef, instance: InstanceRef) -> Task | None:
        """None when ECS does not know it (any more)."""
        asked = {"cluster": ref.namespace, "tasks": [instance.uid]}
        return next(iter((await self._api.read("describe_tasks", asked, Tasks)).tasks), None)

    async def _bounds(self, ref: TargetRef) -> Bounds | None:
        asked = {
            "ServiceNamespace": "ecs",
            "ResourceIds": [f"service/{ref.namespace}/{ref.name}"],
            "ScalableDimension": "ecs:service:DesiredCount",
        }
        found = await self._api.read("describe_scalable_targets", asked, ScalableTargets, service=_AUTOSCALING)
        if not found.targets:
            return None
        least, most = (min(number, MAX_REPLICAS) for number in (found.targets[0].minimum, found.targets[0].maximum))
        return Bounds(minimum=least, maximum=max(most, 1))


def _sent(ref: TargetRef, operation: Operation, mark: str) -> tuple[str, Mapping[str, object]]:
    """The one write of an operation: boto3's name of it and its parameters."""
    service = {"cluster": ref.namespace, "service": ref.name}
    match operation:
        case RestartInstance(instance=instance):
            return "stop_task", {"cluster": ref.namespace, "task": instance.uid, "reason": mark}
        case RolloutRestart():
            return "update_service", {**service, "forceNewDeployment": True}
        case ScaleTo(replicas=replicas):
            return "update_service", {**service, "desiredCount": replicas}
        case _:
            raise not_offered("ecs", operation)


def _mark(intent: Intent) -> str:
    return f"sre-bot execution={intent.execution_id} step={intent.step} fence={intent.fence}"


def _restart_finding(task: Task | None, intent: Intent) -> Finding | None:
    if task is None:
        return Finding.UNKNOWN
    # An earlier attempt at the same step, with a lower fence, is ours as well.
    if task.stopped_reason.startswith(_mark(intent).rpartition("=")[0]):
        return Finding.APPLIED
    if not task.is_going:
        return None
    return Finding.UNKNOWN if task.stop_code in ("", "UserInitiated") else Finding.NOT_APPLIED


def _rollout_finding(service: Service, intent: Intent) -> Finding | None:
    before, now = Wanted.read(intent.generation), service.wanted
    if before is None or now.definition != before.definition:
        return Finding.UNKNOWN
    if now.deployment != before.deployment:
        return Finding.APPLIED
    # The one that failed may be ours: tried after the one of before, to which ECS went back.
    if service.was_rolled_back:
        return Finding.UNKNOWN
    return None if now == before else Finding.UNKNOWN


def _away_at_once(service: Service) -> int | None:
    """By the part that a rolling update has to keep running, which ECS rounds up to whole tasks."""
    if (kept_percent := service.minimum_healthy_percent) is None:
        return None
    return max(service.desired - math.ceil(service.desired * kept_percent / 100), 0)


def _refuses(service: Service, bounds: Bounds | None) -> Mapping[ActionKind, str]:
    said: dict[ActionKind, str] = {}
    if service.is_daemon:
        said["scale"] = "it runs one task on each container instance (DAEMON)"
    elif bounds is not None and service.desired >= bounds.maximum:
        said["scale"] = f"{service.desired} tasks already, and {bounds.maximum} is its autoscaler's maximum"
    if service.controller != "ECS":
        said["rollout_restart"] = f"its deployments are made by {service.controller}, not by ECS"
    elif service.is_rolling_out:
        said["rollout_restart"] = f"its deployment {service.wanted.deployment} is still under way"
    return said
