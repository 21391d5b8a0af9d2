"""What the contract of targets does not ask of Argo CD: automated sync, operations of others, what failed, rights."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from executors.targets.argocd import ArgoCdTarget
from pipeline.domain.action import RollBackTo, ScaleTo, SyncTo
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    TemporaryError,
)
from pipeline.domain.execution import Finding
from tests.argocd_server import ACCOUNT, FIRST, NEXT, SECOND
from tests.contract.targets.places import BRIEF_S, as_soon_as_readable, intent_for, until
from tests.contract.targets.stand_argocd import ArgoStand, open_argocd
from tests.faults import Answer, Fault

NOBODY = "0" * 40


@pytest.fixture
async def on_argo() -> AsyncIterator[ArgoStand]:
    async with open_argocd() as stand:
        yield stand


async def test_argocd_says_what_automated_sync_rules_out(on_argo: ArgoStand) -> None:
    target, ref = on_argo.target, await on_argo.target.resolve(on_argo.address)
    on_argo.server.app["spec"]["syncPolicy"] = {"automated": {"selfHeal": True}}
    state = await target.observe(ref)
    assert "automated sync is on and holds it at main" in state.refuses["sync"]
    assert "automated sync is on" in state.refuses["roll_back"]
    with pytest.raises(PermanentError, match="rollback cannot be initiated when auto-sync is enabled"):
        await target.apply(ref, RollBackTo(revision="0"), intent_for(state))
    with pytest.raises(PermanentError, match="auto-sync currently set to main"):
        await target.apply(ref, SyncTo(revision=NEXT), intent_for(state))
    on_argo.server.app["spec"]["syncPolicy"]["automated"]["enabled"] = False
    assert not (await target.observe(ref)).refuses
    on_argo.server.app["spec"]["sources"] = [{}, {}]
    assert "several sources" in (await target.observe(ref)).refuses["sync"]


async def test_argocd_waits_for_an_operation_under_way(on_argo: ArgoStand) -> None:
    server, target, ref = on_argo.server, on_argo.target, await on_argo.target.resolve(on_argo.address)
    intent = intent_for(await target.observe(ref))
    server.paused = True
    said = b'{"error": "another operation is already in progress", "code": 9}'
    on_argo.proxy.strike(Answer(400, said))
    with pytest.raises(TemporaryError, match="already in progress"):
        await target.apply(ref, SyncTo(revision=NEXT), intent)
    server.ask_by_another(FIRST)
    assert (await target.observe(ref)).refuses["sync"] == "another operation is in progress"
    with pytest.raises(TemporaryError, match="is in progress"):
        await target.apply(ref, SyncTo(revision=NEXT), intent)
    server.work()
    with pytest.raises(PreconditionFailed):
        await target.apply(ref, SyncTo(revision=NEXT), intent)
    assert await target.find(ref, SyncTo(revision=NEXT), intent) is Finding.UNKNOWN
    assert await target.find(ref, RollBackTo(revision="0"), intent) is Finding.UNKNOWN, "alice did, not we"


@pytest.mark.parametrize("major", [2, 3])
@pytest.mark.parametrize("operation", [SyncTo(revision=NEXT), RollBackTo(revision="0")])
async def test_argocd_tells_why_an_operation_failed(
    on_argo: ArgoStand, operation: SyncTo | RollBackTo, major: int
) -> None:
    server, target, ref = on_argo.server, on_argo.target, await on_argo.target.resolve(on_argo.address)
    server.fails, server.major = (
        "one or more objects failed to apply, reason: admission webhook denied the request",
        major,
    )
    intent = intent_for(await target.observe(ref))
    await target.apply(ref, operation, intent)
    await until(lambda: _ended(server.app))
    with pytest.raises(PermanentError, match="admission webhook denied"):
        await target.settled(ref, operation)
    assert await target.find(ref, operation, intent) is Finding.APPLIED
    assert (await target.observe(ref)).revision == SECOND


async def _ended(app: dict[str, object]) -> bool:
    return "operation" not in app


@pytest.mark.parametrize("operation", [SyncTo(revision=NEXT), RollBackTo(revision="0")])
async def test_argocd_finds_what_the_next_operation_took_the_place_of(
    on_argo: ArgoStand, operation: SyncTo | RollBackTo
) -> None:
    server, target, ref = on_argo.server, on_argo.target, await on_argo.target.resolve(on_argo.address)
    intent = intent_for(await target.observe(ref))
    await target.apply(ref, operation, intent)
    await until(lambda: target.settled(ref, operation))
    server.ask_by_another(SECOND)
    await until(lambda: _ended(server.app))
    assert await target.find(ref, operation, intent) is Finding.APPLIED
    assert not await target.settled(ref, operation)


@pytest.mark.parametrize(("path", "found"), [("elsewhere", Finding.UNKNOWN), ("checkout", Finding.APPLIED)])
async def test_argocd_tells_a_rollback_from_a_sync_to_the_same_commit(
    on_argo: ArgoStand, path: str, found: Finding
) -> None:
    """Both name a source by now: only a rollback names that of its entry, and only a sync says who asked."""
    server, target, ref = on_argo.server, on_argo.target, await on_argo.target.resolve(on_argo.address)
    server.app["spec"]["source"] = {**server.app["spec"]["source"], "path": path}
    server.fails = "it never comes to an entry of the history"
    operation, intent = RollBackTo(revision="0"), intent_for(await target.observe(ref))
    server.ask_by_another(FIRST, username=ACCOUNT)
    await until(lambda: _ended(server.app))
    assert await target.find(ref, operation, intent) is found
    assert await target.find(ref, SyncTo(revision=FIRST), intent) is Finding.UNKNOWN, "a sync of ours bears its mark"
    server.ask_by_another(FIRST, username=ACCOUNT)
    server.app["operation"]["info"] = [{"name": "why", "value": "a sync"}]
    await until(lambda: _ended(server.app))
    assert await target.find(ref, operation, intent) is Finding.UNKNOWN


@pytest.mark.parametrize("status", [408, 409, 499, 504])
async def test_argocd_that_gave_up_in_mid_call_may_have_done_it(on_argo: ArgoStand, status: int) -> None:
    target, ref = on_argo.target, await on_argo.target.resolve(on_argo.address)
    state = await target.observe(ref)
    on_argo.proxy.strike(Answer(status, b'{"message": "context canceled"}'))
    with pytest.raises(OutcomeUnknown, match=f"answered {status}: context canceled"):
        await target.apply(ref, SyncTo(revision=NEXT), intent_for(state))
    on_argo.proxy.strike(Answer(status, b'{"message": "context canceled"}'), frozenset({"GET"}))
    with pytest.raises(TemporaryError, match="context canceled"):
        await target.observe(ref)


async def test_argocd_proves_that_nothing_was_asked(on_argo: ArgoStand) -> None:
    ref, operation = await on_argo.target.resolve(on_argo.address), SyncTo(revision=NEXT)
    brief = on_argo.connect(timeout_s=BRIEF_S)
    intent = intent_for(await on_argo.target.observe(ref))
    on_argo.proxy.strike(Fault.LOST)
    with pytest.raises(OutcomeUnknown):
        await on_argo.target.apply(ref, operation, intent)
    assert await as_soon_as_readable(lambda: brief.find(ref, operation, intent)) is Finding.NOT_APPLIED


async def test_argocd_refuses_what_is_no_revision(on_argo: ArgoStand) -> None:
    target, ref = on_argo.target, await on_argo.target.resolve(on_argo.address)
    state = await target.observe(ref)
    for operation, why in (
        (SyncTo(revision="main"), "whole name of a commit"),
        (RollBackTo(revision="77"), "has no entry 77"),
        (RollBackTo(revision="latest"), "has no entry latest"),
        (ScaleTo(replicas=2), "no scale to"),
    ):
        with pytest.raises(PermanentError, match=why):
            await target.apply(ref, operation, intent_for(state))
    assert "2 manifests" in await target.rehearse(ref, SyncTo(revision=NEXT), state.generation)
    with pytest.raises(PermanentError, match="unable to resolve"):
        await target.rehearse(ref, SyncTo(revision=NOBODY), state.generation)
    assert not on_argo.server.posts, "Argo CD's own dry run would be an operation"


async def test_argocd_settles_when_the_entry_has_left_the_history(on_argo: ArgoStand) -> None:
    on_argo.server.history_limit = 2
    target, ref = on_argo.target, await on_argo.target.resolve(on_argo.address)
    operation, intent = RollBackTo(revision="0"), intent_for(await target.observe(ref))
    await target.apply(ref, operation, intent)
    await until(lambda: target.settled(ref, operation))
    assert [one["id"] for one in on_argo.server.history] == [1, 2]
    assert await target.find(ref, operation, intent) is Finding.APPLIED


async def test_argocd_tells_rights_and_bounds(on_argo: ArgoStand) -> None:
    target, ref = on_argo.target, await on_argo.target.resolve(on_argo.address)
    on_argo.server.granted.discard("sync")
    assert [one.held for one in await target.check(ref)] == [True, False]
    with pytest.raises(PermanentError, match="not one that the bot may touch"):
        await target.resolve(on_argo.address.model_copy(update={"namespace": "other"}))
    with pytest.raises(PermanentError, match="does not accept the bot's token"):
        await on_argo.connect(token="wrong").observe(ref)
    on_argo.server.app["spec"]["project"] = "other"
    with pytest.raises(PermanentError, match="belongs to the project other"):
        await target.observe(ref)
    with pytest.raises(ConfigurationError, match="no file of certificates"):
        ArgoCdTarget("https://argo", "token", projects=["shop"], ca="/nowhere.pem")
