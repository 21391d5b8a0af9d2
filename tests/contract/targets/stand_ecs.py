"""Amazon ECS: restart, forced deployment and scale, on the small AWS of ``tests.aws_server``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from executors.targets.aws_ecs import EcsTarget
from pipeline.domain.action import InstanceRef, RestartAction, RolloutRestartAction, ScaleAction, TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.aws_server import AwsServer, Spoilt, aws_credentials
from tests.contract.targets.places import BRIEF_S
from tests.contract.targets.stand import Opens, Stand
from tests.ecs_world import REGION, EcsWorld, ServiceRecord

CLUSTER = "shop"
ADDRESS = WorkloadAddress(platform="ecs", namespace=CLUSTER, name="checkout")
READS = frozenset(
    {
        "ecs:DescribeServices",
        "ecs:DescribeTasks",
        "ecs:ListTasks",
        "application-autoscaling:DescribeScalableTargets",
        "iam:SimulatePrincipalPolicy",
    }
)
"""What an account that may only look is granted."""


class EcsStand(Stand):
    """The service checkout with two tasks; ``server`` and ``service`` are what stands at AWS."""

    def __init__(self, server: AwsServer, kind: Literal["restart", "rollout_restart", "scale"]) -> None:
        self.server = server
        self.service = server.world.create(ServiceRecord(CLUSTER, ADDRESS.name, desired=2))
        self.address = ADDRESS
        self._kind = kind
        self._targets: list[EcsTarget] = []
        self.target: Target = self.connect()

    def connect(self, *, timeout_s: float = 20.0) -> EcsTarget:
        made = EcsTarget(clusters=[CLUSTER], region=REGION, endpoint_url=self.server.url, timeout_s=timeout_s)
        self._targets.append(made)
        return made

    async def action(self, state: TargetState) -> TargetAction:
        match self._kind:
            case "restart":
                first = state.instances[0]
                return RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),))
            case "rollout_restart":
                return RolloutRestartAction()
            case "scale":
                return ScaleAction(from_replicas=state.replicas, to_replicas=state.replicas + 1)

    async def facts(self) -> object:
        live = [one for one in self.server.world.tasks_of(self.service) if one.desired_status == "RUNNING"]
        tasks = () if self._kind == "scale" else tuple(sorted(one.id for one in live))
        return self.service.desired, self.service.primary.id, len(live), tasks

    async def change_by_another(self) -> None:
        self.service.desired += 2
        self.server.world.settle()

    async def former(self, ref: TargetRef) -> TargetRef:
        later = ServiceRecord(CLUSTER, ADDRESS.name, desired=2, created_at=self.service.created_at + 3600)
        self.service = self.server.world.create(later)
        return ref

    async def deny(self) -> None:
        self.server.granted = set(READS)

    async def throttle(self) -> None:
        self.server.spoil(Spoilt.THROTTLED)

    async def lose_answer(self) -> None:
        self.server.spoil(Spoilt.CUT)

    def another(self) -> Target:
        return self.connect(timeout_s=BRIEF_S)

    def writes(self) -> int:
        return len(self.server.writes)

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


@asynccontextmanager
async def ecs_stand(kind: Literal["restart", "rollout_restart", "scale"] = "scale") -> AsyncIterator[EcsStand]:
    with aws_credentials():
        async with AwsServer(EcsWorld(CLUSTER)) as server:
            stand = EcsStand(server, kind)
            try:
                yield stand
            finally:
                await stand.close()


STANDS: Mapping[str, Opens] = {
    "ecs: restart": partial(ecs_stand, "restart"),
    "ecs: rollout_restart": partial(ecs_stand, "rollout_restart"),
    "ecs: scale": partial(ecs_stand, "scale"),
}
