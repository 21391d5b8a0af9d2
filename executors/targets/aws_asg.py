"""EC2 Auto Scaling groups: their instances replaced by an instance refresh, and their desired capacity."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection
from typing import Any

from executors.targets.aws_api import AwsApi
from executors.targets.aws_asg_group import (
    ACTIVE,
    CANCELLED,
    Group,
    Groups,
    Refresh,
    Refreshes,
    away_at_once,
    bounds_of,
    generation_of,
    refusals,
    why_not,
)
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    Action,
    CancelRollout,
    CancelRolloutAction,
    ManualAction,
    Operation,
    RolloutRestart,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import ConfigurationError, PermanentError, PreconditionFailed
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.ids import ExecutionId
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.ports.targets import Target

FIRST_CHECKPOINT_PERCENT = 20
"""Of the instances are replaced first; then the refresh waits, and we look."""
CHECKPOINT_DELAY_S = 1200
"""How long it waits: a verification takes less."""
MARKS = 600
"""A refresh bears its execution's number, modulo this, in the seconds of its checkpoint delay: of all that AWS keeps of
a refresh only its preferences are ours to choose."""
_SEEN = re.compile(r"desired=(\d+) min=\d+ max=\d+ refresh=([^ :]+)")


class AsgTarget(Target):
    """The listed groups of one region; everything else is refused before anything is sent.

    ``groups``: names, or beginnings of names that end in ``*``. The region is the namespace of an address.
    ``generation`` says what is wanted of a group: desired capacity, bounds, the latest instance refresh (and whether it
    was cancelled) and what is launched. AWS takes no precondition with these calls, so it is read and compared right
    before: a change in the moment between is not noticed. What AWS refuses itself is a second refresh at a time, and a
    capacity beyond the bounds.

    A rolling restart is an instance refresh that waits after its first instances for ``checkpoint_delay_s`` (and up to
    MARKS s more), which is to be longer than a verification takes: cancelled in that time, the rest of the group is as
    it was. How many are away at once is left to the group's maintenance policy, or to AWS' default. What is protected
    from scale-in or on standby is left alone. There is nothing to go back to (the launch template is the same, and AWS
    rolls back to another one only), so that a refresh is cancelled, and not rolled back.
    """

    def __init__(
        self,
        *,
        groups: Collection[str],
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        timeout_s: float = 10.0,
        checkpoint_delay_s: int = CHECKPOINT_DELAY_S,
    ) -> None:
        if any(not group.removesuffix("*") for group in groups):
            raise ConfigurationError("an Auto Scaling group is named by more than *: write its name or how it begins")
        self._api = AwsApi(
            "autoscaling",
            policy="aws-asg-policy.json",
            region=region,
            profile=profile,
            endpoint_url=endpoint_url,
            timeout_s=timeout_s,
        )
        self._groups = frozenset(groups)
        self._checkpoint_delay_s = checkpoint_delay_s

    @property
    def platform(self) -> str:
        return "asg"

    def declares(self) -> Declaration:
        compared = "desired capacity, bounds, template and latest refresh compared right before"
        return Declaration(
            offers=(
                Offer(
                    "rollout_restart",
                    True,
                    ("autoscaling:StartInstanceRefresh",),
                    f"{compared}; AWS refuses a second refresh",
                ),
                Offer(
                    "cancel_rollout",
                    False,
                    ("autoscaling:CancelInstanceRefresh",),
                    f"{compared}; AWS refuses where none is under way",
                ),
                Offer(
                    "scale",
                    True,
                    ("autoscaling:SetDesiredCapacity",),
                    f"{compared}; AWS refuses what is beyond the bounds",
                ),
            ),
            observes=(
                "instances and which are in service",
                "desired, least and greatest capacity",
                "launch template",
                "instance refreshes and how far they are",
                "suspended processes",
            ),
            reads=("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeInstanceRefreshes"),
            privileges="aws-asg-policy.json",
            settles_s=1800.0,
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        group, _ = await self._read(ref)
        declared = self.declares()
        read = tuple(RightCheck(right, True, "it was just read") for right in declared.reads)
        writes = (right for offer in declared.offers for right in offer.rights)
        return read + await self._api.check(writes, group.arn)

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        group = await self._named(address.namespace, address.name)
        if group is None:
            raise PermanentError(f"there is no Auto Scaling group {address.name} in {address.namespace}")
        return TargetRef(platform="asg", namespace=address.namespace, name=address.name, uid=group.uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        group, refreshes = await self._read(ref)
        return TargetState(
            ref=ref,
            generation=generation_of(group, refreshes),
            replicas=group.desired,
            instances=tuple(InstanceState(one.id, one.id, one.is_ready) for one in group.instances if one.is_live),
            revision=group.launches,
            bounds=bounds_of(group),
            away_at_once=away_at_once(group),
            refuses=refusals(group, refreshes),
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        group, refreshes = await self._read(ref)
        if (generation := generation_of(group, refreshes)) != intent.generation:
            raise PreconditionFailed(f"{ref.describe()} has changed: it is at {generation}, not {intent.generation}")
        if why := why_not(group, refreshes, operation):
            raise PermanentError(f"{ref.describe()}: {why}")
        call, parameters = self._wish(ref, operation, _mark(intent.execution_id))
        await self._api.write(call, parameters)
        match operation:
            case RolloutRestart():
                return f"started an instance refresh of {ref.describe()}"
            case CancelRollout():
                return f"cancelled the instance refresh {refreshes[0].id} of {ref.describe()}"
            case ScaleTo(replicas=replicas):
                return f"set the desired capacity of {ref.describe()} from {group.desired} to {replicas}"
            case _:
                raise not_offered("asg", operation)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        await self._read(ref)
        sent = await self._api.shown(*self._wish(ref, operation, 0))
        is_rollout = isinstance(operation, RolloutRestart)
        marked = f", CheckpointDelay up to {MARKS - 1} s longer by the execution," if is_rollout else ""
        return (f"{sent}{marked} only while {ref.describe()} is read at {generation} right before",)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Whether it is carried out. Of a rolling restart: the first checkpoint is reached, or all of it.

        Raises PermanentError, in AWS' words, when the latest refresh failed or was cancelled by somebody.
        """
        group, refreshes = await self._read(ref)
        match operation:
            case ScaleTo(replicas=replicas):
                live = [one for one in group.instances if not one.lifecycle.startswith(("Warmed:", "Standby"))]
                return group.desired == replicas == len(live) and all(one.is_ready for one in live)
            case CancelRollout():
                return not any(one.status in ACTIVE for one in refreshes)
            case RolloutRestart():
                return bool(refreshes) and refreshes[0].has_got_far_enough
            case _:
                raise not_offered("asg", operation)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by the group itself; takes up to twice the time-out of a call.

        Rolling restart: a refresh that is newer than the latest one of before, and whose checkpoints bear our
        execution, proves that it was applied. AWS keeps them for six weeks, so that without one it is NOT_APPLIED
        once no request can be under way any more.

        Cancelling: by what became of the very refresh that was under way. Cancelled is APPLIED, AWS does not say by
        whom; ended otherwise is NOT_APPLIED; still under way is NOT_APPLIED once no request can be. Rolled back by
        somebody is UNKNOWN.

        Scaling: AWS has no place for an execution's mark. The wanted capacity is APPLIED, whoever set it; that of
        before is NOT_APPLIED once no request can be under way any more (somebody may have put it back in that time);
        any other one is UNKNOWN, for ours may have stood there and been replaced.

        UNKNOWN when the group itself was deleted or recreated.
        """
        return await wait_out(lambda: self._look(ref, operation, intent), flight_s=self._api.flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        group = ("--auto-scaling-group-name", ref.name)
        match action:
            case RolloutRestartAction():
                preferences = json.dumps(_preferences(self._checkpoint_delay_s))
                words = ["start-instance-refresh", *group, "--preferences", preferences]
            case CancelRolloutAction():
                words = ["cancel-instance-refresh", *group]
            case ScaleAction(to_replicas=replicas):
                words = ["set-desired-capacity", *group, "--desired-capacity", str(replicas), "--no-honor-cooldown"]
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("asg", action)
        return shlex.join(self._api.cli("autoscaling", *words))

    async def close(self) -> None:
        self._api.close()

    def _wish(self, ref: TargetRef, operation: Operation, mark: int) -> tuple[str, dict[str, Any]]:
        named: dict[str, Any] = {"AutoScalingGroupName": ref.name}
        match operation:
            case RolloutRestart():
                preferences = _preferences(self._checkpoint_delay_s + mark)
                return "start_instance_refresh", {**named, "Strategy": "Rolling", "Preferences": preferences}
            case CancelRollout():
                return "cancel_instance_refresh", named
            case ScaleTo(replicas=replicas):
                return "set_desired_capacity", {**named, "DesiredCapacity": replicas, "HonorCooldown": False}
            case _:
                raise not_offered("asg", operation)

    async def _look(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding | None:
        try:
            group, refreshes = await self._read(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        if (seen := _SEEN.match(intent.generation)) is None:
            return Finding.UNKNOWN
        former, latest = int(seen[1]), seen[2]
        match operation:
            case RolloutRestart():
                delay_s = self._checkpoint_delay_s + _mark(intent.execution_id)
                newer = _newer_than(latest, refreshes)
                return Finding.APPLIED if any(_bears(one, delay_s) for one in newer) else None
            case CancelRollout():
                return _cancelled(next((one for one in refreshes if one.id == latest), None))
            case ScaleTo(replicas=replicas):
                if group.desired == replicas:
                    return Finding.APPLIED
                return None if group.desired == former else Finding.UNKNOWN
            case _:
                raise not_offered("asg", operation)

    async def _read(self, ref: TargetRef) -> tuple[Group, tuple[Refresh, ...]]:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        group = await self._named(ref.namespace, ref.name)
        if group is None or group.uid != ref.uid:
            raise PreconditionFailed(f"the Auto Scaling group {ref.describe()} with uid {ref.uid} is gone")
        if group.deleting:
            raise PreconditionFailed(f"the Auto Scaling group {ref.describe()} is being deleted: {group.deleting}")
        asked = {"AutoScalingGroupName": ref.name, "MaxRecords": 100}
        return group, (await self._api.read("describe_instance_refreshes", asked, Refreshes)).refreshes

    async def _named(self, region: str, name: str) -> Group | None:
        if region != self._api.region:
            raise PermanentError(f"the bot is set up for {self._api.region}, and {region}/{name} is elsewhere")
        if not any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in self._groups):
            allowed = ", ".join(sorted(self._groups)) or "none"
            raise PermanentError(
                f"the Auto Scaling group {name} is not one that the bot may touch (allowed: {allowed})"
            )
        asked = {"AutoScalingGroupNames": [name]}
        found = (await self._api.read("describe_auto_scaling_groups", asked, Groups)).groups
        return found[0] if found else None


def _preferences(delay_s: int) -> dict[str, Any]:
    return {
        "SkipMatching": False,
        "CheckpointPercentages": [FIRST_CHECKPOINT_PERCENT, 100],
        "CheckpointDelay": delay_s,
        "ScaleInProtectedInstances": "Ignore",
        "StandbyInstances": "Ignore",
    }


def _mark(execution: ExecutionId) -> int:
    return execution % MARKS


def _newer_than(latest: str, refreshes: tuple[Refresh, ...]) -> tuple[Refresh, ...]:
    names = [one.id for one in refreshes]
    return refreshes[: names.index(latest)] if latest in names else refreshes


def _bears(refresh: Refresh, delay_s: int) -> bool:
    ours = (FIRST_CHECKPOINT_PERCENT, 100)
    return (refresh.preferences.checkpoints_percent, refresh.preferences.checkpoint_delay_s) == (ours, delay_s)


def _cancelled(refresh: Refresh | None) -> Finding | None:
    if refresh is None or refresh.status.startswith("Rollback"):
        return Finding.UNKNOWN
    if refresh.status in CANCELLED:
        return Finding.APPLIED
    return None if refresh.status in ACTIVE else Finding.NOT_APPLIED
