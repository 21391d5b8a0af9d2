"""What the bot's account may do in Amazon ECS: asked of IAM without acting, and granted by the file that is shipped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib.resources import files

import pytest

from executors.targets.aws_ecs import EcsTarget
from pipeline.domain.action import ScaleTo
from pipeline.domain.errors import PermanentError
from tests.aws_server import aws_credentials
from tests.contract.targets.places import intent_for
from tests.contract.targets.stand_ecs import ADDRESS, READS, EcsStand, ecs_stand
from tests.ecs_world import ACCOUNT, REGION


@pytest.fixture
async def stand() -> AsyncIterator[EcsStand]:
    async with ecs_stand() as opened:
        yield opened


async def test_rights_are_proven_without_acting(stand: EcsStand) -> None:
    ref = await stand.target.resolve(ADDRESS)
    stand.server.granted = set(READS)
    held = {one.right: one.held for one in await stand.target.check(ref)}
    declared = stand.target.declares()
    assert set(held) == {*declared.reads, *(right for offer in declared.offers for right in offer.rights)}
    assert {right for right, one in held.items() if one is False} == {"ecs:StopTask", "ecs:UpdateService"}
    assert None not in held.values()
    assert stand.writes() == 0


async def test_rights_that_depend_on_what_is_not_known_are_not_known(stand: EcsStand) -> None:
    ref = await stand.target.resolve(ADDRESS)
    stand.server.granted, stand.server.missing_context = set(READS), ("aws:RequestedRegion",)
    checked = {one.right: one for one in await stand.target.check(ref)}
    assert checked["ecs:StopTask"].held is None
    assert "aws:RequestedRegion" in checked["ecs:StopTask"].said


@pytest.mark.parametrize(
    ("identity", "granted", "why"),
    [
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/sre-bot/session", READS - {"iam:SimulatePrincipalPolicy"}, "may not"),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/other/session", None, "role/other does not exist"),
        (f"arn:aws:iam::{ACCOUNT}:root", None, "neither a user nor a role"),
    ],
)
async def test_an_account_that_cannot_ask_iam(
    stand: EcsStand, identity: str, granted: frozenset[str] | None, why: str
) -> None:
    ref = await stand.target.resolve(ADDRESS)
    stand.server.identity, stand.server.granted = identity, None if granted is None else set(granted)
    checked = await stand.target.check(ref)
    assert {one.held for one in checked} == {None}
    assert all(why in one.said for one in checked)


async def test_a_refusal_names_the_right_and_the_file_that_grants_it(stand: EcsStand) -> None:
    ref = await stand.target.resolve(ADDRESS)
    state = await stand.target.observe(ref)
    await stand.deny()
    with pytest.raises(PermanentError, match=r"may not ecs:UpdateService; executors/targets/aws-ecs-policy.json"):
        await stand.target.apply(ref, ScaleTo(replicas=3), intent_for(state))


def test_the_policy_grants_what_is_declared_and_no_more() -> None:
    with aws_credentials():
        declared = EcsTarget(clusters=[], region=REGION).declares()
    policy = json.loads((files("executors.targets") / declared.privileges).read_text())
    granted = {
        action
        for statement in policy["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    needed = {*declared.reads, *(right for offer in declared.offers for right in offer.rights)}
    assert granted == needed | {"iam:SimulatePrincipalPolicy"}
    open_ended = {one["Sid"] for one in policy["Statement"] if one["Resource"] == "*" and "Condition" not in one}
    assert open_ended == {"ReadTheBoundsOfAutoscalers"}
