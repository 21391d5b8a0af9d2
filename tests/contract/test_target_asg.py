"""What the contract does not ask of Auto Scaling groups: their own rules, and bad moments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from executors.targets.aws_asg_group import Group as AsgGroup
from executors.targets.aws_asg_group import away_at_once
from pipeline.domain.action import (
    CancelRollout,
    RolloutRestart,
    ScaleTo,
)
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.ids import ExecutionId
from tests.asg_server import REGION
from tests.contract.targets.aws_looks import found, seen
from tests.contract.targets.places import intent_for, until
from tests.contract.targets.stand_asg import AsgStand, asg_stand


@pytest.fixture
async def asg() -> AsyncIterator[AsgStand]:
    async with asg_stand("scale") as stand:
        yield stand


async def test_a_refresh_is_settled_at_its_first_checkpoint_and_cancelled_before_the_rest(asg: AsgStand) -> None:
    ref, state = await seen(asg)
    await asg.target.apply(ref, RolloutRestart(), intent_for(state))
    await until(lambda: asg.target.settled(ref, RolloutRestart()))
    refresh = asg.group.refreshes[0]
    assert (refresh.status, refresh.percent, refresh.checkpoints) == ("InProgress", 25, [20, 100])
    assert 1200 <= refresh.delay_s < 1800
    under_way = await asg.target.observe(ref)
    assert under_way.generation != state.generation, "a refresh is wanted now"
    assert "a group takes one at a time" in under_way.refuses["rollout_restart"]
    assert "cancel_rollout" not in under_way.refuses
    await asg.target.apply(ref, CancelRollout(), intent_for(under_way))
    await until(lambda: asg.target.settled(ref, CancelRollout()))
    kept = {one.id for one in asg.group.instances} & {one.uid for one in state.instances}
    assert len(kept) == 3, "what had not been replaced was left"
    with pytest.raises(PermanentError, match="is Cancelled at 25 %: Cancelled due to user request"):
        await asg.target.settled(ref, RolloutRestart())


async def test_the_generation_does_not_change_while_a_refresh_goes_on(asg: AsgStand) -> None:
    refresh = asg.server.refresh("checkout", [50, 100])
    ref, state = await seen(asg)
    generations = {state.generation}
    while refresh.percent < 50:
        generations.add((await asg.target.observe(ref)).generation)
    refresh.status = "Successful"
    assert generations == {(await asg.target.observe(ref)).generation}
    refresh.status = "RollbackInProgress"
    assert (await asg.target.observe(ref)).generation not in generations


async def test_a_refresh_that_failed_is_told_in_the_words_of_aws(asg: AsgStand) -> None:
    ref, state = await seen(asg)
    await asg.target.apply(ref, RolloutRestart(), intent_for(state))
    asg.group.refreshes[0].status = "Failed"
    asg.group.refreshes[0].reason = "The launch template does not exist."
    with pytest.raises(PermanentError, match=r"is Failed at .*: The launch template does not exist"):
        await asg.target.settled(ref, RolloutRestart())


async def test_a_refresh_of_another_that_comes_in_between_is_none_of_ours(asg: AsgStand) -> None:
    ref, state = await seen(asg)
    intent = intent_for(state)

    def begins_one() -> None:
        asg.server.refresh("checkout", [20, 100], 3600)

    asg.server.before_write = begins_one
    with pytest.raises(PreconditionFailed, match="An Instance Refresh is already in progress"):
        await asg.target.apply(ref, RolloutRestart(), intent)
    assert await found(asg, ref, RolloutRestart(), intent) is Finding.NOT_APPLIED
    assert len(asg.group.refreshes) == 1


async def test_a_refresh_that_is_under_way_is_not_begun_again(asg: AsgStand) -> None:
    asg.server.refresh("checkout", [50, 100]).waits = True
    ref, state = await seen(asg)
    with pytest.raises(PermanentError, match="a group takes one at a time"):
        await asg.target.apply(ref, RolloutRestart(), intent_for(state))
    assert not asg.server.writes


async def test_an_older_refresh_with_the_same_mark_proves_nothing(asg: AsgStand) -> None:
    ref, state = await seen(asg)
    intent = intent_for(state)
    await asg.target.apply(ref, RolloutRestart(), intent)
    asg.group.refreshes[0].status = "Successful"
    later = Intent(ExecutionId(intent.execution_id + 600), 1, 1, (await asg.target.observe(ref)).generation)
    assert await found(asg, ref, RolloutRestart(), later) is Finding.NOT_APPLIED
    assert await found(asg, ref, RolloutRestart(), intent) is Finding.APPLIED


@pytest.mark.parametrize(
    ("status", "finding"),
    [
        ("Successful", Finding.NOT_APPLIED),
        ("Failed", Finding.NOT_APPLIED),
        ("Cancelling", Finding.APPLIED),
        ("RollbackInProgress", Finding.UNKNOWN),
    ],
)
async def test_what_became_of_the_refresh_says_whether_it_was_cancelled(status: str, finding: Finding) -> None:
    async with asg_stand("cancel_rollout") as stand:
        ref, state = await seen(stand)
        intent = intent_for(state)
        stand.server.paused = True
        stand.group.refreshes[0].status = status
        assert await stand.target.find(ref, CancelRollout(), intent) is finding


async def test_a_refresh_that_ends_in_between_cannot_be_cancelled() -> None:
    async with asg_stand("cancel_rollout") as stand:
        ref, state = await seen(stand)
        stand.server.before_write = lambda: setattr(stand.group.refreshes[0], "status", "Successful")
        with pytest.raises(PreconditionFailed, match="No in progress or pending Instance Refresh found"):
            await stand.target.apply(ref, CancelRollout(), intent_for(state))
        ended = await stand.target.observe(ref)
        assert ended.refuses["cancel_rollout"] == "no instance refresh is under way"
        with pytest.raises(PermanentError, match="no instance refresh is under way"):
            await stand.target.apply(ref, CancelRollout(), intent_for(ended))


# Auto Scaling groups: desired capacity


async def test_a_capacity_beyond_the_bounds_is_refused_in_the_words_of_aws(asg: AsgStand) -> None:
    ref, state = await seen(asg)
    assert state.bounds is not None
    assert (state.bounds.minimum, state.bounds.maximum) == (1, 8)
    asg.server.before_write = lambda: setattr(asg.group, "maximum", 4)
    with pytest.raises(PermanentError, match="New SetDesiredCapacity value 5 is above max value 4") as caught:
        await asg.target.apply(ref, ScaleTo(replicas=5), intent_for(state))
    assert not isinstance(caught.value, PreconditionFailed)
    full = await asg.target.observe(ref)
    assert full.generation != state.generation
    assert full.refuses["scale"] == "its desired capacity is its maximum of 4: raise that first"
    assert asg.group.desired == 4


async def test_a_server_error_leaves_open_what_came_of_it_and_the_group_tells(asg: AsgStand) -> None:
    ref, state = await seen(asg)
    intent = intent_for(state)
    asg.server.fault = "fail"
    with pytest.raises(OutcomeUnknown):
        await asg.target.apply(ref, ScaleTo(replicas=6), intent)
    assert await asg.target.find(ref, ScaleTo(replicas=6), intent) is Finding.APPLIED
    asg.group.desired = 7
    assert await asg.target.find(ref, ScaleTo(replicas=6), intent) is Finding.UNKNOWN
    asg.group.desired = 4
    assert await found(asg, ref, ScaleTo(replicas=6), intent) is Finding.NOT_APPLIED
    assert asg.server.writes == ["autoscaling:SetDesiredCapacity"]


async def test_scaling_in_waits_until_the_instances_are_gone(asg: AsgStand) -> None:
    ref, state = await seen(asg)
    await asg.target.apply(ref, ScaleTo(replicas=2), intent_for(state))
    asg.server.paused = True
    assert not await asg.target.settled(ref, ScaleTo(replicas=2))
    asg.server.paused = False
    await until(lambda: asg.target.settled(ref, ScaleTo(replicas=2)))
    assert len(asg.group.instances) == 2


async def test_an_unhealthy_instance_is_not_ready_and_one_on_its_way_out_is_none(asg: AsgStand) -> None:
    asg.server.paused = True
    asg.group.instances[0].health = "Unhealthy"
    asg.group.instances[1].lifecycle = "Terminating:Wait"
    _, state = await seen(asg)
    assert (state.replicas, len(state.instances), state.ready) == (4, 3, 2)


@pytest.mark.parametrize(
    ("change", "refused", "why"),
    [
        (
            {"suspended": ["Launch", "AZRebalance"]},
            {"rollout_restart", "scale"},
            "suspended: Launch; resume that first",
        ),
        ({"suspended": ["Terminate"]}, {"rollout_restart"}, "suspended: Terminate; resume that first"),
        ({"desired": 0, "minimum": 0, "instances": []}, {"rollout_restart"}, "it has no instances"),
    ],
)
async def test_what_a_group_does_not_take_now(
    asg: AsgStand, change: dict[str, Any], refused: set[str], why: str
) -> None:
    for name, value in change.items():
        setattr(asg.group, name, value)
    _, state = await seen(asg)
    said = {kind: words for kind, words in state.refuses.items() if kind != "cancel_rollout"}
    assert said == dict.fromkeys(refused, why)


async def test_a_group_that_counts_by_weight_is_not_scaled(asg: AsgStand) -> None:
    asg.group.instances[0].weight = "4"
    ref, state = await seen(asg)
    assert "count by weight" in state.refuses["scale"]
    with pytest.raises(PermanentError, match="count by weight"):
        await asg.target.apply(ref, ScaleTo(replicas=5), intent_for(state))
    assert not asg.server.writes


async def test_a_group_that_is_being_deleted_is_as_good_as_gone(asg: AsgStand) -> None:
    ref, state = await seen(asg)
    asg.group.status = "Delete in progress"
    with pytest.raises(PreconditionFailed, match="is being deleted: Delete in progress"):
        await asg.target.apply(ref, ScaleTo(replicas=5), intent_for(state))
    del asg.server.groups["checkout"]
    with pytest.raises(PreconditionFailed, match="is gone"):
        await asg.target.observe(ref)


@pytest.mark.parametrize(
    ("desired", "policy", "away"),
    [
        (4, None, 1),
        (40, None, 4),
        (10, {"MinHealthyPercentage": 50, "MaxHealthyPercentage": 100}, 5),
        (10, {"MinHealthyPercentage": 100, "MaxHealthyPercentage": 100}, 1),
        (10, {"MinHealthyPercentage": 100, "MaxHealthyPercentage": 110}, 0),
    ],
)
def test_how_many_are_away_at_once_is_the_policy_of_the_group(
    desired: int, policy: dict[str, int] | None, away: int
) -> None:
    said: dict[str, Any] = {
        "AutoScalingGroupARN": f"arn:aws:autoscaling:{REGION}:1:autoScalingGroup:an-id:autoScalingGroupName/web",
        "MinSize": 1,
        "MaxSize": 99,
        "DesiredCapacity": desired,
    }
    group = AsgGroup.model_validate(said | ({"InstanceMaintenancePolicy": policy} if policy else {}))
    assert away_at_once(group) == away
