"""App Service and Functions beyond the suite of all targets: refusals, failures that come later, what nobody knows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from executors.targets.azure_api import Arm
from executors.targets.azure_app_service import AzureAppServiceTarget
from pipeline.domain.action import (
    Bounds,
    BoundsAction,
    Concurrency,
    InstanceRef,
    Operation,
    RestartAction,
    RestartInstance,
    RollBackAction,
    RollBackTo,
    RolloutRestart,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
    SetBounds,
    SetConcurrency,
)
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding
from pipeline.domain.plan import Platform, TargetRef
from pipeline.ports.targets import Target
from tests.arm_server import ROLE, ArmServer, Refused
from tests.arm_world import GROUP, SUBSCRIPTION, Deployment, Site, World, now
from tests.contract.targets.places import intent_for, until
from tests.contract.targets.stand_azure import AzurePlace, NoCredential, azure_target
from tests.faults import Fault, Proxy

Spoils = Callable[[World, Site], None]


@pytest.fixture
async def place() -> AsyncIterator[AzurePlace]:
    async with ArmServer() as server, Proxy(server.url) as proxy:
        opened = AzurePlace(server, proxy)
        yield opened
        await opened.close()


async def _carried_out(target: Target, ref: TargetRef, operation: Operation) -> None:
    intent = intent_for(await target.observe(ref))
    await target.apply(ref, operation, intent)
    assert await target.find(ref, operation, intent) is Finding.APPLIED
    await until(lambda: target.settled(ref, operation))


async def test_the_shipped_role_grants_what_is_used_and_nothing_else(place: AzurePlace) -> None:
    site = place.site("app")
    target, ref, state = await place.seen()
    first = state.instances[0]
    await _carried_out(target, ref, RestartInstance(instance=InstanceRef(name=first.name, uid=first.uid)))
    await _carried_out(target, ref, RolloutRestart())
    await _carried_out(target, ref, ScaleTo(replicas=3))
    await _carried_out(target, ref, RollBackTo(revision=state.revisions[0].name))
    assert (site.plan.capacity, site.production.content) == (3, "code-1")
    await target.check(ref)
    assert place.server.used == {one.casefold() for one in json.loads(ROLE.read_text())["Actions"]}


@pytest.mark.parametrize(
    ("refused", "error", "words"),
    [
        (
            Refused(401, "Unauthorized", "Operation cannot be completed without additional quota. ", bare=True),
            PermanentError,
            "Unauthorized: Operation cannot be completed without additional quota.",
        ),
        (Refused(409, "Conflict", "No available instances.", bare=True), PermanentError, "No available instances"),
        (
            Refused(409, "Conflict", "Cannot modify this site because another operation is in progress.", bare=True),
            TemporaryError,
            "another operation is in progress",
        ),
        (Refused(412, "PreconditionFailed", "The condition is not met."), PreconditionFailed, "not met"),
        (Refused(500, "InternalServerError", "There was an unexpected error."), OutcomeUnknown, "unexpected error"),
        (Refused(503, "ServiceUnavailable", "The service is unavailable."), OutcomeUnknown, "unavailable"),
    ],
)
async def test_what_azure_says_to_a_write_is_told_apart(
    place: AzurePlace, refused: Refused, error: type[Exception], words: str
) -> None:
    site = place.site()
    target, ref, state = await place.seen()
    place.server.refuses_writes = refused
    with pytest.raises(error, match=words):
        await target.apply(ref, ScaleTo(replicas=3), intent_for(state))
    assert site.plan.capacity == 2
    assert len(place.server.writes) == 1


async def test_throttling_says_how_long_to_wait(place: AzurePlace) -> None:
    place.site()
    target, ref, state = await place.seen()
    place.server.refuses_writes = Refused(429, "SubscriptionRequestsThrottled", "Number of requests exceeded the limit")
    with pytest.raises(TemporaryError, match="exceeded the limit") as caught:
        await target.apply(ref, RolloutRestart(), intent_for(state))
    assert caught.value.retry_after_s == 17
    assert await target.apply(ref, RolloutRestart(), intent_for(state)), "what was refused may be sent again"


async def test_a_resource_lock_is_named(place: AzurePlace) -> None:
    place.site()
    target, ref, state = await place.seen()
    place.server.locked = True
    with pytest.raises(PermanentError, match=r"ScopeLocked: .* remove the lock"):
        await target.apply(ref, RollBackTo(revision=state.revisions[0].name), intent_for(state))


async def test_more_than_the_plan_takes_is_not_sent(place: AzurePlace) -> None:
    place.site(maximum=3)
    target, ref, state = await place.seen()
    intent = intent_for(state)
    with pytest.raises(PermanentError, match="takes 3 workers at most, not 4"):
        await target.apply(ref, ScaleTo(replicas=4), intent)
    with pytest.raises(PermanentError, match="no set concurrency"):
        await target.apply(ref, SetConcurrency(concurrency=Concurrency(reserved=1)), intent)
    assert not place.server.writes


@pytest.mark.parametrize("revision_of", ["staging", "production"])
async def test_a_swap_that_fails_is_told_with_azures_words(place: AzurePlace, revision_of: str) -> None:
    site = place.site()
    target, ref, state = await place.seen()
    operation: Operation = RollBackTo(revision=state.revisions[0].name)
    if revision_of == "production":  # the undoing fails
        await _carried_out(target, ref, operation)
        operation = RollBackTo(revision=state.rollout)
        state = await target.observe(ref)
    stood, intent = site.production.content, intent_for(state)
    place.world.fails = "Cannot swap slots because the worker process for 'staging' slot could not be started."
    await target.apply(ref, operation, intent)

    async def has_failed() -> bool:
        return await target.find(ref, operation, intent) is Finding.NOT_APPLIED

    await until(has_failed)
    with pytest.raises(PermanentError, match="could not be started"):
        await target.settled(ref, operation)
    assert site.production.content == stood


async def test_a_plan_that_azure_gives_up_on_stays_as_it_was(place: AzurePlace) -> None:
    site = place.site()
    target, ref, state = await place.seen()
    place.world.fails = "No available instances to satisfy this request."
    intent = intent_for(state)
    await target.apply(ref, ScaleTo(replicas=3), intent)

    async def has_failed() -> bool:
        return await target.find(ref, ScaleTo(replicas=3), intent) is Finding.NOT_APPLIED

    await until(has_failed)
    with pytest.raises(PermanentError, match="Conflict: No available instances"):
        await target.settled(ref, ScaleTo(replicas=3))
    assert site.plan.capacity == 2


def _gone(world: World, site: Site) -> None:
    del site.slots["staging"]


def _stopped(world: World, site: Site) -> None:
    site.slots["staging"].state = "Stopped"


def _deployed(world: World, site: Site) -> None:
    site.slots["staging"].deployments.append(Deployment(now(), "next release"))


def _swapped_elsewhere(world: World, site: Site) -> None:
    world.add_slot(site, "preview", "code-3")
    assert site.production.swap is not None
    site.slots["staging"].swap = ("staging", "preview", site.production.swap[2] + timedelta(hours=1))


@pytest.mark.parametrize(
    ("spoils", "words"),
    [
        (_gone, "the slot staging of checkout is gone"),
        (_stopped, "the slot staging is stopped"),
        (_deployed, "something else was deployed into the slot staging"),
        (_swapped_elsewhere, "the slot staging holds something else"),
    ],
)
async def test_a_slot_that_does_not_hold_what_ran_before_is_not_swapped(
    place: AzurePlace, spoils: Spoils, words: str
) -> None:
    site = place.site()
    target, ref, state = await place.seen()
    assert [one.title for one in state.revisions] == ["release 1"]
    assert (state.away_rolling_back, state.away_at_once) == (0, None)
    spoils(place.world, site)
    now_seen = await target.observe(ref)
    assert words in now_seen.refuses["roll_back"]
    assert not now_seen.revisions
    with pytest.raises(PreconditionFailed, match=words):
        await target.apply(ref, RollBackTo(revision=state.revisions[0].name), intent_for(state))
    assert not place.server.writes


async def test_what_never_was_swapped_has_nothing_to_go_back_to(place: AzurePlace) -> None:
    place.world.add_slot(place.world.add("checkout"), "staging", "code-2")
    target, ref, state = await place.seen()
    assert "no slot was ever swapped" in state.refuses["roll_back"]
    with pytest.raises(PreconditionFailed, match="ever swapped"):
        await target.apply(ref, RollBackTo(revision="staging@never"), intent_for(state))


async def test_what_runs_in_production_is_not_swapped_out_by_its_own_name(place: AzurePlace) -> None:
    place.site()
    target, ref, state = await place.seen()
    with pytest.raises(PreconditionFailed, match="still runs in production"):
        await target.apply(ref, RollBackTo(revision=state.rollout), intent_for(state))
    with pytest.raises(PermanentError, match="no time of a swap"):
        await target.calls(ref, RollBackTo(revision="production@whenever"), state.generation)


@pytest.mark.parametrize(
    ("platform", "kind", "plan", "refused", "words"),
    [
        ("azure_app_service", "app", {"tier": "Free", "size": "F1"}, "scale", "Azure alone decides"),
        ("azure_app_service", "app", {"elastic_maximum": 5}, "scale", "scales by itself between 2 to 5"),
        ("azure_app_service", "app", {"per_site": True}, "scale", "perSiteScaling"),
        ("azure_app_service", "app,linux", {}, "restart", "the whole app can be restarted"),
        ("azure_functions", "functionapp", {"tier": "Dynamic", "size": "Y1", "capacity": 0}, "scale", "Azure alone"),
        ("azure_functions", "functionapp", {"tier": "Dynamic", "size": "Y1", "capacity": 0}, "bounds", "no bounds"),
        ("azure_functions", "functionapp", {"tier": "ElasticPremium", "elastic_maximum": 5}, "scale", "by itself"),
    ],
)
async def test_a_target_says_what_it_does_not_take(
    place: AzurePlace, platform: Platform, kind: str, plan: dict[str, object], refused: str, words: str
) -> None:
    place.site(kind, **plan)
    target, ref, state = await place.seen(platform)
    assert words in {str(one): why for one, why in state.refuses.items()}[refused]
    bounds = SetBounds(bounds=Bounds(minimum=1, maximum=3))
    operation: Operation = bounds if refused == "bounds" else ScaleTo(replicas=3)
    if refused != "restart":
        with pytest.raises(PermanentError, match="cannot be"):
            await target.apply(ref, operation, intent_for(state))
    assert not place.server.writes


async def test_an_autoscale_setting_rules(place: AzurePlace) -> None:
    site = place.site()
    setting = {"targetResourceUri": f"/subscriptions/{SUBSCRIPTION}/RESOURCEGROUPS/{GROUP}/providers/Microsoft.Web"}
    setting["targetResourceUri"] += f"/serverfarms/{site.plan.name}"
    place.world.autoscale = [{"name": "busy-hours", "properties": setting}]
    target, ref, state = await place.seen()
    assert "busy-hours rules over the plan" in state.refuses["scale"]
    with pytest.raises(PermanentError, match="busy-hours"):
        await target.apply(ref, ScaleTo(replicas=3), intent_for(state))
    site.production.state = "Stopped"
    stopped = (await target.observe(ref)).refuses
    assert {stopped[one] for one in ("restart", "rollout_restart", "roll_back")} == {"the app is stopped"}


async def test_all_pages_of_instances_are_read_and_a_hung_one_is_not_ready(place: AzurePlace) -> None:
    site = place.site("app", capacity=5)
    site.workers[3].answers = False
    target, ref, state = await place.seen()
    assert [one.ready for one in state.instances] == [True, True, True, False, True]
    hung = state.instances[3]
    operation = RestartInstance(instance=InstanceRef(name=hung.name, uid=hung.uid))
    with pytest.raises(PermanentError, match="not known: nothing was sent"):
        await target.apply(ref, operation, intent_for(state))


async def test_a_process_that_has_ended_meanwhile_is_not_ended_again(place: AzurePlace) -> None:
    site = place.site("app")
    target, ref, state = await place.seen()
    first = state.instances[0]
    reused = site.workers[0].processes[0]
    reused.started = now()  # the number of the one that ended
    operation = RestartInstance(instance=InstanceRef(name=first.name, uid=first.uid))
    with pytest.raises(PreconditionFailed, match="runs no more"):
        await target.apply(ref, operation, intent_for(state))
    assert await target.find(ref, operation, intent_for(state)) is Finding.APPLIED
    assert not place.server.writes


async def test_a_restart_whose_answer_was_lost_is_known_by_what_came_of_it(place: AzurePlace) -> None:
    """The activity log runs behind; who sent it still sees that every process is another one."""
    place.site("app")
    place.world.log_is_late = True
    sender, ref, state = await place.seen()
    intent = intent_for(state)
    place.proxy.strike(Fault.CUT)
    with pytest.raises(OutcomeUnknown):
        await sender.apply(ref, RolloutRestart(), intent)
    assert await sender.find(ref, RolloutRestart(), intent) is Finding.APPLIED
    successor = place.connect(flight_s=0.1)
    assert await successor.find(ref, RolloutRestart(), intent) is Finding.UNKNOWN
    place.world.log_is_late = False
    assert await successor.find(ref, RolloutRestart(), intent) is Finding.APPLIED
    with pytest.raises(PreconditionFailed, match="sent before"):
        await successor.apply(ref, RolloutRestart(), intent)
    await until(lambda: successor.settled(ref, RolloutRestart()))


async def test_what_was_never_sent_is_proven_where_it_can_be(place: AzurePlace) -> None:
    place.site("app")
    target, ref, state = await place.seen()
    brief, first = place.connect(flight_s=0.1), state.instances[0]
    operations: dict[Operation, Finding] = {
        ScaleTo(replicas=3): Finding.NOT_APPLIED,
        RollBackTo(revision=state.revisions[0].name): Finding.NOT_APPLIED,
        RestartInstance(instance=InstanceRef(name=first.name, uid=first.uid)): Finding.NOT_APPLIED,
        RolloutRestart(): Finding.UNKNOWN,
    }
    for operation, finding in operations.items():
        assert await brief.find(ref, operation, intent_for(state)) is finding, operation
    place.world.scale(place.world.sites["checkout"].plan, 5)
    assert await target.find(ref, ScaleTo(replicas=3), intent_for(state)) is Finding.UNKNOWN, "ours may have stood"


async def test_while_an_operation_is_under_way_nothing_is_taken_for_proven(place: AzurePlace) -> None:
    site = place.site()
    _, ref, state = await place.seen()
    site.busy = "op-of-somebody"
    with pytest.raises(TemporaryError, match="under way"):
        await place.connect(flight_s=0.1).find(ref, RollBackTo(revision=state.revisions[0].name), intent_for(state))


async def test_only_listed_groups_and_the_right_kind_are_touched(place: AzurePlace) -> None:
    place.site("functionapp")
    target = place.connect()
    with pytest.raises(PermanentError, match=r"may touch \(allowed: shop-rg\)"):
        await target.resolve(WorkloadAddress(platform="azure_app_service", namespace="other-rg", name="checkout"))
    assert not place.proxy.requests
    with pytest.raises(PermanentError, match="write platform azure_functions"):
        await target.resolve(WorkloadAddress(platform="azure_app_service", namespace=GROUP, name="checkout"))


async def test_rights_are_told_without_acting(place: AzurePlace) -> None:
    place.site()
    target, ref, _ = await place.seen()
    place.server.roles = [
        {"actions": ["*/read"], "notActions": []},
        {"actions": ["Microsoft.Web/sites/*"], "notActions": ["Microsoft.Web/sites/*/slotsswap/Action"]},
    ]
    lacking = [one.right for one in await target.check(ref) if one.held is False]
    assert lacking == ["Microsoft.Web/sites/slots/slotsswap/Action", "Microsoft.Web/serverfarms/Write"]
    place.server.granted.discard("microsoft.authorization/permissions/read")
    assert {one.held for one in await target.check(ref)} == {None}
    assert not place.server.writes


async def test_no_token_and_no_network_mean_that_nothing_was_sent() -> None:
    class Refusing(NoCredential):
        async def get_token(self, *scopes: str, **options: object) -> AccessToken:
            raise ClientAuthenticationError("no managed identity here")

    address = WorkloadAddress(platform="azure_app_service", namespace=GROUP, name="checkout")
    arm = Arm(SUBSCRIPTION, timeout_s=5, base_url="https://127.0.0.1:9", credential=Refusing())
    target = AzureAppServiceTarget(arm, resource_groups=[GROUP])
    with pytest.raises(PermanentError, match="gets no token for Azure, nothing was sent: no managed identity"):
        await target.resolve(address)
    await target.close()
    away = azure_target("azure_app_service", "http://127.0.0.1:9")
    with pytest.raises(TemporaryError, match="cannot be reached, nothing was sent"):
        await away.resolve(address)
    await away.close()


async def test_commands_do_the_same_by_hand(place: AzurePlace) -> None:
    place.site("functionapp", tier="ElasticPremium", size="EP1", elastic_maximum=4)
    where = f"--subscription {SUBSCRIPTION} --resource-group {GROUP} --name"
    target, ref, _ = await place.seen("azure_functions")
    bounds = BoundsAction(from_bounds=Bounds(minimum=2, maximum=4), to_bounds=Bounds(minimum=3, maximum=8))
    assert target.command(ref, bounds) == (
        f"az functionapp plan update {where} checkout-plan --min-instances 3 --max-burst 8"
    )
    assert target.command(ref, RolloutRestartAction()) == f"az functionapp restart {where} checkout"

    web = place.connect()
    instance = InstanceRef(name="ab12", uid="ab12/4711@2026-11-23T15:00:00+00:00")
    typed = web.command(ref, RestartAction(instances=(instance,)))
    assert typed.startswith(f"az rest --method delete --url '{place.proxy.url}/subscriptions/{SUBSCRIPTION}/")
    assert typed.endswith("/instances/ab12/processes/4711?api-version=2025-05-01'")
    back = RollBackAction(from_revision="production@2026-11-23T15:00:00Z", to_revision="staging@2026-11-23T15:00:00Z")
    swap = f"az webapp deployment slot swap {where} checkout --slot staging --target-slot production"
    assert web.command(ref, back) == swap
    assert "--number-of-workers 3" in web.command(ref, ScaleAction(from_replicas=2, to_replicas=3))
    assert "az resource show" in web.command(ref, ScaleAction(from_replicas=2, to_replicas=3))
