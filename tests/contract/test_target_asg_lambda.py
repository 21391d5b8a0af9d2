"""What Auto Scaling groups and Lambda functions have alike; and both on moto, as far as it goes."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import boto3
import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer

import executors.targets
from executors.targets.aws_asg import AsgTarget
from executors.targets.aws_lambda import LambdaTarget
from pipeline.domain.action import (
    CancelRolloutAction,
    Concurrency,
    ConcurrencyAction,
    CordonAction,
    ManualAction,
    RestartInstance,
    RollBackAction,
    RollBackTo,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
)
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import ConfigurationError, PermanentError
from pipeline.domain.execution import Finding
from pipeline.ports.targets import Target
from tests.asg_server import REGION, AwsServer, as_the_bot
from tests.contract.targets.aws_looks import AnyStand, seen
from tests.contract.targets.places import intent_for, until
from tests.contract.targets.stand_asg import AsgStand, asg_stand
from tests.contract.targets.stand_lambda import LambdaStand, lambda_stand


@pytest.fixture
async def asg() -> AsyncIterator[AsgStand]:
    async with asg_stand("scale") as stand:
        yield stand


@pytest.fixture
async def function() -> AsyncIterator[LambdaStand]:
    async with lambda_stand("roll_back") as stand:
        yield stand


@pytest.fixture
def stand(request: pytest.FixtureRequest, asg: AsgStand, function: LambdaStand) -> AnyStand:
    return asg if request.param == "asg" else function


NOWHERE = "http://127.0.0.1:9"


async def test_what_is_not_listed_or_elsewhere_is_refused_before_anything_is_sent() -> None:
    with as_the_bot():
        targets: tuple[Target, ...] = (
            AsgTarget(groups=["payments", "web-*"], endpoint_url=NOWHERE, timeout_s=20.0),
            LambdaTarget(functions=["payments", "web-*"], endpoint_url=NOWHERE, timeout_s=20.0),
        )
    for target in targets:
        address = WorkloadAddress(platform=target.platform, namespace=REGION, name="payments-eu")
        with pytest.raises(PermanentError, match=r"not one that the bot may touch \(allowed: payments, web-\*\)"):
            await target.resolve(address)
        with pytest.raises(PermanentError, match=f"the bot is set up for {REGION}"):
            await target.resolve(address.model_copy(update={"namespace": "us-east-1", "name": "payments"}))
        await target.close()


@pytest.mark.parametrize("group", ["*", ""])
def test_every_group_at_once_cannot_be_allowed(group: str) -> None:
    with pytest.raises(ConfigurationError, match="write its name or how it begins"):
        AsgTarget(groups=["web", group], region=REGION)


@pytest.mark.parametrize("stand", ["asg", "function"], indirect=True)
async def test_the_rights_are_proven_by_reading_and_by_the_simulator(stand: AnyStand) -> None:
    ref, _ = await seen(stand)
    declared = stand.target.declares()
    rights = {right for offer in declared.offers for right in offer.rights}
    stand.server.not_allowed = {sorted(rights)[0]}
    checked = await stand.target.check(ref)
    assert {one.right for one in checked} == rights | set(declared.reads)
    assert [one.right for one in checked if one.held is False] == [sorted(rights)[0]]
    assert all(one.held for one in checked if one.right != sorted(rights)[0])


@pytest.mark.parametrize("stand", ["asg", "function"], indirect=True)
def test_the_policy_beside_the_adapter_grants_what_is_declared_and_nothing_else(stand: AnyStand) -> None:
    declared = stand.target.declares()
    policy = json.loads((Path(executors.targets.__path__[0]) / declared.privileges).read_text())
    assert all(statement["Effect"] == "Allow" for statement in policy["Statement"])
    granted = [action for statement in policy["Statement"] for action in _listed(statement["Action"])]
    wanted = {*declared.reads, *(right for offer in declared.offers for right in offer.rights)}
    assert set(granted) == {*wanted, "iam:SimulatePrincipalPolicy"}
    writes = [one for one in policy["Statement"] if one["Sid"].startswith("Act")]
    assert writes
    assert all(statement["Resource"] != "*" for statement in writes)


def _listed(actions: str | list[str]) -> list[str]:
    return [actions] if isinstance(actions, str) else actions


async def test_the_lines_that_a_person_would_type(asg: AsgStand, function: LambdaStand) -> None:
    group, _ = await seen(asg)
    at = f"--region {REGION} --endpoint-url {asg.server.url}"
    scale = asg.target.command(group, ScaleAction(from_replicas=4, to_replicas=6))
    assert scale == (
        "aws autoscaling set-desired-capacity --auto-scaling-group-name checkout --desired-capacity 6"
        f" --no-honor-cooldown {at}"
    )
    cancel = asg.target.command(group, CancelRolloutAction())
    assert cancel == f"aws autoscaling cancel-instance-refresh --auto-scaling-group-name checkout {at}"
    refresh = shlex.split(asg.target.command(group, RolloutRestartAction(cancellable=True)))
    preferences = json.loads(refresh[refresh.index("--preferences") + 1])
    assert (preferences["CheckpointPercentages"], preferences["CheckpointDelay"]) == ([20, 100], 1200)

    live, state = await seen(function)
    at = f"--region {REGION} --endpoint-url {function.server.url}"
    back = function.target.command(live, RollBackAction(from_revision="3", to_revision="2"))
    assert back == f"aws lambda update-alias --function-name checkout --name live --function-version 2 {at}"
    assert state.concurrency is not None
    both = ConcurrencyAction(from_concurrency=state.concurrency, to_concurrency=Concurrency(provisioned=8))
    assert function.target.command(live, both) == (
        f"aws lambda delete-function-concurrency --function-name checkout {at} && "
        "aws lambda put-provisioned-concurrency-config --function-name checkout --qualifier live"
        f" --provisioned-concurrent-executions 8 {at}"
    )
    by_hand = ManualAction(command="call the on-call", why_manual="nothing else")
    assert {stand.target.command(group, by_hand) for stand in (asg, function)} == {"call the on-call"}


async def test_what_is_not_declared_is_not_sent(asg: AsgStand, function: LambdaStand) -> None:
    stands: tuple[AnyStand, ...] = (asg, function)
    for stand in stands:
        ref, state = await seen(stand)
        restart = RestartInstance.model_validate({"instance": {"name": "i-1", "uid": "i-1"}})
        for call in (
            stand.target.apply(ref, restart, intent_for(state)),
            stand.target.calls(ref, restart, state.generation),
            stand.target.settled(ref, restart),
            stand.target.find(ref, restart, intent_for(state)),
        ):
            with pytest.raises(PermanentError, match="has no restart instance: nothing was sent"):
                await call
        with pytest.raises(PermanentError, match="has no cordon"):
            stand.target.command(ref, CordonAction(cordoned=True))
        assert not stand.server.writes


class _BesideMoto(AwsServer):
    """moto, but for the two reads that it lacks, which say that there is nothing."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self._upstream = upstream

    def routes(self, app: web.Application) -> None:
        app.router.add_route("*", "/{path:.*}", self._pass_on)

    async def _pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        if b"Action=DescribeInstanceRefreshes" in body:
            result = "<DescribeInstanceRefreshesResult><InstanceRefreshes/></DescribeInstanceRefreshesResult>"
            text = f"<DescribeInstanceRefreshesResponse>{result}</DescribeInstanceRefreshesResponse>"
            return web.Response(text=text, content_type="text/xml")
        if request.path.endswith("/provisioned-concurrency"):
            return web.json_response({"ProvisionedConcurrencyConfigs": []})
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, self._upstream + request.path_qs, data=body, headers=request.headers
            ) as answer,
        ):
            return web.Response(body=await answer.read(), status=answer.status)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@asynccontextmanager
async def _on_moto(moto: str) -> AsyncIterator[str]:
    with as_the_bot():
        async with _BesideMoto(moto) as server:
            yield server.url


async def test_a_group_of_moto_is_read_and_scaled(moto: str) -> None:
    async with _on_moto(moto) as url:
        made = boto3.Session(region_name=REGION).client("autoscaling", endpoint_url=moto)
        subnet = (
            boto3.Session(region_name=REGION)
            .client("ec2", endpoint_url=moto)
            .describe_subnets()["Subnets"][0]["SubnetId"]
        )
        made.create_launch_configuration(
            LaunchConfigurationName="web-1", ImageId="ami-12c6146b", InstanceType="t2.micro"
        )
        made.create_auto_scaling_group(
            AutoScalingGroupName="web",
            LaunchConfigurationName="web-1",
            MinSize=1,
            MaxSize=4,
            DesiredCapacity=2,
            VPCZoneIdentifier=subnet,
        )
        target = AsgTarget(groups=["web"], endpoint_url=url, timeout_s=20.0)
        ref = await target.resolve(WorkloadAddress(platform="asg", namespace=REGION, name="web"))
        state = await target.observe(ref)
        assert (state.replicas, state.ready, state.revision) == (2, 2, "web-1")
        intent = intent_for(state)
        await target.apply(ref, ScaleTo(replicas=3), intent)
        assert await target.find(ref, ScaleTo(replicas=3), intent) is Finding.APPLIED
        await until(lambda: target.settled(ref, ScaleTo(replicas=3)))
        await target.close()


async def test_an_alias_of_moto_is_pointed_to_an_earlier_version(moto: str) -> None:
    async with _on_moto(moto) as url:
        role = (
            boto3.Session(region_name=REGION)
            .client("iam", endpoint_url=moto)
            .create_role(RoleName="runs-it", AssumeRolePolicyDocument="{}")
        )
        made = boto3.Session(region_name=REGION).client("lambda", endpoint_url=moto)
        made.create_function(
            FunctionName="resize",
            Runtime="python3.11",
            Role=role["Role"]["Arn"],
            Handler="code.run",
            Code={"ZipFile": _zipped("one")},
            Publish=True,
        )
        made.update_function_code(FunctionName="resize", ZipFile=_zipped("two"), Publish=True)
        made.create_alias(FunctionName="resize", Name="prod", FunctionVersion="2")
        target = LambdaTarget(functions=["resize"], alias="prod", endpoint_url=url, timeout_s=20.0)
        ref = await target.resolve(WorkloadAddress(platform="lambda", namespace=REGION, name="resize"))
        state = await target.observe(ref)
        assert (state.rollout, [one.name for one in state.revisions]) == ("2", ["1"])
        assert state.concurrency == Concurrency()
        await target.apply(ref, RollBackTo(revision="1"), intent_for(state))
        alias = made.get_alias(FunctionName="resize", Name="prod")
        assert alias["FunctionVersion"] == "1"
        assert "sre-bot execution=" in alias["Description"]
        assert await target.settled(ref, RollBackTo(revision="1"))
        await target.close()


def _zipped(text: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("code.py", text)
    return packed.getvalue()
