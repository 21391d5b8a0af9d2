"""Auto Scaling groups: an instance refresh, its cancelling, and the desired capacity."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from executors.targets.aws_asg import AsgTarget
from pipeline.domain.action import CancelRolloutAction, RolloutRestartAction, ScaleAction, TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.asg_server import REGION, AsgServer, Group, as_the_bot
from tests.contract.targets.places import BRIEF_S
from tests.contract.targets.stand import Opens, Stand

Kind = Literal["rollout_restart", "cancel_rollout", "scale"]


class AsgStand(Stand):
    address = WorkloadAddress(platform="asg", namespace=REGION, name="checkout")

    def __init__(self, server: AsgServer, kind: Kind) -> None:
        self.server = server
        self._kind = kind
        self._targets: list[Target] = []
        self.target: Target = self.connect()

    def connect(self, *, timeout_s: float = 20.0) -> Target:
        made = AsgTarget(groups=["check*", "nowhere"], endpoint_url=self.server.url, timeout_s=timeout_s)
        self._targets.append(made)
        return made

    async def close(self) -> None:
        for target in self._targets:
            await target.close()

    @property
    def group(self) -> Group:
        return self.server.groups[self.address.name]

    async def action(self, state: TargetState) -> TargetAction:
        match self._kind:
            case "rollout_restart":
                return RolloutRestartAction(cancellable=True)
            case "cancel_rollout":
                return CancelRolloutAction()
            case "scale":
                return ScaleAction(from_replicas=state.replicas, to_replicas=state.replicas + 1)

    async def facts(self) -> object:
        group = self.group
        refreshes = [(one.id, one.status in ("Cancelling", "Cancelled")) for one in group.refreshes]
        return group.uuid, group.desired, refreshes

    async def change_by_another(self) -> None:
        self.group.desired += 2

    async def former(self, ref: TargetRef) -> TargetRef:
        self.server.add_group(Group(self.address.name))
        return ref

    async def deny(self) -> None:
        self.server.denied = True

    async def throttle(self) -> None:
        self.server.fault = "throttle"

    async def lose_answer(self) -> None:
        self.server.fault = "cut"

    def another(self) -> Target:
        return self.connect(timeout_s=BRIEF_S)

    def writes(self) -> int:
        return len(self.server.writes)

    async def has_been_put_back(self, before: object) -> bool:
        """Instances that were replaced stay so: what is taken back is the rest of the refresh."""
        if self._kind == "rollout_restart":
            return self.group.refreshes[0].status == "Cancelled" and self.group.refreshes[0].percent < 100
        return await super().has_been_put_back(before)


@asynccontextmanager
async def asg_stand(kind: Kind) -> AsyncIterator[AsgStand]:
    with as_the_bot():
        async with AsgServer() as server:
            server.add_group(Group(AsgStand.address.name))
            if kind == "cancel_rollout":
                under_way = server.refresh(AsgStand.address.name, [25, 100])
                under_way.status, under_way.waits = "InProgress", True
            stand = AsgStand(server, kind)
            try:
                yield stand
            finally:
                await stand.close()


STANDS: Mapping[str, Opens] = {
    "asg: rollout_restart": partial(asg_stand, "rollout_restart"),
    "asg: cancel_rollout": partial(asg_stand, "cancel_rollout"),
    "asg: scale": partial(asg_stand, "scale"),
}
