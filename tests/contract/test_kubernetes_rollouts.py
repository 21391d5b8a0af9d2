"""Kubernetes where somebody else has a say: budgets, autoscalers, quotas, pauses, earlier revisions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from pipeline.domain.action import (
    Bounds,
    BoundsAction,
    InstanceRef,
    RestartInstance,
    RollBackTo,
    RolloutRestart,
    ScaleTo,
    SetBounds,
)
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.ids import ExecutionId
from pipeline.domain.plan import Revision, TargetState
from tests.contract.targets.places import (
    BRIEF_S,
    KubePlace,
    as_soon_as_readable,
    intent_for,
    kube_place,
    until,
)
from tests.kube_objects import Cluster

COVERED = {"matchLabels": {"app": "checkout"}}


def quick() -> Cluster:
    return Cluster(ready_after_s=0, grace_s=0)


@pytest.fixture
async def place() -> AsyncIterator[KubePlace]:
    async with kube_place(cluster=quick()) as place:
        yield place


async def seen(place: KubePlace) -> TargetState:
    return await place.target.observe(await place.target.resolve(place.address))


def restart_first(state: TargetState) -> RestartInstance:
    first = state.instances[0]
    return RestartInstance(instance=InstanceRef(name=first.name, uid=first.uid))


async def ruled(place: KubePlace, minimum: int = 2, maximum: int = 4) -> TargetState:
    place.server.cluster.add_autoscaler("shop", "checkout-hpa", place.key, minimum, maximum)
    place.server.cluster.reconcile()
    return await seen(place)


async def test_a_budget_that_lets_nothing_go_holds_a_restart(place: KubePlace) -> None:
    place.server.cluster.add_budget("shop", "checkout-pdb", COVERED, 2)
    place.server.cluster.add_budget("shop", "elsewhere", {"matchLabels": {"app": "search"}}, 5)
    place.server.cluster.reconcile()
    state = await seen(place)
    assert state.refuses["restart"] == (
        "the PodDisruptionBudget checkout-pdb lets none of its pods go now: 2 are healthy and 2 have to be"
    )
    operation = restart_first(state)
    for call in (
        place.target.rehearse(state.ref, operation, state.generation),
        place.target.apply(state.ref, operation, intent_for(state)),
    ):
        with pytest.raises(TemporaryError, match="checkout-pdb needs 2 healthy pods and has 2 currently"):
            await call
    assert (await seen(place)).instances == state.instances


async def test_a_budget_lets_one_go_after_the_other(place: KubePlace) -> None:
    place.server.cluster.add_budget("shop", "checkout-pdb", COVERED, 1)
    place.server.cluster.reconcile()
    state = await seen(place)
    assert "restart" not in state.refuses
    place.server.paused = True
    await place.target.apply(state.ref, restart_first(state), intent_for(state))
    second = InstanceRef(name=state.instances[1].name, uid=state.instances[1].uid)
    with pytest.raises(TemporaryError, match="disruption budget"):
        await place.target.apply(state.ref, RestartInstance(instance=second), intent_for(state))
    assert [(call.verb, call.resource) for call in place.server.writes] == [("create", "pods/eviction")] * 2


async def test_a_budget_that_is_new_is_waited_for(place: KubePlace) -> None:
    state = await seen(place)
    place.server.paused = True
    place.server.cluster.add_budget("shop", "checkout-pdb", COVERED, 1)
    with pytest.raises(TemporaryError, match="still being processed") as caught:
        await place.target.apply(state.ref, restart_first(state), intent_for(state))
    assert caught.value.retry_after_s == 10


async def test_two_budgets_on_one_pod_are_no_silent_success(place: KubePlace) -> None:
    for name in ("one", "two"):
        place.server.cluster.add_budget("shop", name, COVERED, 1)
    place.server.cluster.reconcile()
    state = await seen(place)
    assert "more than one PodDisruptionBudget" in state.refuses["restart"]
    with pytest.raises(PermanentError, match="more than one PodDisruptionBudget, which the eviction"):
        await place.target.apply(state.ref, restart_first(state), intent_for(state))
    assert (await seen(place)).instances == state.instances


async def test_a_broken_pod_may_go_while_enough_are_healthy(place: KubePlace) -> None:
    place.server.cluster.add_budget("shop", "checkout-pdb", COVERED, 1)
    broken = place.server.cluster.pods_of(place.key)[0]["metadata"]["name"]
    place.server.cluster.edit_status(("pods", "shop", broken), conditions=[{"type": "Ready", "status": "False"}])
    place.server.cluster.reconcile()
    state = await seen(place)
    assert (state.ready, "restart" in state.refuses) == (1, False)
    await place.target.apply(state.ref, restart_first(state), intent_for(state))


async def test_where_an_autoscaler_rules_its_bounds_are_set_and_not_the_number(place: KubePlace) -> None:
    state = await ruled(place)
    assert state.bounds == Bounds(minimum=2, maximum=4)
    assert state.refuses["scale"] == (
        "the HorizontalPodAutoscaler checkout-hpa rules over its replicas: set its bounds instead"
    )
    with pytest.raises(PermanentError, match="checkout-hpa rules"):
        await place.target.apply(state.ref, ScaleTo(replicas=3), intent_for(state))
    with pytest.raises(PermanentError, match="checkout-hpa rules"):
        await place.target.calls(state.ref, ScaleTo(replicas=3), state.generation)
    assert place.proxy.writes == []
    wanted = SetBounds(bounds=Bounds(minimum=3, maximum=6))
    assert "checkout-hpa" in await place.target.apply(state.ref, wanted, intent_for(state))
    await until(lambda: place.target.settled(state.ref, wanted))
    after = await seen(place)
    assert (after.replicas, after.ready, after.bounds) == (3, 3, wanted.bounds)
    (sent,) = place.proxy.writes
    assert sent.path == "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/checkout-hpa"
    assert json.loads(sent.body)["spec"] == {"minReplicas": 3, "maxReplicas": 6}
    action = BoundsAction(from_bounds=Bounds(minimum=2, maximum=4), to_bounds=wanted.bounds)
    patch = '\'{"spec": {"minReplicas": 3, "maxReplicas": 6}}\''
    assert place.target.command(state.ref, action) == (
        f"kubectl -n shop patch hpa/checkout-hpa --type=merge -p {patch}"
    )


async def test_what_the_autoscaler_does_makes_no_plan_stale_and_what_people_do_makes_it(place: KubePlace) -> None:
    before = await ruled(place)
    cluster, hpa = place.server.cluster, ("horizontalpodautoscalers", "shop", "checkout-hpa")
    cluster.edit_spec(place.key, replicas=4)  # its own doing, through the scale subresource
    cluster.edit_status(hpa, currentReplicas=4, desiredReplicas=4)
    scaled = await seen(place)
    assert (scaled.replicas, scaled.generation) == (4, before.generation)
    cluster.edit_spec(hpa, maxReplicas=9)
    bounded = (await seen(place)).generation
    cluster.set_image(place.key, "main:3")
    deployed = (await seen(place)).generation
    cluster.remove(hpa)
    assert len({before.generation, bounded, deployed, (await seen(place)).generation}) == 4


async def test_an_autoscaler_that_came_meanwhile_is_a_conflict(place: KubePlace) -> None:
    before = await seen(place)
    assert before.refuses["bounds"] == "no HorizontalPodAutoscaler rules over it"
    await ruled(place)
    with pytest.raises(PreconditionFailed, match="has changed"):
        await place.target.apply(before.ref, ScaleTo(replicas=3), intent_for(before))
    place.server.cluster.add_autoscaler("shop", "second", place.key, 1, 9)
    both = await seen(place)
    assert (both.bounds, both.refuses["bounds"]) == (
        None,
        "more than one HorizontalPodAutoscaler rules over it: checkout-hpa, second",
    )


async def test_bounds_that_the_server_does_not_allow_are_told_in_its_words(place: KubePlace) -> None:
    state = await ruled(place)
    none = SetBounds(bounds=Bounds(minimum=0, maximum=4))
    with pytest.raises(PermanentError, match=r"spec\.minReplicas: Invalid value: 0"):
        await place.target.rehearse(state.ref, none, state.generation)
    with pytest.raises(PermanentError, match="must be greater than or equal to 1"):
        await place.target.apply(state.ref, none, intent_for(state))
    assert (await seen(place)).bounds == state.bounds


async def test_a_lost_change_of_bounds_is_proven_by_the_autoscaler_alone(place: KubePlace) -> None:
    state = await ruled(place)
    target = place.connect(timeout_s=BRIEF_S)
    wanted = SetBounds(bounds=Bounds(minimum=3, maximum=6))
    intent = Intent(ExecutionId(7), 1, 1, state.generation)
    cluster, hpa = place.server.cluster, ("horizontalpodautoscalers", "shop", "checkout-hpa")
    cluster.set_image(place.key, "main:3")
    assert await target.find(state.ref, wanted, intent) is Finding.NOT_APPLIED, "the workload's change proves nothing"
    cluster.edit_annotations(hpa, {"sre-bot/execution": "8"})
    cluster.edit_spec(hpa, maxReplicas=9)
    assert await place.target.find(state.ref, wanted, intent) is Finding.UNKNOWN
    cluster.edit_annotations(hpa, {"sre-bot/execution": "6"})
    assert await place.target.find(state.ref, wanted, intent) is Finding.NOT_APPLIED, "nothing writes it back"
    cluster.remove(hpa)
    assert await place.target.find(state.ref, wanted, intent) is Finding.UNKNOWN


async def test_pods_that_a_quota_forbids_are_no_settled_scaling(place: KubePlace) -> None:
    state = await seen(place)
    place.server.cluster.quota["shop"] = 2
    await place.target.apply(state.ref, ScaleTo(replicas=4), intent_for(state))

    async def told() -> bool:
        try:
            return await place.target.settled(state.ref, ScaleTo(replicas=4))
        except TemporaryError as error:
            return "exceeded quota: pods" in str(error)

    await until(told)
    after = await seen(place)
    assert (after.replicas, len(after.instances)) == (4, 2)
    with pytest.raises(TemporaryError, match=r"gets no further: .*limited: pods=2"):
        await place.target.settled(state.ref, ScaleTo(replicas=4))


@pytest.mark.parametrize("resource", ["deployments", "statefulsets", "daemonsets"])
async def test_a_broken_deploy_is_rolled_back_to_the_revision_before(
    resource: Literal["deployments", "statefulsets", "daemonsets"],
) -> None:
    async with kube_place(resource, cluster=quick()) as place:
        cluster = place.server.cluster
        before = await seen(place)
        why = before.refuses["roll_back"]
        assert (before.rollout, before.revisions, why) == ("1", (), "no earlier revision of it is kept")
        cluster.broken_images.add("main:2")
        cluster.set_image(place.key, "main:2")

        async def stands_still() -> bool:
            cluster.reconcile()
            state = await seen(place)
            return state.rollout == "2" and state.ready < len(state.instances)

        await until(stands_still)
        broken = await seen(place)
        assert broken.revision == "main:2"
        assert [(one.name, one.title) for one in broken.revisions] == [("1", "main:1")]
        assert all(one.at is not None for one in broken.revisions)
        assert not await place.target.settled(broken.ref, RolloutRestart())
        back = RollBackTo(revision="1")
        with pytest.raises(PreconditionFailed, match="at its revision 2 already"):
            await place.target.rehearse(broken.ref, RollBackTo(revision="2"), broken.generation)
        with pytest.raises(PermanentError, match=r"keeps no revision 7 \(kept: 1\)"):
            await place.target.apply(broken.ref, RollBackTo(revision="7"), intent_for(broken))
        await as_soon_as_readable(lambda: place.target.apply(broken.ref, back, intent_for(broken)))
        if resource == "statefulsets":
            await _forced(place, back)
        await until(lambda: place.target.settled(broken.ref, back))
        after = await seen(place)
        assert (after.revision, after.rollout, [one.name for one in after.revisions]) == ("main:1", "3", ["2"])
        assert after.ready == len(after.instances) == before.replicas
        assert cluster.objects[place.key]["spec"]["template"] == _template(before.ref.name, "main:1")


async def _forced(place: KubePlace, back: RollBackTo) -> None:
    """A StatefulSet waits for its broken pod for ever: that is told, and the pod restarted."""
    state = await seen(place)
    (broken,) = [one for one in state.instances if not one.ready]

    async def told() -> bool:
        try:
            return await place.target.settled(state.ref, back)
        except TemporaryError as error:
            return f"waits for {broken.name} of another revision" in str(error)

    await until(told)
    again = RestartInstance(instance=InstanceRef(name=broken.name, uid=broken.uid))
    await place.target.apply(state.ref, again, intent_for(await seen(place)))


def _template(app: str, image: str) -> dict[str, Any]:
    containers = [{"name": "main", "image": image}]
    return {"metadata": {"labels": {"app": app, "track": "stable"}}, "spec": {"containers": containers}}


async def test_the_cause_of_a_change_goes_and_comes_with_its_revision(place: KubePlace) -> None:
    cluster, cause = place.server.cluster, "kubernetes.io/change-cause"
    place.server.paused = True  # but for the rounds below: a change of status would refuse the patch for now
    state = await seen(place)
    cluster.edit_annotations(place.key, {**cluster.objects[place.key]["metadata"]["annotations"], cause: "the first"})
    cluster.reconcile()
    cluster.edit_annotations(place.key, {**cluster.objects[place.key]["metadata"]["annotations"], cause: "the second"})
    cluster.set_image(place.key, "main:2")
    cluster.reconcile()
    later = await seen(place)
    assert later.revisions == (Revision("1", "the first", later.revisions[0].at),)
    await place.target.apply(state.ref, RollBackTo(revision="1"), intent_for(later))
    assert cluster.objects[place.key]["metadata"]["annotations"][cause] == "the first"


async def test_a_rolling_restart_replaces_every_pod_and_is_marked(place: KubePlace) -> None:
    state = await seen(place)
    intent = intent_for(state)
    assert not await place.target.settled(state.ref, RolloutRestart())
    await place.target.apply(state.ref, RolloutRestart(), intent)
    await until(lambda: place.target.settled(state.ref, RolloutRestart()))
    after = await seen(place)
    assert after.ready == 2
    assert not {one.uid for one in state.instances} & {one.uid for one in after.instances}
    template = place.server.cluster.objects[place.key]["spec"]["template"]
    marked = f"execution {intent.execution_id}, step 1, at generation {intent.generation}"
    assert template["metadata"]["annotations"] == {"sre-bot/restarted": marked}


@pytest.mark.parametrize(
    ("resource", "spec", "why"),
    [
        ("deployments", {"paused": True}, "it is paused"),
        ("statefulsets", {"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
        ("daemonsets", {"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
        (
            "statefulsets",
            {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}},
            "keeps the pods below 1",
        ),
    ],
)
async def test_what_does_not_roll_is_not_rolled(
    resource: Literal["deployments", "statefulsets", "daemonsets"], spec: dict[str, object], why: str
) -> None:
    async with kube_place(resource, then=["main:2"], cluster=quick()) as place:
        place.server.cluster.edit_spec(place.key, **spec)
        state = await seen(place)
        assert state.revisions
        for kind, operation in (("rollout_restart", RolloutRestart()), ("roll_back", RollBackTo(revision="1"))):
            assert why in state.refuses[kind]  # type: ignore[index]
            with pytest.raises(PermanentError, match="nothing was sent"):
                await place.target.apply(state.ref, operation, intent_for(state))
        assert place.proxy.writes == []


async def test_a_daemonset_has_no_number_to_set() -> None:
    async with kube_place("daemonsets", cluster=quick()) as place:
        state = await seen(place)
        assert (state.replicas, {one.node for one in state.instances}) == (2, {"node-1", "node-2"})
        assert "one pod on each node" in state.refuses["scale"]
        assert state.refuses["bounds"] == state.refuses["scale"]
        with pytest.raises(PermanentError, match="one pod on each node"):
            await place.target.apply(state.ref, ScaleTo(replicas=3), intent_for(state))


@pytest.mark.parametrize(
    ("resource", "spec", "away"),
    [
        ("deployments", {"replicas": 2}, 0),
        ("deployments", {"replicas": 10}, 2),
        ("deployments", {"strategy": {"type": "Recreate"}}, None),
        ("deployments", {"strategy": {"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}}, 1),
        ("deployments", {"strategy": {"rollingUpdate": {"maxUnavailable": 50}}}, 2),
        ("statefulsets", {"replicas": 10}, 1),
        ("statefulsets", {"replicas": 10, "updateStrategy": {"rollingUpdate": {"maxUnavailable": "25%"}}}, 3),
        ("daemonsets", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}, 0),
        ("daemonsets", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}}, 1),
    ],
)
async def test_how_many_are_away_while_it_rolls(
    resource: Literal["deployments", "statefulsets", "daemonsets"], spec: dict[str, object], away: int | None
) -> None:
    async with kube_place(resource, cluster=quick()) as place:
        place.server.paused = True
        place.server.cluster.edit_spec(place.key, **spec)
        assert (await seen(place)).away_at_once == away
