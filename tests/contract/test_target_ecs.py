"""What the contract of targets leaves to Amazon ECS: IAM, autoscalers, and what ECS can tell and what it cannot."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import boto3
import pytest
from moto.ecs.models import ecs_backends
from moto.server import ThreadedMotoServer

from executors.targets.aws_ecs import EcsTarget
from pipeline.domain.action import (
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
    SetCordon,
)
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding
from pipeline.domain.plan import TargetRef, TargetState
from tests.aws_server import Spoilt, aws_credentials
from tests.contract.targets.places import as_soon_as_readable, intent_for, until
from tests.contract.targets.stand_ecs import ADDRESS, CLUSTER, EcsStand, ecs_stand
from tests.ecs_world import REGION, ServiceRecord


@pytest.fixture
async def stand() -> AsyncIterator[EcsStand]:
    async with ecs_stand() as opened:
        yield opened


async def _seen(stand: EcsStand) -> tuple[TargetRef, TargetState]:
    ref = await stand.target.resolve(ADDRESS)
    return ref, await stand.target.observe(ref)


def _restart(state: TargetState) -> RestartInstance:
    return RestartInstance(instance=InstanceRef(name=state.instances[0].name, uid=state.instances[0].uid))


async def test_only_the_listed_clusters_are_asked_about(stand: EcsStand) -> None:
    with pytest.raises(PermanentError, match=r"cluster bank is not one that the bot may touch \(allowed: shop\)"):
        await stand.target.resolve(ADDRESS.model_copy(update={"namespace": "bank"}))
    assert stand.server.actions == []
    stand.server.world.clusters.clear()
    with pytest.raises(PermanentError, match="ClusterNotFoundException: Cluster not found"):
        await stand.target.resolve(ADDRESS)


@pytest.mark.parametrize("status", ["DRAINING", "INACTIVE"])
async def test_a_service_that_is_being_deleted_is_gone(stand: EcsStand, status: str) -> None:
    ref, state = await _seen(stand)
    stand.service.status = status
    with pytest.raises(PermanentError, match="there is no ECS service checkout in the cluster shop"):
        await stand.target.resolve(ADDRESS)
    with pytest.raises(PreconditionFailed, match="is gone"):
        await stand.target.apply(ref, ScaleTo(replicas=3), intent_for(state))
    assert stand.writes() == 0


async def test_the_generation_is_what_is_wanted_and_not_what_runs(stand: EcsStand) -> None:
    ref, before = await _seen(stand)
    for task in stand.server.world.tasks[:1]:
        task.stop("EssentialContainerExited", "Essential container in task exited")
    stand.server.world.settle()
    after = await stand.target.observe(ref)
    assert after.generation == before.generation
    assert {one.uid for one in after.instances} != {one.uid for one in before.instances}
    stand.service.deploy("web:8")
    stand.server.world.settle()
    deployed = await stand.target.observe(ref)
    assert deployed.generation != after.generation
    assert (deployed.revision, deployed.rollout) == ("web:8", stand.service.primary.id)


async def test_all_pages_of_tasks_are_read(stand: EcsStand) -> None:
    ref, _ = await _seen(stand)
    stand.service.desired = 120
    stand.server.world.settle()
    stand.server.tasks_a_page = 50
    state = await stand.target.observe(ref)
    assert len({one.uid for one in state.instances}) == state.ready == 120


async def test_an_unhealthy_task_is_not_ready(stand: EcsStand) -> None:
    stand.server.world.tasks[0].health = "UNHEALTHY"
    ref, state = await _seen(stand)
    assert state.ready == 1
    assert not await stand.target.settled(ref, ScaleTo(replicas=2))


@pytest.mark.parametrize(("percent", "away"), [(100, 0), (50, 2), (67, 1), (0, 5)])
async def test_how_many_are_away_at_once(stand: EcsStand, percent: int, away: int) -> None:
    stand.service.desired, stand.service.minimum_healthy_percent = 5, percent
    _, state = await _seen(stand)
    assert state.away_at_once == away


async def test_a_daemon_service_is_not_scaled(stand: EcsStand) -> None:
    ref, before = await _seen(stand)
    stand.service.scheduling = "DAEMON"
    state = await stand.target.observe(ref)
    assert "DAEMON" in state.refuses["scale"]
    with pytest.raises(PermanentError, match="DAEMON"):
        await stand.target.apply(ref, ScaleTo(replicas=3), intent_for(state))
    assert stand.writes() == 0
    stand.service.desired += 1  # a container instance has joined
    assert (await stand.target.observe(ref)).generation == state.generation != before.generation


async def test_deployments_of_codedeploy_are_left_to_it(stand: EcsStand) -> None:
    stand.service.controller = "CODE_DEPLOY"
    ref, state = await _seen(stand)
    assert "CODE_DEPLOY" in state.refuses["rollout_restart"]
    assert state.rollout == stand.service.primary.id
    with pytest.raises(PermanentError, match="CODE_DEPLOY"):
        await stand.target.apply(ref, RolloutRestart(), intent_for(state))
    assert stand.writes() == 0


async def test_no_second_rollout_while_one_is_under_way(stand: EcsStand) -> None:
    stand.server.paused = True
    stand.service.deploy("web:8")
    ref, state = await _seen(stand)
    assert "under way" in state.refuses["rollout_restart"]
    with pytest.raises(PermanentError, match="under way"):
        await stand.target.apply(ref, RolloutRestart(), intent_for(state))
    assert stand.writes() == 0


async def test_an_autoscaler_s_bounds_are_kept(stand: EcsStand) -> None:
    stand.server.bounds["service/shop/checkout"] = (2, 3)
    ref, state = await _seen(stand)
    assert state.bounds == Bounds(minimum=2, maximum=3)
    assert "scale" not in state.refuses
    for beyond in (1, 4):
        with pytest.raises(PermanentError, match="outside of its autoscaler's 2 to 3"):
            await stand.target.apply(ref, ScaleTo(replicas=beyond), intent_for(state))
    assert stand.writes() == 0
    await stand.target.apply(ref, ScaleTo(replicas=3), intent_for(state))
    assert "3 is its autoscaler's maximum" in (await stand.target.observe(ref)).refuses["scale"]


async def test_a_task_of_another_service_is_not_stopped(stand: EcsStand) -> None:
    other = stand.server.world.create(ServiceRecord(CLUSTER, "basket", desired=1))
    foreign = stand.server.world.tasks_of(other)[0]
    ref, state = await _seen(stand)
    stop = RestartInstance(instance=InstanceRef(name=foreign.id, uid=foreign.arn))
    with pytest.raises(PreconditionFailed, match="no running task of shop/checkout"):
        await stand.target.apply(ref, stop, intent_for(state))
    assert stand.writes() == 0


async def test_a_task_that_is_gone_is_refused_in_the_words_of_ecs(stand: EcsStand) -> None:
    ref, state = await _seen(stand)
    stand.server.world.tasks[0].stop(
        "EssentialContainerExited", "OutOfMemoryError: Container killed due to memory usage"
    )
    with pytest.raises(PreconditionFailed, match="OutOfMemoryError"):
        await stand.target.apply(ref, _restart(state), intent_for(state))
    assert stand.writes() == 0


async def test_the_stopped_task_bears_the_execution(stand: EcsStand) -> None:
    ref, state = await _seen(stand)
    intent = intent_for(state)
    await stand.target.apply(ref, _restart(state), intent)
    expected = f"sre-bot execution={intent.execution_id} step=1 fence={intent.fence}"
    assert stand.server.world.tasks[0].stopped_reason == expected


async def _found(stand: EcsStand, operation: Operation, state: TargetState) -> Finding:
    target = stand.connect(timeout_s=0.5)
    return await as_soon_as_readable(lambda: target.find(state.ref, operation, intent_for(state)))


@pytest.mark.parametrize("kind", ["restart", "rollout_restart", "scale"])
async def test_what_was_lost_on_the_way_is_not_applied(stand: EcsStand, kind: str) -> None:
    ref, state = await _seen(stand)
    operations: dict[str, Operation] = {"restart": _restart(state), "rollout_restart": RolloutRestart()}
    operation = operations.get(kind, ScaleTo(replicas=3))
    stand.server.spoil(Spoilt.LOST)
    with pytest.raises(OutcomeUnknown, match="was sent to AWS and not answered"):
        await stand.target.apply(ref, operation, intent_for(state))
    assert await _found(stand, operation, state) is Finding.NOT_APPLIED
    assert stand.writes() == 1


async def test_a_server_error_leaves_a_write_unknown(stand: EcsStand) -> None:
    ref, state = await _seen(stand)
    stand.server.spoil(Spoilt.BROKEN)
    with pytest.raises(OutcomeUnknown, match="ServerException"):
        await stand.target.apply(ref, ScaleTo(replicas=3), intent_for(state))
    assert stand.writes() == 1


@pytest.mark.parametrize(
    ("code", "reason", "finding"),
    [
        ("EssentialContainerExited", "Essential container in task exited", Finding.NOT_APPLIED),
        ("ServiceSchedulerInitiated", "Scaling activity initiated by (deployment ecs-svc/1)", Finding.NOT_APPLIED),
        ("UserInitiated", "Task stopped by user", Finding.UNKNOWN),
    ],
)
async def test_who_stopped_a_task(stand: EcsStand, code: str, reason: str, finding: Finding) -> None:
    _, state = await _seen(stand)
    stand.server.world.tasks[0].stop(code, reason)
    assert await _found(stand, _restart(state), state) is finding


async def test_a_task_that_ecs_has_forgotten_tells_nothing(stand: EcsStand) -> None:
    _, state = await _seen(stand)
    stand.server.world.tasks.clear()
    assert await _found(stand, _restart(state), state) is Finding.UNKNOWN


async def test_a_number_that_is_neither_of_the_two_tells_nothing(stand: EcsStand) -> None:
    _, state = await _seen(stand)
    stand.service.desired = 5
    assert await _found(stand, ScaleTo(replicas=3), state) is Finding.UNKNOWN


async def test_a_deployment_of_another_task_definition_tells_nothing(stand: EcsStand) -> None:
    _, state = await _seen(stand)
    stand.service.deploy("web:8")
    assert await _found(stand, RolloutRestart(), state) is Finding.UNKNOWN


async def test_a_deployment_that_was_rolled_back_tells_nothing(stand: EcsStand) -> None:
    _, state = await _seen(stand)
    stand.server.paused = True
    stand.service.deploy(stand.service.definition)
    failed, former = stand.service.deployments
    failed.status, failed.rollout, former.status = "ACTIVE", "FAILED", "PRIMARY"
    stand.service.deployments.reverse()
    assert await _found(stand, RolloutRestart(), state) is Finding.UNKNOWN


@pytest.mark.parametrize(
    "said",
    [
        "was unable to place a task because no container instance met all of its requirements.",
        "was unable to place a task. Reason: You've reached the limit on the number of vCPUs you can run concurrently.",
    ],
)
async def test_tasks_without_a_place_are_told_in_the_words_of_ecs(stand: EcsStand, said: str) -> None:
    ref, state = await _seen(stand)
    stand.service.unplaceable = said
    await stand.target.apply(ref, ScaleTo(replicas=3), intent_for(state))
    stand.server.world.settle()
    with pytest.raises(TemporaryError, match=said.partition(".")[0]):
        await stand.target.settled(ref, ScaleTo(replicas=3))
    stand.service.unplaceable = ""
    stand.server.world.settle()
    assert await stand.target.settled(ref, ScaleTo(replicas=3))


async def test_a_rollout_that_failed_is_told_in_the_words_of_ecs(stand: EcsStand) -> None:
    ref, state = await _seen(stand)
    stand.server.paused = True
    await stand.target.apply(ref, RolloutRestart(), intent_for(state))
    assert not await stand.target.settled(ref, RolloutRestart())
    stand.service.primary.rollout = "FAILED"
    stand.service.primary.reason = "ECS deployment circuit breaker: tasks failed to start."
    with pytest.raises(PermanentError, match=r"shop/checkout failed: ECS deployment circuit breaker: tasks failed"):
        await stand.target.settled(ref, RolloutRestart())


async def test_a_rollout_replaces_every_task_and_keeps_what_it_has_to(stand: EcsStand) -> None:
    ref, before = await _seen(stand)
    stand.service.maximum_percent, stand.service.minimum_healthy_percent = 100, 50
    await stand.target.apply(ref, RolloutRestart(), intent_for(before))
    await until(lambda: stand.target.settled(ref, RolloutRestart()))
    after = await stand.target.observe(ref)
    assert not {one.uid for one in before.instances} & {one.uid for one in after.instances}
    assert (after.ready, after.revision) == (2, before.revision)


async def test_what_a_person_would_type(stand: EcsStand) -> None:
    ref, state = await _seen(stand)
    task = state.instances[0]
    there = f"--region {REGION} --endpoint-url {stand.server.url}"
    restart = RestartAction(instances=(InstanceRef(name=task.name, uid=task.uid),))
    assert stand.target.command(ref, restart) == (
        f"aws ecs stop-task --cluster shop --task {task.uid} {there}"
        f" && aws ecs wait services-stable --cluster shop --services checkout {there}"
    )
    scale = stand.target.command(ref, ScaleAction(from_replicas=2, to_replicas=4))
    assert scale == f"aws ecs update-service --cluster shop --service checkout --desired-count 4 {there}"
    rollout = stand.target.command(ref, RolloutRestartAction())
    assert rollout == f"aws ecs update-service --cluster shop --service checkout --force-new-deployment {there}"
    assert stand.target.command(ref, ManualAction(command="true", why_manual="no")) == "true"


async def test_what_would_be_sent_is_what_is_sent(stand: EcsStand) -> None:
    ref, state = await _seen(stand)
    (line,) = await stand.target.calls(ref, ScaleTo(replicas=4), state.generation)
    body = json.dumps({"cluster": "shop", "service": "checkout", "desiredCount": 4})
    assert line.startswith(f"POST {stand.server.url} UpdateService {body} only while")
    assert state.generation in line
    assert stand.writes() == 0


async def test_what_is_not_declared_is_not_sent(stand: EcsStand) -> None:
    ref, state = await _seen(stand)
    with pytest.raises(PermanentError, match="ecs has no set cordon"):
        await stand.target.apply(ref, SetCordon(cordoned=True), intent_for(state))
    assert stand.writes() == 0


async def test_throttling_is_not_taken_for_an_unknown_outcome(stand: EcsStand) -> None:
    ref, state = await _seen(stand)
    stand.server.spoil(Spoilt.THROTTLED)
    with pytest.raises(TemporaryError, match="ThrottlingException: Rate exceeded"):
        await stand.target.apply(ref, ScaleTo(replicas=3), intent_for(state))
    assert stand.service.desired == 2


async def test_against_moto() -> None:
    """Another implementation of the API; its services have no tasks, and leave out the moment of their creation."""
    with aws_credentials():
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        try:
            ecs = boto3.Session(region_name=REGION).client("ecs", endpoint_url=url)
            ecs.create_cluster(clusterName=CLUSTER)
            container = {"name": "web", "image": "web:1", "memory": 64}
            ecs.register_task_definition(family="web", containerDefinitions=[container])
            ecs.create_service(cluster=CLUSTER, serviceName=ADDRESS.name, taskDefinition="web", desiredCount=2)
            for services in ecs_backends.values():
                for service in services[REGION].services.values():
                    service.created_at = datetime.now(UTC)  # type: ignore[attr-defined]
            target = EcsTarget(clusters=[CLUSTER], region=REGION, endpoint_url=url)
            ref = await target.resolve(ADDRESS)
            state = await target.observe(ref)
            assert (state.replicas, state.revision) == (2, "web:1")
            intent = intent_for(state)
            await target.apply(ref, ScaleTo(replicas=4), intent)
            assert await target.find(ref, ScaleTo(replicas=4), intent) is Finding.APPLIED
            assert (await target.observe(ref)).replicas == 4
            with pytest.raises(PreconditionFailed):
                await target.apply(ref, ScaleTo(replicas=3), intent)
            await target.close()
        finally:
            server.stop()
