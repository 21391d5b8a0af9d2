"""What every target promises (pipeline/ports/targets.py), on the real supervisor and on a Kubernetes API server."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.action import InstanceRef, RestartAction, RestartInstance, ScaleAction, ScaleTo
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding
from pipeline.domain.plan import TargetRef, TargetState
from tests.contract.targets.places import (
    BRIEF_S,
    LocalPlace,
    Place,
    as_soon_as_readable,
    intent_for,
    kube_place,
    local_place,
    until,
)
from tests.demo_worlds import start_world
from tests.faults import Answer, Fault


@pytest.fixture(scope="module")
def world_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo world, started once: its processes take seconds."""
    world = start_world(tmp_path_factory.mktemp("world"))
    yield world.url
    world.process.terminate()
    world.process.wait(timeout=60)


@pytest.fixture(params=["local_process", "deployment"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        if request.param == "local_process":
            yield await stack.enter_async_context(local_place(request.getfixturevalue("world_url")))
        else:
            yield await stack.enter_async_context(kube_place("deployments"))


async def _seen(place: Place) -> tuple[TargetRef, TargetState]:
    ref = await place.target.resolve(place.address)
    return ref, await place.target.observe(ref)


def _restart_first(state: TargetState) -> RestartInstance:
    first = state.instances[0]
    return RestartInstance(instance=InstanceRef(name=first.name, uid=first.uid))


async def test_a_workload_resolves_to_one_uid_and_is_observed(place: Place) -> None:
    ref, state = await _seen(place)
    assert (ref.platform, ref.namespace, ref.name) == (
        place.address.platform,
        place.address.namespace,
        place.address.name,
    )
    assert await place.target.resolve(place.address) == ref
    assert state.ref == ref
    assert len(state.instances) == state.replicas == state.ready
    assert len({instance.uid for instance in state.instances}) == state.replicas
    assert state.generation
    assert place.proxy.writes == []


@pytest.mark.parametrize("kind", ["scale", "restart"])
async def test_the_calls_are_shown_as_they_are_then_sent(place: Place, kind: str) -> None:
    ref, before = await _seen(place)
    operation = ScaleTo(replicas=before.replicas + 1) if kind == "scale" else _restart_first(before)
    (shown,) = await place.target.calls(ref, operation, before.generation)
    assert shown.endswith(f"at generation {before.generation}")
    said = await place.target.rehearse(ref, operation, before.generation)
    assert (said != "") is (ref.platform == "kubernetes")
    assert (await place.target.observe(ref)) == before, "nothing was changed"
    place.proxy.requests.clear()
    intent = intent_for(before)
    await place.target.apply(ref, operation, intent)
    (sent,) = place.proxy.writes
    assert shown.startswith(f"{sent.method} {place.proxy.url}{sent.path} ")
    body, _ = json.JSONDecoder().raw_decode(shown, shown.index("{"))
    assert _but_for_its_origin(body) == _but_for_its_origin(json.loads(sent.body))


def _but_for_its_origin(body: dict[str, Any]) -> object:
    """Without the execution, step and fence, which a call bears and its announcement cannot know."""
    mine = ("execution_id", "step", "fence", "sre-bot/execution", "sre-bot/step", "sre-bot/fence")
    return {
        name: _but_for_its_origin(value) if isinstance(value, dict) else value
        for name, value in body.items()
        if name not in mine
    }


async def test_a_rehearsal_is_held_to_the_generation(place: Place) -> None:
    ref, before = await _seen(place)
    if ref.platform == "local_process":
        assert await place.target.rehearse(ref, ScaleTo(replicas=2), "of another time") == "", "it offers none"
        return
    with pytest.raises(PreconditionFailed, match="not of another time"):
        await place.target.rehearse(ref, ScaleTo(replicas=2), "of another time")
    gone = RestartInstance(instance=InstanceRef(name=before.instances[0].name, uid="of-a-former-one"))
    with pytest.raises(PreconditionFailed):
        await place.target.rehearse(ref, gone, before.generation)


@pytest.mark.parametrize("field", ["name", "namespace"])
async def test_an_unknown_workload_does_not_resolve(place: Place, field: str) -> None:
    with pytest.raises(PermanentError):
        await place.target.resolve(place.address.model_copy(update={field: "nowhere"}))


async def test_scaling_is_absolute_settles_and_does_no_harm_twice(place: Place) -> None:
    ref, before = await _seen(place)
    wanted = before.replicas + 1
    said = await place.target.apply(ref, ScaleTo(replicas=wanted), intent_for(before))
    assert str(wanted) in said
    after = await place.target.observe(ref)
    assert (after.replicas, after.generation == before.generation) == (wanted, False)
    assert not await place.target.settled(ref, ScaleTo(replicas=before.replicas))
    await until(lambda: place.target.settled(ref, ScaleTo(replicas=wanted)))

    again = await place.target.observe(ref)
    await place.target.apply(ref, ScaleTo(replicas=wanted), intent_for(again))
    assert (await place.target.observe(ref)).instances == again.instances
    assert len(place.proxy.writes) == 2


async def test_one_replica_is_restarted_and_no_other(place: Place) -> None:
    ref, before = await _seen(place)
    operation = _restart_first(before)
    assert not await place.target.settled(ref, operation)
    await place.target.apply(ref, operation, intent_for(before))
    await until(lambda: place.target.settled(ref, operation))
    after = await place.target.observe(ref)
    untouched = {instance.uid for instance in before.instances[1:]}
    assert operation.instance.uid not in {instance.uid for instance in after.instances}
    assert untouched <= {instance.uid for instance in after.instances}
    assert (after.replicas, after.ready, after.generation) == (before.replicas, before.replicas, before.generation)
    assert len(place.proxy.writes) == 1


async def test_nothing_is_sent_when_the_generation_has_changed(place: Place) -> None:
    ref, before = await _seen(place)
    await place.scale_by_another(ref, before.replicas + 1)
    for operation in (ScaleTo(replicas=before.replicas + 2), _restart_first(before)):
        with pytest.raises(PreconditionFailed, match="generation"):
            await place.target.apply(ref, operation, intent_for(before))
    assert place.proxy.writes == []


async def test_a_change_while_the_write_is_under_way_makes_the_target_refuse_it(place: Place) -> None:
    ref, before = await _seen(place)
    intent = intent_for(before)
    place.proxy.strike(Fault.HELD)
    applying = asyncio.create_task(place.target.apply(ref, ScaleTo(replicas=before.replicas + 2), intent))
    await place.proxy.held.wait()
    await place.scale_by_another(ref, before.replicas + 1)
    place.proxy.release()
    with pytest.raises(PreconditionFailed, match=r"refused"):
        await applying
    assert (await place.target.observe(ref)).replicas == before.replicas + 1
    assert len(place.proxy.writes) == 1


async def test_a_replica_that_is_gone_is_not_restarted(place: Place) -> None:
    ref, before = await _seen(place)
    gone = RestartInstance(instance=InstanceRef(name=before.instances[0].name, uid="of-a-former-one"))
    with pytest.raises(PreconditionFailed, match="of-a-former-one"):
        await place.target.apply(ref, gone, intent_for(before))
    assert (await place.target.observe(ref)).instances == before.instances


async def test_another_workload_of_the_same_name_is_not_touched(place: Place) -> None:
    ref, before = await _seen(place)
    former = ref.model_copy(update={"uid": "of-a-former-one"})
    operation, intent = ScaleTo(replicas=before.replicas + 1), intent_for(before)
    with pytest.raises(PreconditionFailed, match="gone"):
        await place.target.observe(former)
    with pytest.raises(PreconditionFailed, match="gone"):
        await place.target.apply(former, operation, intent)
    assert await place.target.find(former, operation, intent) is Finding.UNKNOWN
    assert place.proxy.writes == []


@pytest.mark.parametrize("kind", ["scale", "restart"])
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.SILENT])
async def test_a_lost_answer_is_told_and_the_change_is_found(place: Place, fault: Fault, kind: str) -> None:
    ref, before = await _seen(place)
    operation = ScaleTo(replicas=before.replicas + 1) if kind == "scale" else _restart_first(before)
    intent = intent_for(before)
    target = place.connect(timeout_s=BRIEF_S)
    place.proxy.strike(fault)
    with pytest.raises(OutcomeUnknown):
        await as_soon_as_readable(lambda: target.apply(ref, operation, intent))
    assert await place.target.find(ref, operation, intent) is Finding.APPLIED
    assert len(place.proxy.writes) == 1


@pytest.mark.parametrize("kind", ["scale", "restart"])
async def test_a_lost_request_is_told_and_proven_not_to_have_happened(place: Place, kind: str) -> None:
    ref, before = await _seen(place)
    operation = ScaleTo(replicas=before.replicas + 1) if kind == "scale" else _restart_first(before)
    intent = intent_for(before)
    place.proxy.strike(Fault.LOST)
    with pytest.raises(OutcomeUnknown):
        await place.target.apply(ref, operation, intent)
    target = place.connect(timeout_s=BRIEF_S)
    assert await as_soon_as_readable(lambda: target.find(ref, operation, intent)) is Finding.NOT_APPLIED
    assert (await place.target.observe(ref)).instances == before.instances
    assert len(place.proxy.writes) == 1


async def test_a_request_that_lands_late_is_waited_for(place: Place) -> None:
    ref, before = await _seen(place)
    operation, intent = ScaleTo(replicas=before.replicas + 1), intent_for(before)
    target = place.connect(timeout_s=BRIEF_S)
    place.proxy.strike(Fault.HELD)
    with pytest.raises(OutcomeUnknown):
        await as_soon_as_readable(lambda: target.apply(ref, operation, intent))
    finding = asyncio.create_task(place.target.find(ref, operation, intent))
    done, _ = await asyncio.wait({finding}, timeout=0.5)
    assert not done, "nothing was proven yet"
    place.proxy.release()
    assert await finding is Finding.APPLIED


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (307, PermanentError),
        (400, PermanentError),
        (403, PermanentError),
        (404, PermanentError),
        (409, PreconditionFailed),
        (429, TemporaryError),
        (500, OutcomeUnknown),
        (503, OutcomeUnknown),
    ],
)
async def test_a_write_is_sent_once_whatever_is_answered(place: Place, status: int, error: type[Exception]) -> None:
    ref, before = await _seen(place)
    headers = {"Retry-After": "0", "Location": f"{place.proxy.url}/elsewhere"}
    place.proxy.strike(Answer(status, b'{"reason": "because", "message": "because"}', headers))
    with pytest.raises(Exception, match="because") as caught:
        await place.target.apply(ref, _restart_first(before), intent_for(before))
    if status == 409 and place.target.platform == "kubernetes":
        error = TemporaryError  # the pod stands as it was
    assert isinstance(caught.value, error)
    assert len(place.proxy.writes) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Fault.LOST, TemporaryError),
        (Fault.SILENT, TemporaryError),
        (Answer(429, b'{"reason": "slow down", "message": "slow down"}'), TemporaryError),
        (Answer(503), TemporaryError),
        (Answer(200, b"<html>"), TemporaryError),
        (Answer(200, b'{"metadata": 1}'), TemporaryError),
        (Answer(403), PermanentError),
    ],
    ids=str,
)
async def test_a_target_that_cannot_be_read(place: Place, answer: Fault | Answer, error: type[Exception]) -> None:
    ref, before = await _seen(place)
    target = place.connect(timeout_s=BRIEF_S)
    for _ in range(2):  # aiohttp reads once more by itself when the connection was lost
        place.proxy.strike(answer, frozenset({"GET"}))
    with pytest.raises(error):
        await target.apply(ref, ScaleTo(replicas=before.replicas + 1), intent_for(before))
    assert place.proxy.writes == []


async def test_a_refused_connection_means_that_nothing_was_sent(world_url: str) -> None:
    async with local_place(world_url) as place:
        ref, before = await _seen(place)
        place.proxy.refuse_after(1)
        with pytest.raises(TemporaryError, match="nothing was sent"):
            await place.target.apply(ref, ScaleTo(replicas=2), intent_for(before))
        assert place.proxy.writes == []
        with pytest.raises(TemporaryError, match="cannot be read"):
            await place.target.find(ref, ScaleTo(replicas=2), intent_for(before))


async def test_the_world_keeps_a_history_of_replicas(world_url: str) -> None:
    async with local_place(world_url) as place:
        assert (await _seen(place))[1].replicas_1h_ago == 1


async def test_a_late_request_that_would_be_refused_needs_no_waiting_for(world_url: str) -> None:
    async with local_place(world_url) as place:
        ref, before = await _seen(place)
        await place.scale_by_another(ref, 2)
        for operation in (ScaleTo(replicas=3), RestartInstance(instance=InstanceRef(name="worker-1", uid="former"))):
            async with asyncio.timeout(15):  # waiting it out would take the 20 s of its time-out
                assert await place.target.find(ref, operation, intent_for(before)) is Finding.NOT_APPLIED


async def test_out_of_range_is_refused_in_the_supervisors_words(world_url: str) -> None:
    async with local_place(world_url) as place:
        ref, before = await _seen(place)
        with pytest.raises(PermanentError, match="replicas must be from 1 to 8"):
            await place.target.apply(ref, ScaleTo(replicas=9), intent_for(before))


@pytest.mark.skipif(shutil.which("jq") is None or shutil.which("curl") is None, reason="needs curl and jq")
async def test_the_command_for_a_person_works_as_it_stands(world_url: str) -> None:
    async with local_place(world_url) as place:
        ref, before = await _seen(place)
        restart = RestartAction(instances=(_restart_first(before).instance,))
        for action in (restart, ScaleAction(from_replicas=1, to_replicas=2)):
            answer = json.loads(await _typed(place, place.target.command(ref, action)))
            assert answer["last_change"]["execution_id"] == "by-hand"
        after = await place.target.observe(ref)
        assert after.replicas == 2
        assert before.instances[0].uid not in {instance.uid for instance in after.instances}


async def _typed(place: LocalPlace, command: str) -> bytes:
    shell = await asyncio.create_subprocess_exec(
        "bash", "-o", "pipefail", "-c", command, stdout=asyncio.subprocess.PIPE, cwd=Path("/")
    )
    output, _ = await shell.communicate()
    assert shell.returncode == 0, f"{command}\n{output.decode()}"
    assert place.proxy.writes
    return output


async def test_an_address_of_another_shape_never_reaches_the_platform(place: Place) -> None:
    with pytest.raises(ValueError, match="name"):
        WorkloadAddress(platform=place.address.platform, namespace=place.address.namespace, name="../worker")
