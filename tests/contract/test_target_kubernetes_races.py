"""Who else was at it: evictions that compete for a budget, pods that went meanwhile, marks that come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from pipeline.domain.action import InstanceRef, RestartInstance, RolloutRestart
from pipeline.domain.errors import OutcomeUnknown, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.ids import ExecutionId
from pipeline.domain.plan import TargetState
from tests.contract.targets.places import PATIENCE_S, KubePlace, intent_for, kube_place
from tests.faults import Answer, Fault
from tests.kube_objects import Cluster

_CONTENDED = Answer(
    409,
    b'{"kind": "Status", "message": "Operation cannot be fulfilled on poddisruptionbudgets.policy \\"checkout-pdb\\": '
    b'the object has been modified; please apply your changes to the latest version and try again"}',
)


def _quick() -> Cluster:
    return Cluster(ready_after_s=0, grace_s=0)


@pytest.fixture
async def place() -> AsyncIterator[KubePlace]:
    async with kube_place(cluster=_quick()) as place:
        yield place


async def _seen(place: KubePlace) -> TargetState:
    return await place.target.observe(await place.target.resolve(place.address))


def _restart_first(state: TargetState) -> RestartInstance:
    first = state.instances[0]
    return RestartInstance(instance=InstanceRef(name=first.name, uid=first.uid))


async def test_a_budget_that_many_evictions_compete_for_is_worth_another_try(place: KubePlace) -> None:
    place.server.cluster.add_budget("shop", "checkout-pdb", {"matchLabels": {"app": "checkout"}}, 1)
    place.server.cluster.reconcile()
    state = await _seen(place)
    place.proxy.strike(_CONTENDED)
    with pytest.raises(TemporaryError, match=r"stands as it was: .*poddisruptionbudgets") as caught:
        await place.target.apply(state.ref, _restart_first(state), intent_for(state))
    assert caught.value.retry_after_s
    assert (await _seen(place)).instances == state.instances
    await place.target.apply(state.ref, _restart_first(state), intent_for(state))


@pytest.mark.parametrize("now", ["gone", "going", "another one"])
async def test_a_conflict_about_a_pod_that_went_meanwhile_is_final(now: str) -> None:
    async with kube_place("statefulsets", cluster=_quick()) as place:
        state, cluster = await _seen(place), place.server.cluster
        operation = _restart_first(state)
        place.server.paused = True
        place.proxy.strike(_CONTENDED)
        place.proxy.strike(Fault.HELD, frozenset({"GET"}))  # the look at the pod after it
        applying = asyncio.create_task(place.target.apply(state.ref, operation, intent_for(state)))
        async with asyncio.timeout(PATIENCE_S):
            await place.proxy.held.wait()
        key = ("pods", "shop", operation.instance.name)
        if now == "going":
            cluster.delete_pod(key)
        else:
            cluster.remove(key)
        if now == "another one":
            cluster.reconcile()
        place.proxy.release()
        with pytest.raises(PreconditionFailed, match="has been modified"):
            await applying


@pytest.mark.parametrize(
    ("resource", "found"),
    [
        ("deployments", Finding.UNKNOWN),
        ("statefulsets", Finding.NOT_APPLIED),
        ("daemonsets", Finding.NOT_APPLIED),
    ],
)
async def test_marks_of_an_earlier_execution_are_proof_where_they_cannot_come_back(
    resource: Literal["deployments", "statefulsets", "daemonsets"], found: Finding
) -> None:
    async with kube_place(resource) as place:
        ref = (await _seen(place)).ref
        intent = Intent(execution_id=ExecutionId(7), step=1, fence=1, generation="1")
        place.server.cluster.edit_annotations(place.key, {"sre-bot/execution": "6"})
        place.server.cluster.edit_spec(place.key, revisionHistoryLimit=3)
        assert await place.target.find(ref, RolloutRestart(), intent) is found


async def test_marks_that_a_person_brought_back_are_no_proof(place: KubePlace) -> None:
    cluster, operation = place.server.cluster, RolloutRestart()
    place.server.paused = True
    state = await _seen(place)
    await place.target.apply(state.ref, operation, Intent(ExecutionId(6), 1, 1, state.generation))
    cluster.reconcile()
    ours = Intent(ExecutionId(7), 1, 1, (await _seen(place)).generation)
    place.proxy.strike(Fault.CUT)
    with pytest.raises(OutcomeUnknown):
        await place.target.apply(state.ref, operation, ours)
    cluster.reconcile()
    cluster.undo_rollout(place.key)
    assert cluster.objects[place.key]["metadata"]["annotations"]["sre-bot/execution"] == "6"
    assert await place.target.find(state.ref, operation, ours) is Finding.UNKNOWN
